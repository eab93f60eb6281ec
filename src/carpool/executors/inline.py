"""The parent itself: no pool, the caller's own connection, the caller's own transaction."""

from __future__ import annotations

from collections import deque

from carpool.errors import describe
from carpool.exceptions import RunFailed
from carpool.executors.base import Ended, Event, Executor
from carpool.interrupts import Interrupts
from carpool.items import local_items
from carpool.observer import Observer, Stop
from carpool.pacing import TARGET
from carpool.types import Chunk, ChunkResult, Ending, Job
from carpool.worker import Worker


class InlineExecutor(Executor):
    """Runs each chunk when it is waited for."""

    label = "inline"
    local = True
    alone = True
    crowds = False
    workers = 1

    def __init__(self, job: Job, interrupts: Interrupts, *, chunk_seconds: float = TARGET) -> None:
        self._job = job
        self._interrupts = interrupts
        self._chunk_seconds = chunk_seconds
        self._worker = Worker(job, pool=False, observer=_InlineObserver(interrupts))
        self._queue: deque[Chunk] = deque()

    @property
    def chunk_seconds(self) -> float:
        return self._chunk_seconds

    def start(self) -> None:
        try:
            with self._interrupts.in_user_code():
                self._worker.setup()
        except Exception as error:
            fault = describe(error)
            raise RunFailed(f"setup raised {fault.error}: {fault.message}") from error

    def wants(self) -> int:
        return 1 - len(self._queue)

    def submit(self, chunk: Chunk) -> None:
        self._queue.append(chunk)
        self.in_flight += 1

    def wait(self) -> list[Event]:
        return self.poll()

    def poll(self) -> list[Event]:
        if not self._queue:
            return []
        chunk = self._queue.popleft()
        self.in_flight -= 1
        try:
            items = local_items(self._job.queryset, chunk, lock=self._job.lock)
            result = self._worker.perform(chunk.number, len(chunk), items, chunk.note)
        except KeyboardInterrupt:
            self._interrupts.pending = True
            result = ChunkResult(chunk.number, Ending.STOPPED)
        finally:
            self._interrupts.raising = False
        return [Ended(chunk, result)]

    def stop(self) -> list[Event]:
        stopped = [Ended(c, ChunkResult(c.number, Ending.STOPPED)) for c in self._queue]
        self._queue.clear()
        self.in_flight = 0
        return list(stopped)

    def close(self) -> None:
        pass


class _InlineObserver(Observer):
    """Lets Ctrl-C raise while an item runs, and not during COMMIT.

    Nor in callbacks: they are the user's code, but the rows are stored, so they are let end.
    """

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts

    def item(self, position: int) -> None:
        if self._interrupts.pending:
            raise Stop
        self._interrupts.raising = True

    def idle(self) -> None:
        self._interrupts.raising = False

    def interrupted(self) -> None:
        self._interrupts.pending = True
