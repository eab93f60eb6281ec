"""A storm of deadlocks: items that update shared rows, in whatever order."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from django.db import connection

from tests.acceptance.conftest import Script
from tests.app.models import Line, Order
from tests.torment.oracle import exactly_once
from tests.torment.program import PREAMBLE, all_succeeded
from tests.waiting import HANG

pytestmark = [pytest.mark.only_on("postgresql", "mysql"), pytest.mark.timeout(600)]

ITEMS = 800
PARENTS = 20


@pytest.fixture
def quick_deadlocks(transactional_db: None) -> Iterator[None]:
    """Have PostgreSQL look for deadlocks at once and not after a second; MariaDB always does."""
    if connection.vendor != "postgresql":
        yield
        return
    name = connection.ops.quote_name(str(connection.settings_dict["NAME"]))
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '20ms'")
    yield
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {name} RESET deadlock_timeout")


@pytest.mark.usefixtures("no_connections_left", "quick_deadlocks")
@pytest.mark.parametrize(("size", "seconds", "coalesce"), [(1, 0.003, False), (5, 0.0005, True)])
def test_a_storm_of_deadlocks(
    start: Callable[..., Script], seed: int, size: int, seconds: float, coalesce: bool
) -> None:
    """Items that update two of 20 parents each in random order all get through, once.

    One item a chunk, coalesced, would lock its two parents in the order of their keys: no storm.

    A line's receiver updates its order, so the orders' totals tell what was written how often.
    """
    chance = random.Random(seed)
    orders = Order.objects.bulk_create(Order(name=f"o{number}") for number in range(PARENTS))
    keys = [order.pk for order in Order.objects.order_by("pk")]
    assert len(orders) == len(keys)
    pairs = [chance.sample(keys, 2) for _ in range(ITEMS)]
    script = start(
        f"""
        def update_two(item):
            number, keys = item
            create(number)
            for key in keys:
                Line.objects.create(name=f"l{{number}}", order_id=key, price=1)
                time.sleep({seconds})

        if __name__ == "__main__":
            run(update_two, list(enumerate({pairs})), chunk_size={size}, retries=100, workers=8,
                    coalesce={coalesce})
        """,
        preamble=PREAMBLE,
    )

    script.wait(seconds=2 * HANG)

    found = all_succeeded(script, ITEMS)
    print(found["retries"], "retries")
    assert found["retries"] > 0
    exactly_once(ITEMS)
    lines = Counter(Line.objects.values_list("name", "order_id"))
    assert lines == Counter((f"l{n}", key) for n, pair in enumerate(pairs) for key in pair)
    assert dict(Order.objects.values_list("pk", "total")) == dict(
        Counter(dict.fromkeys(keys, 0)) + Counter(key for pair in pairs for key in pair)
    )
