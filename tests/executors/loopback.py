"""An engine whose workers are threads of this process, and whose deliveries a test makes up.

Like a broker's, they may come twice: at once, long afterwards, or after the chunk was given up; and
answers may be lost. What the engine is given is what it would send to another host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from carpool.engine import Engine
from carpool.executors.remote import Parcel, RemoteExecutor, perform_chunk
from carpool.interrupts import Interrupts
from carpool.journal.recording import Note
from carpool.types import Chunk

Deliver = Callable[[], bytes]
Answer = Callable[[bytes | BaseException | None], None]
Courier = Callable[[int, Deliver, Answer], None]
"""Given a chunk's number, what runs it, as often as it is called, and what tells its coordinator.
Called in a worker's thread."""


def once(number: int, deliver: Deliver, answer: Answer) -> None:
    """Deliver as an engine does that never loses anything."""
    answer(deliver())


class Loopback(Engine):
    """Delivers each chunk as the courier does.

    Attributes:
        late: deliveries that a courier has left for later.
    """

    def __init__(self, courier: Courier = once, workers: int = 2) -> None:
        self.courier = courier
        self.workers = workers
        self.late: list[Deliver] = []

    def check(self, *, journal: bool) -> None:
        pass

    def executor(
        self, parcel: Parcel, workers: int | None, interrupts: Interrupts
    ) -> LoopbackExecutor:
        return LoopbackExecutor(self, parcel, workers or self.workers, interrupts)


class LoopbackExecutor(RemoteExecutor):
    label = "loopback"
    redelivers = True

    def __init__(
        self, engine: Loopback, parcel: Parcel, workers: int, interrupts: Interrupts
    ) -> None:
        super().__init__(workers, interrupts)
        self._engine = engine
        self._parcel = parcel
        self._pool: ThreadPoolExecutor | None = None

    def start(self) -> None:
        super().start()
        self._pool = ThreadPoolExecutor(self.workers)

    def _send(self, key: int, chunk: Chunk) -> None:
        assert self._pool is not None
        deliver = partial(
            perform, self._parcel, chunk.number, list(chunk.payloads), chunk.note, repeated=[]
        )
        future = self._pool.submit(
            self._engine.courier, chunk.number, deliver, partial(self.came_back, key)
        )
        future.add_done_callback(lambda done: self._failed(key, done.cancelled()))

    def _failed(self, key: int, cancelled: bool) -> None:
        if cancelled:
            self.came_back(key, None)

    def _cancel(self, keys: Sequence[int]) -> None:
        assert self._pool is not None
        self._pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()


def perform(
    parcel: Parcel,
    number: int,
    payloads: Sequence[bytes | None],
    note: Note | None,
    *,
    repeated: list[bool],
) -> bytes:
    """Run a chunk as a worker would; the second time, say that it is."""
    redelivered = bool(repeated)
    repeated.append(True)
    return perform_chunk(
        parcel.run, lambda: parcel, number, payloads, note, redelivered=redelivered
    )
