"""Begin at once in the parent; a run that turns out long is handed to processes.

The parent works from the first moment::

    inline ──long?──▶ pool prepared ──▶ pool started ──all workers ready──▶ pool
           (the parent works on, all the while)

A run is long when it has lasted `PATIENCE` seconds, or as soon as what the source says is left
would take longer than `WORTH`, at the pace of the last chunk. So a hundred items never pay for a
pool, and a million don't wait for one.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from carpool.executors.base import Ended, Event, Executor
from carpool.executors.inline import InlineExecutor
from carpool.executors.processes import ProcessesExecutor
from carpool.types import Chunk

PATIENCE = 0.1
"""Seconds until processes are started, if nothing is known of what is to come. Shorter than the 0.3
that it takes to start them: the parent works on meanwhile, so that a run which ends before they
are ready has lost nothing but another processor's time."""

WORTH = 0.75
"""Seconds of work to come for which they are started at once: two workers save half of what is
left when they are ready, less what they need to warm up."""

ENOUGH_TO_TELL = 16
"""Items after which their pace tells something: the first ones look up models and make plans."""

LONGEST_PREPARATION = 5.0
"""Seconds after which the pool is started, prepared or not: a fork server that was there before may
know nothing of carpool's preparations."""


class AutoExecutor(Executor):
    """First an `InlineExecutor`, then a `ProcessesExecutor`.

    ``make_pool`` may refuse, which ends the run.
    """

    crowds = False  # not from the start

    def __init__(self, inline: InlineExecutor, make_pool: Callable[[], ProcessesExecutor]) -> None:
        self._inline = inline
        self._make_pool = make_pool
        self._pool: ProcessesExecutor | None = None
        self._pool_started = False
        self._handed_over = False
        self._failure: Exception | None = None  # raised at the next step
        self._began = self._asked = 0.0
        self._total: int | None = None
        self._done = 0
        self._to_come = 0.0  # seconds, at the last chunk's pace

    @property
    def label(self) -> str:  # type: ignore[override]
        if self._pool is None or not self._handed_over:
            return self._inline.label
        return self._pool.label

    @property
    def workers(self) -> int:  # type: ignore[override]
        return self._pool.workers if self._pool is not None and self._handed_over else 1

    @property
    def in_flight(self) -> int:  # type: ignore[override]
        return self._inline.in_flight + (self._pool.in_flight if self._pool else 0)

    @property
    def local(self) -> bool:  # type: ignore[override]
        return self._current().local

    @property
    def chunk_seconds(self) -> float:
        return self._current().chunk_seconds

    def _current(self) -> Executor:
        return self._pool if self._pool is not None and self._handed_over else self._inline

    def start(self) -> None:
        self._began = time.monotonic()
        self._inline.start()

    def expect(self, total: int | None) -> None:
        self._total = total

    def wants(self) -> int:
        return self._current().wants()

    def submit(self, chunk: Chunk) -> None:
        # What was read for the caller and has to be run again may hold what can't be sent.
        (self._inline if chunk.local else self._current()).submit(chunk)

    def wait(self) -> list[Event]:
        return self._tended(self._inline.poll if self._inline.in_flight else self._current().wait)

    def poll(self) -> list[Event]:
        return self._tended(self._inline.poll if self._inline.in_flight else self._current().poll)

    def _tended(self, events_of: Callable[[], list[Event]]) -> list[Event]:
        """Tend the pool, too. What that raises must not cost the events that are there already."""
        if self._failure is not None:
            raise self._failure
        events = events_of()
        if self._pool is None:
            self._look_ahead(events)
        try:
            return events + self._tend()
        except Exception as error:
            if not events:
                raise
            self._failure = error
            return events

    def _look_ahead(self, events: list[Event]) -> None:
        """Foretell how long the rest will take."""
        for event in events:
            self._done += len(event.chunk)
            if self._total is not None and isinstance(event, Ended):
                pace = event.result.seconds / len(event.chunk)
                self._to_come = (self._total - self._done) * pace

    def _is_long(self) -> bool:
        if self._to_come > WORTH and self._done >= ENOUGH_TO_TELL:
            return True
        return time.monotonic() - self._began > PATIENCE

    def _tend(self) -> list[Event]:
        """Prepare the pool when it is time, then start it; hand over when it is ready."""
        if self._handed_over:
            return []
        if self._pool is None:
            if self._is_long():
                self._pool = self._make_pool()
                self._pool.prepare()
                self._asked = time.monotonic()
            return []
        if not self._pool_started:
            waited = time.monotonic() - self._asked
            if self._pool.is_prepared or waited > LONGEST_PREPARATION:
                self._pool.start()
                self._pool_started = True
            return []
        events = self._pool.poll()
        self._handed_over = self._pool.all_ready
        return events

    def stop(self) -> list[Event]:
        return self._inline.stop() + (self._pool.stop() if self._pool else [])

    def close(self) -> None:
        self._inline.close()
        if self._pool is not None:
            self._pool.close()
