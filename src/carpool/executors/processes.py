"""Worker processes, supervised one by one: a death costs one item, not the pool.

::

    run ──submit──▶ backlog ──▶ the first idle worker ──▶ wait() ──events──▶ run
                                 one chunk at a time,
                                 a pipe and a slot each

The parent has no threads: it waits for the pipes, the deaths and the output of all workers at
once. (Threads would make forking unsafe, and there is nothing here for them to do.) Why not a
ready-made pool: docs/decisions/0001-processes.md.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from carpool.environment import Environment
from carpool.errors import fault_of
from carpool.exceptions import ItemTimeout, OutcomeUnknown, RunFailed, WorkerDied
from carpool.executors import child, preload, slot
from carpool.executors.base import GRACE, Ended, Event, Executor, Lost, Phase
from carpool.functions import dumps
from carpool.interrupts import Interrupts
from carpool.progress import Progress
from carpool.types import Chunk, ChunkResult, Ending, Fault

DEATHS_AT_START = 3
"""Workers that may die, one after another and without a word, before they are ready. More than
one, since the system may be short of memory for a moment; few, since each costs its start."""

ROUND = 1.0
"""Seconds after which the parent looks after its workers, if nothing wakes it: a program that an
item has forked may hold a dead worker's pipes open, which would have told."""

FAREWELL = 5.0
"""Seconds that idle workers have to close their connections and end before they are killed."""


def default_start_method() -> str:
    """Return forkserver where there is one, else spawn.

    Never fork: a connection open in the parent, or a thread, would be in every child, too.
    """
    available = multiprocessing.get_all_start_methods()
    return "forkserver" if "forkserver" in available else "spawn"


class ProcessesExecutor(Executor):
    """A fixed number of processes; one that dies is replaced.

    Args:
        environment: what the workers make themselves like.
        shipped: the job.
        timeout: seconds an item may take, or None.
        progress: where the workers' output goes.
    """

    def __init__(
        self,
        environment: Environment,
        shipped: child.ShippedJob,
        workers: int,
        interrupts: Interrupts,
        progress: Progress,
        *,
        start_method: str | None = None,
        timeout: float | None = None,
    ) -> None:
        self.workers = workers
        method = start_method or default_start_method()
        self.label = f"processes ({method})"
        self._method = method
        self._context = multiprocessing.get_context(method)
        self._timeout = timeout
        self._progress = progress
        self._interrupts = interrupts
        self._greeting = [dumps(environment), dumps(shipped)]
        self._crew: list[_Worker] = []
        self._backlog: deque[Chunk] = deque()
        self._deaths_at_start = 0
        self._closing = False
        self._failure: RunFailed | None = None  # raised once there are no events left
        self._woken = self._waker = -1  # a pipe, from start() to close()

    # The executor's interface.

    def start(self) -> None:
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        os.set_blocking(self._woken, False)
        self._interrupts.wake = self._wake
        atexit.register(self.close)  # before multiprocessing's own, which would wait for workers
        for _ in range(self.workers):
            self._hire()

    def prepare(self) -> None:
        """Have the fork server started, which sets Django up; don't wait for it. Needn't be called.

        Else `start` waits until it is there: some 0.3 seconds, the first time in a program.
        """
        if self._method == "forkserver":
            from multiprocessing import forkserver  # not for Windows

            with _quietly(self._context, self._method):
                # What process.start() does first. Undocumented; checked on Python 3.11 to 3.14.
                forkserver.ensure_running()

    @property
    def is_prepared(self) -> bool:
        """Whether `start` wouldn't have to wait."""
        return self._method != "forkserver" or preload.done_file().exists()

    @property
    def all_ready(self) -> bool:
        """Whether every worker can take a chunk at once."""
        return all(worker.ready for worker in self._crew)

    def submit(self, chunk: Chunk) -> None:
        self._backlog.append(chunk)
        self.in_flight += 1
        self._feed()

    def wait(self) -> list[Event]:
        events: list[Event] = []
        while not events and not self._interrupts.noticed:
            if self._failure is not None:
                raise self._failure
            events = self._step(None)
        return events

    def poll(self) -> list[Event]:
        events = self._step(0)
        if self._failure is not None and not events:
            raise self._failure
        return events

    def stop(self) -> list[Event]:
        events: list[Event] = [_stopped(chunk) for chunk in self._backlog]
        self._backlog.clear()
        self._closing = True  # whoever dies now is not replaced
        with suppress(KeyboardInterrupt):  # a second Ctrl-C: at once, then
            events += self._steps(GRACE)
            for worker in self._busy():
                worker.slot.doomed = True
            events += self._steps(GRACE / 4)
            for worker in self._busy():
                if worker.slot.state in (slot.State.IDLE, slot.State.ITEM):
                    worker.stopped = True
                    worker.kill()
            events += self._steps(GRACE)
        for worker in self._busy():
            worker.kill()
        events += self._steps(GRACE)
        self.in_flight = 0
        return events

    def close(self) -> None:
        self._closing = True
        try:
            self._dismiss()
        finally:  # even when a Ctrl-C cuts the farewell short, nobody is left behind
            atexit.unregister(self.close)
            for worker in self._crew:
                worker.kill()
            for worker in self._crew:
                self._bury(worker)
            self._crew.clear()
            if self._waker != -1:
                self._interrupts.wake = _nothing
                os.close(self._woken)
                os.close(self._waker)
                self._woken = self._waker = -1

    def _dismiss(self) -> None:
        """Send the workers home, and give them a moment to close what they have open."""
        for worker in self._crew:
            if worker.ready:
                worker.dismiss()
            else:  # it has done nothing yet that would have to be ended properly
                worker.kill()
        deadline = time.monotonic() + FAREWELL
        while self._crew and (left := deadline - time.monotonic()) > 0:
            if self._busy():
                break
            self._step(left)

    # Waiting.

    def _wake(self) -> None:
        with suppress(OSError):  # full: it is awake already
            os.write(self._waker, b"!")

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._crew if worker.chunk is not None]

    def _steps(self, seconds: float) -> list[Event]:
        """Gather events for so long, or until nothing is in flight."""
        events: list[Event] = []
        deadline = time.monotonic() + seconds
        while self._busy() and (left := deadline - time.monotonic()) > 0:
            events += self._step(left)
        return events

    def _step(self, seconds: float | None) -> list[Event]:
        """Wait for something to happen, at most so long; deal with it; return chunks that ended."""
        sources: dict[Any, _Worker] = {}
        for worker in self._crew:
            for thing in (worker.connection, worker.output, worker.process.sentinel):
                if thing is not worker.output or not worker.silent:
                    sources[thing] = worker
        events: list[Event] = []
        dead: list[_Worker] = []
        for thing in wait([*sources, self._woken], self._patience(seconds)):
            if thing == self._woken:
                with suppress(BlockingIOError):
                    os.read(self._woken, 4096)
                continue
            worker = sources[thing]
            if thing is worker.output:
                self._progress_write(worker.read_output())
            elif worker not in dead and (
                thing is not worker.connection or not self._listen(worker, events)
            ):
                dead.append(worker)
        dead += [w for w in self._crew if w not in dead and w.process.exitcode is not None]
        for worker in dead:
            self._listen(worker, events)  # its last words
            event = self._bury(worker)
            if event is not None:
                events.append(event)
            self._crew.remove(worker)
        self._end_overdue()
        for worker in dead:
            self._replace(worker)
        self._feed()
        return events

    def _patience(self, seconds: float | None) -> float:
        """Return how long to wait: not past the moment when an item's time is up."""
        seconds = ROUND if seconds is None else min(seconds, ROUND)
        if self._timeout is None:
            return seconds
        ends = [
            w.slot.since + self._timeout for w in self._busy() if w.slot.state is slot.State.ITEM
        ]
        if not ends:
            ends = [time.monotonic() + self._timeout]
        return min(seconds, max(0.01, min(ends) - time.monotonic()))

    def _listen(self, worker: _Worker, events: list[Event]) -> bool:
        """Read what a worker has said; return False when there is no more to come."""
        try:
            while worker.connection.poll():
                message: child.Message = worker.connection.recv()
                match message:
                    case child.Ready():
                        worker.ready = True
                        self._deaths_at_start = 0
                    case child.CannotBegin(fault):
                        worker.refused = fault
                    case child.Prepared(result):
                        worker.prepared = result
                    case child.Finished(result):
                        event = worker.finished(result)
                        self.in_flight -= 1
                        events.append(event)
        except (EOFError, OSError):
            return False
        return True

    def _feed(self) -> None:
        for worker in self._crew:
            if not self._backlog or self._closing:
                return
            if worker.ready and worker.chunk is None:
                chunk = self._backlog.popleft()
                if not worker.give(chunk):
                    self._backlog.appendleft(chunk)  # it has just died; the next step notices

    # Time limits.

    def _end_overdue(self) -> None:
        if self._timeout is None:
            return
        for worker in self._busy():
            state = worker.slot
            if worker.overdue is not None or state.state is not slot.State.ITEM:
                continue
            since, position = state.since, state.position
            if time.monotonic() - since < self._timeout or state.since != since:
                continue  # in time; or the next item has begun while we looked
            state.doomed = True  # see Note [Doom] in slot.py
            if state.state in (slot.State.IDLE, slot.State.ITEM):
                # It may have moved on a moment ago, but it can't commit any more.
                worker.overdue = position
                worker.kill()

    # Hiring and burying.

    def _hire(self) -> None:
        connection, their_connection = self._context.Pipe()
        output, their_output = self._context.Pipe(duplex=False)
        numbers = self._context.RawArray("d", slot.SIZE)
        inherited: tuple[Connection, ...] = ()
        if self._method == "fork":
            ours = [pipe for w in self._crew for pipe in (w.connection, w.output)]
            inherited = (*ours, connection, output)
        process = self._context.Process(  # type: ignore[attr-defined]
            target=child.main,
            args=(their_connection, numbers, their_output, inherited),
            name="carpool worker",
        )
        with _quietly(self._context, self._method):
            process.start()
        their_connection.close()
        their_output.close()
        worker = _Worker(process, connection, output, slot.Slot(numbers))
        self._crew.append(worker)
        with suppress(OSError):  # died already: its sentinel tells
            for part in self._greeting:
                connection.send_bytes(part)

    def _replace(self, worker: _Worker) -> None:
        if self._closing:
            return
        if worker.refused is not None:
            self._failure = RunFailed(
                f"A worker process could not begin: {worker.refused.error}: "
                f"{worker.refused.message}\n{worker.refused.traceback}"
            )
            return
        if not worker.ready:
            self._deaths_at_start += 1
            if self._deaths_at_start >= DEATHS_AT_START:
                self._failure = RunFailed(
                    f"{self._deaths_at_start} worker processes in a row died at their start "
                    f"({_how(worker.process.exitcode)}), before their first item. Look at what "
                    "importing the project or setup= does in a fresh process, and at its memory."
                )
                return
        try:
            self._hire()
        except (OSError, EOFError) as error:  # no process, no pipe; or the fork server is gone
            self._failure = RunFailed(
                f"A worker process has died, and no other can be started: {error}. Look at the "
                "system's limits (ulimit -a)."
            )

    def _bury(self, worker: _Worker) -> Event | None:
        """Take leave of a dead worker; return what is known of its chunk."""
        worker.process.join(FAREWELL)
        if worker.process.exitcode is None:  # said goodbye, but a thread of its own holds it
            worker.kill()
            worker.process.join()
        self._progress_write(worker.read_output(to_the_end=True))
        worker.connection.close()
        worker.output.close()
        chunk = worker.chunk
        if chunk is None:
            return None
        self.in_flight -= 1
        return self._verdict(worker, chunk)

    def _verdict(self, worker: _Worker, chunk: Chunk) -> Event:
        how = _how(worker.process.exitcode)
        state = worker.slot.state
        if worker.stopped:
            return _stopped(chunk)
        if worker.overdue is not None:
            return worker.timed_out(worker.overdue, self._timeout)
        if state is slot.State.COMMITTED and worker.prepared is not None:
            return Lost(
                chunk, Phase.COMMITTED, _died(how, "after COMMIT"), None, False, worker.prepared
            )
        if state in (slot.State.COMMITTING, slot.State.COMMITTED):
            fault = _died(how, "during COMMIT", unknown=True)
            return Lost(chunk, Phase.COMMITTING, fault, None, False, worker.prepared)
        suspect = worker.slot.position if state is slot.State.ITEM else None
        killed = worker.process.exitcode == -signal.SIGKILL
        fault = _died(how, "while it ran this item")
        return Lost(chunk, Phase.RUNNING, fault, suspect, killed=killed)

    def _progress_write(self, text: str) -> None:
        if text:
            with suppress(OSError, ValueError):  # stderr is a closed pipe, say: no reason to end
                self._progress.write(text)


class _Worker:
    """The parent's side of one worker process."""

    def __init__(
        self, process: Any, connection: Connection, output: Connection, state: slot.Slot
    ) -> None:
        self.process = process
        self.connection = connection
        self.output = output
        self.slot = state
        self.ready = False
        self.refused: Fault | None = None
        self.chunk: Chunk | None = None
        self.prepared: ChunkResult | None = None
        self.overdue: int | None = None
        self.stopped = False
        self.silent = False  # its output is at an end
        self._partial = b""

    def give(self, chunk: Chunk) -> bool:
        """Send a chunk; return False if the worker is gone."""
        self.prepared = None
        self.overdue = None
        try:
            self.connection.send((chunk.number, chunk.payloads, chunk.note))
        except OSError:
            return False
        self.chunk = chunk
        return True

    def kill(self) -> None:
        """End the process, and with it the programs that its item has started."""
        if hasattr(os, "killpg") and self.process.pid is not None:
            with suppress(OSError):  # gone, or so young that it has no group of its own yet
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()

    def finished(self, result: ChunkResult | None) -> Event:
        chunk = self.chunk
        assert chunk is not None
        self.chunk = None
        # So that the next chunk is not taken for this one, if the worker dies before it begins.
        self.slot.enter(slot.State.IDLE)
        self.slot.doomed = False
        result = result or self.prepared
        assert result is not None
        if self.overdue is not None and result.ending is Ending.STOPPED:
            self.chunk = chunk
            event = self.timed_out(self.overdue, None)
            self.chunk = None
            return event
        return Ended(chunk, result)

    def timed_out(self, position: int, seconds: float | None) -> Lost:
        assert self.chunk is not None
        limit = "its time limit" if seconds is None else f"timeout={seconds:g} seconds"
        message = f"took longer than {limit}; its worker was ended and its rows rolled back"
        fault = fault_of(ItemTimeout, message, "worker")
        return Lost(self.chunk, Phase.RUNNING, fault, position, guilty=True)

    def dismiss(self) -> None:
        with suppress(OSError):
            self.connection.send(None)

    def read_output(self, *, to_the_end: bool = False) -> str:
        """Return the whole lines that the worker has written; at the end, the rest as well."""
        while self.output.poll():
            try:
                data = os.read(self.output.fileno(), 65536)
            except OSError:
                data = b""
            if not data:
                self.silent = to_the_end = True
                break
            self._partial += data
            if not to_the_end:
                break
        cut = len(self._partial) if to_the_end else self._partial.rfind(b"\n") + 1
        text, self._partial = self._partial[:cut], self._partial[cut:]
        return text.decode("utf-8", "backslashreplace")


def _stopped(chunk: Chunk) -> Ended:
    return Ended(chunk, ChunkResult(chunk.number, Ending.STOPPED))


def _died(how: str, when: str, *, unknown: bool = False) -> Fault:
    message = f"the worker process died {when} ({how})"
    if unknown:
        return fault_of(OutcomeUnknown, message, "unknown")
    return fault_of(WorkerDied, message, "worker")


def _how(code: int | None) -> str:
    """Return an exit code in words."""
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = "; the system may be out of memory" if name == "SIGKILL" else ""
    return f"{name}{hint}"


def _nothing() -> None:
    """Be what Ctrl-C wakes when there is nobody left to wake."""


_main_module = threading.Lock()


@contextmanager
def _quietly(context: Any, method: str) -> Iterator[None]:
    """Start a process that has not seen Ctrl-C's default, nor runs the main script again.

    SIGINT is blocked meanwhile, which a child inherits until it has said that it ignores it;
    pressed in between, it is delivered here afterwards.

    spawn and forkserver import the parent's ``__main__`` in the child: a script without
    ``if __name__ == "__main__"`` would start over. Workers need nothing of it, since functions of
    ``__main__`` travel by value, so an empty module stands in while multiprocessing looks.
    """
    if method != "fork":
        # Else the first process.start() does it, which (up to Python 3.12) unblocks SIGINT again.
        resource_tracker.ensure_running()
    blocking = hasattr(signal, "pthread_sigmask")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if blocking else set()
    try:
        if method == "fork":
            yield
            return
        with _main_module:
            main = sys.modules["__main__"]
            sys.modules["__main__"] = types.ModuleType("__main__")
            if method == "forkserver":
                context.set_forkserver_preload(["carpool.executors.preloaded"])
                os.environ.update(preload.variables())
            try:
                yield
            finally:
                for name in preload.variables():
                    os.environ.pop(name, None)
                sys.modules["__main__"] = main
    finally:
        if blocking:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
