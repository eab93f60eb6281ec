"""Reading a source again: exactly what is left is given out, nothing of a source that changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carpool.exceptions import SourceChanged, SourceRepeats
from carpool.interrupts import Interrupts
from carpool.journal import marks as module
from carpool.journal.marks import Marks, digest
from carpool.journal.resuming import Place, Resumption
from carpool.journal.spans import Spans
from carpool.reading import Reader
from carpool.sources import IterableSource

MOST = 5


@dataclass
class Before:
    """What a run had come to: how long its source was, what was done of it, what had failed."""

    length: int
    settled: set[int]
    failed: set[int]

    @property
    def left(self) -> list[int]:
        return [n for n in range(self.length) if n not in self.settled]


@st.composite
def befores(draw: st.DrawFn, most: int = 60) -> Before:
    length = draw(st.integers(0, most))
    if length == 0:
        return Before(0, set(), set())
    positions = st.sampled_from(range(length))
    done = draw(st.sets(positions) | st.integers(0, length).map(lambda n: set(range(n))))
    failed = draw(st.sets(st.sampled_from(sorted(done)))) if done else set()
    return Before(length, done, failed)


def item(position: int) -> str:
    return f"item {position}"


def resumption(before: Before, *, most: int = MOST, **options: Any) -> Resumption:
    """Return what a call has that finds the run so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST", most)
        marks = Marks()
        for position in sorted(before.settled):
            marks.add(position, digest(item(position), position))
    return Resumption(
        Spans((n, n) for n in before.settled),
        Spans((n, n) for n in before.failed),
        marks,
        **{"by_key": False, "retry_failed": False, "ignore_changes": False, **options},
    )


def taken(given_out: Iterator[Any], length: int) -> list[tuple[int, Any]]:
    """Return index and item of all that is given out; bare items are the last of the source."""
    known: list[tuple[int, Any]] = []
    bare: list[Any] = []
    for one in given_out:
        if isinstance(one, Place):
            assert not bare, "a place after a bare item"
            assert one.start == one.end == one.number
            known.append((one.number, one.item))
        else:
            bare.append(one)
    return known + list(enumerate(bare, length - len(bare)))


def pairs(positions: Sequence[int]) -> list[tuple[int, str]]:
    return [(n, item(n)) for n in positions]


@given(befores(), st.booleans(), st.booleans(), st.integers(0, 9))
@settings(max_examples=300)
def test_exactly_what_is_left_is_given_out(
    before: Before, retry: bool, ignore: bool, more: int
) -> None:
    """Each item that is not settled comes out once, in order, with its index, and no other; failed
    ones if wanted; and what a longer source has at its end."""
    length = before.length + more
    this = resumption(before, retry_failed=retry, ignore_changes=ignore)

    found = taken(this.left(item(n) for n in range(length)), length)

    settled = before.settled - (before.failed if retry else set())
    assert found == pairs([n for n in range(length) if n not in settled])
    assert this.already == len(before.settled - before.failed)
    assert this.failed_before == (0 if retry else len(before.failed))


@given(befores())
def test_only_what_is_not_marked_has_a_digest(before: Before) -> None:
    """A failed item that is tried again was counted in when it failed, and is not counted again."""
    this = resumption(before, retry_failed=True)
    for place in this.left(item(n) for n in range(before.length)):
        if isinstance(place, Place):
            expected = None if place.number in before.failed else digest(place.item, place.number)
            assert place.digest == expected


@given(befores(), st.data())
@settings(max_examples=300)
def test_a_changed_item_is_noticed_before_anything_near_it_is_given_out(
    before: Before, data: st.DataObject
) -> None:
    """Of the stretch with the changed item, and of what comes after it, nothing is given out; all
    that is left before it is."""
    if not before.settled:
        return
    changed = data.draw(st.sampled_from(sorted(before.settled)))
    retry = data.draw(st.booleans())
    this = resumption(before, retry_failed=retry)
    step = this._marks.step
    first = changed // step * step
    source = ("another" if n == changed else item(n) for n in range(before.length))

    given_out: list[Place] = []
    with pytest.raises(SourceChanged) as caught:
        given_out.extend(this.left(source))

    skipped = before.settled - (before.failed if retry else set())
    expected = [n for n in range(first) if n not in skipped]
    assert [place.number for place in given_out] == expected
    assert caught.value.position == first
    message = str(caught.value)
    assert f"{first}" in message
    assert "ignore_changed_source=True" in message
    if step == 1:
        assert f"the item at position {changed}" in message
        assert f"{digest(item(changed), changed):08x}" in message
        assert f"{digest('another', changed):08x}" in message
    else:
        assert f"positions {first} to {first + step - 1}" in message


@given(befores(), st.data())
def test_an_item_more_or_less_in_the_middle_is_noticed(before: Before, data: st.DataObject) -> None:
    """A source into which a line was put, or from which one was taken, before what is done."""
    if not before.settled:
        return
    at = data.draw(st.integers(0, max(before.settled)))
    source = [item(n) for n in range(before.length + 1)]
    if data.draw(st.booleans()):
        source.insert(at, "new")
    else:
        del source[at]
    this = resumption(before)
    with pytest.raises(SourceChanged):
        list(this.left(source))


@given(befores(), st.data())
def test_a_shorter_source_is_noticed(before: Before, data: st.DataObject) -> None:
    """A source that ends before what was done, a file cut short say, is refused in the end, and
    until then gives nothing but what is left."""
    if not before.settled:
        return
    highest = max(before.settled)
    length = data.draw(st.integers(0, highest))
    this = resumption(before)
    given_out: list[Place] = []
    with pytest.raises(SourceChanged) as caught:
        given_out.extend(this.left(item(n) for n in range(length)))
    numbers = [place.number for place in given_out]
    assert numbers == before.left[: len(numbers)]
    assert all(number < length for number in numbers)
    assert caught.value.position == length


def test_a_shorter_source_says_so() -> None:
    """The message has both numbers and the remedy."""
    this = resumption(Before(10, {0, 1, 7}, set()))
    with pytest.raises(SourceChanged, match=r"it has 4 items now.*position 7.*journal name"):
        list(this.left(map(item, range(4))))
    with pytest.raises(SourceChanged, match="it has 1 item now"):
        list(resumption(Before(10, {0, 1, 7}, set())).left([item(0)]))


@given(befores(), st.data())
def test_changes_may_be_ignored(before: Before, data: st.DataObject) -> None:
    """With ignore_changes only positions count, whatever the items are, and however many."""
    length = data.draw(st.integers(0, before.length + 5))
    this = resumption(before, ignore_changes=True)
    found = taken(this.left(f"other {n}" for n in range(length)), length)
    assert found == [(n, f"other {n}") for n in range(length) if n not in before.settled]


def test_what_is_left_is_read_lazily() -> None:
    """No more is taken from the source than the stretch that is compared, so memory is bound."""
    given_out: list[int] = []

    def source() -> Iterator[str]:
        for number in range(100):
            given_out.append(number)
            yield item(number)

    this = resumption(Before(40, set(range(0, 40, 2)), set()))
    step = this._marks.step
    assert step > 1
    left = this.left(source())
    assert given_out == []
    for place in left:
        if isinstance(place, Place):
            assert len(given_out) <= (place.number // step + 1) * step
        else:
            assert int(place.split()[1]) == given_out[-1]


def test_what_is_new_is_given_out_as_it_is() -> None:
    """Of items of which nothing is known only the first has a place: the others follow from it."""
    this = resumption(Before(2, {0, 1}, set()))
    first, *others = this.left([item(0), item(1), "a", "b", "c"])
    assert first == Place(2, 2, 2, digest("a", 2), "a")
    assert others == ["b", "c"]
    assert (this.already, this.failed_before) == (2, 0)


@given(befores(), st.booleans(), st.integers(0, 9), st.integers(1, 7))
@settings(max_examples=200)
def test_chunks_know_where_their_items_are(
    before: Before, retry: bool, more: int, size: int
) -> None:
    """What is recorded of an item is its own position, whatever was passed over before it."""
    length = before.length + more
    this = resumption(before, retry_failed=retry)
    source = IterableSource(item(n) for n in range(length))
    reader = Reader(source, Interrupts(), this, lambda: 1)
    found: list[int] = []
    while not reader.exhausted:
        chunk = reader.take(size, local=True).chunk
        if chunk is None:
            continue
        assert chunk.places is not None
        assert [item(n) for n in chunk.indexes] == list(chunk.items)
        assert list(chunk.places.ends) == list(chunk.places.starts) == list(chunk.indexes)
        assert list(chunk.places.digests) == [
            None if n in before.failed else digest(item(n), n) for n in chunk.indexes
        ]
        found += chunk.indexes
    assert reader.error is None
    settled = before.settled - (before.failed if retry else set())
    assert found == [n for n in range(length) if n not in settled]
    assert reader.passed == length


# By key.

keys = st.sets(st.integers(-20, 60), min_size=1, max_size=25).map(sorted)


def by_key(settled: Spans, failed: set[int] = frozenset(), **options: Any) -> Resumption:  # type: ignore[assignment]
    return Resumption(
        settled,
        Spans((n, n) for n in failed),
        Marks(),
        **{"by_key": True, "retry_failed": False, "ignore_changes": False, **options},
    )


@given(keys, st.data())
@settings(max_examples=200)
def test_by_key_exactly_the_keys_that_are_not_settled_are_given_out(
    rows: list[int], data: st.DataObject
) -> None:
    """Each key not settled comes out once, as itself; failed ones if wanted.

    How many were done is the journal's word: rows that are may match the filters no more.
    """
    done = data.draw(st.sets(st.sampled_from(rows)))
    failed = data.draw(st.sets(st.sampled_from(sorted(done)))) if done else set()
    retry = data.draw(st.booleans())
    this = by_key(Spans((n, n) for n in done), failed, retry_failed=retry, succeeded=77)

    found = list(this.left(rows))

    settled = done - (failed if retry else set())
    assert [(p.end, p.item, p.digest) for p in found] == [
        (n, n, None) for n in rows if n not in settled
    ]
    assert [p.number for p in found] == [i for i, n in enumerate(rows) if n not in settled]
    assert (this.already, this.failed_before) == (77, 0 if retry else len(failed))
    assert this.passed == len(settled)


@given(keys)
def test_by_key_the_gaps_belong_to_the_key_after_them(rows: list[int]) -> None:
    """Keys that no row has are covered, so that what is done stays one range; nothing below the
    first key is, and no two places overlap."""
    spans = Spans()
    for place in by_key(Spans()).left(rows):
        assert place.start <= place.end
        assert not any(n in spans for n in range(place.start, place.end + 1))
        spans.add(place.start, place.end)
    assert list(spans) == [(rows[0], rows[-1])]


@given(keys, st.data())
def test_by_key_a_filter_may_leave_out_what_is_done(rows: list[int], data: st.DataObject) -> None:
    """A queryset that no longer gives the rows that are done gives the rest, each once; in the end
    all keys are settled."""
    done: set[int] = set()
    settled = Spans()
    while len(done) < len(rows):
        found = list(by_key(settled).left([n for n in rows if n not in done]))
        assert [p.item for p in found] == [n for n in rows if n not in done]
        for place in data.draw(st.lists(st.sampled_from(found), min_size=1, unique=True)):
            done.add(place.item)
            settled.add(place.start, place.end)


def test_by_key_a_row_given_twice_is_refused() -> None:
    """A journal can't tell two of one key apart: the message says which, and what to do."""
    with pytest.raises(SourceRepeats, match=r"key 5 twice.*\.distinct\(\)"):
        list(by_key(Spans()).left([3, 5, 5, 6]))
