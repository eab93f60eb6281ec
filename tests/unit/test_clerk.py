"""The thread that writes the journal: does what it is told, looks meanwhile, ends when told."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from django.db import connection, connections

from carpool.journal import clerk as module
from carpool.journal.clerk import Clerk
from tests.waiting import HANG


class Looks:
    """Notes that they come, and in which thread."""

    def __init__(self) -> None:
        self.come = threading.Event()
        self.threads: set[str] = set()

    def __call__(self) -> None:
        self.threads.add(threading.current_thread().name)
        self.come.set()

    def wait(self) -> None:
        """Wait for one that comes after this call."""
        self.come.clear()
        assert self.come.wait(HANG)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    monkeypatch.setattr(module, "LOOK", 0.01)
    return Looks()


@pytest.fixture
def clerk(looks: Looks) -> Iterator[Clerk]:
    clerk = Clerk(looks)
    yield clerk
    clerk.stop()
    assert "carpool journal" not in [thread.name for thread in threading.enumerate()]


def test_a_task_is_done_in_the_clerks_thread(clerk: Clerk) -> None:
    """The caller waits for what the task returns, which another thread has done."""
    assert clerk.do(lambda: threading.current_thread().name) == "carpool journal"


def test_tasks_are_done_in_order(clerk: Clerk) -> None:
    """What was begun first is done first, and `do` comes after all that was begun."""
    done: list[int] = []
    for number in range(50):
        clerk.begin(lambda number=number: done.append(number))  # type: ignore[misc]
    assert clerk.do(lambda: list(done)) == list(range(50))


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_a_tasks_error_reaches_the_caller(clerk: Clerk, error: BaseException) -> None:
    """Whatever a task raises is raised where it was asked for, and the clerk goes on."""

    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        clerk.do(fail)
    assert caught.value is error
    assert clerk.do(lambda: 5) == 5


def test_looks_come_only_when_asked_for(clerk: Clerk, looks: Looks) -> None:
    """Before a run is taken there is nothing to say of it; afterwards it is said again and again,
    also after tasks that have failed."""
    assert not looks.come.wait(0.1)
    clerk.start_looking()
    looks.wait()
    with pytest.raises(ZeroDivisionError):
        clerk.do(lambda: 1 // 0)
    looks.wait()
    assert looks.threads == {"carpool journal"}


def test_stop_does_what_was_told_before(looks: Looks) -> None:
    """Stopping waits for the tasks in its inbox, ends the thread, and may be done twice."""
    clerk = Clerk(looks)
    done: list[int] = []
    futures = [clerk.begin(lambda n=n: done.append(n)) for n in range(20)]  # type: ignore[misc]
    clerk.stop()
    clerk.stop()
    assert done == list(range(20))
    assert all(future.done() for future in futures)
    assert "carpool journal" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.django_db(transaction=True)
def test_its_connections_are_its_own_and_closed_in_the_end(looks: Looks) -> None:
    """A task uses another connection than the caller, and stop() closes it."""
    clerk = Clerk(looks)
    connection.ensure_connection()

    def connect():
        mine = connections["default"]
        mine.ensure_connection()
        return mine

    theirs = clerk.do(connect)
    assert theirs is not connections["default"]
    assert theirs.connection is not None
    clerk.stop()
    assert theirs.connection is None
    assert connections["default"].connection is not None
