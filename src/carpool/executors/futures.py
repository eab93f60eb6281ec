"""Any ``concurrent.futures.Executor`` of the user's: an existing pool, a cluster's client.

Each chunk is one call of `perform_remote`, with everything that its worker may need: nothing is
known about the worker, not even whether it is this very process. What such an executor can't tell
is where a lost worker was: all the chunks in flight are then *unknown*, and the run ends.
"""

from __future__ import annotations

import concurrent.futures
import functools
import os
import threading
import uuid
from collections.abc import Sequence

from carpool import databases
from carpool.environment import Environment
from carpool.errors import describe
from carpool.executors.child import ShippedJob
from carpool.executors.remote import RemoteExecutor
from carpool.functions import dumps, loads
from carpool.interrupts import Interrupts
from carpool.items import sent_items
from carpool.journal.recording import Note
from carpool.types import Chunk, ChunkResult, Ending
from carpool.worker import Worker, packed


class FuturesExecutor(RemoteExecutor):
    """Submits chunks to an executor that belongs to the caller, who also shuts it down."""

    def __init__(
        self,
        pool: concurrent.futures.Executor,
        environment: Environment,
        shipped: ShippedJob,
        workers: int,
        interrupts: Interrupts,
    ) -> None:
        super().__init__(workers, interrupts)
        self.label = type(pool).__qualname__
        self._pool = pool
        # Both pickled once, and named: a worker opens them once, however many chunks it gets.
        self._run = uuid.uuid4().hex
        self._home = (os.getpid(), threading.get_ident())
        self._environment = dumps(environment)
        self._shipped = dumps(shipped)
        self._futures: dict[int, concurrent.futures.Future[bytes]] = {}

    def _send(self, key: int, chunk: Chunk) -> None:
        # It may raise BrokenExecutor, or "cannot schedule new futures after shutdown".
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
        self._futures[key] = future
        future.add_done_callback(functools.partial(self._done, key))

    def _done(self, key: int, future: concurrent.futures.Future[bytes]) -> None:
        self._futures.pop(key, None)
        if future.cancelled():
            self.came_back(key, None)
        else:
            self.came_back(key, future.exception() or future.result())

    def _cancel(self, keys: Sequence[int]) -> None:
        for key in keys:
            future = self._futures.get(key)
            if future is not None:
                future.cancel()


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
