"""A thread that does the journal's writing, on connections of its own.

So that the run is known to live while an item takes minutes; and that whatever the source, or a
function in the caller, does with this thread's connection (a transaction, an open cursor) is no
matter.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from django.db import connections

from carpool import databases

T = TypeVar("T")

LOOK = 1.0
"""Seconds between two looks at what is wanted of the run, which is to be noticed within two."""


class Clerk:
    """One thread that does what it is told, and looks around every second."""

    def __init__(self, look: Callable[[], Any]) -> None:
        self._look = look
        self._looking = False
        self._inbox: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]
        self._inbox = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="carpool journal", daemon=True)
        self._thread.start()

    def do(self, task: Callable[[], T]) -> T:
        """Have it done, and wait for it; raise what it raises."""
        return self.begin(task).result()

    def begin(self, task: Callable[[], T]) -> Future[T]:
        """Have it done, and don't wait."""
        future: Future[T] = Future()
        self._inbox.put((task, future))
        return future

    def start_looking(self) -> None:
        """Call ``look()`` every second from now on, whatever else is to be done."""
        self._looking = True

    def stop(self) -> None:
        """End, when all that was told is done. May be called twice."""
        self._looking = False
        self._inbox.put(None)
        self._thread.join()

    def _work(self) -> None:
        try:
            looked = time.monotonic()
            while True:
                if self._looking and time.monotonic() - looked >= LOOK:
                    self._look()
                    looked = time.monotonic()
                try:
                    message = self._inbox.get(timeout=LOOK / 2)
                except queue.Empty:
                    continue
                if message is None:
                    return
                task, future = message
                try:
                    future.set_result(task())
                except BaseException as error:
                    future.set_exception(error)
                for connection in connections.all(initialized_only=True):
                    connection.queries_log.clear()  # what DEBUG=True records, for nobody
        finally:
            databases.close_mine()
