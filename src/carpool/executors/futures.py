"""Any ``concurrent.futures.Executor`` of the user's: an existing pool, a cluster's client.

Each chunk is one call of `perform_remote`, with everything that its worker may need: nothing is
known about the worker, not even whether it is this very process. What such an executor can't tell
is where a lost worker was: all the chunks in flight are then *unknown*, and the run ends.
"""

from __future__ import annotations

import concurrent.futures
import os
import threading
import time
import uuid
from collections.abc import Sequence
from queue import Empty, SimpleQueue

from carpool import databases
from carpool.environment import Environment
from carpool.errors import describe
from carpool.exceptions import RunFailed
from carpool.executors.base import GRACE, Ended, Event, Executor, Lost, Phase
from carpool.executors.child import ShippedJob
from carpool.functions import dumps, loads
from carpool.interrupts import Interrupts
from carpool.items import sent_items
from carpool.journal.recording import Note
from carpool.types import Chunk, ChunkResult, Ending, Fault
from carpool.worker import Worker, packed


class FuturesExecutor(Executor):
    """Submits chunks to an executor that belongs to the caller, who also shuts it down."""

    def __init__(
        self,
        pool: concurrent.futures.Executor,
        environment: Environment,
        shipped: ShippedJob,
        workers: int,
        interrupts: Interrupts,
    ) -> None:
        self.workers = workers
        self.label = type(pool).__qualname__
        self._pool = pool
        # Both pickled once, and named: a worker opens them once, however many chunks it gets.
        self._run = uuid.uuid4().hex
        self._home = (os.getpid(), threading.get_ident())
        self._environment = dumps(environment)
        self._shipped = dumps(shipped)
        self._chunks: dict[concurrent.futures.Future[bytes], Chunk] = {}
        self._done: SimpleQueue[concurrent.futures.Future[bytes] | None] = SimpleQueue()
        self._interrupts = interrupts

    def start(self) -> None:
        self._interrupts.wake = self._wake

    def _wake(self) -> None:
        self._done.put(None)

    def submit(self, chunk: Chunk) -> None:
        try:
            future = self._pool.submit(
                perform_remote,
                self._run,
                self._home,
                self._environment,
                self._shipped,
                chunk.number,
                chunk.payloads,
                chunk.note,
            )
        except Exception as error:
            # BrokenExecutor, or "cannot schedule new futures after shutdown": never begun.
            raise RunFailed(f"{self.label} takes no more work: {error}") from error
        self._chunks[future] = chunk
        self.in_flight += 1
        future.add_done_callback(self._done.put)

    def wait(self) -> list[Event]:
        return self._take(self._done.get()) + self.poll()

    def poll(self) -> list[Event]:
        events: list[Event] = []
        while True:
            try:
                events += self._take(self._done.get_nowait())
            except Empty:
                return events

    def _take(self, future: concurrent.futures.Future[bytes] | None) -> list[Event]:
        chunk = self._chunks.pop(future, None) if future is not None else None
        if future is None or chunk is None:
            return []
        self.in_flight -= 1
        if future.cancelled():
            return [Ended(chunk, ChunkResult(chunk.number, Ending.STOPPED))]
        error = future.exception()
        if error is None:
            try:
                return [Ended(chunk, loads(future.result()))]
            except Exception as unreadable:  # not what `perform_remote` returned
                error = unreadable
        said = describe(error, "unknown")
        fault = Fault(
            "carpool.exceptions.OutcomeUnknown",
            f"{self.label} lost the chunk: {said.error}: {said.message}",
            said.traceback,
            stage="unknown",
        )
        return [Lost(chunk, Phase.NOT_TOLD, fault)]

    def stop(self) -> list[Event]:
        events: list[Event] = []
        for future in list(self._chunks):
            future.cancel()
        deadline = time.monotonic() + GRACE
        while self._chunks and (left := deadline - time.monotonic()) > 0:
            try:
                events += self._take(self._done.get(timeout=left))
            except Empty:
                break
        for chunk in self._chunks.values():
            fault = Fault(
                "carpool.exceptions.OutcomeUnknown",
                f"{self.label} had not finished its chunk when the run was stopped",
                stage="unknown",
            )
            events.append(Lost(chunk, Phase.NOT_TOLD, fault))
        self._chunks.clear()
        self.in_flight = 0
        return events

    def close(self) -> None:
        pass  # the pool is the caller's


_workers = threading.local()
"""The worker of this thread and the run that it is for: the last only."""


def perform_remote(
    run: str,
    home: tuple[int, int],
    environment: bytes,
    shipped: bytes,
    number: int,
    payloads: Sequence[bytes | None],
    note: Note | None,
) -> bytes:
    """Run a chunk wherever this is called; return the pickled `ChunkResult`."""
    at_home = os.getpid() == home[0]
    in_the_parents_thread = at_home and threading.get_ident() == home[1]
    try:
        try:
            if getattr(_workers, "run", None) != run:
                surroundings: Environment = loads(environment)
                if at_home:
                    surroundings.locale.activate()
                else:
                    surroundings.enter()
                job = loads(shipped).open()
                worker = Worker(job, pool=not in_the_parents_thread, pack=packed)
                worker.setup()
                _workers.run, _workers.worker = run, worker
            worker = _workers.worker
        except BaseException as error:
            result = ChunkResult(number, Ending.UNAVAILABLE, fault=describe(error, "run"))
            return dumps(result)
        items = sent_items(worker.job.queryset, payloads, lock=worker.job.lock)
        return dumps(worker.perform(number, len(payloads), items, note))
    finally:
        if not in_the_parents_thread:
            # Nobody tells this thread when the run is over.
            databases.close_mine()
