"""Dask's workers, its scheduler and the coordinator die; each item is stored exactly once."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable

import pytest

from tests.acceptance.conftest import Script
from tests.cluster import flat
from tests.cluster.dask import Cluster
from tests.cluster.flat import CHUNK, NOTES, TELL, stayed_flat
from tests.torment.oracle import agrees, exactly_once, rows_exactly_once
from tests.torment.program import all_succeeded, progress, told, wait_for_progress
from tests.waiting import HANG, wait_until

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("no_connections_left")]

Coordinate = Callable[[str, Cluster], Script]
Clusters = Callable[..., Cluster]

ITEMS = 3_000

#: Chunks in flight for two workers, by the design.
WINDOW = 4

TEXT = f"""
def slowly(number):
    create(number, 0.004)

on_dask(slowly, range({ITEMS}), take_over=True)
"""


def test_workers_killed_at_random(coordinate: Coordinate, clusters: Clusters, seed: int) -> None:
    """Of 3,000 items none is lost and none stored twice, while one worker after another is killed,
    and another takes its place."""
    chance = random.Random(seed)
    cluster = clusters(3)
    script = coordinate(TEXT, cluster)
    wait_for_progress(script)
    kills = 0
    while script.process.poll() is None and kills < 20:
        cluster.add_worker()
        cluster.kill_worker(chance.choice(cluster.workers))
        kills += 1
        time.sleep(chance.uniform(0.2, 0.8))

    script.wait(seconds=2 * HANG)

    assert kills >= 5
    all_succeeded(script, ITEMS)
    exactly_once(ITEMS)


def test_the_scheduler_killed(coordinate: Coordinate, clusters: Clusters) -> None:
    """The run ends with an error that says so, and is taken up again on another scheduler."""
    first = clusters(2)
    script = coordinate(TEXT, first)
    wait_for_progress(script)
    first.scheduler.kill()

    found = told(script.wait())
    assert (found["raised"], found["unknown"]) == ("RunFailed", 0)
    assert "lost its scheduler" in found["message"]
    assert agrees() == found["succeeded"] < ITEMS

    again = coordinate(TEXT, clusters(2))
    assert all_succeeded(again.wait(seconds=2 * HANG), ITEMS)["already"] > 0
    exactly_once(ITEMS)


def test_coordinators_killed_at_random(
    coordinate: Coordinate, clusters: Clusters, seed: int
) -> None:
    """A run whose coordinator is killed six times, and taken up at once on the same cluster, does
    each item once: what the dead have sent out commits before the next begins, or never."""
    chance = random.Random(seed)
    cluster = clusters(3)
    for _ in range(6):
        script = coordinate(TEXT, cluster)
        wait_for_progress(script)
        time.sleep(chance.uniform(0, 0.5))
        script.process.kill()
        script.process.wait()

    last = coordinate(TEXT, cluster)
    assert all_succeeded(last.wait(seconds=2 * HANG), ITEMS)["already"] > 0
    exactly_once(ITEMS)


A_MILLION = f"""
{NOTES}
with Client(scheduler_file=os.environ["DASK_FILE"], set_as_default=False) as client:
    def look(snapshot):
        if is_time(snapshot):
            tasks = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
            note(snapshot, tasks)

    options = {{"chunk_size": {CHUNK}, "workers": None, "journal": None, "progress": look}}
    run(nothing, range({flat.ITEMS}), executor=client, **options)
{TELL}
"""


@pytest.mark.only_on("sqlite")  # nothing is written
def test_a_million_items_leave_memory_flat(coordinate: Coordinate, clusters: Clusters) -> None:
    """The scheduler knows no more tasks than the window has, and the coordinator keeps nothing."""
    script = coordinate(A_MILLION, clusters(2)).wait(seconds=3 * HANG)

    known = [known for (known,) in stayed_flat(script)]
    print(f"{max(known)} tasks at most")
    assert max(known) <= 2 * WINDOW  # some are being forgotten


def test_all_at_once(coordinate: Coordinate, clusters: Clusters, seed: int) -> None:
    """Workers, schedulers and coordinators are killed as it comes, until the run is through."""
    chance = random.Random(seed)
    cluster = clusters(2)
    script = coordinate(TEXT, cluster)
    for _ in range(8):
        time.sleep(chance.uniform(0.3, 1.5))
        match chance.choice(["worker", "worker", "coordinator", "scheduler"]):
            case "worker":
                cluster.add_worker()
                cluster.kill_worker(chance.choice(cluster.workers))
            case "coordinator":
                script.process.kill()
            case "scheduler":
                cluster.scheduler.kill()
                cluster = clusters(2)
                script.wait(None, seconds=2 * HANG)  # its client tries for 30 s to connect again
        if script.process.poll() is not None:
            script.wait(None)
            script = coordinate(TEXT, cluster)

    script.wait(None, seconds=2 * HANG)
    last = coordinate(TEXT, cluster).wait(seconds=2 * HANG)
    all_succeeded(last, ITEMS)
    exactly_once(ITEMS)


def test_workers_that_join_late(coordinate: Coordinate, clusters: Clusters) -> None:
    """Workers that come while the run goes on get what they need, and take their share of it.

    The source goes on until they have, however long they need to start.
    """
    cluster = clusters(1)
    text = f"""
    def note(number):
        create(number, 0.004)
        touch(f"by {{os.getpid()}}")

    def source():
        for number in itertools.count():
            if number >= {ITEMS} and len(list(FOLDER.glob("by *"))) == 3:
                return
            yield number

    on_dask(note, source())
    """
    script = coordinate(text, cluster)
    wait_for_progress(script)
    for _ in range(2):
        cluster.add_worker()

    script.wait(seconds=2 * HANG)

    count = told(script)["total"]
    assert count >= ITEMS
    all_succeeded(script, count)
    assert len(list(script.folder.glob("by *"))) == 3
    exactly_once(count)


def test_an_item_that_kills_its_worker(coordinate: Coordinate, clusters: Clusters) -> None:
    """It is found by halves and fails; all others are stored, and nannies replace the workers."""
    cluster = clusters(2, nanny=True, allowed_failures="0")
    text = """
    def work(number):
        if number == 77:
            os.kill(os.getpid(), signal.SIGKILL)
        create(number)

    on_dask(work, range(200), chunk_size=16)
    """
    script = coordinate(text, cluster).wait(seconds=2 * HANG)

    found = told(script)
    assert (found["raised"], found["succeeded"], found["unknown"]) == (None, 199, 0), (
        json.dumps(found) + cluster.log()
    )
    ((index, error, stage, message),) = found["failures"]
    assert (index, error, stage) == (77, "WorkerDied", "worker")
    assert "KilledWorker" in message
    exactly_once(200, but=[77])


@pytest.mark.only_on("postgresql", "mysql")  # on SQLite all others wait for the one that sleeps
@pytest.mark.parametrize("journal", [True, False])
def test_a_worker_that_was_only_asleep(
    coordinate: Coordinate, clusters: Clusters, journal: bool
) -> None:
    """A worker is taken for dead in the middle of a chunk, which another gets; then it wakes up.

    With a journal one of the two commits. Without, the second isn't run, and nobody knows.
    """
    cluster = clusters(2, worker_ttl="2s")
    text = f"""
    def work(number):
        create(number, 0.01)
        if number == 77:
            if not (FOLDER / "asleep").exists():
                touch("asleep")
                os.kill(os.getpid(), signal.SIGSTOP)
                time.sleep(1)
            touch("77 again" if (FOLDER / "77").exists() else "77")

    on_dask(work, range(400), chunk_size=20, journal={"t" if journal else None!r})
    """
    script = coordinate(text, cluster)
    script.wait_for("asleep")
    with cluster.client(workers=0) as client:
        wait_until(lambda: len(client.nthreads()) == 1, cluster.log)
    if journal:
        script.wait_for("77")  # by the other one
    else:
        wait_until(lambda: progress(script) >= 380, script.err)
    for worker in cluster.workers:
        os.kill(worker.pid, signal.SIGCONT)

    found = told(script.wait())

    if journal:
        assert (found["raised"], found["succeeded"], found["unknown"]) == (None, 400, 0)
        exactly_once(400)
        return
    assert (found["raised"], found["failed"]) == (None, 0)
    assert found["succeeded"] + found["unknown"] == 400
    unknown = {index for index, *_ in found["failures"]}
    assert {*range(60, 80)} <= unknown
    wait_until(lambda: not (script.folder / "77 again").exists() or pytest.fail("it ran twice"))
    rows_exactly_once(400, but=missing(unknown))


def missing(unknown: set[int]) -> set[int]:
    """Return which of them are not stored."""
    from tests.app.models import Author

    there = set(Author.objects.values_list("name", flat=True))
    return {number for number in unknown if f"a{number}" not in there}
