"""The rounds: in each, every way once, for about the same time.

A first look, which isn't counted, finds out how many items each way gets through. What is expected
of many workers may be far from what they do, and would take the time of all others.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from carpool.bench.figures import Row
from carpool.bench.measuring import Subject
from carpool.bench.sample import Sample
from carpool.bench.ways import FEWEST, fitted, items_for
from carpool.exceptions import CarpoolError, Interrupted

ROUNDS = 3
"""Rounds that the time is divided for: the least that have a median."""

MOST_ROUNDS = 7
"""Rounds at most, if there is time. More don't make the median steadier."""

SCOUTING = 0.3
"""Part of a round for a first look at each way, which is not counted: what is expected of 32
threads may be far from what they do, and would take the time of all others."""

SHORTEST = 0.1
"""Seconds a way takes in a round at least, even if the time is not kept then."""

LONGEST = 3.0
"""Seconds a way takes in a round at most: eight paced chunks for each worker are enough."""


class Rounds:
    """The rounds: in each, every way once.

    Attributes:
        number: of those that count.
    """

    def __init__(
        self,
        subject: Subject,
        sample: Sample,
        rows: list[Row],
        deadline: float,
        *,
        in_loop: int,
        savepoints: bool,
        item_seconds: float,
        waits: bool,
        tell: Callable[[str], Any],
    ) -> None:
        self._subject = subject
        self._sample = sample
        self._rows = rows
        self._deadline = deadline
        self._in_loop = in_loop  # items of which it is known whether they fail
        self._savepoints = savepoints
        self._item_seconds = item_seconds
        self._waits = waits
        self._tell = tell
        self._pools: list[tuple[Row, float]] = []  # of processes, as they came, with their `fixed`
        self.number = 0

    def measure(self) -> None:
        """Look how fast each way is, then measure them while there is time, once at least.

        Each round begins with another way, so that none is always the one after the processes.
        """
        self._measure()
        charge_first_pool(self._pools)

    def _measure(self) -> None:
        rows = self._rows
        seconds = self._seconds_a_way(ROUNDS + SCOUTING) * SCOUTING
        if seconds > FEWEST * self._item_seconds:  # else a look would be as long as a round
            self._look(seconds)
        longest = seconds = 0.0
        while self.number < MOST_ROUNDS:
            began = time.monotonic()
            if self.number and began + longest > self._deadline:
                return
            if self.number < ROUNDS:
                seconds = self._seconds_a_way(ROUNDS - self.number)
            start = self.number * len(rows) // ROUNDS % len(rows)
            self._round(rows[start:] + rows[:start], seconds)
            self.number += 1
            longest = max(longest, time.monotonic() - began)
            self._tell(f"round {self.number} took {time.monotonic() - began:.1f} s")

    def _look(self, seconds: float) -> None:
        """Find out what to expect of each way."""
        began = time.monotonic()
        self._round(self._rows, seconds)
        for row in self._rows:
            if row.rates:
                # So few items that wait make small chunks, which many workers only lose by.
                least = row.expected / 2 if self._waits else 0.0
                row.expected, row.overhead = max(row.rates.pop(), least), row.fixed.pop()
                row.retries = row.failed = 0
        self._tell(f"a look at all took {time.monotonic() - began:.1f} s")

    def _seconds_a_way(self, rounds: float) -> float:
        """Return how long a way may take, if so many rounds are to fit into the time left.

        Fewer, if there would be no time but for starting pools.
        """
        rows = [row for row in self._rows if row.note is None]
        left = self._deadline - time.monotonic()
        start = sum(row.overhead for row in rows)
        while True:
            seconds = (left / rounds - start) / max(1, len(rows))
            if seconds >= SHORTEST or rounds <= 1:
                return min(LONGEST, max(SHORTEST, seconds))
            rounds = max(1, rounds - 1)

    def _round(self, rows: list[Row], seconds: float) -> None:
        for row in rows:
            if row.note is None:
                self._measure_one(row, seconds)

    def _measure_one(self, row: Row, seconds: float) -> None:
        most = self._in_loop if row.way.kind == "loop" else len(self._sample)
        items = items_for(row.way, seconds, row.expected, most)
        way = fitted(row.way, items)
        try:
            timing = self._subject.measure(
                way, self._sample.part(items), savepoints=self._savepoints
            )
        except Interrupted:
            raise
        except Exception as error:  # this way doesn't work; the others may
            text = " ".join(str(error).split())
            known = isinstance(error, CarpoolError)
            row.note = text if known else f"{type(error).__name__}: {text}"
            return
        row.items, row.chunk_size = items, way.chunk_size
        row.overhead = min(row.overhead, timing.fixed)  # some of it comes once
        row.used = min(row.used, timing.used) if row.rates else timing.used
        row.rates.append(timing.rate)
        row.fixed.append(timing.fixed)
        if way.kind == "processes":
            self._pools.append((row, timing.fixed))
        row.failed = max(row.failed, timing.failed)
        row.retries += timing.retries


def charge_first_pool(pools: list[tuple[Row, float]]) -> None:
    """Put down to each row of processes what the first pool alone has paid.

    It is what the first one took to start and end beyond the shortest later one of no more workers.
    Each run pays it, so it belongs to all; that of the first is taken out of its other figures.

    Args:
        pools: all that there were, in order, with their seconds on top.
    """
    if not pools:
        return
    first, seconds = pools[0]
    later = [fixed for row, fixed in pools[1:] if row.way.workers <= first.way.workers]
    if not later:
        return
    once = max(0.0, seconds - min(later))
    if first.fixed and first.fixed[0] == seconds:  # else it was a look, which isn't counted
        first.fixed[0] -= once
    for row, _ in pools:
        row.once = once
