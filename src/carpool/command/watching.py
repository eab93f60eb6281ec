"""The progress of a run that was begun by the command: a bar, lines, or nothing; all on stderr."""

from __future__ import annotations

import sys
import time
from typing import Any

from carpool.command.output import in_our_words
from carpool.progress import BarProgress, Progress, Snapshot, duration
from carpool.report import Report
from carpool.words import a_second, counted

EVERY = 5.0
"""Seconds between two lines where stderr is no terminal: a log of an hour has 720 of them."""


class Watch(Progress):
    """Remembers how far the run is, and has it shown."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self.total: int | None = None

    def start(self, total: int | None) -> None:
        self.total = total
        self._shown.start(total)

    def update(self, snapshot: Snapshot) -> None:
        self._shown.update(snapshot)

    def write(self, text: str) -> None:
        self._shown.write(text)

    def close(self) -> None:
        self._shown.close()

    def interrupted(self, report: Report) -> None:
        self._shown.interrupted(in_our_words(report))


class Lines(Progress):
    """A line every so many seconds; 0: one each time that chunks have ended."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._last = time.monotonic()

    def update(self, snapshot: Snapshot) -> None:
        now = time.monotonic()
        if now - self._last >= self._every:
            self._last = now
            self.write(line_of(snapshot) + "\n")


def line_of(snapshot: Snapshot) -> str:
    """Say how far the run is."""
    done, total = snapshot.done, snapshot.total
    items = counted(done, "item") if total is None else f"{done:,} of {counted(total, 'item')}"
    parts = [items, *snapshot.troubles()]
    parts.append(f"{a_second(snapshot.rate)}/s")
    if total is not None and snapshot.rate > 0:
        parts.append(f"{duration(max(0, total - done) / snapshot.rate)} left")
    return ", ".join(parts)


def watch_of(options: dict[str, Any]) -> Watch:
    """Return what the verbosity, and stderr, ask for."""
    verbosity = options["verbosity"]
    if options["no_progress"] or verbosity < 1 or sys.stderr is None:
        return Watch(Progress())
    if verbosity > 1:
        return Watch(Lines(0))
    return Watch(BarProgress() if sys.stderr.isatty() else Lines(EVERY))
