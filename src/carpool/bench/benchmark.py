"""The benchmark from its start to its figures."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from carpool.bench.figures import Bench, Row, Shares
from carpool.bench.measuring import Subject
from carpool.bench.profile import Profile
from carpool.bench.rounds import Rounds
from carpool.bench.sample import Sample
from carpool.bench.watching import watched
from carpool.bench.ways import (
    CHUNKS_A_WORKER,
    FEWEST,
    fewest_for,
    paced_size,
    rate_of,
    start_of,
    ways,
)
from carpool.calling import calls_of
from carpool.exceptions import ConfigurationError
from carpool.executors.cpus import usable_cpus
from carpool.options import StartMethod
from carpool.progress import duration, in_units
from carpool.report import Report
from carpool.words import counted

SAMPLE = 10_000
"""Items taken at most, unless asked for otherwise: fast ones, of 50 µs, take half a second then."""

SECONDS = 60.0
"""Seconds that it takes, about, unless asked for otherwise."""

WARM_UP, PROFILE = 0.05, 0.1
"""Parts of the time for the passes before the first round."""

PASSES = 3
"""Passes of the profile, of which the fastest counts."""

MOSTLY = 0.5
"""Share of waiting from which many workers are trusted to do what is expected of them, at half."""

NEARLY_ALL = 0.9
"""Share of failed items from which no ways are compared: it would be how fast they fail."""

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
        tell: called with lines of progress; from a thread, too, while a pass takes long.

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
        tell,
    )
    with watched("reading the sample", tell):
        whole = Sample.take(items, sample, aliases, lock=lock)
    if not len(whole):
        raise ConfigurationError("The source has no items, so there is nothing to measure.")
    tell(
        "each item is run in every way, again and again, and rolled back; what the function does "
        "outside of the database (mail, HTTP, files) happens each time"
    )
    processors, load = usable_cpus(), os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    pace = _warm_up(subject, whole, seconds * WARM_UP, coalesce=coalesce)
    if seconds / _least(whole) < pace < seconds:  # the machine may have been busy, for a moment
        pace = min(pace, _warm_up(subject, whole, seconds * WARM_UP, coalesce=coalesce))
    least = pace * _least(whole)
    if least > seconds:
        raise ConfigurationError(
            f"An item takes {in_units(pace)}, so the passes over "
            f"{counted(min(len(whole), FEWEST), 'item')} take about {duration(least)} at least, "
            f"and the time is {in_units(seconds)}. Allow more of it (--seconds)."
        )
    part = whole.part(_most(len(whole), seconds * PROFILE / PASSES, pace))
    passes = PASSES if len(part) > FEWEST else 1
    report, shares, item_seconds = _profile(subject, part, pace, passes, coalesce=coalesce)
    done = max(1, report.total + report.skipped)
    failed = report.failed + report.unknown
    planned = ways(len(whole), item_seconds, shares, processors, workers=workers, coalesce=coalesce)
    rows = [Row(way) for way in planned] if failed < NEARLY_ALL * done else []
    what = f"{len(rows)} ways are" if rows else "nearly all items fail, so nothing is"
    tell(f"an item takes {in_units(item_seconds)}; {what} compared")
    rounds = Rounds(
        subject,
        whole,
        rows,
        began + seconds,
        in_loop=len(part),
        savepoints=report.failed > 0,
        item_seconds=item_seconds,
        waits=shares.waiting > MOSTLY,
        tell=tell,
    )
    for row in rows:
        row.expected = rate_of(row.way, item_seconds, shares, processors)
        row.overhead = start_of(row.way)
        if fewest_for(row.way) > len(whole):
            row.note = _too_few(whole)
    if rows:
        rounds.measure()
    return Bench(
        items=max((row.items for row in rows), default=done),
        sample=len(whole),
        total=whole.total,
        rounds=rounds.number,
        seconds=time.monotonic() - began,
        reading_seconds=whole.reading_seconds,
        profiled=done,
        item_seconds=item_seconds,
        shares=shares,
        coalesced=report.coalesced,
        failures=report.failures,
        failed=failed,
        processors=processors,
        load=load,
        # Those of another size than their own have been tried by a way of that size.
        rows=tuple(row for row in rows if row.way.paced or row.chunk_size == row.way.chunk_size),
    )


def _check(sample: int, seconds: float, workers: int | None) -> None:
    for name, value in (("sample", sample), ("workers", 1 if workers is None else workers)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigurationError(f"{name}={value!r} must be a whole number, 1 or more.")
    if (
        not isinstance(seconds, int | float)
        or isinstance(seconds, bool)
        or not 0 < seconds < float("inf")
    ):
        raise ConfigurationError(f"seconds={seconds!r} must be a number of seconds, more than 0.")


def _least(sample: Sample) -> int:
    """Return how many times an item is run at least, all passes taken together."""
    return min(len(sample), FEWEST) * LEAST_PASSES


def _most(items: int, seconds: float, pace: float) -> int:
    """Return how many of the items fit into so much time, at that pace."""
    return min(items, max(FEWEST, int(seconds / max(pace, 1e-9))))


def _too_few(sample: Sample) -> str:
    more = sample.total is None or sample.total > len(sample)
    remedy = ": take a larger sample (--sample)" if more else ""
    return (
        f"left out, since {counted(len(sample), 'item')} make too few chunks, or smaller ones than "
        f"run() does, for so many workers{remedy}"
    )


def _warm_up(subject: Subject, sample: Sample, seconds: float, *, coalesce: bool) -> float:
    """Run a few items, then more; return how long one takes. What is imported and cached is."""
    number = 1
    cold = True
    while True:
        report = subject.run("warm-up", sample.part(number), executor="inline", coalesce=coalesce)
        if cold and report.seconds < seconds / WARM_UP / 2:
            cold = False  # the first one has also imported, connected, filled caches: once more
            continue
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
            report = subject.run(
                "profile", sample, executor="inline", chunk_size=size, coalesce=coalesce
            )
        passes.append((profile.seconds, report, profile.shares(report.spent.database)))
    seconds, report, shares = min(passes, key=lambda one: one[0])
    return report, shares, seconds / max(1, report.total + report.skipped)
