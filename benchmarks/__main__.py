"""The command line: parse, measure, print, and write what was measured into a folder."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from benchmarks import machine, report
from benchmarks.claims import CLAIMS
from benchmarks.results import Benchmark, Table
from benchmarks.workload import (
    ALL_FIELDS,
    CHEAP,
    CHUNKS,
    CPU,
    NO_OP,
    ONE_FIELD,
    SHAPES,
    WAIT,
    WORKLOADS,
    Workload,
)

if TYPE_CHECKING:
    from benchmarks.suite import Suite

COMMANDS: dict[str, tuple[str, int, Sequence[Workload]]] = {
    "create": ("create users in every usual way", 10_000, (CHEAP, CPU, WAIT)),
    "update": ("change and save rows in every usual way", 20_000, (ONE_FIELD, ALL_FIELDS)),
    "shapes": ("items that do more than one INSERT", 20_000, SHAPES),
    "cluster": (
        "clusters of this machine's cores against the local pool",
        50_000,
        (CHEAP, replace(CPU, share=0.05), NO_OP, CHUNKS),
    ),
    "overhead": ("what the engine costs an item that does nothing", 200_000, (NO_OP,)),
}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (what, rows, workloads) in COMMANDS.items():
        command = commands.add_parser(name, help=what, description=what)
        command.add_argument(
            "--database-url",
            action="append",
            metavar="URL",
            help="may be repeated; default: SQLite in a temporary file, and (not for "
            "overhead) the servers that CARPOOL_TEST_POSTGRES_URL and CARPOOL_TEST_MYSQL_URL name",
        )
        command.add_argument("--rows", type=positive, default=rows, help=f"default {rows:,}")
        command.add_argument("--rounds", type=positive, default=3, help="default 3")
        command.add_argument(
            "--only", action="append", default=[], metavar="ROW", help="a row's key; repeatable"
        )
        command.add_argument(
            "--output",
            type=Path,
            default=Path("build/benchmarks"),
            help="the folder for the .json, .md and .png; default build/benchmarks",
        )
        for workload in workloads:
            if len(workloads) > 1:
                command.add_argument(
                    f"--{workload.name}-rows",
                    type=int,
                    metavar="ROWS",
                    help=f"items in the table '{workload.title}', 0 to leave it out; "
                    f"default {workload.share:g} × --rows",
                )
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    """Parse a number that has to be at least 1."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def rows_of(workload: Workload, options: argparse.Namespace) -> int:
    """Return how many items a workload's table gets."""
    given: int | None = getattr(options, f"{workload.name}_rows".replace("-", "_"), None)
    return max(1, round(options.rows * workload.share)) if given is None else given


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command."""
    options = parse(arguments)
    # So that a kill, too, ends the round and drops the databases.
    signal.signal(signal.SIGTERM, leave)
    from benchmarks import database

    with database.temporary_folder() as folder:
        urls = options.database_url or database.default_urls(folder)
        if options.command == "overhead" and not options.database_url:
            urls = urls[:1]
        databases = database.settings_from_urls(urls)
        os.environ["CARPOOL_BENCHMARKS_DATABASES"] = json.dumps(databases, default=str)
        os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
        import django

        django.setup()
        suite: Suite = importlib.import_module(f"benchmarks.{options.command}").suite
        if unknown := [key for key in options.only if key not in suite.rows]:
            raise SystemExit(f"No such row: {', '.join(unknown)}. Rows: {', '.join(suite.rows)}")
        described = machine.describe(folder)
        tables: list[Table] = []
        for alias in databases:
            tables += measure_database(suite, alias, options)
        # In the order of reading: a workload on every database, then the next.
        order = list(WORKLOADS)
        tables.sort(key=lambda table: order.index(table.workload))
        benchmark = Benchmark(
            command=options.command,
            when=datetime.now(UTC).date().isoformat(),
            rounds=options.rounds,
            machine=described,
            tables=tables,
            claims=CLAIMS[options.command](tables),
        )
    write(benchmark, options.output)
    return 0


def measure_database(suite: Suite, alias: str, options: argparse.Namespace) -> list[Table]:
    """Return all tables of one database."""
    from django.db import connections

    from benchmarks import database
    from benchmarks.measure import measure

    _, _, workloads = COMMANDS[options.command]
    with database.created(alias) as settings:
        description = database.describe(connections[alias])
        connections[alias].close()
        return [
            measure(
                suite,
                workload,
                description,
                settings,
                rows=rows,
                rounds=options.rounds,
                only=options.only,
                note=lambda text: print(text, file=sys.stderr, flush=True),
            )
            for workload in workloads
            if (rows := rows_of(workload, options)) > 0
        ]


def write(benchmark: Benchmark, folder: Path) -> None:
    """Print the report, and write it with its JSON and its chart."""
    text = report.render(benchmark)
    print(text)
    folder.mkdir(parents=True, exist_ok=True)
    data = json.dumps(benchmark.as_dict(), indent=1, ensure_ascii=False)
    (folder / f"{benchmark.command}.json").write_text(data + "\n", encoding="utf-8")
    (folder / f"{benchmark.command}.md").write_text(text, encoding="utf-8")
    try:
        from benchmarks import chart
    except ModuleNotFoundError as error:
        print(f"No chart: {error.name} is not installed (benchmarks/requirements.txt).")
    else:
        chart.draw(benchmark, folder / f"{benchmark.command}.png")
    print(f"Written to {folder}.")


def leave(number: int, frame: FrameType | None) -> None:
    """Turn a signal into an exit that runs every ``finally``."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
