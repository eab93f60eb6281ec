"""Ctrl-C, as a terminal sends it: to every process of the group at once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User

from tests.acceptance.conftest import Script

pytestmark = pytest.mark.usefixtures("no_connections_left")

Start = Callable[..., Script]

#: Runs for ever, unless it is interrupted; then tells the counts and passes the interrupt on.
ENDLESS = """
    def create(number):
        User.objects.create(username=f"u{{number}}")
        with (FOLDER / "ran").open("a") as file:
            file.write(f"{{number}}\\n")
        time.sleep(0.01)

    def numbers():
        number = 0
        while True:
            yield number
            number += 1

    if __name__ == "__main__":
        print("begins", flush=True)
        try:
            carpool.run(create, numbers(), progress=False, **{options})
        except carpool.Interrupted as interrupted:
            tell(interrupted.report)
            raise
"""

EXECUTORS: dict[str, dict[str, object]] = {
    "inline": {"executor": "inline"},
    "threads": {"executor": "threads", "workers": 3},
    "auto": {"workers": 3},
    "forkserver": {"executor": "processes", "workers": 3},
    "fork": {"executor": "processes", "workers": 3, "start_method": "fork"},
    "spawn": {"executor": "processes", "workers": 3, "start_method": "spawn"},
}


def assert_clean_end(script: Script) -> None:
    """One report, one traceback at most, counts that agree with the table, nobody left."""
    script.wait(code=None)
    assert script.process.returncode != 0
    assert script.err.count("Traceback (most recent call last)") <= 1, script.err
    assert "Exception ignored" not in script.err
    told = script.told()
    assert script.err.count("Interrupted.\n") == 1
    assert f"{told['total']:,} items in" in script.err
    assert told["unknown"] == 0
    assert told["succeeded"] == User.objects.count()
    assert told["total"] == told["succeeded"] + told["failed"]
    assert set(told["errors"]) <= {"carpool.exceptions.NotRun"}


@pytest.mark.parametrize("executor", EXECUTORS)
def test_ctrl_c_midway(start: Start, executor: str) -> None:
    """Ctrl-C midway ends the run with the report, in which the rows are counted right."""
    script = start(ENDLESS.format(options=EXECUTORS[executor]))
    script.wait_for("ran", 60)

    script.interrupt()

    assert_clean_end(script)
    assert script.told()["succeeded"] > 0


@pytest.mark.parametrize("executor", ["inline", "threads", "forkserver"])
def test_ctrl_c_while_an_item_hangs(start: Start, executor: str) -> None:
    """Items that would take an hour don't keep the run from its end; nothing of them is stored."""
    script = start(
        f"""
        def hang(number):
            User.objects.create(username=f"u{{number}}")
            (FOLDER / "hangs").touch()
            time.sleep(3600)

        if __name__ == "__main__":
            try:
                carpool.run(hang, range(100), progress=False, **{EXECUTORS[executor]})
            except carpool.Interrupted as interrupted:
                tell(interrupted.report)
                raise
        """
    )
    script.wait_for("hangs")

    script.interrupt()

    script.wait(code=None)
    told = script.told()
    assert script.err.count("Traceback (most recent call last)") <= 1, script.err
    assert (told["succeeded"], User.objects.count()) == (0, 0)
    assert told["total"] == told["failed"] + told["unknown"]
    assert told["unknown"] == 0 or executor == "threads"


@pytest.mark.only_on("sqlite")
def test_ctrl_c_while_many_threads_hang(start: Start) -> None:
    """Threads that can't be ended are not waited for one after another: 90 are as good as one."""
    script = start(
        """
        def hang():
            (FOLDER / "hangs").touch()
            time.sleep(3600)

        carpool.run(print, range(1000), executor="threads", workers=90, setup=hang, progress=False)
        """
    )
    script.wait_for("hangs")

    script.interrupt()

    script.wait(code=None)
    assert script.err.count("Traceback (most recent call last)") == 1


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("executor", ["inline", "threads", "forkserver", "fork"])
def test_ctrl_c_ends_programs_that_items_run(start: Start, executor: str) -> None:
    """Programs that an item has started end by Ctrl-C as in a loop, and don't live on alone."""
    alone = {**EXECUTORS[executor], "workers": 1}  # so that none is about to start its program
    script = start(
        f"""
        import subprocess

        def wait(number):
            program = subprocess.Popen(["sleep", "3600"])
            (FOLDER / "hangs").touch()
            program.wait()
            time.sleep(0.5)  # it may have heard of Ctrl-C before the caller did

        if __name__ == "__main__":
            carpool.run(wait, range(100), progress=False, **{alone})
        """
    )
    script.wait_for("hangs")

    script.interrupt()

    script.wait(code=None)
    assert script.err.count("Interrupted.\n") == 1


@pytest.mark.parametrize("executor", ["threads", "forkserver", "spawn"])
def test_ctrl_c_twice(start: Start, executor: str) -> None:
    """A second Ctrl-C right after the first leaves nobody behind, and is no storm either."""
    script = start(ENDLESS.format(options=EXECUTORS[executor]))
    script.wait_for("ran", 20)

    script.interrupt()
    time.sleep(0.05)
    script.interrupt()

    script.wait(code=None)
    assert script.process.returncode != 0
    assert script.err.count("Traceback (most recent call last)") <= 3, script.err


def test_the_second_ctrl_c_kills(start: Start) -> None:
    """What the first Ctrl-C lets end, a callback after COMMIT, is not waited for after a second."""
    script = start(
        """
        def hang():
            (FOLDER / "hangs").touch()
            time.sleep(3600)

        def create(number):
            User.objects.create(username=f"u{number}")
            transaction.on_commit(hang)

        try:
            carpool.run(create, range(10), executor="inline", chunk_size=2, progress=False)
        except carpool.Interrupted as interrupted:
            tell(interrupted.report)
            raise
        """
    )
    script.wait_for("hangs")

    script.interrupt()
    time.sleep(1)
    assert script.process.poll() is None
    script.interrupt()

    script.wait(code=None)
    assert User.objects.count() == 2
    assert script.told()["total"] == 2


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("executor", ["auto", "forkserver", "fork", "spawn"])
def test_ctrl_c_while_the_workers_start(start: Start, executor: str) -> None:
    """Ctrl-C at any moment of the workers' start-up ends all of them without a word of theirs."""
    chance = random.Random(executor)
    for _ in range(3):
        User.objects.all().delete()
        script = start(ENDLESS.format(options=EXECUTORS[executor]))
        script.wait_for("stdout", 1)
        time.sleep(chance.uniform(0, 0.6))

        script.interrupt()

        assert_clean_end(script)


def test_ctrl_c_in_a_stream(start: Start) -> None:
    """In the body of a loop over `stream` Ctrl-C is a KeyboardInterrupt; the pool ends with it."""
    script = start(
        """
        def create(number):
            User.objects.create(username=f"u{number}")
            return number

        if __name__ == "__main__":
            seen = []
            try:
                for outcome in carpool.stream(create, range(10_000), executor="processes",
                                              workers=3, chunk_size=5, progress=False):
                    seen.append(outcome.value)
                    if len(seen) == 20:
                        (FOLDER / "there").touch()
                        time.sleep(3600)
            except KeyboardInterrupt:
                print(json.dumps(seen))
                raise
        """
    )
    script.wait_for("there")

    script.interrupt()

    script.wait(code=None)
    assert script.err.count("Traceback (most recent call last)") == 1, script.err
    assert script.out.strip() == str(list(range(20)))
    assert User.objects.count() >= 20
