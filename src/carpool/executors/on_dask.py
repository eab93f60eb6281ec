"""Chunks as tasks of a Dask cluster, by the client that its user has connected.

The life of a run::

    start()   the workers are asked who they are, and given the run's parcel, as a worker plugin:
              workers that join later get it before their first task
    _send()   client.submit(task, …) ─▶ scheduler ─▶ a worker's thread: perform()
    came_back ◀── client.gather() ◀──── scheduler ◀── its answer; the task is released at once
    close()   the plugin is taken away, and what else the scheduler was told

Dask runs a task again whose worker is gone, also one that had ended and whose result was not
fetched yet. With a journal that is harmless. Without one, each delivery first claims its chunk: it
publishes a dataset of the chunk's name, which the scheduler lets succeed once. The coordinator
claims, too, what it takes back: that chunk was never begun, and never will be.

Functions go to the scheduler by value, since it unpickles them, and needn't have carpool.
"""

from __future__ import annotations

import asyncio
import pickle
import time
import uuid
import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from distributed import Client, WorkerPlugin, get_client, get_worker

from carpool.engine import Engine
from carpool.exceptions import ConfigurationError, RunFailed
from carpool.executors.large import LargeItems
from carpool.executors.remote import (
    Parcel,
    Passport,
    RemoteExecutor,
    check_workers,
    passport_for,
    perform_chunk,
)
from carpool.functions import dumps, loads
from carpool.interrupts import Interrupts
from carpool.journal.recording import Note
from carpool.types import Chunk

WAIT = 30.0
"""Seconds to wait for a worker where there is none: what a cloud needs to start one may be longer,
but whoever waits for nothing should know soon."""

ANSWER = 60.0
"""Seconds that a worker has to say who it is. It sets Django up for that, once a process."""

LOOK = 2.0
"""Seconds between two looks at how many workers there are: one small message to the scheduler."""

TAKE_BACK = 1.0
"""Seconds to take back what has not been begun: as long as what has been begun may take to end."""

FAREWELL = 10.0
"""Seconds to tidy up at the scheduler. It may be gone."""

KEPT_CLAIMS = 1000
"""Claims of chunks that have come back, kept for deliveries of theirs that are still on their way.
About half a kilobyte each, in the scheduler's memory."""


class Dask(Engine):
    """What `carpool.executors.dask` returns."""

    def __init__(
        self, client: Client, *, resources: Mapping[str, float] | None, wait: float
    ) -> None:
        self._client = client
        self._resources = dict(resources or {})
        self._wait = wait

    def check(self, *, journal: bool) -> None:
        if self._client.asynchronous:
            raise ConfigurationError(
                "The Dask client is asynchronous here: run() would wait for the very event loop "
                "that it is called in. Use Client(…) without asynchronous=True, and call run() "
                "from another thread than the loop's (asyncio.to_thread, say)."
            )
        if self._client.status != "running":
            raise ConfigurationError(
                f"The Dask client is {self._client.status}, not connected to a scheduler. Make a "
                "new one: distributed.Client(address)."
            )

    def executor(self, parcel: Parcel, workers: int | None, interrupts: Interrupts) -> DaskExecutor:
        return DaskExecutor(
            self._client, parcel, workers, interrupts, self._resources, wait=self._wait
        )


class DaskExecutor(RemoteExecutor):
    """Sends each chunk as a task. What awaits an answer runs in the client's event loop."""

    label = "dask"
    redelivers = True

    def __init__(
        self,
        client: Client,
        parcel: Parcel,
        workers: int | None,
        interrupts: Interrupts,
        resources: dict[str, float],
        *,
        wait: float = WAIT,
    ) -> None:
        super().__init__(workers or 0, interrupts)
        self._client = client
        self._parcel = parcel
        self._fixed = workers is not None
        self._resources = resources
        self._wait = wait
        self._large = LargeItems()
        self._address = ""
        # Names at the scheduler. Not the parcel's: that one is known to workers only.
        self._name = f"carpool-{uuid.uuid4().hex}"
        self._futures: dict[int, Any] = {}
        self._claimed: dict[int, str] = {}  # names, of chunks in flight that have one
        self._ended_claims: deque[str] = deque()
        self._watching: Any = None
        self._registered = False
        self._stopping = False
        self._broken: str | None = None  # why no more may be sent

    # The start.

    def start(self) -> None:
        super().start()
        try:
            addresses = self._introduced()
            self._register()
        except OSError as error:
            raise RunFailed(f"The Dask cluster can't be reached: {error}") from error
        if not self._fixed:
            self.workers = sum(addresses.values())
        self._watching = self._in_loop(self._watch())

    def _introduced(self) -> dict[str, int]:
        """Wait for workers, and check them; return how many chunks each runs at a time.

        Raises:
            RunFailed: there is none, or one doesn't answer.
            ConfigurationError: one of them can't take part.
        """
        deadline = time.monotonic() + self._wait
        while True:
            found = self._workers_by(deadline)
            gone: OSError | None = None
            answers = self._in_loop(self._ask(found)).result()
            passports: dict[str, Passport] = {}
            for address, answer in answers.items():
                if isinstance(answer, OSError):
                    del found[address]  # it has gone meanwhile, or can't be reached
                    gone = answer
                elif isinstance(answer, Exception):
                    raise _cannot_answer(address, answer)
                else:
                    passports[address] = answer
            if found:
                break
            if gone is not None and time.monotonic() > deadline:
                raise gone
        if said := list(check_workers(self._parcel.passport, passports)):
            warnings.warn("\n".join(said), RuntimeWarning, stacklevel=2)
        return found

    def _workers_by(self, deadline: float) -> dict[str, int]:
        """Return the workers as soon as there is one."""
        asking = None
        try:
            while not (found := self._workers_now()):
                if self._interrupts.pending:
                    raise KeyboardInterrupt
                if self._client.status == "closed":
                    raise ConnectionError("the client has lost its scheduler")
                if time.monotonic() > deadline:
                    raise RunFailed(self._no_workers())
                if asking is None:
                    # An adaptive cluster starts a worker when something waits for it.
                    asking = self._client.submit(
                        _nothing(), pure=False, resources=self._resources or None
                    )
                time.sleep(0.1)
        finally:
            if asking is not None and self._client.status == "running":
                asking.cancel()
        return found

    def _no_workers(self) -> str:
        wanted = f" with the resources {self._resources}" if self._resources else ""
        return (
            f"The Dask cluster at {self._address} has had no workers{wanted} for {self._wait:g} "
            f"seconds. Start some (dask worker {self._address}), or give it longer: "
            "carpool.executors.dask(client, wait=…)."
        )

    def _workers_now(self) -> dict[str, int]:
        """Return how many chunks each worker can run at a time, by its address."""
        info = self._client.scheduler_info(n_workers=-1)
        # Nothing is in it while the client tries to connect again.
        self._address = info.get("address", self._address)
        found = {}
        for address, worker in info.get("workers", {}).items():
            chunks = worker["nthreads"]
            for resource, amount in self._resources.items():
                chunks = min(chunks, int(worker["resources"].get(resource, 0) // amount))
            if chunks > 0:
                found[address] = chunks
        return found

    async def _ask(self, workers: Mapping[str, int]) -> dict[str, Any]:
        """Ask each worker who it is; its passport, or an error."""

        async def ask(address: str) -> Any:
            asked = self._client.run(
                introduce,
                self._parcel.passport,
                self._parcel.settings_module,
                workers=[address],
                on_error="return",
            )
            try:
                return (await asyncio.wait_for(asked, ANSWER))[address]
            except TimeoutError as error:
                return RunFailed(f"no answer in {ANSWER:g} seconds ({error or 'time is up'})")
            except Exception as error:
                return error

        return dict(zip(workers, await asyncio.gather(*map(ask, workers)), strict=True))

    def _register(self) -> None:
        """Give the parcel to all workers there are, and all that will be."""
        plugin = _luggage(dumps(self._parcel))
        self._registered = True
        for last in (False, False, True):
            try:
                self._client.register_plugin(plugin, name=self._name)
            except OSError:  # from a worker that has gone meanwhile
                if last:
                    raise
            else:
                return

    # Chunks.

    def _send(self, key: int, chunk: Chunk) -> None:
        if self._broken is not None:
            raise RunFailed(self._broken)
        if self._client.status != "running":
            raise ConnectionError(
                f"the client is {self._client.status}: it has lost its scheduler, and with it all "
                "tasks"
            )
        if word := self._large.word_on(chunk):
            warnings.warn(word, RuntimeWarning, stacklevel=2)
        note = chunk.note
        claim = None if note is not None else f"{self._name}-{key}"
        if claim is not None:
            self._claimed[key] = claim
        future = self._client.submit(
            _task(),
            self._parcel.run,
            self._name,
            claim,
            # As one: Dask looks into lists for the keys of other tasks.
            pickle.dumps((chunk.number, chunk.payloads, note), pickle.HIGHEST_PROTOCOL),
            key=(self._name, key),
            pure=False,
            resources=self._resources or None,
        )
        self._futures[key] = future
        self._client.loop.add_callback(self._collect, key, future)

    async def _collect(self, key: int, future: Any) -> None:
        """Wait for a chunk's answer, fetch it and let the scheduler forget the task."""
        answer: Any
        try:
            answer = await self._client.gather(future, asynchronous=True)
        except BaseException as error:  # CancelledError, too: the client is closed
            answer = error
        self._futures.pop(key, None)
        future.release()
        if isinstance(answer, ImportError):
            self._broken = f"a worker lacks what it needs: {answer}"
        if answer is None and not self._stopping:
            self._broken = "a worker doesn't know the run; was the scheduler started anew?"
        self.came_back(key, answer)
        await self._forget(key)

    async def _forget(self, key: int) -> None:
        """Take back a chunk's claim, long after it came back."""
        claim = self._claimed.pop(key, None)
        if claim is None:
            return
        self._ended_claims.append(claim)
        if len(self._ended_claims) >= 2 * KEPT_CLAIMS:
            old = [self._ended_claims.popleft() for _ in range(KEPT_CLAIMS)]
            await _quietly(self._client.unpublish_dataset(old))

    async def _watch(self) -> None:
        """Look how many workers there are. Where there is none for long, give up."""
        seen = time.monotonic()
        while True:
            await asyncio.sleep(LOOK)
            if self._client.status == "closed":
                self._give_up("the client has been closed")
                return
            try:
                workers = sum((await asyncio.to_thread(self._workers_now)).values())
            except Exception:  # the scheduler is gone, and the client will notice
                continue
            if workers:
                seen = time.monotonic()
                if not self._fixed and workers != self.workers:
                    self.workers = workers
                    self._wake()
            elif time.monotonic() - seen > self._wait:
                self._give_up(self._no_workers())
                return

    def _give_up(self, why: str) -> None:
        self._broken = why
        for key in list(self._sent):
            self.came_back(key, RunFailed(why))

    # The end.

    def _cancel(self, keys: Sequence[int]) -> None:
        self._stopping = True
        self._await(self._take_back(keys), TAKE_BACK)

    async def _take_back(self, keys: Sequence[int]) -> None:
        """Have tasks that begin from now on do nothing, and claim those that have a claim."""
        claims = [self._claim(key) for key in keys if key in self._claimed]
        await asyncio.gather(self._unregister(), *claims)

    async def _claim(self, key: int) -> None:
        try:
            await self._client.publish_dataset(True, name=self._claimed[key])
        except Exception:  # KeyError: it has been begun
            return
        self.came_back(key, None)
        if (future := self._futures.get(key)) is not None:
            await _quietly(self._client.cancel([future], asynchronous=True))

    async def _unregister(self) -> None:
        if self._registered:
            self._registered = False
            await _quietly(self._client.unregister_worker_plugin(self._name))

    def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        if self._registered or self._futures or self._claimed or self._ended_claims:
            self._await(self._tidy_up(), FAREWELL)

    async def _tidy_up(self) -> None:
        """In this order: what can still begin finds its claim, until it can't begin any more."""
        await self._unregister()
        futures = list(self._futures.values())
        if futures:
            await _quietly(self._client.cancel(futures, asynchronous=True))
        claims = [*self._ended_claims, *self._claimed.values()]
        self._ended_claims.clear()
        self._claimed.clear()
        if claims:
            await _quietly(self._client.unpublish_dataset(claims))

    def _in_loop(self, awaited: Coroutine[Any, Any, Any]) -> Any:
        """Return a future of what is awaited in the client's event loop."""
        return asyncio.run_coroutine_threadsafe(awaited, self._client.loop.asyncio_loop)

    def _await(self, awaited: Coroutine[Any, Any, Any], seconds: float) -> None:
        """Wait for it, as long as there is a scheduler."""
        if self._client.status != "running":
            awaited.close()
            return
        future = self._in_loop(awaited)
        try:
            future.result(seconds)
        except TimeoutError:
            future.cancel()


async def _quietly(awaited: Awaitable[Any]) -> None:
    """Wait for something whose failure changes nothing: the scheduler is gone, or a worker."""
    try:
        await awaited
    except Exception:
        pass


def _cannot_answer(address: str, error: Exception) -> Exception:
    if "No module named 'carpool" in str(error):
        return ConfigurationError(
            f"carpool isn't installed on the worker {address}. Give workers the coordinator's "
            "code and packages; or name those that have them, by a resource: "
            "carpool.executors.dask(client, resources=…)."
        )
    return RunFailed(f"The worker {address} can't take part: {type(error).__name__}: {error}")


# What is sent.


def _task() -> Callable[..., Any]:
    """Return the function of a task. It is of no module, so that cloudpickle sends it whole."""

    def carpool_chunk(run: str, name: str, claim: str | None, body: bytes) -> bytes | None:
        from carpool.executors.on_dask import perform

        return perform(run, name, claim, body)

    return carpool_chunk


def _nothing() -> Callable[..., Any]:
    return lambda: None


def _luggage(parcel: bytes) -> Any:
    """Return a plugin that holds the parcel, of a class that workers without carpool can load.

    They might be no business of ours, and would fail to join their cluster.
    """

    class Luggage(WorkerPlugin):  # type: ignore[misc]
        def __init__(self) -> None:
            self.parcel = parcel

    return Luggage()


# In the worker.


async def introduce(home: Passport, settings_module: str | None) -> Passport:
    """Tell who this worker is. In a thread: Django refuses to read a database in an event loop."""
    return await asyncio.to_thread(passport_for, home, settings_module)


def perform(run: str, name: str, claim: str | None, body: bytes) -> bytes | None:
    """Run a chunk in a worker's thread; return what `perform_chunk` does, or None: not begun.

    ``name``: of the plugin with the parcel. ``claim``: None where the journal knows what has ended.
    """
    redelivered = claim is not None and not _is_first(claim)
    luggage = get_worker().plugins.get(name)
    if luggage is None:  # the run has been stopped
        if redelivered:
            raise RuntimeError("it was delivered twice, the second time after the run's end")
        if claim is not None:  # it may have come after the run took all claims away
            get_client().unpublish_dataset(claim)
        return None
    content: tuple[int, list[bytes | None], Note | None] = loads(body)
    number, payloads, note = content

    def parcel() -> Parcel:
        unpacked: Parcel = loads(luggage.parcel)
        return unpacked

    return perform_chunk(run, parcel, number, payloads, note, redelivered=redelivered)


def _is_first(claim: str) -> bool:
    """Claim a chunk; tell whether that could be done."""
    try:
        get_client().publish_dataset(True, name=claim)
    except KeyError:
        return False
    return True
