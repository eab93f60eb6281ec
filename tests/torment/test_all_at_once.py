"""Workers and coordinators are killed while connections are cut at COMMIT."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest
from django.db import connection

from tests.acceptance.conftest import Script
from tests.torment.killing import Orphanage, kill_workers_until_it_ends
from tests.torment.oracle import exactly_once
from tests.torment.program import PREAMBLE, all_succeeded, enough, given
from tests.torment.proxy import proxy, through
from tests.waiting import HANG

pytestmark = [pytest.mark.only_on("postgresql", "mysql"), pytest.mark.timeout(300)]

ITEMS = 2_500
"""At least. However late a coordinator is killed, it isn't through."""

DEATHS = 4
LONGEST_LIFE = 2.5
EVERY = 0.3
SHARE = 0.2

TEXT = f"""
def slowly(number):
    create(number, 0.003)

if __name__ == "__main__":
    run(slowly, numbers({ITEMS}), chunk_size=10, retries=20, take_over=True)
"""


def test_all_at_once(start: Callable[..., Script], seed: int) -> None:
    """Whoever dies while whatever is cut, and the run taken up each time: each item once."""
    chance = random.Random(seed)
    orphans = Orphanage()
    with proxy(connection, random.Random(seed), share=SHARE) as between:
        for _ in range(DEATHS):
            script = start(TEXT, preamble=PREAMBLE, environment=through(between, connection))
            killer = threading.Thread(
                target=kill_workers_until_it_ends, args=(script, random.Random(seed), EVERY)
            )
            killer.start()
            orphans.sleep(chance.uniform(0.5, LONGEST_LIFE))
            assert script.process.poll() is None, f"ended too early:\n{script.out}{script.err}"
            script.process.kill()
            orphans.take_in(script)
            killer.join()
        last = start(TEXT, preamble=PREAMBLE, environment=through(between, connection))
        orphans.close()
        enough(last)
        kills = kill_workers_until_it_ends(last, chance, EVERY)
        last.wait(seconds=2 * HANG)
        print(kills, "kills in the last life;", between.commits, dict(between.cuts))
    count = given(last)
    all_succeeded(last, count)
    exactly_once(count)
