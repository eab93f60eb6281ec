"""The tables, as Markdown that also reads well in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from benchmarks.measure import COUNTED_ROWS
from benchmarks.results import Benchmark, Result, Table

MISSING = "–"


def render(benchmark: Benchmark) -> str:
    """Return the whole report."""
    parts = [f"# Benchmark: {benchmark.command}", "", *header(benchmark)]
    if benchmark.command == "shapes":
        parts += ["", *render_shapes(benchmark)]
    for table in benchmark.tables:
        parts += ["", *render_table(table)]
    if benchmark.claims:
        parts += ["", *render_claims(benchmark)]
    return "\n".join(parts) + "\n"


def header(benchmark: Benchmark) -> Iterator[str]:
    """Describe the machine, and what the columns mean."""
    machine = benchmark.machine
    packages = ", ".join(f"{name} {it}" for name, it in machine["packages"].items() if it)
    yield (
        f"{benchmark.when}. {machine['cores']} cores ({machine['cpu']}), "
        f"{machine['memory_gib']} GiB of memory, {machine['system']}. "
        f"Servers run on the same cores, unless said otherwise. Load average when it began: "
        f"{machine['load']:.1f}. Python {machine['python']}, {packages}."
    )
    yield ""
    for database in {
        table.database["product"]: table.database for table in benchmark.tables
    }.values():
        settings = ", ".join(f"{name}={value}" for name, value in database["settings"].items())
        if database["vendor"] == "sqlite":
            where = f", on {machine['sqlite_file_system']}"
        else:
            where = "" if database["on_this_machine"] else ", on another machine"
        yield (
            f"- {database['product']} {database['version']}, driver {database['driver']}{where}: "
            f"{settings}."
        )
    yield ""
    rounds = "round" if benchmark.rounds == 1 else "interleaved rounds"
    yield (
        f"Each figure is the median of {benchmark.rounds} {rounds}, each in a fresh process; "
        "starting a pool is part of the time. Spread: fastest less slowest round, as a part of "
        "the median. Memory: the peak of the process that calls, without its workers."
    )
    if not all(table.in_microseconds for table in benchmark.tables):
        yield (
            "Statements: what Django's cursors executed in a run of their own over up to "
            f"{COUNTED_ROWS:,} items, COPY included, executemany() counted once, savepoints "
            "apart, BEGIN and COMMIT not counted."
        )


def render_shapes(benchmark: Benchmark) -> Iterator[str]:
    """Render all shapes at a glance, a table for each database."""
    yield "## At a glance"
    yield ""
    yield "Rows/s in one transaction, then how many times that; in brackets statements for 1,000."
    for product in dict.fromkeys(table.database["product"] for table in benchmark.tables):
        tables = [table for table in benchmark.tables if table.database["product"] == product]
        labels = dict.fromkeys(result.label for table in tables for result in table.results)
        yield ""
        yield from grid(
            [product, *labels],
            [[table.title, *map(partial(glance, table), table.results)] for table in tables],
        )


def glance(table: Table, result: Result) -> str:
    """Return a row's figures for a cell of the table of all shapes."""
    if result.rate is None:
        return result.instead
    first = result is table.results[0]
    figure = f"{result.rate:,.0f}/s" if first else f"{number(table.ratio(result), '.2f')}×"
    return f"{figure} ({number(result.statements, ',.4g')})"


def render_table(table: Table) -> Iterator[str]:
    """Render one table, with its title."""
    yield f"## {table.database['product']}, {table.title}: {table.rows:,} items"
    yield ""
    columns = ["", "workers", "rows/s", "spread", "× first"]
    if table.in_microseconds:
        columns += ["µs an item"]
    else:
        columns += ["statements / 1,000", "savepoints / 1,000", "signals"]
    columns += ["peak MiB"]
    lines = []
    for result in table.results:
        if result.rate is None:
            empty = [MISSING] * (len(columns) - 3)
            lines.append([result.label, f"{result.workers}", result.instead, *empty])
            continue
        line = [
            result.label,
            f"{result.workers}",
            f"{result.rate:,.0f}",
            f"{result.spread:.0%}",
            number(table.ratio(result), ".2f"),
        ]
        if table.in_microseconds:
            line += [number(result.microseconds, ".2f")]
        else:
            line += [number(result.statements, ",.4g"), number(result.savepoints, ",.4g")]
            line += [number(result.signals, ",")]
        lines.append([*line, number(result.peak_mib, ".0f")])
    yield from grid(columns, lines)
    errors = [f"- {result.label}, {it}" for result in table.results for it in result.errors]
    if errors:
        yield from ("", "Failed:", "", *errors)


def render_claims(benchmark: Benchmark) -> Iterator[str]:
    """Render what the run must show."""
    yield "## Must show"
    yield ""
    yield from grid(
        ["", "required", "measured", "verdict"],
        [[it.text, it.required, it.measured, it.verdict] for it in benchmark.claims],
    )


def number(value: float | None, form: str) -> str:
    """Format a figure that may be missing."""
    return MISSING if value is None else format(value, form)


def grid(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> Iterator[str]:
    """Render a Markdown table whose columns are aligned in plain text too."""
    lines = [list(columns), *map(list, lines)]
    widths = [max(3, *(len(line[index]) for line in lines)) for index in range(len(columns))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    for line in (lines[0], rule, *lines[1:]):
        first = line[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        yield f"| {' | '.join([first, *rest])} |"


def summary(table: Table, result: Result) -> str:
    """Return a row's figures in a few characters, for the end of its bar."""
    if result.rate is None:
        return result.instead.partition(":")[0]
    if table.in_microseconds:
        return f"{result.microseconds:.2f} µs"
    return f"{number(table.ratio(result), '.2f')}×   {result.rate:,.0f}/s"
