"""A long run leaves the broker's queue and the coordinator's memory flat."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import Script
from tests.celery_workers import Crew, broker, crew
from tests.cluster.celery_cluster import PREAMBLE
from tests.waiting import HANG

ITEMS = 1_000_000

#: Items of a chunk: 4,000 chunks.
CHUNK = 250

#: Chunks in flight for two workers, by the design, and a question or one sent with its parcel.
WINDOW = 5

#: KiB that the coordinator may grow from a quarter of the run to its end.
GROWTH = 8 * 1024

TEXT = f"""
from carpool.executors import on_celery
from redis import Redis

client = Redis.from_url(os.environ["CARPOOL_TEST_BROKER_URL"])
queue = os.environ["CARPOOL_TEST_QUEUE"]
samples = []
reply_queue = None  # this run's: others may share the broker
replies_of = on_celery.replies_of

def note(run_id):
    global reply_queue  # of the last one that was made, which is the one that runs
    reply_queue = replies_of(run_id)
    return reply_queue

on_celery.replies_of = note

def memory():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

def look(snapshot):
    if snapshot.done % (40 * {CHUNK}) == 0:
        replies = client.llen(reply_queue.name)
        samples.append([snapshot.done, client.llen(queue), replies, memory()])

def nothing(number):
    pass

if __name__ == "__main__":
    engine = celery(app, redelivered_chunks_may_be_unknown=True)
    run(nothing, range({ITEMS}), chunk_size={CHUNK}, executor=engine, journal=None, progress=look)
    print("SAMPLES", json.dumps(samples))
"""


@pytest.fixture
def own(transactional_db: None, tmp_path: Path) -> Iterator[Crew]:
    with broker("redis") as url, crew(url, tmp_path) as made:
        yield made


@pytest.mark.only_on("sqlite")  # nothing is written
@pytest.mark.timeout(300)
def test_queue_and_memory_stay_flat(start: Callable[..., Script], own: Crew) -> None:
    """A million items: the queue holds no more than the window, and the coordinator nothing."""
    own.start()

    script = start(TEXT, preamble=PREAMBLE, environment=own.environment).wait(seconds=4 * HANG)

    (line,) = (line for line in script.out.splitlines() if line.startswith("SAMPLES "))
    samples = json.loads(line.removeprefix("SAMPLES "))
    assert len(samples) > ITEMS / CHUNK / 40 / 2
    assert max(queued for _, queued, _, _ in samples) <= WINDOW
    assert max(replies for _, _, replies, _ in samples) <= WINDOW
    early = [rss for done, _, _, rss in samples if ITEMS / 4 <= done <= ITEMS / 2]
    late = [rss for done, _, _, rss in samples if done >= ITEMS * 3 / 4]
    most = max(queued for _, queued, _, _ in samples)
    print(f"{most} queued at most; {early[0]} KiB, {late[-1]} KiB, {len(samples)} samples")
    assert max(late) - min(early) < GROWTH
