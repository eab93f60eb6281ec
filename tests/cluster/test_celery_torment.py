"""Celery's workers, brokers and coordinators are killed; each item is stored exactly once."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests.acceptance.conftest import Script
from tests.app.models import Author
from tests.celery_workers import Crew, broker, crew
from tests.cluster.celery_cluster import (
    BROKERS,
    PREAMBLE,
    kill_children_until_it_ends,
    logs,
    own_broker,
)
from tests.torment.oracle import exactly_once, rows_exactly_once
from tests.torment.program import all_succeeded, told, wait_for_progress
from tests.waiting import HANG, wait_until

ITEMS = 600

TEXT = f"""
def slowly(number):
    create(number, 0.01)

if __name__ == "__main__":
    run(slowly, range({ITEMS}), chunk_size=10, take_over=True)
"""

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("transactional_db")]


@pytest.fixture(scope="session", params=BROKERS)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with broker(request.param) as url:
        yield url


@pytest.fixture(scope="session")
def redis() -> Iterator[str]:
    with broker("redis") as url:
        yield url


@pytest.fixture
def own(url: str, tmp_path: Path) -> Iterator[Crew]:
    with crew(url, tmp_path) as made:
        yield made


Start = Callable[..., Script]


def begin(start: Start, crew: Crew, text: str = TEXT) -> Script:
    return start(text, preamble=PREAMBLE, environment=crew.environment)


def test_all_is_well(start: Start, own: Crew) -> None:
    """Undisturbed, on either broker."""
    own.start()

    script = begin(start, own).wait()

    assert all_succeeded(script, ITEMS)["chunks"] == ITEMS / 10
    exactly_once(ITEMS)


def test_children_killed_all_the_time(start: Start, own: Crew) -> None:
    """The coordinator is told at once, asks the journal, and has the chunk run again."""
    own.start()
    own.start()
    script = begin(start, own)
    wait_for_progress(script, 20)

    kills = kill_children_until_it_ends(script, own, random.Random(1), 0.3)

    script.wait()
    assert kills >= 5
    all_succeeded(script, ITEMS)
    exactly_once(ITEMS)


def test_an_item_that_kills_its_worker(start: Start, own: Crew) -> None:
    """It is found and named; its neighbours are stored."""
    own.start()
    script = begin(
        start,
        own,
        """
def deadly(number):
    create(number)
    if number == 77:
        os._exit(5)

if __name__ == "__main__":
    run(deadly, range(100), chunk_size=4)
""",
    )

    found = told(script.wait(seconds=2 * HANG))

    assert (found["succeeded"], found["failed"], found["unknown"]) == (99, 1, 0)
    assert [failure[:2] for failure in found["failures"]] == [[77, "WorkerDied"]]
    exactly_once(100, but=[77])


def test_whole_workers_killed(start: Start, own: Crew, tmp_path: Path) -> None:
    """What a dead worker had is given up and run by others, long before it is redelivered.

    The size of a file says how many items may be done, so that there are some left for each kill.
    """
    gate = tmp_path / "gate"
    text = TEXT.replace(
        "    create(number, 0.01)",
        f"    while number >= os.stat({str(gate)!r}).st_size:\n"
        "        time.sleep(0.01)\n"
        "    create(number, 0.01)",
    )
    gate.touch()
    own.start()
    own.start()
    script = begin(start, own, text)
    for kill in range(3):
        os.truncate(gate, 150 * (kill + 1))
        wait_for_progress(script, 50 + 150 * kill)
        own.workers[kill].kill()
        own.start()
    os.truncate(gate, ITEMS)

    all_succeeded(script.wait(), ITEMS)
    exactly_once(ITEMS)


def test_the_coordinator_killed_and_its_run_taken_up(start: Start, own: Crew) -> None:
    """What the dead one had sent may still be run, and can't commit."""
    own.start()
    for kill in range(4):
        script = begin(start, own)
        wait_for_progress(script, 20 + 50 * kill)
        script.process.kill()
        script.process.wait()

    script = begin(start, own).wait()

    assert all_succeeded(script, ITEMS)["already"] > 0
    exactly_once(ITEMS)


def test_replies_to_a_dead_coordinator_expire(start: Start, redis: str, tmp_path: Path) -> None:
    """Nobody is left who would delete their queue."""
    client = Redis.from_url(redis)
    before = set(client.keys("carpool.replies.*"))
    with crew(redis, tmp_path) as own:
        worker = own.start()
        script = begin(start, own)
        wait_for_progress(script, 20)
        script.process.kill()

        # Not by the end of a task: its reply may have been read, and may have no expiry yet.
        def seconds_left() -> list[int]:
            return [client.ttl(key) for key in set(client.keys("carpool.replies.*")) - before]

        wait_until(
            lambda: (left := seconds_left()) and all(0 < seconds <= 3600 for seconds in left),
            lambda: f"{seconds_left()}\n{worker.text()}",
        )
    client.close()


def test_all_workers_gone_midway(start: Start, own: Crew) -> None:
    """It is said once, the run ends after a while, and is taken up."""
    worker = own.start()
    script = begin(start, own)
    wait_for_progress(script, 100)
    worker.kill()

    found = told(script.wait())

    assert found["raised"] == "RunFailed", found
    assert "has answered for" in found["message"]
    assert found["unknown"] == 0
    assert script.err.count("The run waits for one") == 1
    own.start()
    all_succeeded(begin(start, own).wait(), ITEMS)
    exactly_once(ITEMS)


def test_a_worker_stopped_warmly_finishes_its_chunk(start: Start, own: Crew) -> None:
    """SIGTERM: what it runs is committed, what it has not begun goes to another."""
    first = own.start(size=1)
    script = begin(
        start,
        own,
        """
def slowly(number):
    create(number, 2)

if __name__ == "__main__":
    run(slowly, range(3), chunk_size=1, workers=1, executor=celery(app, patience=15))
""",
    )
    wait_until(lambda: first.text().count("received") >= 1, lambda: first.text())
    time.sleep(1)
    first.stop()
    done = Author.objects.count()
    own.start()

    all_succeeded(script.wait(), 3)
    assert done >= 1
    exactly_once(3)


@pytest.mark.parametrize("name", BROKERS)
def test_the_broker_killed_and_started_again(start: Start, name: str, tmp_path: Path) -> None:
    """Its messages are lost; the run goes on when it is back, and the journal knows the rest.

    Celery 5.7 itself may not survive Redis' death, so somebody must start workers again.
    """
    # A broker and a worker may need long to start; until then nothing is heard of anybody.
    text = "from carpool.executors import on_celery\non_celery.SILENCE = 24\n" + TEXT.replace(
        "take_over=True", "executor=celery(app, patience=5)"
    )
    with own_broker(name) as server, crew(server.url, tmp_path) as own:
        own.start()
        own.start()
        script = begin(start, own, text)
        for kill in range(2):
            wait_for_progress(script, 50 + 200 * kill)
            server.kill()
            time.sleep(1)
            server.start_again()
            own.start()

        all_succeeded(script.wait(seconds=2 * HANG), ITEMS)
        exactly_once(ITEMS)


def test_the_broker_killed_for_good(start: Start, tmp_path: Path) -> None:
    """The run ends with an error, never with a hang; with the broker back it is taken up."""
    with own_broker("redis") as server, crew(server.url, tmp_path) as own:
        own.start()
        script = begin(start, own)
        wait_for_progress(script, 100)
        server.kill()

        found = told(script.wait())

        assert found["raised"] == "RunFailed", found
        server.start_again()
        own.start()  # the first waits for longer and longer between its tries
        all_succeeded(begin(start, own).wait(), ITEMS)
        exactly_once(ITEMS)


SLOW = """
def slowly(number):
    with open({runs!r}, "a") as file:
        file.write(f"{{number}}\\n")
    create(number, 3)

if __name__ == "__main__":
    run(slowly, range(6), chunk_size=1, {options})
"""


@pytest.mark.parametrize("journal", [True, False])
def test_chunks_that_outlast_the_visibility_timeout(
    start: Start, redis: str, tmp_path: Path, journal: bool
) -> None:
    """Redis gives them to another worker while they run: with a journal each is stored once,

    without one it is unknown, and never run twice.
    """
    options = {"visibility_timeout": 1}
    with crew(redis, tmp_path, broker_transport_options=options) as own:
        own.start()
        own.start()
        runs = tmp_path / "runs"
        engine = "celery(app, patience=30, redelivered_chunks_may_be_unknown=True)"
        more = "workers=2" if journal else f"workers=2, journal=None, executor={engine}"

        script = begin(start, own, SLOW.format(runs=str(runs), options=more)).wait()

        found = told(script)
        times = Counter(runs.read_text().split())
        assert found["failed"] == 0, found
        if journal:
            all_succeeded(script, 6)
            assert max(times.values()) > 1, logs(own)  # it was run twice, and stored once
            exactly_once(6)
        else:
            assert found["unknown"] >= 1, (found, logs(own))
            assert max(times.values()) == 1
            wait_until(lambda: Author.objects.count() == 6)
            rows_exactly_once(6)


def test_a_child_killed_without_a_journal(start: Start, redis: str, tmp_path: Path) -> None:
    """Its chunk is unknown, and not run again."""
    with crew(redis, tmp_path) as own:
        own.start()
        script = begin(
            start,
            own,
            """
def deadly(number):
    create(number)
    if number == 55:
        os._exit(5)

if __name__ == "__main__":
    engine = celery(app, redelivered_chunks_may_be_unknown=True)
    run(deadly, range(100), chunk_size=10, executor=engine, journal=None)
""",
        ).wait()

        found = told(script)
        assert (found["succeeded"], found["failed"], found["unknown"]) == (90, 0, 10)
        rows_exactly_once(100, but=range(50, 60))
