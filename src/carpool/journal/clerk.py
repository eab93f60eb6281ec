"""A thread that does the journal's writing, on connections of its own.

So that beats come while an item takes minutes, and that whatever the source or a function in the
caller does with this thread's connection (a transaction, an open cursor) is no matter.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from carpool import databases

T = TypeVar("T")

BEAT = 1.0
"""Seconds between two beats. A request to cancel is noticed within one, a death within
`book.STALE`."""


class Clerk:
    """One thread that does what it is told, and ``beat()`` every second."""

    def __init__(self, beat: Callable[[], Any]) -> None:
        self._beat = beat
        self._beating = False
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

    def start_beating(self) -> None:
        """Beat from now on."""
        self._beating = True

    def stop(self) -> None:
        """End, when all that was told is done. May be called twice."""
        self._beating = False
        self._inbox.put(None)
        self._thread.join()

    def _work(self) -> None:
        try:
            while True:
                try:
                    message = self._inbox.get(timeout=BEAT)
                except queue.Empty:
                    if self._beating:
                        self._beat()
                    continue
                if message is None:
                    return
                task, future = message
                try:
                    future.set_result(task())
                except BaseException as error:
                    future.set_exception(error)
        finally:
            databases.close_mine()
