"""The coordinator is killed, and its run taken up, again and again."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from django.db import connection

from tests.acceptance.conftest import Script
from tests.torment.killing import Orphanage
from tests.torment.oracle import exactly_once, rows_exactly_once
from tests.torment.program import (
    PREAMBLE,
    all_succeeded,
    enough,
    given,
    progress,
    wait_for_progress,
)
from tests.waiting import HANG, wait_until

ITEMS = 5_000
"""At least. However late a coordinator is killed, it isn't through."""

KILLS = 20
LONGEST_LIFE = 1.2
"""Seconds, at most, that every other coordinator lives, its start-up included."""

LONGEST_WORK = 0.6
"""Seconds, at most, that the others live from their first COMMIT on."""

TEXT = f"""
def slowly(number):
    create(number, 0.004)

if __name__ == "__main__":
    run(slowly, numbers({ITEMS}), take_over=True)
"""


def wait_until_begun(script: Script, orphans: Orphanage) -> None:
    """Wait for its first COMMIT, or its end."""

    def has_begun() -> bool:
        orphans.look()
        return progress(script) > 0 or script.process.poll() is not None

    wait_until(has_begun, lambda: f"it doesn't begin:\n{script.err}")


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("no_connections_left")
def test_coordinators_killed_at_random(start: Callable[..., Script], seed: int) -> None:
    """A run whose coordinator is killed 20 times, and taken up at once, does each item once.

    The next begins while workers of the last may be at work; none of these lives two seconds more.
    """
    chance = random.Random(seed)
    orphans = Orphanage()
    done = []
    for kill in range(KILLS):
        script = start(TEXT, preamble=PREAMBLE)
        if kill % 2:
            wait_until_begun(script, orphans)
            orphans.sleep(chance.uniform(0, LONGEST_WORK))
        else:
            orphans.sleep(chance.uniform(0, LONGEST_LIFE))
        assert script.process.poll() is None, f"ended too early:\n{script.out}{script.err}"
        script.process.kill()
        orphans.take_in(script)
        script.process.wait()
        done.append(progress(script))

    last = start(TEXT, preamble=PREAMBLE)
    wait_until_begun(last, orphans)
    orphans.close()
    enough(last)
    last.wait(seconds=2 * HANG)
    print("done at each kill:", done)
    count = given(last)
    found = all_succeeded(last, count)
    assert found["already"] > 0
    exactly_once(count)


@pytest.mark.usefixtures("no_connections_left")
def test_workers_that_are_busy_end_too(start: Callable[..., Script]) -> None:
    """A killed coordinator's workers end within two seconds, whatever their items are at.

    One sleeps, one computes, one waits for a program that it has started.
    """
    text = """
import subprocess

def sleep():
    time.sleep(600)

def compute():
    while True:
        pass

def wait():
    subprocess.run(["sleep", "600"])

BUSY = [sleep, compute, wait]
IDLE = (FOLDER.parent / "idle").exists()

def keep_busy(number):
    create(number)
    if not IDLE:
        touch(f"begun{number}")
        BUSY[number % 3]()

if __name__ == "__main__":
    run(keep_busy, range(9), chunk_size=1, workers=3, take_over=True)
"""
    first = start(text, preamble=PREAMBLE)
    one_at_a_time = connection.vendor == "sqlite"  # the others wait for its lock
    for number in range(1 if one_at_a_time else 3):
        first.wait_for(f"begun{number}")
    first.process.kill()
    orphans = Orphanage()
    orphans.take_in(first)
    orphans.close()
    first.process.wait()

    (first.folder.parent / "idle").touch()
    second = start(text, preamble=PREAMBLE)

    all_succeeded(second.wait(), 9)
    exactly_once(9)


def test_the_oracle_sees_what_no_journal_knows(start: Callable[..., Script]) -> None:
    """Without a journal the same murder leaves rows that are stored twice: the oracle says so."""
    text = TEXT.replace("take_over=True", "journal=None, workers=2").replace(str(ITEMS), "400")
    first = start(text, preamble=PREAMBLE)
    wait_for_progress(first)
    first.process.kill()
    first.wait(None)
    enough(first)

    second = start(text, preamble=PREAMBLE)

    second.wait()
    count = given(second)
    all_succeeded(second, count)
    with pytest.raises(AssertionError, match="authors are there more than once"):
        rows_exactly_once(count)
