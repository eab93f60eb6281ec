"""Chunks through an executor of the user's, which tells little: nothing is lost, nothing twice."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import Executor as Pool
from typing import Any

import pytest
from django.db import connections
from django.utils import translation

from carpool.environment import Environment
from carpool.exceptions import RunFailed
from carpool.executors import remote
from carpool.executors.base import Ended, Lost, Phase
from carpool.executors.child import ShippedJob
from carpool.executors.futures import FuturesExecutor, perform_remote
from carpool.functions import dumps, loads
from carpool.interrupts import Interrupts
from carpool.types import Chunk, ChunkResult, Ending, Job
from tests.app.models import Author

pytestmark = pytest.mark.django_db(transaction=True)


class Waiting(Pool):
    """Does nothing: the test settles the futures."""

    def __init__(self) -> None:
        self.futures: list[Future[bytes]] = []
        self.closed = False

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if self.closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[bytes] = Future()
        self.futures.append(future)
        return future


class AtOnce(Pool):
    """Runs everything where it is submitted."""

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        future: Future[bytes] = Future()
        future.set_result(function(*args, **kwargs))
        return future


def store(item: Any) -> str:
    return Author.objects.create(name=item).name


def shipped(function: Callable[[Any], Any], setup: Any = None) -> ShippedJob:
    rest = Job(print, None, None, ("default",), 0, dry_run=False, keep_values=True)
    return ShippedJob(dumps(function), dumps(setup), dumps(None), rest)


def executor_of(
    pool: Pool, function: Callable[[Any], Any] = store, interrupts: Interrupts | None = None
) -> FuturesExecutor:
    executor = FuturesExecutor(
        pool, Environment.capture(), shipped(function), 2, interrupts or Interrupts()
    )
    executor.start()
    return executor


def chunk(items: str = "ab", number: int = 1) -> Chunk:
    return Chunk(number, range(len(items)), items, [pickle.dumps(item) for item in items])


def result(number: int = 1) -> bytes:
    return dumps(ChunkResult(number, Ending.COMMITTED))


def test_a_chunk_is_one_call_and_comes_back() -> None:
    """What the call returns is the chunk's result."""
    pool = Waiting()
    executor = executor_of(pool)
    executor.submit(chunk(number=1))
    executor.submit(chunk(number=2))
    assert (executor.in_flight, executor.poll()) == (2, [])
    pool.futures[1].set_result(result(2))
    (event,) = executor.wait()
    assert isinstance(event, Ended)
    assert (event.chunk.number, event.result.ending) == (2, Ending.COMMITTED)
    assert executor.in_flight == 1


@pytest.mark.parametrize("error", [RuntimeError("broken"), MemoryError()], ids=repr)
def test_a_call_that_breaks_leaves_its_chunk_unknown(error: Exception) -> None:
    """Nobody can say how far it got, so it is not run again."""
    pool = Waiting()
    executor = executor_of(pool)
    executor.submit(chunk())
    pool.futures[0].set_exception(error)
    (event,) = executor.wait()
    assert isinstance(event, Lost)
    assert event.phase is Phase.NOT_TOLD
    assert type(error).__name__ in event.fault.message
    assert executor.in_flight == 0


def test_an_answer_that_cannot_be_read_leaves_its_chunk_unknown() -> None:
    """A result that is none costs no other chunk its own."""
    pool = Waiting()
    executor = executor_of(pool)
    for number in (1, 2):
        executor.submit(chunk(number=number))
    pool.futures[0].set_result(b"nonsense")
    pool.futures[1].set_result(result(2))
    events = executor.wait()
    assert [type(event) for event in events] == [Lost, Ended]


def test_a_call_that_was_cancelled_was_not_run() -> None:
    """It can be run again."""
    pool = Waiting()
    executor = executor_of(pool)
    executor.submit(chunk())
    pool.futures[0].cancel()
    (event,) = executor.wait()
    assert isinstance(event, Ended)
    assert event.result.ending is Ending.STOPPED


def test_a_call_that_ends_as_cancelled_is_not_taken_for_one_that_never_ran() -> None:
    """CancelledError out of a call that was running is an error like any other."""
    pool = Waiting()
    executor = executor_of(pool)
    executor.submit(chunk())
    pool.futures[0].set_running_or_notify_cancel()
    pool.futures[0].set_exception(CancelledError())
    (event,) = executor.wait()
    assert isinstance(event, Lost)


def test_a_pool_that_takes_no_more_ends_the_run() -> None:
    """The chunk was not begun, and is not counted as in flight."""
    pool = Waiting()
    executor = executor_of(pool)
    pool.closed = True
    with pytest.raises(RunFailed, match=r"Waiting takes no more work: cannot schedule"):
        executor.submit(chunk())
    assert executor.in_flight == 0


def test_stop_gives_everything_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What had not begun is undone, what runs is unknown, what has ended counts."""
    monkeypatch.setattr(remote, "GRACE", 0.05)
    pool = Waiting()
    executor = executor_of(pool)
    for number in (1, 2, 3):
        executor.submit(chunk(number=number))
    pool.futures[1].set_running_or_notify_cancel()
    pool.futures[2].set_result(result(3))
    events = {event.chunk.number: event for event in executor.stop()}
    assert {n: type(event) for n, event in events.items()} == {1: Ended, 2: Lost, 3: Ended}
    endings = [e.result.ending for n, e in sorted(events.items()) if isinstance(e, Ended)]
    assert endings == [Ending.STOPPED, Ending.COMMITTED]
    assert executor.in_flight == 0
    pool.futures[1].set_result(result(2))  # too late: it has been reported
    assert executor.poll() == []


def test_ctrl_c_wakes_the_waiting_parent() -> None:
    """wait() returns, with nothing, so that the run can end."""
    interrupts = Interrupts()
    executor = executor_of(Waiting(), interrupts=interrupts)
    executor.submit(chunk())
    interrupts.wake()
    assert executor.wait() == []


def test_the_pool_stays_the_callers() -> None:
    """Who made it shuts it down."""
    with ThreadPoolExecutor(1) as pool:
        executor_of(pool).close()
        assert pool.submit(lambda: 5).result() == 5


def test_in_the_parents_own_thread_its_connections_stay_open() -> None:
    """An executor that runs calls at once runs them on the caller's connection."""
    connections["default"].ensure_connection()
    before = connections["default"].connection
    executor = executor_of(AtOnce())
    executor.submit(chunk())
    (event,) = executor.wait()
    assert isinstance(event, Ended)
    assert event.result.faults == {}
    assert connections["default"].connection is before


def test_a_thread_keeps_no_connection_after_its_chunk() -> None:
    """Nobody tells it when the run is over."""
    seen: list[Any] = []

    def look() -> None:
        seen.append(connections["default"].connection)

    with ThreadPoolExecutor(1) as pool:
        executor = executor_of(pool)
        executor.submit(chunk())
        executor.wait()
        pool.submit(look).result()
    assert seen == [None]


def call(run: str, function: Callable[[Any], Any], setup: Any = None, items: str = "ab") -> Any:
    """Call what a worker calls, as if it were in another thread of this process."""
    home = (os.getpid(), threading.get_ident() + 1)
    payloads = [pickle.dumps(item) for item in items]
    environment = dumps(Environment.capture())
    job = dumps(shipped(function, setup))
    return loads(perform_remote(run, home, environment, job, 7, payloads, None))


def test_a_worker_sets_up_once_for_all_chunks_of_a_run() -> None:
    """And anew for the next run."""
    calls: list[str] = []
    register(calls)
    call("one", store, set_up)
    call("one", store, set_up)
    assert calls == ["set up"]
    call("two", store, set_up)
    assert calls == ["set up"] * 2


_calls: list[list[str]] = [[]]


def register(calls: list[str]) -> None:
    _calls[0] = calls


def set_up() -> None:
    _calls[0].append("set up")


def set_up_badly() -> None:
    set_up()
    raise SystemExit(3)


def test_a_worker_that_cannot_begin_says_why_and_is_tried_again() -> None:
    """The chunk is not run; a later chunk sets up anew, and not half."""
    calls: list[str] = []
    register(calls)
    for _ in range(2):
        answer = call("three", store, set_up_badly)
        assert answer.ending is Ending.UNAVAILABLE
        assert answer.fault.error == "builtins.SystemExit"
    assert calls == ["set up"] * 2
    assert not Author.objects.exists()


def test_language_is_the_parents_and_values_come_packed() -> None:
    """A call elsewhere acts as if it were here."""
    with translation.override("de"):
        answer = call("four", language)
    assert answer.values_are_packed
    assert {loads(value) for value in answer.values.values()} == {"de"}


def language(item: Any) -> str | None:
    return translation.get_language()
