"""What a run must show. It is judged here and printed; nothing stops for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from benchmarks.results import Claim, Table
from benchmarks.workload import SHAPES

PRODUCTS = ("SQLite", "PostgreSQL", "MariaDB")

#: run() on default settings against the recipe, for items that cost next to nothing.
RECIPE_RATIOS = {"SQLite": 15.0, "PostgreSQL": 15.0, "MariaDB": 8.0}
#: The same without coalescing, which is what the pool alone gives.
RECIPE_RATIO_NOT_COALESCED = 1.5
#: run() against bulk_create, which sends no signals.
BULK_RATIO = 1.0
#: coalesce() in one process, against the loop in one transaction.
LOOP_RATIOS = {"SQLite": 2.5, "PostgreSQL": 5.0, "MariaDB": 3.0}
#: coalesce() in one process, against SQLAlchemy's session.
SESSION_RATIO = 1.5
#: How much of each worker is put to use when the setup needs CPU. SQLite, too: its one lock is
#: taken when a chunk writes, not while it sets up.
WORKER_SHARE = 0.9
#: Whatever an item does, coalescing must not make it slower than the loop in one transaction.
SHAPE_RATIO = 0.9
#: run() with two workers, of rows of which one field has changed, against bulk_update, which sends
#: no signals, and against the loop in one transaction.
BULK_UPDATE_RATIO = 3.0
LOOP_OF_UPDATES_RATIOS = {"SQLite": 3.5, "PostgreSQL": 6.0, "MariaDB": 5.0}
#: run() on a cluster of this machine against as many processes of its own.
CLUSTER_RATIO = 0.8
#: What the engine may cost an item that does nothing.
OVERHEAD_MICROSECONDS = 30.0

NOT_MEASURED = "not measured"


def judge(measured: float | None, holds: Callable[[float], bool]) -> str:
    """Return the verdict in a word."""
    if measured is None:
        return NOT_MEASURED
    return "pass" if holds(measured) else "FAIL"


def claim(
    text: str, required: str, measured: float | None, unit: str, holds: Callable[[float], bool]
) -> Claim:
    """Put one claim into words."""
    shown = NOT_MEASURED if measured is None else f"{measured:.2f}{unit}"
    return Claim(text, required, shown, judge(measured, holds))


def find(tables: Iterable[Table], workload: str, product: str) -> Table | None:
    """Return the table of a workload on a database product, or None."""
    for table in tables:
        if table.workload == workload and table.database["product"] == product:
            return table
    return None


def quotient(table: Table | None, key: str, other: str) -> float | None:
    """Return how many times faster one row is than another."""
    if table is None:
        return None
    rate, other_rate = table.rate(key), table.rate(other)
    return rate / other_rate if rate and other_rate else None


def at_least(text: str, ratio: float, measured: float | None) -> Claim:
    """Put into words that something has to be so many times faster."""
    return claim(text, f"at least {ratio:g}", measured, "", lambda measured: measured >= ratio)


def worker_share(table: Table | None) -> float | None:
    """Return the rate of processes as a part of as many inline runs side by side."""
    if table is None:
        return None
    processes, inline = table.result("carpool_processes"), table.result("carpool_inline")
    if processes is None or inline is None or not processes.rate or not inline.rate:
        return None
    return processes.rate / (processes.workers * inline.rate)


def create_claims(tables: Sequence[Table]) -> list[Claim]:
    """Judge a run of the create suite."""
    claims = []
    for product in PRODUCTS:
        cheap, cpu = find(tables, "cheap", product), find(tables, "cpu", product)
        claims += [
            at_least(
                f"{product}: run() ÷ recipe, no setup",
                RECIPE_RATIOS[product],
                quotient(cheap, "carpool_default", "recipe"),
            ),
            at_least(
                f"{product}: run() ÷ bulk_create without signals, no setup",
                BULK_RATIO,
                quotient(cheap, "carpool_default", "bulk_create"),
            ),
            at_least(
                f"{product}: coalesce() ÷ the loop in one transaction, no setup",
                LOOP_RATIOS[product],
                quotient(cheap, "carpool_coalesce", "one_transaction"),
            ),
            at_least(
                f"{product}: coalesce() ÷ SQLAlchemy's session, no setup",
                SESSION_RATIO,
                quotient(cheap, "carpool_coalesce", "sqlalchemy_session"),
            ),
            at_least(
                f"{product}: processes, not coalesced ÷ recipe, no setup",
                RECIPE_RATIO_NOT_COALESCED,
                quotient(cheap, "carpool_processes_not_coalesced", "recipe"),
            ),
            at_least(
                f"{product}: processes ÷ (workers × inline), 5 ms of CPU",
                WORKER_SHARE,
                worker_share(cpu),
            ),
        ]
    return claims


def update_claims(tables: Sequence[Table]) -> list[Claim]:
    """Judge a run of the update suite."""
    claims = []
    for product in PRODUCTS:
        table = find(tables, "one-field", product)
        claims += [
            at_least(
                f"{product}: run() ÷ bulk_update without signals, one changed field",
                BULK_UPDATE_RATIO,
                quotient(table, "carpool_default", "bulk_update"),
            ),
            at_least(
                f"{product}: run() ÷ the loop in one transaction, one changed field",
                LOOP_OF_UPDATES_RATIOS[product],
                quotient(table, "carpool_default", "one_transaction"),
            ),
        ]
    return claims


def slower_way(table: Table | None) -> float | None:
    """Return the slower of coalesce() and run() against the loop; None if one has no figure."""
    ratios = [
        quotient(table, key, "one_transaction") for key in ("carpool_coalesce", "carpool_default")
    ]
    known = [ratio for ratio in ratios if ratio is not None]
    return min(known) if len(known) == len(ratios) else None


def shapes_claims(tables: Sequence[Table]) -> list[Claim]:
    """Judge a run of the shapes suite."""
    return [
        at_least(
            f"{product}, {shape.title}: the slower of coalesce() and run() ÷ the loop",
            SHAPE_RATIO,
            slower_way(find(tables, shape.name, product)),
        )
        for product in PRODUCTS
        for shape in SHAPES
    ]


def overhead_claims(tables: Sequence[Table]) -> list[Claim]:
    """Judge a run of the overhead suite."""
    return [
        claim(
            f"{table.database['product']}: {result.label}, a function that does nothing",
            f"under {OVERHEAD_MICROSECONDS:.0f} µs an item",
            result.microseconds,
            " µs",
            lambda measured: measured < OVERHEAD_MICROSECONDS,
        )
        for table in tables
        for result in table.results
        if result.group == "carpool"
    ]


def cluster_claims(tables: Sequence[Table]) -> list[Claim]:
    """Judge a run of the cluster suite: each engine against the local pool."""
    return [
        at_least(
            f"{table.database['product']}, {table.title}: {result.label} ÷ processes",
            CLUSTER_RATIO,
            quotient(table, result.key, "carpool_processes"),
        )
        for table in tables
        if table.workload in ("cheap", "cpu")
        for result in table.results
        if result.key not in ("carpool_inline", "carpool_processes")
    ]


CLAIMS: dict[str, Callable[[Sequence[Table]], list[Claim]]] = {
    "create": create_claims,
    "update": update_claims,
    "shapes": shapes_claims,
    "cluster": cluster_claims,
    "overhead": overhead_claims,
}
