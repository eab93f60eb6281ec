"""Showing how far a run is: tqdm's bar, a callable of the user's, or nothing.

Counting is `run`'s; this only shows. An unknown total is the normal case.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:
    from carpool.report import Report


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far a run is. ``done`` counts items whose fate is known, the ``failed`` among them.

    ``total`` is None where the source doesn't tell; ``rate`` is items a second since the start,
    ``seconds`` the time since then; ``retries`` is how often a chunk's transaction was undone and
    tried again.
    """

    done: int
    failed: int
    total: int | None
    rate: float
    seconds: float
    retries: int = 0

    def troubles(self) -> list[str]:
        """Say what has gone wrong so far, if anything has."""
        said = [f"{self.failed:,} failed"] if self.failed else []
        if self.retries:
            said.append(f"{self.retries:,} {'retry' if self.retries == 1 else 'retries'}")
        return said


class Stderr:
    """stderr as a program finds it. What it doesn't take, since it is closed, a pipe that nobody
    reads or a file on a full disk, is no reason to end a run."""

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            if sys.stderr is not None:
                sys.stderr.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            if sys.stderr is not None:
                sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


STDERR = Stderr()


class Progress:
    """Shows nothing; relays workers' output to stderr as it is."""

    def start(self, total: int | None) -> None:
        """The run begins."""

    def update(self, snapshot: Snapshot) -> None:
        """Something has ended."""

    def write(self, text: str) -> None:
        """Show what a worker wrote to its stdout or stderr."""
        STDERR.write(text)
        STDERR.flush()

    def close(self) -> None:
        """The run is over."""

    def interrupted(self, report: Report) -> None:
        """Ctrl-C has ended it, with this report."""
        print(f"Interrupted.\n{report}", file=STDERR)


class CallableProgress(Progress):
    """Gives each snapshot to a callable."""

    def __init__(self, function: Callable[[Snapshot], Any]) -> None:
        self._function = function

    def update(self, snapshot: Snapshot) -> None:
        self._function(snapshot)


class _Bar(tqdm):  # type: ignore[type-arg]
    """A bar without tqdm's monitor thread: a process with threads should not be forked.

    Its rate, and so the time left, is the run's: tqdm's own would count what a journal's run had
    done before as done within a moment.
    """

    monitor_interval = 0
    rate: float | None = None

    @property
    def format_dict(self) -> Any:
        return {**super().format_dict, "rate": self.rate}


class BarProgress(Progress):
    """tqdm's bar on stderr."""

    _bar: _Bar | None = None

    def start(self, total: int | None) -> None:
        # miniters=0: the clock alone decides when it is drawn. Else, after many items at once (what
        # a journal's run had done before), tqdm waits for as many more.
        self._bar = _Bar(total=total, unit=" items", file=STDERR, dynamic_ncols=True, miniters=0)

    def update(self, snapshot: Snapshot) -> None:
        if self._bar is None:
            return
        self._bar.set_postfix_str(", ".join(snapshot.troubles()), refresh=False)
        self._bar.rate = snapshot.rate or None
        self._bar.update(snapshot.done - self._bar.n)

    def write(self, text: str) -> None:
        _Bar.write(text, file=STDERR, end="")

    def close(self) -> None:
        if self._bar is not None:  # the run may have failed before it began
            self._bar.refresh()
            self._bar.close()


def duration(seconds: float) -> str:
    """Say how long that is, to two figures or so."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def in_units(seconds: float) -> str:
    """Say how long that is, to three figures."""
    for unit, name in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds * 1e6:.3g} µs"


def progress_for(option: Any) -> Progress:
    """Return what shows the progress, for `run`'s option of that name."""
    if option is None:
        option = sys.stderr is not None and sys.stderr.isatty()
    if isinstance(option, Progress):  # the command's own
        return option
    if callable(option):
        return CallableProgress(option)
    return BarProgress() if option else Progress()
