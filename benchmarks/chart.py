"""The chart: a panel for each table, a bar for each row, its ratio at the bar's end."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from benchmarks.report import summary
from benchmarks.results import Benchmark, Result, Table

#: Told apart in grey and by the colour-blind, too.
COLOURS = {
    "reference": "#8c8c8c",
    "pool": "#e69f00",
    "carpool": "#0072b2",
    "other ORM": "#009e73",
    "no signals": "#d9d9d9",
}
MEANINGS = {
    "reference": "a plain loop",
    "pool": "other pools",
    "carpool": "carpool",
    "other ORM": "another ORM's unit of work",
    "no signals": "no save(), no signals",
}

#: Room to the right of the longest bar for what is written at its end, in parts of that bar.
ROOM = 0.55
BAR_INCHES, PANEL_INCHES, LABEL_INCHES, TITLE_INCHES = 0.30, 4.6, 3.0, 0.95


def draw(benchmark: Benchmark, path: Path) -> None:
    """Draw a run's tables: a line of panels for each workload, a column for each database."""
    products = list(dict.fromkeys(table.database["product"] for table in benchmark.tables))
    lines = [
        [table for table in benchmark.tables if table.workload == workload]
        for workload in dict.fromkeys(table.workload for table in benchmark.tables)
    ]
    # The longest table has every row: the others lack what their database can't do.
    longest = [max((table.results for table in line), key=len) for line in lines]
    heights = [BAR_INCHES * len(results) + TITLE_INCHES for results in longest]
    figure = Figure(
        figsize=(LABEL_INCHES + PANEL_INCHES * len(products), sum(heights) + 1.2),
        layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.10),
    )
    panels = figure.subplots(
        len(lines), len(products), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for line, (tables, results) in enumerate(zip(lines, longest, strict=True)):
        by_product = {table.database["product"]: table for table in tables}
        for column, product in enumerate(products):
            panel = panels[line][column]
            if product in by_product:
                draw_table(panel, by_product[product], [result.key for result in results])
            else:
                panel.set_visible(False)
            panel.set_yticks(range(len(results)), map(label, results), fontsize=9)
            panel.tick_params(axis="y", labelleft=column == 0)
    add_words(figure, benchmark)
    figure.savefig(path, dpi=110)


def label(result: Result) -> str:
    """Return a row's label, with its workers if it has several."""
    return result.label + (f" ({result.workers})" if result.workers > 1 else "")


def values(table: Table, result: Result) -> Sequence[float]:
    """Return the lengths of a row's bar, a round each."""
    return result.costs if table.in_microseconds else result.rates


def low_middle_high(lengths: Sequence[float]) -> tuple[float, float, float]:
    """Return the whisker's start, the bar's end, and the whisker's end."""
    return min(lengths), statistics.median(lengths), max(lengths)


def draw_table(panel: Axes, table: Table, keys: Sequence[str]) -> None:
    """Draw one table, its first row on top; a row that it lacks says so."""
    product = table.database["product"]
    longest = max((max(values(table, it)) for it in table.results if it.rounds), default=1.0)
    for place, key in enumerate(keys):
        result = table.result(key)
        end = 0.0
        if result and result.rounds:
            low, middle, high = low_middle_high(values(table, result))
            end = high
            panel.barh(
                place,
                middle,
                height=0.72,
                color=COLOURS[result.group],
                edgecolor="#555555",
                linewidth=0.6,
                xerr=[[middle - low], [high - middle]],
                error_kw={"elinewidth": 0.9, "capsize": 2, "ecolor": "#222222"},
            )
        panel.text(
            end + longest * 0.02,
            place,
            summary(table, result) if result else f"not for {product}",
            va="center",
            fontsize=9,
            fontweight="bold" if result and result.group == "carpool" else "normal",
        )
    panel.set_ylim(len(keys) - 0.4, -0.6)
    panel.set_xlim(0, longest * (1 + ROOM))
    panel.xaxis.set_major_locator(MaxNLocator(5))
    panel.xaxis.set_major_formatter(lambda value, position: f"{value:,g}")
    panel.tick_params(axis="x", labelsize=8)
    panel.set_title(
        f"{product}: {table.title} ({table.rows:,} items)",
        fontsize=10,
        loc="left",
    )
    panel.spines[["top", "right"]].set_visible(False)


def add_words(figure: Figure, benchmark: Benchmark) -> None:
    """Add the legend, and the title that says what was measured where."""
    groups = dict.fromkeys(result.group for table in benchmark.tables for result in table.results)
    figure.legend(
        handles=[
            Patch(facecolor=COLOURS[group], edgecolor="#555555", label=MEANINGS[group])
            for group in groups
        ],
        loc="outside lower center",
        ncols=min(len(groups), 2 * len(figure.axes)),
        frameon=False,
    )
    machine = benchmark.machine
    in_microseconds = all(table.in_microseconds for table in benchmark.tables)
    measured = "µs an item" if in_microseconds else "how many times the first row's rate, rows/s"
    figure.suptitle(
        f"django-carpool, benchmark “{benchmark.command}”: {measured}\n"
        f"median of {benchmark.rounds}, whiskers from slowest to fastest round; in brackets the "
        f"workers\n"
        f"{machine['cores']} cores ({machine['cpu']}); "
        f"Python {machine['python']}, Django {machine['packages']['Django']}; {benchmark.when}",
        fontsize=10,
    )
