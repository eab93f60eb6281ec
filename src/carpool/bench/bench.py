"""The benchmark from its start to its figures."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from carpool.bench.figures import Bench, Row, Shares
from carpool.bench.measuring import Subject
from carpool.bench.profile import Profile
from carpool.bench.sample import Sample
from carpool.bench.ways import (
    CHUNKS_A_WORKER,
    FEWEST,
    fitted,
    items_for,
    paced_size,
    rate_of,
    start_of,
    ways,
)
from carpool.calling import calls_of
from carpool.exceptions import CarpoolError, ConfigurationError, Interrupted
from carpool.executors.cpus import usable_cpus
from carpool.options import StartMethod
from carpool.progress import duration, in_units
from carpool.report import Report

SAMPLE = 10_000
"""Items taken at most, unless asked for otherwise: fast ones, of 50 µs, take half a second then."""

SECONDS = 60.0
"""Seconds that it takes, about, unless asked for otherwise."""

ROUNDS = 3
"""Rounds that the time is divided for: the least that have a median."""

MOST_ROUNDS = 7
"""Rounds at most, if there is time. More don't make the median steadier."""

WARM_UP, PROFILE = 0.05, 0.1
"""Parts of the time for the passes before the first round."""

PASSES = 3
"""Passes of the profile, of which the fastest counts."""

SCOUTING = 0.3
"""Part of a round for a first look at each way, which is not counted: what is expected of 32
threads may be far from what they do, and would take the time of all others."""

LONGEST = 3.0
"""Seconds a way takes in a round at most: eight paced chunks for each worker are enough."""

LEAST_PASSES = 8
"""Passes of the fewest items that a benchmark is at least, in the time that one process takes: the
warm-up, the profile, the loop, and the ways that aren't faster, once."""


def bench(
    function: Callable[..., Any],
    items: Iterable[Any],
    *,
    sample: int = SAMPLE,
    seconds: float = SECONDS,
    workers: int | None = None,
    start_method: StartMethod | None = None,
    setup: Callable[[], Any] | None = None,
    using: str | Iterable[str] = "default",
    coalesce: bool = True,
    lock: bool = False,
    before_chunk: Callable[[list[Any]], Any] | None = None,
    tell: Callable[[str], Any] = lambda line: None,
) -> Bench:
    """Run a sample of the items in several ways, again and again, and roll all of it back.

    Args:
        sample: items at most; the source's first ones. A way is given as many as it does in its
            share of the time.
        seconds: that it may take, about.
        workers: the most that are tried; default: twice the processors, and 32 threads for items
            that wait.
        tell: called with lines of progress.

    The other arguments are `run`'s.

    Raises:
        ConfigurationError: `run` would refuse this; there are no items; or they take too long for
            the time given.
        RunFailed, Interrupted: as `run` does.
        Whatever ``items`` raises.
    """
    began = time.monotonic()
    _check(sample, seconds, workers)
    aliases = tuple(dict.fromkeys((using,) if isinstance(using, str) else using))
    subject = Subject(
        function,
        calls_of(function, before_chunk, aliases),
        aliases,
        {"setup": setup, "lock": lock, "before_chunk": before_chunk},
        start_method,
    )
    whole = Sample.take(items, sample, aliases, lock=lock)
    if not len(whole):
        raise ConfigurationError("The source has no items, so there is nothing to measure.")
    tell(
        "each item is run in every way, again and again, and rolled back; what the function does "
        "outside of the database (mail, HTTP, files) happens each time"
    )
    processors, load = usable_cpus(), os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    pace = _warm_up(subject, whole, seconds * WARM_UP, coalesce=coalesce)
    least = min(len(whole), FEWEST) * pace * LEAST_PASSES
    if least > seconds:
        raise ConfigurationError(
            f"An item takes {in_units(pace)}, so even {min(len(whole), FEWEST)} of them take about "
            f"{duration(least)}, and the time is {duration(seconds)}. Allow more of it (--seconds)."
        )
    part = whole.part(_most(len(whole), seconds * PROFILE / PASSES, pace))
    passes = PASSES if len(part) > FEWEST else 1
    report, shares, item_seconds = _profile(subject, part, pace, passes, coalesce=coalesce)
    done = max(1, report.total + report.skipped)
    planned = ways(len(whole), item_seconds, shares, processors, workers=workers, coalesce=coalesce)
    rows = [Row(way) for way in planned]
    tell(f"an item takes {in_units(item_seconds)}; {len(rows)} ways are compared")
    rounds = _Rounds(
        subject,
        whole,
        rows,
        began + seconds,
        in_loop=len(part),
        savepoints=report.failed > 0,
        item_seconds=item_seconds,
        waits=shares.waiting > 0.5,
        tell=tell,
    )
    for row in rows:
        row.expected = rate_of(row.way, item_seconds, shares, processors)
        row.overhead = start_of(row.way)
    rounds.measure()
    return Bench(
        items=max((row.items for row in rows), default=0),
        total=whole.total,
        rounds=rounds.number,
        seconds=time.monotonic() - began,
        reading_seconds=whole.reading_seconds,
        profiled=done,
        item_seconds=item_seconds,
        shares=shares,
        coalesced=report.coalesced,
        failures=report.failures,
        failed=report.failed + report.unknown,
        processors=processors,
        load=load,
        # Those of another size than their own have been tried by a way of that size.
        rows=tuple(row for row in rows if row.way.paced or row.chunk_size == row.way.chunk_size),
    )


def _check(sample: int, seconds: float, workers: int | None) -> None:
    for name, value in (("sample", sample), ("seconds", seconds), ("workers", workers)):
        if value is not None and not value > 0:
            raise ConfigurationError(f"{name}={value!r} must be more than 0.")


def _most(items: int, seconds: float, pace: float) -> int:
    """Return how many of the items fit into so much time, at that pace."""
    return min(items, max(FEWEST, int(seconds / max(pace, 1e-9))))


def _warm_up(subject: Subject, sample: Sample, seconds: float, *, coalesce: bool) -> float:
    """Run a few items, then more; return how long one takes. What is imported and cached is."""
    number = 1
    while True:
        report = subject.run(sample.part(number), executor="inline", coalesce=coalesce)
        pace = report.seconds / max(1, report.total + report.skipped)
        more = min(8 * number, _most(len(sample), seconds, pace))
        if report.seconds > seconds / 2 or more <= number:
            return pace
        number = more


def _profile(
    subject: Subject, sample: Sample, pace: float, number: int, *, coalesce: bool
) -> tuple[Report, Shares, float]:
    """Run the sample in this thread; return what became of it, where an item's time went, and it.

    By the fastest of some passes: what the machine does besides looks like waiting.
    """
    size = max(1, min(paced_size(pace), len(sample) // CHUNKS_A_WORKER))
    passes = []
    for _ in range(number):
        profile = Profile()
        with profile.measuring():
            report = subject.run(sample, executor="inline", chunk_size=size, coalesce=coalesce)
        passes.append((profile.seconds, report, profile.shares(report.spent.database)))
    seconds, report, shares = min(passes, key=lambda one: one[0])
    return report, shares, seconds / max(1, report.total + report.skipped)


class _Rounds:
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
        self.number = 0

    def measure(self) -> None:
        """Look how fast each way is, then measure them while there is time, once at least.

        Each round begins with another way, so that none is always the one after the processes.
        """
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
        """Return how long a way may take, if so many rounds are to fit into the time left."""
        rows = [row for row in self._rows if row.note is None]
        left = (self._deadline - time.monotonic()) / rounds - sum(row.overhead for row in rows)
        return min(LONGEST, max(0.0, left / max(1, len(rows))))

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
        row.failed = max(row.failed, timing.failed)
        row.retries += timing.retries
