"""What would make a run faster, by its own figures: one sentence, or none.

A hint is given only where the figures speak clearly; the constants say what clearly is. They are
looked at in this order, and the first that applies is the hint:

- the items' time was mostly waiting, and there are few workers: threads, or more of them;
- threads took turns at one processor, and there is one for each of them: processes;
- early flushes broke most batches: the line that caused most of them.

Whoever follows one of the first two is never given the other: Note [No hint takes back another].
`manage.py carpool bench` measures what a hint supposes.

Note [No hint takes back another]
    From inside, a thread that waits for its turn looks like one that waits for the network, so what
    threads that took turns would do in processes is not known. It has a lower limit: N threads that
    kept U of one processor busy, by S seconds an item, took N * S / U for one, so P processes do at
    least P * U / (N * S) a second. With P >= N that is no less than the threads did, and keeps U
    processors busy at least, of which `_of_waiting` says nothing. It, in turn, is of runs that use
    less than half of what threads could, and these can't gain more.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Literal

from carpool.coalescing.figures import Figures
from carpool.types import Spent

ENOUGH_SECONDS = 2.0
"""Seconds of wall clock that it must have taken, and its chunks, since a pool's start is no
waiting. Of less nobody wants to save anything."""

ENOUGH_ITEMS = 20
"""Items likewise: two slow ones may be chance."""

MOST_FAILED = 0.5
"""Share of failed items from which there is no hint: what they cost is not what good ones cost."""

WAITING = 0.75
"""Share of the items' time from which waiting is worth a hint: four workers do what one does."""

BUSY = 0.5
"""Share in use, of the processors that threads can use, from which more of them don't gain a factor
of two, and waiting may be for a turn at one."""

ONE_PROCESSOR = 0.8
"""Processors in use by all threads together from which they are held to have taken turns at one.
The rest of it goes to the lock that they pass around."""

MANY_THREADS = 32
"""Threads that a hint names, each with a connection: PostgreSQL takes a hundred by default. With
half of them and more a run has enough: it could gain a factor of two at best."""

FEW_THREADS = 8
"""Threads that a hint names, and a run has enough of, likewise, where chunks write by turns."""

HARDLY_DATABASE = 0.1
"""Share of the database from which chunks that write by turns have no hint: ten at once is then the
most that there can be, and the more are waiting for the lock the longer it takes."""

ENOUGH_WRITES = 1_000
"""Writes from which broken batches are worth a hint."""

BROKEN = 1 / 3
"""Statements a write from which batches are held to be broken; whole ones take a hundredth."""

ONE_LINE = 0.5
"""Share of the early flushes that must be one line's: else there is no one line to look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a hint is taken from.

    Attributes:
        items: that were done in this call.
        seconds: of wall-clock time.
        spent: where the chunks' time went.
        coalesced: what queueing the rows has saved, if any were queued.
        workers: how many there were.
        where: in the caller, or in what kind of workers.
        processors: that this process may use.
        may_use_threads: whether there can be threads, and chunks run side by side in them.
        failed: items of those that failed, or are unknown.
        one_writer: chunks write by turns, as on SQLite.
    """

    items: int
    seconds: float
    spent: Spent
    coalesced: Figures | None
    workers: int
    where: Literal["here", "threads", "processes"]
    processors: int
    may_use_threads: bool
    failed: int = 0
    one_writer: bool = False

    @property
    def in_use(self) -> float:
        """Processors in use, on average."""
        return self.spent.cpu / self.seconds if self.seconds > 0 else 0.0


def hint_of(seen: Seen) -> str | None:
    """Return the hint, if there is one."""
    if (
        seen.items < ENOUGH_ITEMS
        or min(seen.seconds, seen.spent.seconds) < ENOUGH_SECONDS
        or seen.failed >= MOST_FAILED * seen.items
    ):
        return None
    return _of_waiting(seen) or _of_turns(seen) or _of_flushes(seen.coalesced)


def _of_waiting(seen: Seen) -> str | None:
    spent = seen.spent
    if not seen.may_use_threads or spent.waiting < WAITING * spent.seconds or not spent.seconds:
        return None
    if seen.one_writer and spent.database >= HARDLY_DATABASE * spent.seconds:
        return None
    threads = FEW_THREADS if seen.one_writer else MANY_THREADS
    # Threads share one processor, unless this Python can do without the lock.
    usable = 1 if _has_global_lock() else seen.processors
    if seen.workers >= threads / 2 or seen.in_use > BUSY * usable:
        return None
    share = spent.waiting / spent.seconds
    told = f"{share:.0%} of the items' time was waiting, not in the database"
    return f'{told}: executor="threads", workers={threads} would overlap it'


def _of_turns(seen: Seen) -> str | None:
    if (
        seen.where != "threads"
        or seen.workers > seen.processors  # Note [No hint takes back another]
        or not _has_global_lock()
        or seen.in_use < ONE_PROCESSOR
    ):
        return None
    return (
        f"{seen.workers} threads took turns at one processor, which was in use for "
        f'{seen.in_use:.0%} of the time: executor="processes" would use {seen.processors}'
    )


def _of_flushes(figures: Figures | None) -> str | None:
    if figures is None or figures.queued < ENOUGH_WRITES or not figures.early:
        return None
    reason, most = figures.early.most_common(1)[0]
    if (
        figures.sent < BROKEN * figures.queued
        or figures.early.total() < figures.flushes / 2
        or most < ONE_LINE * figures.early.total()
    ):
        return None
    return (
        f"early flushes at {reason} broke most batches: {figures.queued:,} writes took "
        f"{figures.sent:,} statements"
    )


_OPTION = re.compile(r'\b(executor|workers)=(?:"(\w+)"|(\d+))(?:,(?= workers=))?')


def as_arguments(hint: str) -> str:
    """Return the hint with `run`'s options as those of the command."""
    return _OPTION.sub(lambda found: f"--{found[1]} {found[2] or found[3]}", hint)


def _has_global_lock() -> bool:
    """Tell whether this Python's threads compute by turns."""
    # sys._is_gil_enabled: documented, from 3.13 on; before, there was always the lock.
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())
