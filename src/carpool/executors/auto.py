"""Begin at once in the parent; a run that turns out long is handed to processes.

The parent works from the first moment. If the source isn't done after `PATIENCE` seconds,
processes are started, which takes no work of the parent's, so it goes on until they are ready.
A hundred items never pay for a pool; a million pay a quarter second of one core.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from carpool.executors.base import Event, Executor
from carpool.executors.inline import InlineExecutor
from carpool.executors.processes import ProcessesExecutor
from carpool.types import Chunk

PATIENCE = 0.25
"""Seconds until processes are started: about what it takes to start them."""


class AutoExecutor(Executor):
    """First an `InlineExecutor`, then a `ProcessesExecutor`."""

    def __init__(self, inline: InlineExecutor, make_pool: Callable[[], ProcessesExecutor]) -> None:
        self._inline = inline
        self._make_pool = make_pool
        self._pool: ProcessesExecutor | None = None
        self._handed_over = False
        self._failure: Exception | None = None  # raised at the next step
        self._began = 0.0

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
        try:
            return events + self._tend()
        except Exception as error:
            if not events:
                raise
            self._failure = error
            return events

    def _tend(self) -> list[Event]:
        """Start the pool when it is time; hand over when it is ready."""
        if self._handed_over:
            return []
        if self._pool is None:
            if time.monotonic() - self._began > PATIENCE:
                self._pool = self._make_pool()
                self._pool.start()
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
