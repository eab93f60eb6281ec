"""What runs inside a worker process: begin, then chunk after chunk until told to end.

::

    parent                                        this process
      (Environment, shipped job) ───────────────▶ django.setup(), databases, function, setup()
      ◀────────────────────────────── Ready or CannotBegin
      (number, payloads, note) ─────────────────▶ Worker.perform
      ◀─────────────────────────────── Prepared   just before COMMIT, if it is small
      ◀──────────────────────────────── Finished  (without a result where Prepared still holds)
      None ─────────────────────────────────────▶ connections closed, exit
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from contextlib import nullcontext
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

from carpool import databases
from carpool.coalescing import kept
from carpool.environment import Environment
from carpool.errors import describe
from carpool.executors.orphans import end_with_parent
from carpool.executors.slot import Slot, SlotObserver, State, view
from carpool.functions import loads
from carpool.items import sent_items
from carpool.types import ChunkResult, Fault, Job
from carpool.worker import Worker, packed

SMALL = 32 * 1024
"""Bytes that a pipe takes even if nobody reads: the parent may be busy with its source, and a
worker must not wait for it with a transaction open. A larger result is sent after COMMIT only; if
the worker dies in between, the chunk counts as unknown."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker can take chunks."""


@dataclass(frozen=True, slots=True)
class CannotBegin:
    """The worker ends, since it can't set up."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class Prepared:
    """What will be true of the chunk if the COMMIT that follows succeeds.

    None: what was said before no longer holds; the result will come after COMMIT.
    """

    result: ChunkResult | None


@dataclass(frozen=True, slots=True)
class Finished:
    """The chunk has ended; None: as in the Prepared before it."""

    result: ChunkResult | None


Message = Ready | CannotBegin | Prepared | Finished


@dataclass(frozen=True, slots=True)
class ShippedJob:
    """A `Job` in travelling form: callables pickled on their own, opened after django.setup()."""

    function: bytes
    setup: bytes
    queryset: bytes
    rest: Job
    convert: bytes | None = None
    before_chunk: bytes | None = None

    def open(self) -> Job:
        return replace(
            self.rest,
            function=loads(self.function),
            setup=loads(self.setup),
            queryset=loads(self.queryset),
            convert=None if self.convert is None else loads(self.convert),
            before_chunk=None if self.before_chunk is None else loads(self.before_chunk),
        )


def main(
    connection: Connection,
    numbers: Any,
    output: Connection | None,
    inherited: tuple[Connection, ...],
) -> None:
    """Be a worker process; the target of ``multiprocessing.Process``.

    ``inherited``: under fork, the parent's ends of the pipes. Closed here: as long as anyone holds
    one, a worker can't see by it that the parent is gone.
    """
    # Ctrl-C reaches the whole process group. It is the parent's to say what follows from it, and
    # to end this group, with all that an item has started, if it must.
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    for pipe in inherited:
        pipe.close()
    if output is not None:
        _redirect(output)
    end_with_parent(connection)
    try:
        _serve(connection, Slot(view(numbers)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone; nobody is left to tell
    finally:
        databases.close_mine()


def _redirect(output: Connection) -> None:
    """Send stdout and stderr, down to the file descriptors, to the parent."""
    for descriptor in (1, 2):
        os.dup2(output.fileno(), descriptor)
    output.close()
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = open(descriptor, "w", buffering=1, errors="backslashreplace", closefd=False)
        setattr(sys, name, stream)


def _serve(connection: Connection, slot: Slot) -> None:
    try:
        # Two steps: the job's parts can only be unpickled once Django is set up.
        environment: Environment = loads(connection.recv_bytes())
        environment.enter()
        shipped: ShippedJob = loads(connection.recv_bytes())
        job = shipped.open()
        teller = _Teller(slot, connection)
        worker = Worker(job, pool=True, observer=teller, pack=packed)
        worker.setup()
    except EOFError:
        raise
    except BaseException as error:
        connection.send(CannotBegin(describe(error, "run")))
        return
    connection.send(Ready())
    with kept() if job.coalesce else nullcontext():
        while (message := connection.recv()) is not None:
            number, payloads, note = message
            items = sent_items(job.queryset, payloads, lock=job.lock)
            result = worker.perform(number, len(payloads), items, note)
            connection.send(Finished(None if teller.holds(result) else result))
            slot.enter(State.IDLE)


class _Teller(SlotObserver):
    """Keeps the slot, and tells the parent what COMMIT would make true."""

    def __init__(self, slot: Slot, connection: Connection) -> None:
        super().__init__(slot)
        self._connection = connection
        self._told: ChunkResult | None = None

    def holds(self, result: ChunkResult) -> bool:
        """Tell whether what was said before COMMIT is still true after it."""
        told = self._told
        return told is not None and (told.ending, told.faults) == (result.ending, result.faults)

    def prepared(self, result: ChunkResult) -> None:
        message = pickle.dumps(Prepared(result), pickle.HIGHEST_PROTOCOL)
        if len(message) <= SMALL:
            self._told = result
            self._connection.send_bytes(message)
        else:
            self._told = None
            self._connection.send(Prepared(None))
