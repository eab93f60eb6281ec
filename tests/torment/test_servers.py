"""The server is killed, and comes back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from tests.acceptance.conftest import Script
from tests.torment.oracle import exactly_once
from tests.torment.program import PREAMBLE, all_succeeded, wait_for_progress
from tests.torment.server import ALIAS, OwnServer, own_server
from tests.waiting import HANG

pytestmark = [pytest.mark.only_on("postgresql", "mysql"), pytest.mark.timeout(600)]

ITEMS = 4_500
DEATHS = 2


@pytest.fixture
def own(database_vendor: str) -> Iterator[OwnServer]:
    with own_server(database_vendor) as own:
        yield own


def test_a_server_that_is_killed_and_started_again(
    start: Callable[..., Script], own: OwnServer, seed: int
) -> None:
    """A run lives through the server's death, twice, and each item is stored once."""
    chance = random.Random(seed)
    script = start(
        f"""
        def slowly(number):
            create(number, 0.003)

        if __name__ == "__main__":
            run(slowly, range({ITEMS}), retries=10)
        """,
        preamble=PREAMBLE,
        environment=own.environment,
    )
    for death in range(DEATHS):
        wait_for_progress(script, ITEMS * (death + chance.uniform(0.1, 0.9)) / (DEATHS + 1))
        own.kill()
        own.start_again()

    script.wait(seconds=2 * HANG)
    found = all_succeeded(script, ITEMS)
    print({name: found[name] for name in ("retries", "chunks")})
    assert found["retries"] > 0
    exactly_once(ITEMS, using=ALIAS)
