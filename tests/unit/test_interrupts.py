"""Ctrl-C during a run: noted in bookkeeping, raised in the user's code."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from carpool.interrupts import Interrupts


@pytest.fixture(autouse=True)
def python_default() -> Iterator[None]:
    """Begin with Python's own handler, and leave what was there before."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def test_the_first_is_only_noted() -> None:
    """In bookkeeping nothing is raised; whoever waits is woken."""
    woken = []
    with Interrupts() as interrupts:
        interrupts.wake = lambda: woken.append(1)
        ctrl_c()
        assert interrupts.pending
    assert woken == [1]


def test_the_second_is_raised_anywhere() -> None:
    """Who presses twice means it."""
    with Interrupts() as interrupts:
        ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            ctrl_c()
        assert interrupts.pending


def test_in_user_code_the_first_is_raised() -> None:
    """The source, or the function, is interrupted as it would be in a loop."""
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt), interrupts.in_user_code():
            ctrl_c()
        assert interrupts.pending
        assert not interrupts.raising


def test_after_user_code_it_is_only_noted_again() -> None:
    """The block's end is the end of raising."""
    with Interrupts() as interrupts:
        with interrupts.in_user_code():
            assert interrupts.raising
        ctrl_c()
        assert interrupts.pending


def test_pythons_handler_is_back_afterwards() -> None:
    """After a run Ctrl-C is what it was, also when the run raised."""
    with Interrupts():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(ZeroDivisionError), Interrupts():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_users_is_left_alone() -> None:
    """A program with its own handling of Ctrl-C keeps it during a run, and after."""
    seen = []

    def mine(number: int, frame: object) -> None:
        seen.append(number)

    signal.signal(signal.SIGINT, mine)
    with Interrupts() as interrupts:
        ctrl_c()
        assert not interrupts.pending
    assert signal.getsignal(signal.SIGINT) is mine
    assert seen == [signal.SIGINT]


def test_a_handler_that_the_users_code_sets_meanwhile_stays() -> None:
    """A function, run inline, that sets a handler of its own finds it in place after the run."""
    with Interrupts():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_run_within_a_run_leaves_the_handling_to_the_outer_one() -> None:
    """An inner run neither takes the handler nor gives it back."""
    with Interrupts() as outer:
        with Interrupts() as inner:
            ctrl_c()
        assert outer.pending
        assert not inner.pending
        with pytest.raises(KeyboardInterrupt):
            ctrl_c()


def test_another_thread_does_not_touch_signals() -> None:
    """Only the main thread may set a handler; a run elsewhere goes without."""
    errors: list[object] = []

    def run() -> None:
        try:
            with Interrupts():
                errors.append(signal.getsignal(signal.SIGINT) is not signal.default_int_handler)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert errors == [False]
