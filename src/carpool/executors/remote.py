"""Executors whose workers are elsewhere: chunks are sent away, and what comes back is queued.

The life of a chunk::

    submit ─▶ _send() ─────────────▶ perform_chunk(), wherever a worker is
                                        once for a run: the passport is checked, Django set up,
                                        the job opened, setup() called
                                        then: has it ended before? If not, Worker.perform
    wait ◀── queue ◀── came_back() ◀─ its result, an error, or nothing: it was never begun

Workers have the project's code and settings, and nothing else: what a run needs travels as a
`Parcel`, whose passport says what must be the same over there. Databases don't travel: a worker
uses those of its own settings, and refuses the run where they are not the coordinator's.

An engine may deliver a chunk twice, when a worker or a message was lost, or seems to be. With a
journal the second delivery finds that the chunk has ended, and does nothing. How it ended, the
coordinator asks the journal.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import django
from django.apps import apps
from django.conf import settings
from django.db import close_old_connections, connections

from carpool import databases
from carpool.environment import Environment, Locale
from carpool.errors import describe, fault_of
from carpool.exceptions import ConfigurationError, OutcomeUnknown, RunFailed
from carpool.executors.base import GRACE, Ended, Event, Executor, Lost, Phase
from carpool.executors.child import ShippedJob
from carpool.functions import dumps, loads
from carpool.interrupts import Interrupts
from carpool.items import sent_items
from carpool.journal.recording import Note, Standing, standing_of
from carpool.types import Chunk, ChunkResult, Ending, Fault, Job
from carpool.version import carpool_version
from carpool.worker import Worker, packed

Passport = dict[str, Any]
"""What must be the same on both sides; plain values, which any version of carpool can read."""

KEPT_RUNS = 4
"""Runs whose job a worker keeps open. Where more go on at once, their setup() is called again."""


class RemoteExecutor(Executor):
    """What is the same for all of them, on the coordinator's side.

    A subclass gives `_send` and `_cancel`, and has `came_back` called, from any thread.
    """

    def __init__(self, workers: int, interrupts: Interrupts) -> None:
        self.workers = workers
        self._interrupts = interrupts
        self._keys = count(1)
        self._sent: dict[int, Chunk] = {}
        self._back: SimpleQueue[tuple[int, bytes | BaseException | None] | None] = SimpleQueue()

    @abstractmethod
    def _send(self, key: int, chunk: Chunk) -> None:
        """Send a chunk away; `came_back` will be called with the same key, once.

        What it raises ends the run: the engine takes no more work, and the chunk was not sent.
        """

    @abstractmethod
    def _cancel(self, keys: Sequence[int]) -> None:
        """Take back what has not been begun, as far as that can be done at once."""

    def came_back(self, key: int, answer: bytes | BaseException | None) -> None:
        """Take what became of a chunk: `perform_chunk`'s answer; an error, if nobody knows whether
        it was run; None, if it was never begun. From any thread."""
        self._back.put((key, answer))

    def sent(self) -> Iterable[Chunk]:
        """Return the chunks in flight."""
        return self._sent.values()

    def start(self) -> None:
        self._interrupts.wake = self._wake

    def _wake(self) -> None:
        self._back.put(None)

    def submit(self, chunk: Chunk) -> None:
        key = next(self._keys)
        self._sent[key] = chunk
        try:
            self._send(key, chunk)
        except Exception as error:
            del self._sent[key]
            raise RunFailed(f"{self.label} takes no more work: {error}") from error
        self.in_flight += 1

    def wait(self) -> list[Event]:
        return self._take(self._back.get()) + self.poll()

    def poll(self) -> list[Event]:
        events: list[Event] = []
        while True:
            try:
                events += self._take(self._back.get_nowait())
            except Empty:
                return events

    def _take(self, back: tuple[int, bytes | BaseException | None] | None) -> list[Event]:
        if back is None:
            return []
        key, answer = back
        chunk = self._sent.pop(key, None)
        if chunk is None:
            return []
        self.in_flight -= 1
        if answer is None:
            return [Ended(chunk, ChunkResult(chunk.number, Ending.STOPPED))]
        if isinstance(answer, BaseException):
            said = describe(answer, "unknown")
        else:
            try:
                return [Ended(chunk, loads(answer))]
            except Exception as unreadable:  # not what `perform_chunk` returned
                said = describe(unreadable, "unknown")
        fault = unknown(f"{self.label} lost the chunk: {said.error}: {said.message}")
        return [Lost(chunk, Phase.NOT_TOLD, fault)]

    def stop(self) -> list[Event]:
        self._cancel(list(self._sent))
        events: list[Event] = []
        deadline = time.monotonic() + GRACE
        while self._sent and (left := deadline - time.monotonic()) > 0:
            try:
                events += self._take(self._back.get(timeout=left))
            except Empty:
                break
        fault = unknown(f"{self.label} had not finished its chunk when the run was stopped")
        events += [Lost(chunk, Phase.NOT_TOLD, fault) for chunk in self._sent.values()]
        self._sent.clear()
        self.in_flight = 0
        return events

    def close(self) -> None:
        """Leave the engine to its owner."""


def unknown(message: str) -> Fault:
    """Return the fault of a chunk of which nobody knows whether it is stored."""
    return fault_of(OutcomeUnknown, message, "unknown")


# What travels.


class Parcel(NamedTuple):
    """All that a worker needs to know of a run, once.

    ``run``: names it. ``home``: the coordinator's process. ``locale`` and ``job`` are pickled, so
    that the passport can be read before them.
    """

    run: str
    home: tuple[str, int]
    passport: Passport
    settings_module: str | None
    locale: bytes
    job: bytes


def parcel_of(run: str, shipped: ShippedJob, environment: Environment) -> Parcel:
    """Pack what a run needs."""
    return Parcel(
        run,
        (platform.node(), os.getpid()),
        passport(shipped.rest.using),
        environment.settings_module,
        dumps(environment.locale),
        dumps(shipped),
    )


def passport(aliases: Iterable[str]) -> Passport:
    """Return what this process is, as far as it matters to a run that writes these databases."""
    return {
        "python": platform.python_version(),
        "django": django.get_version(),
        "carpool": carpool_version() or "unknown",
        "databases": {alias: _database(alias) for alias in aliases},
    }


def _database(alias: str) -> list[str]:
    if alias not in connections.settings:
        return ["none", ""]
    connection = connections[alias]
    name = str(connection.settings_dict["NAME"])
    if connection.vendor == "sqlite" and not databases.is_in_memory(alias):
        name = str(Path(name).resolve())
    return [connection.vendor, name]


def differences(home: Passport, here: Passport) -> tuple[list[str], list[str]]:
    """Return what forbids that a worker (``here``) works for a coordinator (``home``), and what
    should only be said."""
    forbidden: list[str] = []
    said: list[str] = []
    for what, figures in (("carpool", 3), ("python", 2), ("django", 2)):
        there, mine = str(home[what]), str(here[what])
        if there == mine:
            continue
        words = f"{what} {mine}, and the coordinator's is {there}"
        same = there.split(".")[:figures] == mine.split(".")[:figures]
        (said if same else forbidden).append(words)
    for alias, database in home["databases"].items():
        mine = here["databases"].get(alias, ["none", ""])
        if list(database) != list(mine):
            forbidden.append(
                f"the database {alias!r} is {' '.join(mine)}, and the coordinator's is "
                f"{' '.join(database)}"
            )
    return forbidden, said


# In the worker.


@dataclass(frozen=True, slots=True)
class _Open:
    """A run's job, opened in this thread."""

    worker: Worker
    locale: Locale


_here = threading.local()
_setting_up = threading.Lock()


def perform_chunk(
    run: str,
    parcel: Callable[[], Parcel],
    number: int,
    payloads: Sequence[bytes | None],
    note: Note | None,
    *,
    redelivered: bool = False,
) -> bytes:
    """Run a chunk wherever this is called; return the pickled `ChunkResult`.

    ``parcel`` is called if this thread doesn't know the run yet. ``redelivered``: the engine says
    that this is not the first time; without a journal the chunk is not run then.
    """
    try:
        opened = _opened(run, parcel)
    except BaseException as error:
        return dumps(ChunkResult(number, Ending.UNAVAILABLE, fault=describe(error, "run")))
    job = opened.worker.job
    opened.locale.activate()
    close_old_connections()
    try:
        ended = _refused(job, number, redelivered=redelivered)
        if ended is not None:
            return dumps(ended)
        items = sent_items(job.queryset, payloads, lock=job.lock)
        return dumps(opened.worker.perform(number, len(payloads), items, note))
    finally:
        # CONN_MAX_AGE says how long a connection is kept, as it does between requests.
        close_old_connections()


def _refused(job: Job, number: int, *, redelivered: bool) -> ChunkResult | None:
    """Return the result of a chunk that must not be run, since it may have been; else None."""
    if job.permit is None:
        if not redelivered:
            return None
        fault = unknown("it was delivered a second time; the first may have committed it")
        return ChunkResult(number, Ending.DELIVERED_TWICE, fault=fault)
    try:
        standings = {standing_of(connections[alias], job.permit, number) for alias in job.using}
    except Exception as error:
        return ChunkResult(number, Ending.UNAVAILABLE, fault=describe(error, "run"))
    if Standing.ENDED in standings:
        fault = unknown("it was delivered a second time")
        return ChunkResult(number, Ending.DELIVERED_TWICE, fault=fault)
    return None  # that it was taken over is found when it is recorded


def _opened(run: str, parcel: Callable[[], Parcel]) -> _Open:
    """Return the run's job, opened once a thread."""
    if not hasattr(_here, "runs"):
        _here.runs = OrderedDict()
    known: OrderedDict[str, _Open] = _here.runs
    if run in known:
        known.move_to_end(run)
        return known[run]
    unpacked = parcel()
    if unpacked.home != (platform.node(), os.getpid()):
        set_up_django(unpacked.settings_module)
    _check(unpacked.passport)
    locale: Locale = loads(unpacked.locale)
    locale.activate()
    shipped: ShippedJob = loads(unpacked.job)
    worker = Worker(shipped.open(), pool=True, pack=packed)
    worker.setup()
    known[run] = _Open(worker, locale)
    while len(known) > KEPT_RUNS:
        known.popitem(last=False)
    return known[run]


def set_up_django(module: str | None) -> None:
    """Set Django up in this process, by its own settings if it has any, else by those named."""
    with _setting_up:
        if not settings.configured and not os.environ.get("DJANGO_SETTINGS_MODULE"):
            if module is None:
                raise ConfigurationError(
                    "The worker has no Django settings, and the coordinator's are no module: they "
                    "were given to settings.configure(). Call that in the worker, too, or set "
                    "DJANGO_SETTINGS_MODULE there."
                )
            os.environ["DJANGO_SETTINGS_MODULE"] = module
        if not apps.ready:
            django.setup()


def _check(home: Passport) -> None:
    forbidden, _ = differences(home, passport(home["databases"]))
    if forbidden:
        raise ConfigurationError(
            f"The worker on {platform.node()} (process {os.getpid()}) can't take part: "
            f"{'; '.join(forbidden)}. Give workers the coordinator's code, packages and settings."
        )


def passport_for(home: Passport, module: str | None) -> Passport:
    """Return this process' passport, Django set up: what an engine asks its workers at the start.

    An ``error`` in place of the rest, if Django can't be set up here.
    """
    try:
        set_up_django(module)
    except BaseException as error:
        said = describe(error, "run")
        return {"error": f"{said.error}: {said.message}"}
    return passport(home["databases"])


def check_workers(home: Passport, workers: dict[str, Passport]) -> Iterator[str]:
    """Yield what should be said of the workers, by their names.

    Raises:
        ConfigurationError: one of them can't take part.
    """
    for name, here in workers.items():
        if "error" in here:
            raise ConfigurationError(f"The worker {name} can't set Django up: {here['error']}")
        forbidden, said = differences(home, here)
        if forbidden:
            raise ConfigurationError(
                f"The worker {name} can't take part: {'; '.join(forbidden)}. Give workers the "
                "coordinator's code, packages and settings."
            )
        yield from (f"The worker {name} has {words}." for words in said)
