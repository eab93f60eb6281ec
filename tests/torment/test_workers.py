"""Workers are killed, all the time."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.acceptance.conftest import Script
from tests.torment.killing import kill_workers_until_it_ends
from tests.torment.oracle import exactly_once
from tests.torment.program import PREAMBLE, all_succeeded, enough, given
from tests.waiting import HANG

ITEMS = 20_000
EVERY = 0.2
KILLS = 20
"""Before the source may end."""

MORE_KILLS = 20
"""At most, after that: where workers die before they come to do anything, the run must end, too."""


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("no_connections_left")
def test_workers_killed_all_the_time(start: Callable[..., Script], seed: int) -> None:
    """None of 20,000 items is lost, none fails and none is stored twice, whichever worker dies.

    Where all is slow three in a row may die before their first item, which would end the run, and
    four with the same item, which would be to blame.
    """
    script = start(
        f"""
        from carpool import settling
        from carpool.executors import processes

        processes.DEATHS_AT_START = settling.MOST_KILLS = 1_000

        def slowly(number):
            create(number, 0.0004)

        if __name__ == "__main__":
            run(slowly, numbers({ITEMS}))
        """,
        preamble=PREAMBLE,
    )

    chance = random.Random(seed)
    kills = kill_workers_until_it_ends(script, chance, EVERY, most=KILLS)
    enough(script)
    kills += kill_workers_until_it_ends(script, chance, EVERY, most=MORE_KILLS)

    script.wait(seconds=2 * HANG)
    print(f"{kills} kills")
    assert kills >= KILLS
    count = given(script)
    all_succeeded(script, count)
    exactly_once(count)
