"""What a run must show. It is judged here and printed; nothing stops for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from benchmarks.results import Claim, Table

#: Processes against the recipe, for items that cost next to nothing.
RECIPE_RATIO = 1.5
#: How much of each worker is put to use when the setup needs CPU. SQLite has one writer only.
WORKER_SHARE = 0.9
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


def against_recipe(table: Table | None) -> float | None:
    """Return how many times faster processes are than the recipe."""
    if table is None:
        return None
    processes, recipe = table.rate("carpool_processes"), table.rate("recipe")
    return processes / recipe if processes and recipe else None


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
    against = [
        claim(
            f"{product}: processes ÷ recipe, no setup",
            f"at least {RECIPE_RATIO}",
            against_recipe(find(tables, "cheap", product)),
            "",
            lambda measured: measured >= RECIPE_RATIO,
        )
        for product in ("SQLite", "PostgreSQL", "MariaDB")
    ]
    shares = [
        claim(
            f"{product}: processes ÷ (workers × inline), 5 ms of CPU",
            f"at least {WORKER_SHARE}",
            worker_share(find(tables, "cpu", product)),
            "",
            lambda measured: measured >= WORKER_SHARE,
        )
        for product in ("PostgreSQL", "MariaDB")
    ]
    return [*against, *shares]


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


CLAIMS: dict[str, Callable[[Sequence[Table]], list[Claim]]] = {
    "create": create_claims,
    "overhead": overhead_claims,
}
