"""Workers are killed, all the time."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.acceptance.conftest import Script
from tests.torment.killing import kill_workers_until_it_ends
from tests.torment.oracle import exactly_once
from tests.torment.program import PREAMBLE, all_succeeded

ITEMS = 20_000
EVERY = 0.2


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("no_connections_left")
def test_workers_killed_all_the_time(start: Callable[..., Script], seed: int) -> None:
    """Of 20,000 items none is lost, none fails and none is stored twice, whichever worker dies."""
    script = start(
        f"""
        def slowly(number):
            create(number, 0.0004)

        if __name__ == "__main__":
            run(slowly, range({ITEMS}))
        """,
        preamble=PREAMBLE,
    )

    kills = kill_workers_until_it_ends(script, random.Random(seed), EVERY)

    script.wait()
    print(f"{kills} kills")
    assert kills >= 10
    all_succeeded(script, ITEMS)
    exactly_once(ITEMS)
