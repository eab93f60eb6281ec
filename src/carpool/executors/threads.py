"""Threads of this process: for items that wait (on a network, another service), not compute.

Each thread has connections of its own, which it closes itself: nobody else can.
"""

from __future__ import annotations

import threading
import time
from queue import Empty, SimpleQueue

from carpool import databases
from carpool.environment import Locale
from carpool.errors import describe, fault_of
from carpool.exceptions import OutcomeUnknown, RunFailed
from carpool.executors.base import GRACE, Ended, Event, Executor, Lost, Phase
from carpool.interrupts import Interrupts
from carpool.items import local_items
from carpool.observer import Observer, Stop
from carpool.types import Chunk, ChunkResult, Ending, Fault, Job
from carpool.worker import Worker

_Message = Event | Fault | None
"""An event; why a thread could not begin; or None, only to wake the waiter."""


class ThreadsExecutor(Executor):
    """A fixed number of threads that share one queue."""

    label = "threads"
    local = True

    def __init__(self, job: Job, workers: int, interrupts: Interrupts) -> None:
        self.workers = workers
        self._job = job
        self._locale = Locale.capture()
        self._inbox: SimpleQueue[Chunk | None] = SimpleQueue()
        self._outbox: SimpleQueue[_Message] = SimpleQueue()
        self._observer = _ThreadObserver(interrupts)
        self._chunks: dict[int, Chunk] = {}
        self._failure: RunFailed | None = None  # raised once there are no events left
        self._threads = [
            # Daemons, so that a function which never returns can't keep the process alive.
            threading.Thread(target=self._work, name=f"carpool-{number}", daemon=True)
            for number in range(workers)
        ]
        self._interrupts = interrupts
        interrupts.wake = self._wake

    def _wake(self) -> None:
        self._outbox.put(None)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def submit(self, chunk: Chunk) -> None:
        self._chunks[chunk.number] = chunk
        self.in_flight += 1
        self._inbox.put(chunk)

    def wait(self) -> list[Event]:
        events = self.poll()
        if events or self._interrupts.noticed:  # poll() may have taken what was to wake us
            return events
        return self._take(self._outbox.get()) + self.poll()

    def poll(self) -> list[Event]:
        events: list[Event] = []
        while True:
            try:
                events += self._take(self._outbox.get_nowait())
            except Empty:
                break
        if self._failure is not None and not events:
            raise self._failure
        return events

    def _take(self, message: _Message) -> list[Event]:
        if message is None:
            return []
        if isinstance(message, Fault):
            self._failure = RunFailed(
                f"A worker thread could not begin: {message.error}: {message.message}\n"
                f"{message.traceback}"
            )
            return []
        self._chunks.pop(message.chunk.number, None)
        self.in_flight -= 1
        return [message]

    def stop(self) -> list[Event]:
        events: list[Event] = []
        while True:  # what no thread has begun
            try:
                chunk = self._inbox.get_nowait()
            except Empty:
                break
            if chunk is not None:
                self._chunks.pop(chunk.number, None)
                self.in_flight -= 1
                events.append(Ended(chunk, ChunkResult(chunk.number, Ending.STOPPED)))
        for seconds in (GRACE, GRACE / 2):
            deadline = time.monotonic() + seconds
            while self.in_flight and (left := deadline - time.monotonic()) > 0:
                try:
                    events += self._take(self._outbox.get(timeout=left))
                except Empty:
                    break
            self._observer.stopping = True  # from here on nothing more is committed
        # A thread can't be ended. What it does from here on is rolled back, unless it is at
        # COMMIT this very moment.
        events += [_left_behind(chunk) for chunk in self._chunks.values()]
        self._chunks.clear()
        self.in_flight = 0
        return events

    def close(self) -> None:
        self._observer.stopping = self._observer.stopping or self.in_flight > 0
        for _ in self._threads:
            self._inbox.put(None)
        deadline = time.monotonic() + GRACE
        for thread in self._threads:
            if thread.ident is not None:
                left = max(0.0, deadline - time.monotonic())
                thread.join(left if self._observer.stopping else None)
        self._threads = [t for t in self._threads if t.is_alive()]

    # In the threads.

    def _work(self) -> None:
        try:
            self._locale.activate()
            worker = Worker(self._job, pool=True, observer=self._observer)
            try:
                worker.setup()
            except BaseException as error:
                self._outbox.put(describe(error))
                return
            while (chunk := self._inbox.get()) is not None:
                try:
                    items = local_items(self._job.queryset, chunk, lock=self._job.lock)
                    result = worker.perform(chunk.number, len(chunk), items, chunk.note)
                except BaseException as error:  # no item's doing; nobody else would tell
                    fault = describe(error, "run")
                    result = ChunkResult(chunk.number, Ending.UNAVAILABLE, fault=fault)
                self._outbox.put(Ended(chunk, result))
        finally:
            databases.close_mine()


def _left_behind(chunk: Chunk) -> Lost:
    message = "its thread did not end in time after the run was stopped"
    fault = fault_of(OutcomeUnknown, message, "unknown")
    return Lost(chunk, Phase.NOT_TOLD, fault)


class _ThreadObserver(Observer):
    """Ends each thread's chunk at its next item once the run is stopping.

    After Ctrl-C at once: nobody could end a new item, nor a program that it starts.
    """

    stopping = False

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts

    def item(self, position: int) -> None:
        if self.stopping or self._interrupts.pending:
            raise Stop

    def committing(self) -> None:
        if self.stopping:
            raise Stop
