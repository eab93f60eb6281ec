"""Take the rows of a suite in turns, each turn in a fresh process, and gather what they say."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import counters
from benchmarks.results import Result, Round, Table
from benchmarks.suite import Row, Suite, is_installed
from benchmarks.workload import Workload

#: A round that takes longer hangs, as some pools do; the rows are chosen to take seconds.
ROUND_SECONDS = 900

#: Statements for each thousand rows hardly depend on how many thousands there are.
COUNTED_ROWS = 1000

Note = Callable[[str], None]


@dataclass(frozen=True)
class Failed:
    """A round that ended with an error, in a line."""

    error: str


def measure(
    suite: Suite,
    workload: Workload,
    database: dict[str, Any],
    settings: dict[str, Any],
    *,
    rows: int,
    rounds: int,
    only: Sequence[str] = (),
    note: Note,
) -> Table:
    """Return a table of all rows that the database can have.

    A row that isn't installed stays in the table and says so. A round that failed is no reason to
    leave the row's other rounds out: it is named under the table.
    """
    candidates = [
        row
        for row in suite.rows.values()
        if row.vendor in (None, database["vendor"]) and (not only or row.key in only)
    ]
    results = {row.key: blank(row, workload, rows) for row in candidates}
    candidates = [row for row in candidates if not results[row.key].note]

    def turn(row: Row, count: int, title: str, *, statements: bool = False) -> Any:
        note(f"{database['product']}, {workload.title}, {title}: {row.label}")
        answer = run_round(suite, workload, row, settings, rows=count, statements=statements)
        if isinstance(answer, Failed):
            note(f"  failed: {answer.error}")
            so_far = results[row.key]
            error = f"{title}: {answer.error}"
            results[row.key] = replace(so_far, errors=(*so_far.errors, error))
        return answer

    for number in range(1, rounds + 1):
        for row in candidates:
            answer = turn(row, rows, f"round {number} of {rounds}")
            if not isinstance(answer, Failed):
                measured = Round(answer["seconds"], answer["signals"], answer["peak_kib"])
                so_far = results[row.key]
                results[row.key] = replace(so_far, rounds=(*so_far.rounds, measured))
                note(f"  {rows / measured.seconds:,.0f} rows/s")
    if workload.writes:
        counted = min(rows, COUNTED_ROWS)
        for row in candidates:
            answer = turn(row, counted, "count of statements", statements=True)
            if not isinstance(answer, Failed):
                results[row.key] = replace(
                    results[row.key],
                    statements=1000 * answer["statements"] / counted,
                    savepoints=1000 * answer["savepoints"] / counted,
                )
    return Table(database, workload.name, workload.title, rows, tuple(results.values()))


def blank(row: Row, workload: Workload, rows: int) -> Result:
    """Return a row's result before its first round."""
    missing = row.missing() + [name for name in workload.needs if not is_installed(name)]
    return Result(
        key=row.key,
        label=row.label,
        group=row.group,
        workers=workload.workers(row.workers),
        rows=rows,
        note=f"not installed: {', '.join(missing)}" if missing else "",
    )


def run_round(
    suite: Suite,
    workload: Workload,
    row: Row,
    settings: dict[str, Any],
    *,
    rows: int,
    statements: bool = False,
) -> dict[str, Any] | Failed:
    """Run one round in a fresh process, and return its answer.

    The process leads a group of its own, so that whatever it started ends with it, and none of it
    disturbs the next round.
    """
    with tempfile.TemporaryDirectory(prefix="carpool-round-") as name:
        folder = Path(name)
        answer, errors = folder / "answer.json", folder / "errors"
        order = {
            "suite": suite.name,
            "row": row.key,
            "workload": workload.name,
            "rows": rows,
            "workers": workload.workers(row.workers),
            "answer": str(answer),
        }
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.round", json.dumps(order)],
                env={
                    **environment(settings),
                    **counters.prepare(folder, rows, statements=statements),
                    "TMPDIR": str(folder),  # what a round that is killed leaves behind goes, too
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
            try:
                process.wait(ROUND_SECONDS)
            except subprocess.TimeoutExpired:
                return Failed(f"took more than {ROUND_SECONDS} seconds")
            finally:
                end_group(process)
        if process.returncode:
            lines = errors.read_text(errors="replace").strip().splitlines()
            return Failed(lines[-1] if lines else f"exit code {process.returncode}")
        result: dict[str, Any] = json.loads(answer.read_text())
        return result


def environment(settings: dict[str, Any]) -> dict[str, str]:
    """Return the environment of a round: one database, and this package importable anywhere."""
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    return {
        **os.environ,
        "CARPOOL_BENCHMARKS_DATABASES": json.dumps({"default": settings}, default=str),
        "DJANGO_SETTINGS_MODULE": "benchmarks.settings",
        "PYTHONPATH": path,
    }


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End whatever is left of a round's process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
