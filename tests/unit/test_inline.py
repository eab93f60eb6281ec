"""The parent as its own worker."""

from __future__ import annotations

import pickle
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import transaction

import carpool
from carpool.exceptions import RunFailed
from carpool.executors.base import Ended
from carpool.executors.inline import InlineExecutor
from carpool.interrupts import Interrupts
from carpool.types import Chunk, Ending, Job
from tests.app.models import Author

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def python_default() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def executor_of(
    function: Callable[[Any], Any], interrupts: Interrupts, setup: Any = None
) -> InlineExecutor:
    job = Job(function, setup, None, ("default",), 0, dry_run=False, keep_values=False)
    return InlineExecutor(job, interrupts)


def chunk(items: str, number: int = 1) -> Chunk:
    return Chunk(number, range(len(items)), items, [pickle.dumps(item) for item in items], True)


def store(item: Any) -> None:
    Author.objects.create(name=item)


def stored() -> str:
    return "".join(sorted(Author.objects.values_list("name", flat=True)))


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def test_a_chunk_is_run_when_it_is_waited_for() -> None:
    """One chunk at a time, and none before it is asked for."""
    executor = executor_of(store, Interrupts())
    assert executor.wants() == 1
    executor.submit(chunk("ab"))
    assert (executor.wants(), executor.in_flight, stored()) == (0, 1, "")
    (event,) = executor.wait()
    assert isinstance(event, Ended)
    assert event.result.ending is Ending.COMMITTED
    assert (executor.wants(), executor.in_flight, stored()) == (1, 0, "ab")
    assert executor.wait() == []


def test_what_has_not_been_run_is_given_back() -> None:
    """Stopping runs nothing more."""
    executor = executor_of(store, Interrupts())
    executor.submit(chunk("ab"))
    (event,) = executor.stop()
    assert isinstance(event, Ended)
    assert event.result.ending is Ending.STOPPED
    assert (executor.in_flight, stored()) == (0, "")


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no comment")


@pytest.mark.parametrize("error", [ValueError("no session"), Mute()], ids=["words", "mute"])
def test_a_setup_that_raises_ends_the_run(error: Exception) -> None:
    """RunFailed names the error, if it can be put in words or not, and no item is run."""

    def setup() -> None:
        raise error

    with pytest.raises(RunFailed, match=f"setup raised .*{type(error).__name__}") as caught:
        executor_of(store, Interrupts(), setup).start()
    assert caught.value.__cause__ is error


def test_ctrl_c_in_the_function_rolls_the_chunk_back() -> None:
    """It is raised in the function, as in a loop, and the run is asked to end."""
    got_through = []

    def function(item: Any) -> None:
        store(item)
        if item == "b":
            ctrl_c()
        got_through.append(item)

    with Interrupts() as interrupts:
        executor = executor_of(function, interrupts)
        executor.submit(chunk("abc"))
        (event,) = executor.poll()
        assert isinstance(event, Ended)
        assert event.result.ending is Ending.STOPPED
        assert interrupts.pending
        assert not interrupts.raising
    assert got_through == ["a"]
    assert stored() == ""


def test_after_ctrl_c_no_further_item_is_begun() -> None:
    """A Ctrl-C that came between the items rolls the chunk back at the next one."""
    with Interrupts() as interrupts:
        executor = executor_of(store, interrupts)
        ctrl_c()
        executor.submit(chunk("abc"))
        (event,) = executor.poll()
    assert isinstance(event, Ended)
    assert event.result.ending is Ending.STOPPED
    assert stored() == ""


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_in_a_callback_does_not_undo_the_count(
    presses: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rows are stored: once lets the callbacks end, twice skips them, and both are told."""
    log = []

    def callback(item: Any) -> None:
        if item == "a":
            for _ in range(presses):
                ctrl_c()
        log.append(item)

    def function(item: Any) -> None:
        store(item)
        transaction.on_commit(lambda: callback(item))

    with pytest.raises(carpool.Interrupted) as caught:
        carpool.run(function, iter("abcdef"), executor="inline", chunk_size=3, progress=False)
    report = caught.value.report
    assert report is not None
    assert stored() == "abc"
    assert report.not_run == report.total - 3
    if presses == 1:
        assert log == ["a", "b", "c"]
        assert report.succeeded == 3
    else:
        assert log == []
        assert {f.stage for f in report.failures if f.index < 3} == {"on_commit"}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_users_that_interrupts_a_callback_ends_the_run() -> None:
    """KeyboardInterrupt ends the run, whoever raised it, and the stored rows are counted."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    def function(item: Any) -> None:
        store(item)
        transaction.on_commit(interrupt)

    with pytest.raises(carpool.Interrupted) as caught:
        carpool.run(function, iter("abcdef"), executor="inline", chunk_size=3, progress=False)
    assert caught.value.report is not None
    assert caught.value.report.not_run < caught.value.report.failed
    assert stored() == "abc"


def test_items_are_the_callers_own() -> None:
    """What the function does to an item is done to the caller's object, as in a loop."""
    items = [{"n": 1}, {"n": 2}]
    carpool.run(lambda item: item.update(done=True), items, executor="inline", progress=False)
    assert [item["done"] for item in items] == [True, True]


@pytest.mark.parametrize("value", [b"", b"bytes", b"\x80", None, object()], ids=repr)
def test_a_value_is_the_very_object_that_was_returned(value: Any) -> None:
    """Nothing is pickled where nothing travels, and bytes are not taken for a pickle."""
    (outcome,) = carpool.stream(lambda item: value, [1], executor="inline", progress=False)
    assert outcome.value is value
