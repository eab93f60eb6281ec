"""Fingerprints of items: the same in every process, and the same however they are added up."""

from __future__ import annotations

import copy
import datetime
import json
import os
import pickle
import subprocess
import sys
import threading
import uuid
from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carpool.journal import marks as module
from carpool.journal.marks import Marks, digest
from tests.conftest import ROOT
from tests.waiting import HANG

Point = namedtuple("Point", "x y")


@dataclass
class Row:
    """What a source may yield besides plain data."""

    name: str
    tags: list[str] = field(default_factory=list)


class Plain:
    """An object with attributes."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


def endless() -> list[Any]:
    """Return a list that holds itself."""
    endless: list[Any] = ["a", 1]
    endless.append(endless)
    return endless


def samples() -> dict[str, Any]:
    """Return items of many kinds, made anew."""
    words = [f"word {n}" for n in range(40)]
    utc = datetime.UTC
    return {
        "none": None,
        "true": True,
        "number": 7,
        "huge": -(10**300),
        "float": 0.1,
        "not a number": float("nan"),
        "text": "ä < b > c \x8f",
        "bytes": b"<>\x8f\x91",
        "list": [1, "a", [2, ("b", None)]],
        "tuple": (1, 2),
        "dict": {"a": 1, "b": {"c": [1, 2, {"d": "e"}]}},
        "set": set(words),
        "frozenset": frozenset(words),
        "sets within": {"a": [set(words), (frozenset(range(99)), {"b": set(words)})]},
        "set of frozensets": {frozenset(words[:n]) for n in range(9)},
        "set of mixed types": {1, "a", None, (2, "b"), 1.5},
        "frozenset as key": {frozenset(words): 1},
        "day": datetime.date(2020, 2, 29),
        "moment": datetime.datetime(2020, 1, 2, 3, 4, 5, 678, tzinfo=utc),
        "elsewhere": datetime.datetime(
            2020, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=2))
        ),
        "span": datetime.timedelta(1, 2, 3),
        "decimal": Decimal("1.10"),
        "fraction": Fraction(1, 3),
        "uuid": uuid.UUID(int=77),
        "dataclass": Row("a", ["b"]),
        "dataclass with a set": Row("a", set(words)),  # type: ignore[arg-type]
        "dataclasses within": [{"row": Row("a", [])}, Row("b", ["c"])],
        "object": Plain(a=1, b="c"),
        "object with a set": Plain(a=set(words)),
        "named tuple": Point(1, "a"),
        "named tuple with a set": Point(set(words), 1),
        "ordered": OrderedDict(b=1, a=2),
        "holds itself": endless(),
        "deep": json.loads("[" * 500 + "]" * 500),
        "wide": list(range(5_000)),
        "a function": len,
        "a class": Row,
    }


def digests() -> dict[str, int]:
    return {name: digest(item, 3) for name, item in samples().items()}


#: Kinds of items whose digest may differ from process to process.
OTHERWISE: set[str] = set()

SCRIPT = """
import json, sys
from tests.unit.test_marks import digests
json.dump(digests(), sys.stdout)
"""


@pytest.fixture(scope="module")
def elsewhere() -> list[dict[str, int]]:
    """The digests as other processes see them, each with other hashes of text."""
    found = []
    for seed in ("1", "2"):
        process = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=HANG,
        )
        assert process.returncode == 0, process.stderr
        found.append(json.loads(process.stdout))
    return found


@pytest.mark.parametrize("name", [name for name in samples() if name not in OTHERWISE])
def test_the_same_in_every_process(name: str, elsewhere: list[dict[str, int]]) -> None:
    """A run is taken up by another process, with other hashes; equal items must be the same."""
    here = digest(samples()[name], 3)
    assert [there[name] for there in elsewhere] == [here, here]


def test_different_items_are_told_apart() -> None:
    """Of many kinds no two have one digest, nor have equal values of different types."""
    found = digests()
    assert len(set(found.values())) == len(found)
    pairs: list[tuple[Any, Any]] = [
        (1, True),
        (1, 1.0),
        ("a", b"a"),
        ([1], (1,)),
        ({1}, frozenset({1})),
        ({1}, [1]),
        (0.0, -0.0),
        (Decimal("1.1"), Decimal("1.10")),
        ({"a": 1}, {"a": 2}),
        (["ab"], ["a", "b"]),
        (Row("a"), Row("b")),
        ("", None),
        ("0", 0),
    ]
    for one, other in pairs:
        assert digest(one, 0) != digest(other, 0), (one, other)


def test_where_an_item_is_counts() -> None:
    """Two items that change places are a change of the source, though their sum is the same."""
    assert digest("a", 0) + digest("b", 1) != digest("b", 0) + digest("a", 1)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=4), inner, max_size=4)
        | st.sets(st.text(max_size=4) | st.integers(), max_size=4)
    ),
    max_leaves=10,
)


@given(plain, st.integers(0, 2**40))
@settings(max_examples=200)
def test_which_object_it_is_does_not_matter(item: Any, position: int) -> None:
    """A copy of an item has its digest, in 32 bits, whether its equal parts are one object."""
    value = digest(item, position)
    assert 0 <= value < 2**64
    assert digest(copy.deepcopy(item), position) == value
    assert digest(pickle.loads(pickle.dumps(item)), position) == value


def test_whether_equal_parts_are_one_object_does_not_matter() -> None:
    """Text that a reader shares between rows, or that Python interns, is the text."""
    word = "".join(["a ", "word"])
    again = "".join(["a", " word"])
    assert word is not again
    interned = sys.intern("a word")
    for same in ([word, word], [word, again], [interned, again], [interned, interned]):
        assert digest(same, 1) == digest([word, again], 1)
        assert digest(Row(same[0], [same[1]]), 1) == digest(Row(word, [again]), 1)
        assert digest(dict.fromkeys(same, same), 1) == digest({word: [word, again]}, 1)


def test_what_cannot_be_pickled_has_a_digest_too() -> None:
    """In threads and inline such items can be run, so they are told apart by their type."""
    assert digest(threading.Lock(), 1) == digest(threading.Lock(), 1)
    assert digest([threading.Lock()], 1) != digest(threading.Event(), 1)


# Marks.


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """As few marks as let them become coarse within a test's reach."""
    monkeypatch.setattr(module, "MOST", 4)
    return 4


values = st.integers(0, 2**32 - 1)
marked = st.dictionaries(st.integers(0, 200), values, max_size=30)


@given(marked, st.sampled_from([1, 2, 4, 8, 64]))
def test_coarser_marks_are_the_sums_of_finer_ones(items: dict[int, int], step: int) -> None:
    """Making stretches longer gives what counting by long stretches gives."""
    fine = Marks.of_items(1, items.items())
    direct = Marks.of_items(step, items.items())
    fine.coarsen(step)
    assert fine.dumps() == direct.dumps()
    for position in range(0, 210, 7):
        first, last = fine.stretch(position)
        assert first <= position <= last == first + step - 1
        inside = [value for at, value in items.items() if first <= at <= last]
        assert fine.of(position) == (sum(inside) % 2**64 if inside else None)


@given(st.lists(marked, max_size=5), st.lists(st.sampled_from([1, 2, 4, 8]), min_size=5))
def test_marks_of_chunks_add_up_in_any_order(parts: list[dict[int, int]], steps: list[int]) -> None:
    """Chunks complete in any order, some marked with an older, finer step."""
    step = max(steps[: len(parts)], default=1)
    pairs = [Marks.of_items(s, part.items()) for s, part in zip(steps, parts, strict=False)]
    one, other = Marks(step), Marks(step)
    for marks in pairs:
        one.update(marks)
    for marks in reversed(pairs):
        other.update(marks)
    direct = Marks.of_items(step, [pair for part in parts for pair in part.items()])
    assert one.dumps() == other.dumps() == direct.dumps()


@given(items=marked)
def test_there_are_never_many_marks(items: dict[int, int]) -> None:
    """Beyond the most there may be, stretches become longer, and the sums stay right."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST", 4)
        marks = Marks()
        for position, value in items.items():
            marks.add(position, value)
        assert len(marks.dumps()) < 4 / 3 * 16 * (2 + 4 * 2 + len(items))
        patch.setattr(module, "MOST", 10_000)
        assert marks.dumps() == Marks.of_items(marks.step, items.items()).dumps()
    if len(items) > 60:
        assert marks.step > 1


def test_marks_in_a_row_are_at_most_so_many(few: int) -> None:
    """A run that goes on in order has so few marks, however long it is."""
    marks = Marks()
    for position in range(1_000):
        marks.add(position, 1)
        assert len(marks._sums) <= few
    assert marks.step == 256
    assert [marks.of(n) for n in (0, 255, 256, 999, 1_024)] == [256, 256, 256, 232, None]


@given(marked, st.sampled_from([1, 2, 32]))
def test_marks_are_written_and_read(items: dict[int, int], step: int) -> None:
    """What is read is what was written, and plain ASCII."""
    marks = Marks.of_items(step, items.items())
    there = Marks.loads(marks.dumps())
    assert (there.step, there._sums, bool(there)) == (marks.step, marks._sums, bool(items))
    assert marks.dumps().isascii()
    assert not Marks.loads("")


@given(st.sampled_from([1, 2, 8]), st.integers(0, 50), st.lists(values, min_size=1, max_size=40))
def test_marks_of_a_row_are_those_of_its_items(step: int, first: int, row: list[int]) -> None:
    """The short way for items in a row gives what the long one does."""
    long = Marks.of_items(step, enumerate(row, first))
    assert Marks.of_row(step, first, row).dumps() == long.dumps()


def test_a_copy_does_not_change_with_the_marks() -> None:
    """What a reader compares with must not move while chunks complete."""
    marks = Marks.of_items(1, [(0, 5)])
    kept = marks.copy()
    marks.add(1, 6)
    marks.coarsen(2)
    assert (kept.of(0), kept.of(1), kept.step) == (5, None, 1)


@given(st.lists(st.integers(0, 99), min_size=2, max_size=9, unique=True), st.data())
def test_items_that_have_changed_places_have_another_sum(items: list[int], data: Any) -> None:
    """Though a mark is a sum: digests are of places, too."""
    one, other = data.draw(st.permutations(range(len(items))))[:2]
    swapped = list(items)
    swapped[one], swapped[other] = items[other], items[one]
    sums = [sum(map(digest, row, range(1000, 1000 + len(row)))) for row in (items, swapped)]
    assert sums[0] != sums[1]
