"""Sets of whole numbers that are mostly ranges: which positions of an input are done."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Spans:
    """A set of whole numbers, kept as ranges that neither touch nor overlap.

    A run that has done ten million items in order is one range. Both ends belong to it.
    """

    __slots__ = ("_ends", "_starts")

    def __init__(self, pairs: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in pairs:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        """Add the numbers from ``start`` to ``end``."""
        if end < start:
            return
        starts, ends = self._starts, self._ends
        first = bisect_left(ends, start - 1)  # the first range that the new one touches
        last = bisect_right(starts, end + 1)  # the first one after it that it doesn't
        if first < last:
            start, end = min(start, starts[first]), max(end, ends[last - 1])
        starts[first:last] = [start]
        ends[first:last] = [end]

    def update(self, other: Iterable[tuple[int, int]]) -> None:
        """Add other ranges."""
        for start, end in other:
            self.add(start, end)

    def discard(self, number: int) -> None:
        """Take one number out, if it is there."""
        place = bisect_left(self._ends, number)
        if place == len(self._ends) or self._starts[place] > number:
            return
        start, end = self._starts[place], self._ends[place]
        rest = [(a, b) for a, b in ((start, number - 1), (number + 1, end)) if a <= b]
        self._starts[place : place + 1] = [a for a, _ in rest]
        self._ends[place : place + 1] = [b for _, b in rest]

    def below(self, number: int) -> int | None:
        """Return the highest number of the set that is lower than this one."""
        place = bisect_left(self._starts, number) - 1
        return None if place < 0 else min(self._ends[place], number - 1)

    def within(self, start: int, end: int) -> list[int]:
        """Return the numbers of the set from ``start`` to ``end``, one by one."""
        found: list[int] = []
        for place in range(bisect_left(self._ends, start), bisect_right(self._starts, end)):
            low, high = max(start, self._starts[place]), min(end, self._ends[place])
            found.extend(range(low, high + 1))
        return found

    def __and__(self, other: Spans) -> Spans:
        """Return what is in both."""
        both = Spans()
        for start, end in other:
            places = range(bisect_left(self._ends, start), bisect_right(self._starts, end))
            for place in places:
                both.add(max(start, self._starts[place]), min(end, self._ends[place]))
        return both

    def __sub__(self, other: Spans) -> Spans:
        """Return what is here and not in the other."""
        rest = Spans()
        for start, end in self:
            for low, high in Spans([(start, end)]) & other:
                rest.add(start, low - 1)
                start = high + 1
            rest.add(start, end)
        return rest

    def __contains__(self, number: int) -> bool:
        place = bisect_left(self._ends, number)
        return place < len(self._ends) and self._starts[place] <= number

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges, in order."""
        return iter(zip(self._starts, self._ends, strict=True))

    def count(self) -> int:
        """Return how many numbers there are. No ``__len__``: list() would make room for them."""
        return sum(end - start + 1 for start, end in self)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Spans):
            return NotImplemented
        return (self._starts, self._ends) == (other._starts, other._ends)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Spans({list(self)!r})"

    @property
    def highest(self) -> int | None:
        return self._ends[-1] if self._ends else None

    def dumps(self) -> str:
        """Return the ranges as text for the database: ``[[0, 4999], 7000]``."""
        return json.dumps(
            [start if start == end else [start, end] for start, end in self],
            separators=(",", ":"),
        )

    @classmethod
    def loads(cls, text: str) -> Spans:
        """Return what `dumps` has written."""
        pairs = json.loads(text or "[]")
        return cls((p, p) if isinstance(p, int) else (p[0], p[1]) for p in pairs)
