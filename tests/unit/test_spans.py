"""Sets of positions, kept as ranges: the same as plain sets, and as few ranges as there can be."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from carpool.journal.spans import Spans

numbers = st.integers(-8, 40)
pairs = st.tuples(numbers, st.integers(0, 9)).map(lambda pair: (pair[0], pair[0] + pair[1]))
several = st.lists(pairs, max_size=8)


def plain(ranges: list[tuple[int, int]]) -> set[int]:
    """Return the same numbers one by one."""
    return {number for start, end in ranges for number in range(start, end + 1)}


@given(st.sets(st.integers(0, 40)), st.integers(-2, 45))
def test_the_highest_below_a_number(numbers: set[int], number: int) -> None:
    """The number itself doesn't count."""
    spans = Spans((n, n) for n in numbers)
    assert spans.below(number) == max((n for n in numbers if n < number), default=None)


class LikeASet(RuleBasedStateMachine):
    """Whatever is done to spans and to a plain set, both hold the same numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.spans = Spans()
        self.model: set[int] = set()

    @rule(pair=pairs)
    def add(self, pair: tuple[int, int]) -> None:
        self.spans.add(*pair)
        self.model |= plain([pair])

    @rule(start=numbers, end=numbers)
    def add_perhaps_nothing(self, start: int, end: int) -> None:
        self.spans.add(start, end)
        self.model |= set(range(start, end + 1))

    @rule(others=several)
    def update(self, others: list[tuple[int, int]]) -> None:
        self.spans.update(Spans(others))
        self.model |= plain(others)

    @rule(number=numbers)
    def discard(self, number: int) -> None:
        self.spans.discard(number)
        self.model.discard(number)

    @rule()
    def write_and_read(self) -> None:
        self.spans = Spans.loads(self.spans.dumps())

    @rule(start=numbers, end=numbers)
    def look_within(self, start: int, end: int) -> None:
        found = self.spans.within(start, end)
        assert found == [number for number in range(start, end + 1) if number in self.model]

    @invariant()
    def same_numbers(self) -> None:
        assert plain(list(self.spans)) == self.model
        assert [number in self.spans for number in range(-9, 60)] == [
            number in self.model for number in range(-9, 60)
        ]
        assert self.spans.count() == len(self.model)
        assert bool(self.spans) == bool(self.model)
        assert self.spans.highest == max(self.model, default=None)

    @invariant()
    def as_few_ranges_as_can_be(self) -> None:
        ranges = list(self.spans)
        assert all(start <= end for start, end in ranges)
        for (_, end), (start, _) in pairwise(ranges):
            assert end + 1 < start


def test_spans_are_a_set() -> None:
    """Adding, updating, taking out and asking do what they do to a plain set."""
    run_state_machine_as_test(LikeASet)


@given(several, several)
def test_and_and_minus_are_those_of_sets(one: list[tuple[int, int]], other: list[tuple[int, int]]):
    """What is in both, and what is in one only; the operands stay as they are."""
    left, right = Spans(one), Spans(other)
    assert plain(list(left & right)) == plain(one) & plain(other)
    assert plain(list(left - right)) == plain(one) - plain(other)
    assert (left, right) == (Spans(one), Spans(other))


@given(several, st.randoms(use_true_random=False))
def test_the_order_of_adding_does_not_matter(ranges: list[tuple[int, int]], chance) -> None:
    """Chunks complete in any order, and the set is the same."""
    shuffled = list(ranges)
    chance.shuffle(shuffled)
    assert Spans(shuffled) == Spans(ranges)
    assert Spans(shuffled).dumps() == Spans(ranges).dumps()


@given(several)
def test_equal_is_what_holds_the_same(ranges: list[tuple[int, int]]) -> None:
    """Equality is of the numbers, not of how they came in."""
    spans = Spans(ranges)
    assert spans == Spans((n, n) for n in plain(ranges))
    assert spans != Spans([*ranges, (100, 100)])
    assert spans != plain(ranges)


def test_ten_million_in_order_are_one_range() -> None:
    """A run that goes on in order takes no more room however long it is."""
    spans = Spans()
    for start in range(0, 10_000_000, 5_000):
        spans.add(start, start + 4_999)
    assert spans.dumps() == "[[0,9999999]]"


def test_the_text_is_short_and_plain_json() -> None:
    """Single numbers are written as such, ranges as pairs."""
    assert Spans([(0, 4), (7, 7), (9, 12)]).dumps() == "[[0,4],7,[9,12]]"
    assert json.loads(Spans().dumps()) == []
    assert Spans.loads("") == Spans()


def test_a_large_range_costs_nothing() -> None:
    """Ranges as large as keys may be are counted and cut without listing their numbers."""
    spans = Spans([(-(2**61), 2**61)])
    spans.discard(0)
    assert len(list(spans)) == 2
    assert (spans - Spans([(1, 2**61)])).count() == 2**61
    assert spans != Spans([(1, 2**61)])
    assert repr(spans)
