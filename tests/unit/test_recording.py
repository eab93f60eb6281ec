"""What a chunk's entry says: which positions it covers, which have failed, and its marks."""

from __future__ import annotations

import pickle

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from carpool.journal.marks import Marks
from carpool.journal.recording import Note, Permit, Places, shared_lock
from carpool.journal.spans import Spans

gaps = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.none() | st.integers(0, 2**64 - 1)),
    min_size=1,
    max_size=20,
)


def places_of(parts: list[tuple[int, int, int | None]]) -> Places:
    """Make places in order: so much free room, then an item that covers so much before it."""
    starts, ends, digests = [], [], []
    at = 0
    for room, before, digest in parts:
        starts.append(at + room)
        ends.append(at + room + before)
        digests.append(digest)
        at = ends[-1] + 1
    return Places(starts, ends, digests)


@given(gaps)
def test_spans_are_all_that_the_items_cover(parts) -> None:
    """Each item covers its start to its end, whatever room there is between them."""
    places = places_of(parts)
    expected = Spans(zip(places.starts, places.ends, strict=True))
    assert places.spans() == expected


@given(gaps, st.sampled_from([1, 2, 8]), st.data())
def test_a_part_has_the_places_of_its_items(parts, step: int, data: st.DataObject) -> None:
    """A chunk run again in parts covers, with all parts together, what it covered."""
    places = places_of(parts)
    cut = data.draw(st.sets(st.sampled_from(range(len(parts)))))
    first = places.part(sorted(cut))
    second = places.part([p for p in range(len(parts)) if p not in cut])
    together = first.spans()
    together.update(second.spans())
    assert together == places.spans()
    marks = Marks(step)
    for some in (first, second):
        if some.ends:
            marks.update(some.marks(step))
    assert marks.dumps() == places.marks(step).dumps()


@given(gaps, st.sampled_from([1, 2, 4, 64]), st.data())
def test_a_note_says_all_of_it(parts, step: int, data: st.DataObject) -> None:
    """The note's text has the positions, its marks the digests, and a fault its item's own
    position, not those before it at which there is nothing."""
    places = places_of(parts)
    note = pickle.loads(pickle.dumps(places.note(step)))
    assert Spans.loads(note.done) == places.spans()
    assert list(note.ends) == list(places.ends)
    pairs = zip(places.ends, places.digests, strict=True)
    direct = Marks.of_items(step, [(end, digest) for end, digest in pairs if digest is not None])
    assert Marks.loads(note.marks).dumps() == direct.dumps()
    faults = sorted(data.draw(st.sets(st.sampled_from(range(len(parts))))))
    expected = {places.ends[p] for p in faults}
    assert Spans.loads(note.failed(faults)) == Spans((end, end) for end in expected)


def test_items_already_marked_are_not_marked_again() -> None:
    """An item that failed before has its digest counted in; its place has none."""
    note = Places([3, 4, 5], [3, 4, 5], [None, 7, None]).note(1)
    assert Marks.loads(note.marks).dumps() == Marks.of_items(1, [(4, 7)]).dumps()


def test_a_note_of_items_in_a_row_is_small() -> None:
    """A chunk of thousands in order is a range, not a list, for its worker."""
    note = Places(range(5_000), range(5_000), [None] * 5_000).note(1)
    assert note.ends == range(5_000)
    assert note.done == "[[0,4999]]"
    assert len(pickle.dumps(note)) < 300


def test_a_permit_travels() -> None:
    """Workers are sent it as plain data."""
    permit = Permit({"default": (3, 4)}, "runs", "leases", "entries")
    assert pickle.loads(pickle.dumps(permit)) == permit
    assert pickle.loads(pickle.dumps(Note("[]", [1], ""))) == Note("[]", [1], "")


@pytest.mark.parametrize(
    ("vendor", "clause"),
    [
        ("postgresql", "FOR SHARE"),
        ("mysql", "LOCK IN SHARE MODE"),
        ("sqlite", ""),
        ("oracle", "FOR UPDATE"),
    ],
)
def test_the_lease_is_locked_as_the_database_can(vendor: str, clause: str) -> None:
    """Shared where that is known to work; exclusively on a database nobody has looked at."""

    class Connection:
        pass

    there = Connection()
    there.vendor = vendor
    assert shared_lock(there) == clause  # type: ignore[arg-type]
    assert shared_lock(connection) is not None
