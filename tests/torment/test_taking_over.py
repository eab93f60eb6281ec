"""Runs that are taken over while their coordinators live, or seem to be dead."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
from collections.abc import Callable

import pytest
from django.db import connection

from tests.acceptance.conftest import Script
from tests.torment.oracle import exactly_once
from tests.torment.program import (
    PREAMBLE,
    all_succeeded,
    enough,
    given,
    told,
    wait_for_progress,
)
from tests.torment.proxy import proxy, through
from tests.waiting import HANG

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("no_connections_left")]

ITEMS = 5_000
"""At least. However long a coordinator takes to start, there is a run that it can take over."""

TIMES = 4
LONGEST_WORK = 0.5

TEXT = f"""
def slowly(number):
    create(number, 0.003)

if __name__ == "__main__":
    run(slowly, numbers({ITEMS}), take_over=True)
"""


def begin(
    start: Callable[..., Script], text: str = TEXT, environment: dict[str, str] | None = None
) -> Script:
    """Start a coordinator, and wait for its first COMMIT."""
    script = start(text, preamble=PREAMBLE, environment=environment)
    wait_for_progress(script)
    return script


def was_taken_over(script: Script) -> None:
    """Fail unless a coordinator has ended since it was taken over, and has said so."""
    found = told(script.wait())
    assert found["raised"] == "TakenOver", found
    assert found["unknown"] == 0, found
    assert found["failed"] == found["not_run"], found


def test_coordinators_taken_over_alive(start: Callable[..., Script]) -> None:
    """Of coordinators that take a run from one another only the last goes on; no item is lost."""
    script = begin(start)
    for _ in range(TIMES):
        following = begin(start)
        was_taken_over(script)
        script = following

    enough(script)
    script.wait(seconds=2 * HANG)

    count = given(script)
    assert all_succeeded(script, count)["already"] > 0
    exactly_once(count)


@pytest.mark.only_on("postgresql", "mysql")
def test_coordinators_taken_over_at_commit(start: Callable[..., Script], seed: int) -> None:
    """Who takes a run over waits for the COMMITs that are on their way, and does no item of them.

    Each takes a third of a second, so that there are always some.
    """
    chance = random.Random(seed)
    text = TEXT.replace(str(ITEMS), str(ITEMS // 4))
    with proxy(connection, chance, delay=0.33) as between:
        environment = through(between, connection)
        script = begin(start, text, environment)
        for _ in range(TIMES // 2):
            following = begin(start, text, environment)
            was_taken_over(script)
            script = following
            with contextlib.suppress(subprocess.TimeoutExpired):
                script.process.wait(chance.uniform(0, LONGEST_WORK))
        enough(script)
        script.wait(seconds=2 * HANG)

    count = given(script)
    all_succeeded(script, count)
    exactly_once(count)


def freeze(script: Script, number: signal.Signals) -> None:
    """Stop all processes of a script where they are, or let them go on."""
    for pid in script.members():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def test_coordinators_that_were_frozen(start: Callable[..., Script], seed: int) -> None:
    """A coordinator that comes back with its workers from a long sleep can't commit any more.

    It may have been stopped with a transaction open. Then the next waits until that has ended.
    """
    chance = random.Random(seed)
    script = begin(start)
    for _ in range(TIMES):
        with contextlib.suppress(subprocess.TimeoutExpired):
            script.process.wait(chance.uniform(0, LONGEST_WORK))
        freeze(script, signal.SIGSTOP)
        following = start(TEXT, preamble=PREAMBLE)
        with contextlib.suppress(subprocess.TimeoutExpired):
            following.process.wait(1.0)
        freeze(script, signal.SIGCONT)
        wait_for_progress(following)
        was_taken_over(script)
        script = following

    enough(script)
    script.wait(seconds=2 * HANG)

    count = given(script)
    assert all_succeeded(script, count)["already"] > 0
    exactly_once(count)
