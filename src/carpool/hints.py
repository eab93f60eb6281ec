"""What would make a run faster, by its own figures: one sentence, or none.

A hint is given only where the figures speak clearly; the constants say what clearly is. They are
looked at in this order, and the first that applies is the hint:

- the items' time was mostly waiting, and there are few workers: threads, or more of them;
- threads took turns at one processor: processes;
- early flushes broke most batches: the line that caused most of them.

`manage.py carpool bench` measures what a hint supposes.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

from carpool.coalescing.figures import Figures
from carpool.types import Spent

ENOUGH_SECONDS = 2.0
"""Seconds that the chunks must have taken. Of a shorter run nobody wants to save anything."""

ENOUGH_ITEMS = 20
"""Items likewise: two slow ones may be chance."""

WAITING = 0.75
"""Share of the items' time from which waiting is worth a hint: four workers do what one does."""

BUSY = 0.5
"""Share of the processors in use from which a worker's waiting may be for its turn at one: then
more workers would only wait more."""

ONE_PROCESSOR = 0.8
"""Processors in use by all threads together from which they are held to have taken turns at one.
The rest of it goes to the lock that they pass around."""

MANY_THREADS = 32
"""Threads that a hint names, each with a connection: PostgreSQL takes a hundred by default."""

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
    """

    items: int
    seconds: float
    spent: Spent
    coalesced: Figures | None
    workers: int
    where: Literal["here", "threads", "processes"]
    processors: int
    may_use_threads: bool


def hint_of(seen: Seen) -> str | None:
    """Return the hint, if there is one."""
    if seen.items < ENOUGH_ITEMS or seen.spent.seconds < ENOUGH_SECONDS:
        return None
    return _of_waiting(seen) or _of_turns(seen) or _of_flushes(seen.coalesced)


def _of_waiting(seen: Seen) -> str | None:
    share = seen.spent.waiting / seen.spent.seconds
    # Threads share one processor, unless this Python can do without the lock.
    usable = 1 if seen.where == "threads" and _has_global_lock() else seen.processors
    in_use = seen.spent.cpu / seen.seconds if seen.seconds > 0 else 0.0
    if (
        share < WAITING
        or not seen.may_use_threads
        or seen.workers >= MANY_THREADS
        or in_use > BUSY * min(usable, seen.workers)
    ):
        return None
    told = f"{share:.0%} of the items' time was waiting, not in the database"
    return f'{told}: executor="threads", workers={MANY_THREADS} would overlap it'


def _of_turns(seen: Seen) -> str | None:
    in_use = seen.spent.cpu / seen.seconds if seen.seconds > 0 else 0.0
    if (
        seen.where != "threads"
        or seen.processors < 2
        or not _has_global_lock()
        or in_use < ONE_PROCESSOR
    ):
        return None
    return (
        f"{seen.workers} threads took turns at one processor, which was in use for {in_use:.0%} of "
        f'the time: executor="processes" would use {seen.processors}'
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


def _has_global_lock() -> bool:
    """Tell whether this Python's threads compute by turns."""
    # sys._is_gil_enabled: documented, from 3.13 on; before, there was always the lock.
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())
