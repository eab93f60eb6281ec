"""The picture: items a second by workers, by chunk size, and where an item's time goes.

Needs matplotlib (``django-carpool[plot]``), which only this module imports.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from carpool.bench.advice import advice_on
from carpool.bench.figures import Bench, Kind, Row
from carpool.words import counted

# Told apart in grey and by the colour-blind, too.
COLOURS: dict[str, str] = {
    "loop": "#8c8c8c",
    "inline": "#009e73",
    "threads": "#e69f00",
    "processes": "#0072b2",
}
MARKERS: dict[str, str] = {"inline": "D", "threads": "s", "processes": "o"}
LEGIBLE = 1.4
"""Times that a tick's number must be the one before it, lest they overlap."""

SHARES = (
    ("waiting", "#e69f00"),
    ("database", "#56b4e9"),
    ("computing", "#0072b2"),
    ("overhead of Django and carpool", "#b0c4d4"),
)


def draw(bench: Bench, path: Path, title: str) -> None:
    """Draw the figures into a file, in the format of its ending."""
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(5, 1), width_ratios=(3, 2))
    _by_workers(figure.add_subplot(grid[0, 0]), bench)
    _by_chunk_size(figure.add_subplot(grid[0, 1]), bench)
    _shares(figure.add_subplot(grid[1, :]), bench)
    figure.suptitle(
        f"{title}: {counted(bench.items, 'item')}, median of {counted(bench.rounds, 'round')}, "
        f"whiskers from slowest to fastest\n{textwrap.fill(advice_on(bench), 130)}",
        fontsize=10,
    )
    figure.savefig(path, dpi=110)


def _by_workers(panel: Axes, bench: Bench) -> None:
    panel.set_title("items/s by workers", fontsize=10, loc="left")
    most = 1
    pools: tuple[Kind, ...] = ("threads", "processes")
    for kind in pools:
        rows = [row for row in bench.rows if row.way.kind == kind and row.way.paced]
        found = [row for row in rows if row.is_measured]
        if found:
            most = max(most, *(row.way.workers for row in found))
            _line(panel, found, kind, lambda row: row.way.workers)
    for row in bench.rows:
        if row.is_measured and row.way.paced and row.way.kind in ("loop", "inline"):
            panel.axhline(
                row.rate,
                color=COLOURS[row.way.kind],
                linestyle="--" if row.way.coalesce or row.way.kind == "loop" else ":",
                linewidth=1.4,
                label=row.way.label,
                zorder=1,
            )
    _logarithmic(panel, [2**n for n in range(most.bit_length())] + [most])
    panel.set_xlabel("workers", fontsize=9)
    _finish(panel)


def _by_chunk_size(panel: Axes, bench: Bench) -> None:
    panel.set_title("items/s by chunk size", fontsize=10, loc="left")
    measured = [row for row in bench.rows if row.is_measured]
    several = [row.way.workers for row in measured if not row.way.paced]
    sizes: set[int] = set()
    kinds: tuple[tuple[Kind, int], ...] = (("inline", 1), ("processes", max(several, default=1)))
    for kind, workers in kinds:
        rows = [
            row
            for row in measured
            if row.way.kind == kind
            and row.way.workers == workers
            and (row.way.coalesce or all(not r.way.coalesce for r in measured))
        ]
        if rows:
            rows.sort(key=lambda row: row.chunk_size)
            sizes.update(row.chunk_size for row in rows)
            _line(panel, rows, kind, lambda row: row.chunk_size, rows[0].way.label)
    _logarithmic(panel, sorted(sizes))
    panel.set_xlabel("items a chunk", fontsize=9)
    _finish(panel)


def _line(
    panel: Axes, rows: list[Row], kind: Kind, where: Callable[[Row], int], label: str | None = None
) -> None:
    middle = [row.rate for row in rows]
    panel.errorbar(
        [where(row) for row in rows],
        middle,
        yerr=[
            [row.rate - min(row.rates) for row in rows],
            [max(row.rates) - row.rate for row in rows],
        ],
        color=COLOURS[kind],
        marker=MARKERS[kind],
        markersize=5,
        linewidth=1.6,
        elinewidth=0.9,
        capsize=3,
        label=label or kind,
        zorder=2,
    )


def _logarithmic(panel: Axes, ticks: list[int]) -> None:
    panel.set_xscale("log", base=2)
    apart: list[int] = []
    for tick in sorted(set(ticks)):
        if not apart or tick >= apart[-1] * LEGIBLE:
            apart.append(tick)
    panel.set_xticks(apart)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:,.0f}"))
    panel.xaxis.set_minor_locator(NullLocator())


def _finish(panel: Axes) -> None:
    panel.set_ylim(bottom=0)
    panel.yaxis.set_major_locator(MaxNLocator(6))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:,g}"))
    panel.tick_params(labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", color="#dddddd", linewidth=0.6)
    if panel.get_legend_handles_labels()[0]:
        panel.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, fontsize=8, frameon=False
        )


def _shares(panel: Axes, bench: Bench) -> None:
    shares = bench.shares
    parts = (shares.waiting, shares.database, shares.function, shares.overhead)
    left = 0.0
    for (name, colour), part in zip(SHARES, parts, strict=True):
        panel.barh(0, part, left=left, color=colour, edgecolor="white", label=f"{name} {part:.0%}")
        left += part
    panel.set_title("where an item's time goes, in one process", fontsize=10, loc="left")
    panel.set_xlim(0, 1)
    panel.axis("off")
    panel.legend(
        loc="upper center", bbox_to_anchor=(0.5, 0.05), ncols=len(SHARES), fontsize=8, frameon=False
    )
