"""Connections are cut: by the server, and by the network at the moment of COMMIT."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

import pytest
from django.db import DatabaseError, connection

from tests.acceptance.conftest import Script
from tests.conftest import clients
from tests.torment.oracle import exactly_once, rows_exactly_once
from tests.torment.program import PREAMBLE, all_succeeded, told
from tests.torment.proxy import Cut, Proxy, proxy, through
from tests.waiting import HANG

pytestmark = [pytest.mark.only_on("postgresql", "mysql"), pytest.mark.timeout(600)]

ITEMS = 2_500
EVERY = 0.1
SHARE = 0.2
"""Of all COMMITs, which is cut. The coordinator's own and those of its retries are among them."""

TEXT = f"""
if __name__ == "__main__":
    run(create, range({ITEMS}), chunk_size=20, retries=20)
"""


def cut_one(chance: random.Random) -> bool:
    """Have the server end one connection of the script's, whichever."""
    found = sorted(clients())
    if not found:
        return False
    end = "SELECT pg_terminate_backend(%s)" if connection.vendor == "postgresql" else "KILL %s"
    with connection.cursor() as cursor:
        try:
            cursor.execute(end, [chance.choice(found)])
        except DatabaseError:  # it has just ended by itself
            return False
    return True


def test_connections_ended_by_the_server(start: Callable[..., Script], seed: int) -> None:
    """Whichever connections the server ends, the journal's among them, each item is stored once."""
    chance = random.Random(seed)
    script = start(
        f"""
        def slowly(number):
            create(number, 0.003)

        if __name__ == "__main__":
            run(slowly, range({ITEMS}), chunk_size=10, retries=20)
        """,
        preamble=PREAMBLE,
    )
    cuts = 0
    while script.process.poll() is None:
        cuts += cut_one(chance)
        time.sleep(EVERY)

    script.wait()
    found = all_succeeded(script, ITEMS)
    print(cuts, "cuts,", found["retries"], "retries")
    assert found["retries"] > 0
    exactly_once(ITEMS)


@pytest.fixture
def between(seed: int, transactional_db: None) -> Iterator[Proxy]:
    """A proxy before the server at hand."""
    with proxy(connection, random.Random(seed), share=SHARE) as between:
        yield between


def test_connections_cut_at_commit(start: Callable[..., Script], between: Proxy) -> None:
    """A COMMIT whose answer never comes costs no item and stores none twice."""
    script = start(TEXT, preamble=PREAMBLE, environment=through(between, connection))

    script.wait(seconds=2 * HANG)

    print(between.commits, "commits,", dict(between.cuts))
    assert set(between.cuts) == set(Cut)
    found = all_succeeded(script, ITEMS)
    print(found)
    exactly_once(ITEMS)


def test_without_a_journal_nobody_knows(start: Callable[..., Script], between: Proxy) -> None:
    """The same without a journal: items are unknown, and the oracle misses some."""
    text = TEXT.replace("retries=20", "retries=20, journal=None")
    script = start(text, preamble=PREAMBLE, environment=through(between, connection))

    script.wait(seconds=2 * HANG)

    assert told(script)["unknown"] > 0
    with pytest.raises(AssertionError, match="authors are missing"):
        rows_exactly_once(ITEMS)
