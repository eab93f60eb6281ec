"""One pass of the sample in one way, and what its clock says.

A pool's rate is that of its workers at work: the time until each has had its first chunk, in which
it starts, connects and warms up, is left out, and told apart. A million items pay for it once, and
a sample must not make it look like more.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from carpool.bench.figures import Way
from carpool.bench.loop import loop
from carpool.bench.sample import Sample
from carpool.bench.watching import watched
from carpool.calling import Calls
from carpool.options import StartMethod
from carpool.progress import Progress, Snapshot
from carpool.report import Report
from carpool.run import run


@dataclass(frozen=True, slots=True)
class Timing:
    """What a pass has shown: items a second at work, seconds on top, failures, retries, processors
    in use."""

    rate: float
    fixed: float
    failed: int = 0
    retries: int = 0
    used: float = 0.0


class Clock(Progress):
    """Notes when how many items were done."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, int]] = []

    def update(self, snapshot: Snapshot) -> None:
        self.marks.append((snapshot.seconds, snapshot.done))

    def interrupted(self, report: Report) -> None:
        """A pass' report is nobody's."""

    @property
    def done(self) -> int:
        """Items so far."""
        return self.marks[-1][1] if self.marks else 0


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: the function as `run` is passed it, with the options that are the same in
    every pass."""

    function: Any
    calls: Calls
    using: tuple[str, ...]
    options: dict[str, Any]
    start_method: StartMethod | None = None
    tell: Callable[[str], Any] = lambda line: None

    def run(self, what: str, sample: Sample, clock: Clock | None = None, **how: Any) -> Report:
        """Run the sample, and roll it back. ``what``: the pass' name, if it takes long."""
        source = sample.source()
        clock = clock or Clock()
        fixed = {"using": self.using, "dry_run": True, "progress": clock, **self.options}
        with printing_to_stderr(), self._watched(what, how, clock):
            return run(self.function, source, **fixed, **how)

    def _watched(
        self, what: str, how: dict[str, Any], clock: Clock
    ) -> contextlib.AbstractContextManager[None]:
        if how.get("start_method") == "fork":  # not while there is a thread
            return contextlib.nullcontext()
        return watched(what, self.tell, lambda: clock.done)

    def measure(self, way: Way, sample: Sample, *, savepoints: bool) -> Timing:
        """Run the sample in a way.

        Raises:
            CarpoolError: it can't be run so.
            Whatever the function raises, in a loop without savepoints.
        """
        if way.kind == "loop":
            items = sample.local(lock=bool(self.options.get("lock")))
            with printing_to_stderr(), watched(way.label, self.tell):
                passed = loop(self.calls, items, len(sample), self.using, savepoints=savepoints)
            return Timing(passed.items / max(passed.seconds, 1e-9), 0.0, passed.failed)
        clock = Clock()
        report = self.run(
            way.label,
            sample,
            clock,
            executor=way.kind,
            workers=way.workers,
            chunk_size=way.chunk_size,
            coalesce=way.coalesce,
            **({"start_method": self.start_method} if way.kind == "processes" else {}),
        )
        items_done = report.total + report.skipped
        rate = rate_of(clock.marks, way.workers, report.seconds)
        fixed = max(0.0, report.seconds - items_done / rate)
        used = report.spent.cpu / max(report.seconds, 1e-9)
        return Timing(rate, fixed, report.failed + report.unknown, report.retries, used)


def rate_of(marks: list[tuple[float, int]], workers: int, seconds: float) -> float:
    """Return items a second after the first chunk of each worker.

    From the mark at which as many chunks were done as there are workers, to the last one. With too
    few of them it is that of the whole pass.
    """
    if len(marks) >= 2 * workers:
        (began, before), (ended, done) = marks[workers - 1], marks[-1]
        if ended > began and done > before:
            return (done - before) / (ended - began)
    done = marks[-1][1] if marks else 0
    return max(done, 1) / max(seconds, 1e-9)


@contextlib.contextmanager
def printing_to_stderr() -> Iterator[None]:
    """Keep what the function prints off stdout, which is for the report."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
