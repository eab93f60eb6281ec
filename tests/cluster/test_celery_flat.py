"""A long run leaves the broker's queue and the coordinator's memory flat."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import Script
from tests.celery_workers import Crew, broker, crew
from tests.cluster.celery_cluster import PREAMBLE
from tests.cluster.flat import CHUNK, ITEMS, NOTES, TELL, stayed_flat
from tests.waiting import HANG

#: Chunks in flight for two workers, by the design, and a question or one sent with its parcel.
WINDOW = 5

TEXT = f"""
from carpool.executors import on_celery
from redis import Redis

{NOTES}
client = Redis.from_url(os.environ["CARPOOL_TEST_BROKER_URL"])
queue = os.environ["CARPOOL_TEST_QUEUE"]
reply_queue = None  # this run's: others may share the broker
replies_of = on_celery.replies_of

def note_queue(run_id):
    global reply_queue  # of the last one that was made, which is the one that runs
    reply_queue = replies_of(run_id)
    return reply_queue

on_celery.replies_of = note_queue

def look(snapshot):
    if is_time(snapshot):
        note(snapshot, client.llen(queue), client.llen(reply_queue.name))

engine = celery(app, redelivered_chunks_may_be_unknown=True)
run(nothing, range({ITEMS}), chunk_size={CHUNK}, executor=engine, journal=None, progress=look)
{TELL}
"""


@pytest.fixture
def own(transactional_db: None, tmp_path: Path) -> Iterator[Crew]:
    with broker("redis") as url, crew(url, tmp_path) as made:
        yield made


@pytest.mark.only_on("sqlite")  # nothing is written
@pytest.mark.timeout(600)
def test_queue_and_memory_stay_flat(start: Callable[..., Script], own: Crew) -> None:
    """A million items: the queue holds no more than the window, and the coordinator nothing."""
    own.start()

    script = start(TEXT, preamble=PREAMBLE, environment=own.environment).wait(seconds=3 * HANG)

    counts = stayed_flat(script)
    print(f"{max(queued for queued, _ in counts)} queued at most")
    assert max(queued for queued, _ in counts) <= WINDOW
    assert max(replies for _, replies in counts) <= WINDOW
