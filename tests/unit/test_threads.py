"""Threads that end when they should, and are not waited for when they don't."""

from __future__ import annotations

import pickle
import sqlite3
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection

from carpool.exceptions import RunFailed
from carpool.executors import threads
from carpool.executors.base import Ended, Event, Lost, Phase
from carpool.executors.threads import ThreadsExecutor
from carpool.interrupts import Interrupts
from carpool.types import Chunk, Ending, Job
from tests.app.models import Author
from tests.waiting import HANG

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test wait for the second of grace."""
    monkeypatch.setattr(threads, "GRACE", 0.05)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """An event that functions wait for, and that is always set in the end."""
    gate = threading.Event()
    yield gate
    gate.set()
    for thread in threading.enumerate():
        if thread.name.startswith("carpool-"):
            thread.join(HANG)


def executor_of(
    function: Callable[[Any], Any],
    workers: int = 2,
    *,
    setup: Any = None,
    interrupts: Interrupts | None = None,
) -> ThreadsExecutor:
    job = Job(function, setup, None, ("default",), 0, dry_run=False, keep_values=False)
    return ThreadsExecutor(job, workers, interrupts or Interrupts())


def chunk(items: str, number: int = 1) -> Chunk:
    return Chunk(number, range(len(items)), items, [pickle.dumps(item) for item in items], True)


def store(item: Any) -> None:
    Author.objects.create(name=item)


def gather(executor: ThreadsExecutor, number: int) -> list[Event]:
    events: list[Event] = []
    while len(events) < number:
        events += executor.wait()
    return events


def test_chunks_come_back_once_each() -> None:
    """Whatever thread took it, a chunk ends once."""
    executor = executor_of(store)
    executor.start()
    for number, items in enumerate(["ab", "cd", "ef"]):
        executor.submit(chunk(items, number))
    events = gather(executor, 3)
    executor.close()
    assert sorted(event.chunk.number for event in events) == [0, 1, 2]
    assert executor.in_flight == 0
    assert Author.objects.count() == 6


def test_threads_close_their_connections() -> None:
    """Nobody else can."""
    drivers = []

    def function(item: Any) -> None:
        drivers.append(connection.connection)

    executor = executor_of(function, workers=1)
    executor.start()
    executor.submit(chunk("a"))
    gather(executor, 1)
    executor.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        drivers[0].execute("SELECT 1")


def test_a_thread_that_cannot_begin_ends_the_run() -> None:
    """What setup raised is in the message, with the traceback."""

    def setup() -> None:
        raise ValueError("no session")

    executor = executor_of(store, setup=setup)
    executor.start()
    executor.submit(chunk("a"))
    with pytest.raises(RunFailed, match=r"could not begin: builtins.ValueError: no session\nTrac"):
        executor.wait()
    assert [type(event) for event in executor.stop()] == [Ended]
    executor.close()


def test_an_error_of_the_workers_own_does_not_leave_the_parent_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thread that breaks outside of any item gives its chunk back, and says why."""

    def broken(*args: Any, **options: Any) -> Any:
        raise SystemExit(3)

    monkeypatch.setattr(threads, "local_items", broken)
    executor = executor_of(store)
    executor.start()
    executor.submit(chunk("a"))
    (event,) = executor.wait()
    executor.close()
    assert isinstance(event, Ended)
    assert event.result.ending is Ending.UNAVAILABLE
    assert event.result.fault is not None
    assert event.result.fault.error == "builtins.SystemExit"


def test_ctrl_c_wakes_the_waiting_parent() -> None:
    """wait() returns, with nothing, so that the run can end."""
    interrupts = Interrupts()
    executor = executor_of(store, interrupts=interrupts)
    interrupts.pending = True
    interrupts.wake()
    assert executor.wait() == []


def test_stop_lets_chunks_end_and_gives_back_what_was_not_begun(gate: threading.Event) -> None:
    """What runs is finished, what is in the queue is not begun."""
    begun = threading.Semaphore(0)

    def function(item: Any) -> None:
        begun.release()
        gate.wait(HANG)
        store(item)

    executor = executor_of(function, workers=1)
    executor.start()
    executor.submit(chunk("a", 1))
    executor.submit(chunk("b", 2))
    begun.acquire()
    gate.set()
    endings = {e.chunk.number: e.result.ending for e in executor.stop() if isinstance(e, Ended)}
    executor.close()
    assert endings == {1: Ending.COMMITTED, 2: Ending.STOPPED}
    assert list(Author.objects.values_list("name", flat=True)) == ["a"]


@pytest.mark.usefixtures("quick")
def test_a_thread_that_does_not_end_is_left_and_stores_nothing_more(
    gate: threading.Event,
) -> None:
    """Its chunk is unknown to the run; in truth it is rolled back at its next step."""
    begun = threading.Semaphore(0)

    def function(item: Any) -> None:
        store(item)
        begun.release()
        gate.wait(HANG)

    executor = executor_of(function, workers=1)
    executor.start()
    executor.submit(chunk("ab"))
    begun.acquire()
    (event,) = executor.stop()
    assert isinstance(event, Lost)
    assert event.phase is Phase.NOT_TOLD
    assert executor.in_flight == 0
    executor.close()
    (thread,) = executor._threads
    gate.set()
    thread.join(HANG)
    assert not thread.is_alive()
    assert Author.objects.count() == 0


def test_threads_that_do_not_end_are_waited_for_together(
    monkeypatch: pytest.MonkeyPatch, gate: threading.Event
) -> None:
    """Sixty of them take no longer than one: Ctrl-C is answered in a second or two."""
    monkeypatch.setattr(threads, "GRACE", 0.01)
    begun = threading.Semaphore(0)

    def function(item: Any) -> None:
        begun.release()
        gate.wait(HANG)

    executor = executor_of(function, workers=5)
    executor.start()
    for number in range(5):
        executor.submit(chunk("a", number))
    begun.acquire()  # the others wait for SQLite's write lock
    executor.stop()
    waits: list[float] = []
    monkeypatch.setattr(threads, "GRACE", 1.0)
    for thread in executor._threads:

        def join(timeout: float | None = None) -> None:
            assert timeout is not None
            waits.append(timeout)
            clock.now += timeout

        monkeypatch.setattr(thread, "join", join)

    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(threads, "time", clock)
    executor.close()
    monkeypatch.undo()
    assert sum(waits) <= 1.0


def test_close_may_be_called_twice_and_before_the_start() -> None:
    """Whatever the run got to, closing does no harm."""
    executor = executor_of(store)
    executor.close()
    executor = executor_of(store)
    executor.start()
    executor.close()
    executor.close()
    assert executor._threads == []
