"""The benchmark's figures are made rightly from its rounds, and its command works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import items, report
from benchmarks.claims import (
    cluster_claims,
    create_claims,
    overhead_claims,
    shapes_claims,
    update_claims,
)
from benchmarks.results import Benchmark, Claim, Result, Round, Table
from benchmarks.suite import Suite, Task
from benchmarks.workload import CHEAP, CPU, SHAPES, WAIT, cores

ROOT = Path(__file__).resolve().parents[2]


def result(
    key: str, *seconds: float, rows: int = 1000, workers: int = 1, group: str = "carpool"
) -> Result:
    """Return a result whose rounds took these seconds."""
    rounds = tuple(Round(it, signals=2 * rows, peak_kib=40 * 1024) for it in seconds)
    return Result(key, key.replace("_", " "), group, workers, rows, rounds)


def table(*results: Result, product: str = "SQLite", workload: str = "cheap") -> Table:
    """Return a table of these results."""
    database = {"product": product, "vendor": "sqlite", "version": "3", "driver": "x"}
    return Table({**database, "settings": {}}, workload, workload, 1000, results)


def benchmark(*tables: Table, command: str = "create") -> Benchmark:
    """Return a run with these tables."""
    machine = {
        "cores": 2,
        "cpu": "a CPU",
        "memory_gib": 4,
        "system": "a system",
        "sqlite_file_system": "ext4",
        "load": 0.1,
        "python": "3.11",
        "packages": {"Django": "5.2"},
    }
    judges = {"create": create_claims, "shapes": shapes_claims, "overhead": overhead_claims}
    return Benchmark(command, "2026-01-01", 3, machine, tables, judges[command](tables))


def run_benchmarks(command: str, folder: Path, *options: str) -> tuple[str, dict[str, Any]]:
    """Run a command on SQLite, in one round, and return what it printed and its JSON."""
    environment = {key: value for key, value in os.environ.items() if "DJANGO" not in key}
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks", command, "--rounds", "1", "--output", folder),
            *("--database-url", f"sqlite:///{folder / 'a.sqlite3'}", *options),
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout, json.loads((folder / f"{command}.json").read_text())


def judged(claims: list[Claim], text: str) -> Claim:
    """Return the claim with this text."""
    return next(it for it in claims if it.text == text)


def test_a_rate_is_the_median_of_the_rounds() -> None:
    """One slow round does not move the figure; the spread tells of it."""
    measured = result("plain_loop", 1.0, 10.0, 2.0)
    assert measured.rate == 500
    assert measured.spread == (1000 - 100) / 500
    assert measured.microseconds == 2000


def test_a_ratio_is_to_the_first_row() -> None:
    """The first row has 1, one twice as fast has 2."""
    first, second = result("plain_loop", 2.0), result("one_transaction", 1.0)
    measured = table(first, second)
    assert [measured.ratio(it) for it in measured.results] == [1.0, 2.0]


def test_signals_and_memory_are_medians() -> None:
    """They are taken from the rounds as the rate is."""
    rounds = (Round(1, 2000, 1024), Round(1, 2000, 3072), Round(1, 2004, 2048))
    measured = Result("a", "a", "pool", 1, 1000, rounds)
    assert measured.signals == 2000
    assert measured.peak_mib == 2.0


def test_a_row_without_rounds_has_no_figures_but_a_line() -> None:
    """A row that isn't installed stays in the table, and nothing is computed from it."""
    missing = Result("mpire_pool", "mpire", "pool", 2, 1000, note="not installed: mpire")
    measured = table(result("plain_loop", 1.0), missing)
    assert missing.rate is None
    assert missing.spread is None
    assert measured.ratio(missing) is None
    text = report.render(benchmark(measured))
    assert "| mpire      |       2 | not installed: mpire |" in text


def test_ratios_are_none_if_the_first_row_failed() -> None:
    """No figure is better than one relative to nothing."""
    failed = Result("plain_loop", "plain", "reference", 1, 1000, errors=("round 1 of 1: no",))
    second = result("one_transaction", 1.0)
    assert table(failed, second).ratio(second) is None


def test_a_failed_round_is_named_and_the_others_count() -> None:
    """One "database is locked" neither hides the row nor is hidden."""
    rounds = (Round(1.0, 2000, 1024), Round(3.0, 2000, 1024))
    errors = ("round 2 of 3: database is locked",)
    recipe = Result("recipe", "recipe", "pool", 4, 1000, rounds, errors=errors)
    text = report.render(benchmark(table(result("plain_loop", 1.0), recipe)))
    assert " 667 |" in text
    assert "- recipe, round 2 of 3: database is locked" in text


@pytest.mark.parametrize(
    ("product", "text", "slower", "faster", "required"),
    [
        ("SQLite", "run() ÷ recipe", "recipe", "carpool_default", 15),
        ("PostgreSQL", "run() ÷ recipe", "recipe", "carpool_default", 15),
        ("MariaDB", "run() ÷ recipe", "recipe", "carpool_default", 8),
        (
            "MariaDB",
            "run() ÷ bulk_create without signals",
            "bulk_create",
            "carpool_default",
            1,
        ),
        (
            "SQLite",
            "coalesce() ÷ the loop in one transaction",
            "one_transaction",
            "carpool_coalesce",
            2.5,
        ),
        (
            "PostgreSQL",
            "coalesce() ÷ the loop in one transaction",
            "one_transaction",
            "carpool_coalesce",
            5,
        ),
        (
            "MariaDB",
            "coalesce() ÷ SQLAlchemy's session",
            "sqlalchemy_session",
            "carpool_coalesce",
            1.5,
        ),
        (
            "SQLite",
            "processes, not coalesced ÷ recipe",
            "recipe",
            "carpool_processes_not_coalesced",
            1.5,
        ),
    ],
)
def test_a_row_must_be_so_many_times_faster(
    product: str, text: str, slower: str, faster: str, required: float
) -> None:
    """Faster by just enough passes, by just too little fails."""
    for ratio, verdict in [(required * 1.01, "pass"), (required * 0.99, "FAIL")]:
        measured = table(result(slower, 10.0), result(faster, 10.0 / ratio), product=product)
        claim = judged(create_claims([measured]), f"{product}: {text}, no setup")
        assert claim.verdict == verdict
        assert float(claim.measured) == pytest.approx(ratio, abs=0.01)
        assert claim.required == f"at least {required:g}"


@pytest.mark.parametrize(
    ("product", "text", "slower", "required"),
    [
        ("SQLite", "bulk_update without signals", "bulk_update", 3),
        ("PostgreSQL", "bulk_update without signals", "bulk_update", 3),
        ("MariaDB", "bulk_update without signals", "bulk_update", 3),
        ("SQLite", "the loop in one transaction", "one_transaction", 3.5),
        ("PostgreSQL", "the loop in one transaction", "one_transaction", 6),
        ("MariaDB", "the loop in one transaction", "one_transaction", 5),
    ],
)
def test_a_run_must_update_so_many_times_faster(
    product: str, text: str, slower: str, required: float
) -> None:
    """One changed field is judged, on each database, and the other table isn't."""
    for ratio, verdict in [(required * 1.01, "pass"), (required * 0.99, "FAIL")]:
        results = result(slower, 10.0), result("carpool_default", 10.0 / ratio, workers=2)
        one_field = table(*results, product=product, workload="one-field")
        all_fields = table(*results, product=product, workload="all-fields")
        text_ = f"{product}: run() ÷ {text}, one changed field"
        claim = judged(update_claims([one_field]), text_)
        assert claim.verdict == verdict
        assert claim.required == f"at least {required:g}"
        assert judged(update_claims([all_fields]), text_).verdict == "not measured"


def test_no_shape_may_be_slower_either_way() -> None:
    """The slower of the two ways is judged; with one of them missing nothing is."""
    shape = SHAPES[0]
    loop, block, pool = (
        result("one_transaction", 9.0),
        result("carpool_coalesce", 3.0),
        result("carpool_default", 10.5),
    )
    text = f"SQLite, {shape.title}: the slower of coalesce() and run() ÷ the loop"
    both = table(loop, block, pool, workload=shape.name)
    assert judged(shapes_claims([both]), text).measured == "0.86"
    assert judged(shapes_claims([both]), text).verdict == "FAIL"
    one = table(loop, block, workload=shape.name)
    assert judged(shapes_claims([one]), text).verdict == "not measured"
    assert len(shapes_claims([])) == 3 * len(SHAPES)


def test_shapes_are_shown_at_a_glance() -> None:
    """A line for each shape: the loop's rate, and how many times that the others have."""
    shape = SHAPES[0]
    measured = table(
        result("one_transaction", 2.0), result("carpool_coalesce", 0.5), workload=shape.name
    )
    text = " ".join(report.render(benchmark(measured, command="shapes")).split())
    assert f"| {shape.name} | 500/s (–) | 4.00× (–) |" in text


@pytest.mark.parametrize(("seconds", "verdict"), [(5.0, "pass"), (5.6, "FAIL")])
def test_each_worker_must_be_put_to_use(seconds: float, verdict: str) -> None:
    """Two workers against twice the inline rate."""
    inline, processes = (
        result("carpool_inline", 10.0),
        result("carpool_processes", seconds, workers=2),
    )
    claims = create_claims([table(inline, processes, product="MariaDB", workload="cpu")])
    text = "MariaDB: processes ÷ (workers × inline), 5 ms of CPU"
    assert judged(claims, text).verdict == verdict


def test_what_was_not_measured_is_said() -> None:
    """A claim never passes, nor vanishes, for lack of a figure."""
    claims = create_claims([table(result("plain_loop", 1.0))])
    assert len(claims) == 3 * 6
    assert {it.verdict for it in claims} == {"not measured"}


def test_overhead_is_judged_for_carpool_rows_only() -> None:
    """The plain loop's own cost is shown, not judged."""
    loop = result("plain_loop", 0.0001, group="reference")
    cheap, dear = result("carpool_inline", 0.029), result("carpool_threads", 0.031)
    claims = overhead_claims([table(loop, cheap, dear, workload="no-op")])
    assert [it.verdict for it in claims] == ["pass", "FAIL"]
    assert claims[0].measured == "29.00 µs"


def test_clusters_are_judged_against_the_local_pool() -> None:
    """Each engine is, with items that write; what runs in no cluster is not."""
    rows = [result("carpool_inline", 4.0), result("carpool_processes", 1.0)]
    rows += [result("carpool_dask", 1.2), result("carpool_other", 1.3)]

    claims = cluster_claims([table(*rows, workload=name) for name in ("cheap", "cpu", "chunks")])

    assert [it.verdict for it in claims] == ["pass", "FAIL"] * 2
    assert claims[0].text == "SQLite, cheap: carpool dask ÷ processes"


def test_the_json_has_rounds_figures_and_claims() -> None:
    """What the chart and a reader need is there, and it is JSON."""
    run = benchmark(table(result("plain_loop", 1.0, 2.0, 4.0), result("recipe", 1.0, 1.0, 1.0)))
    data = json.loads(json.dumps(run.as_dict()))
    first, second = data["tables"][0]["results"]
    assert [it["seconds"] for it in first["rounds"]] == [1.0, 2.0, 4.0]
    assert (first["rate"], first["ratio"], second["ratio"]) == (500, 1.0, 2.0)
    assert len(data["must_show"]) == 3 * 6


def test_a_missing_or_foreign_row_is_known_before_it_runs() -> None:
    """`needs` is asked without importing what it names."""
    suite = Suite("a")

    @suite.row("a label", group="pool", workers="processes", needs=["json", "no_such_package"])
    def a_key(task: Task) -> None:
        """Do nothing."""

    row = suite.rows["a_key"]
    assert row.label == "a label"
    assert row.missing() == ["no_such_package"]


def test_workers_follow_the_workload() -> None:
    """A number stays; processes and threads are the cores', and more where items wait."""
    assert CHEAP.workers(None) == 1
    assert CHEAP.workers(4) == 4
    assert CPU.workers("processes") == cores()
    assert WAIT.workers("threads") > cores()


def test_burning_takes_its_cpu_time() -> None:
    """It is CPU time that is burned, at least what was asked for."""
    before = time.thread_time()
    items.burn()
    assert time.thread_time() - before >= items.CPU_SECONDS


def test_the_command_measures_on_sqlite(tmp_path: Path) -> None:
    """200 rows by a few rows of the suite: every row written, every signal counted."""
    keys = ["plain_loop", "recipe", "bulk_create"]
    text, data = run_benchmarks(
        *("create", tmp_path, "--rows=200", "--cpu-rows=0", "--wait-rows=0"),
        *(f"--only={key}" for key in keys),
    )
    assert "## SQLite, no setup: 200 items" in text
    assert "## Must show" in text
    results = {it["key"]: it for it in data["tables"][0]["results"]}
    assert list(results) == keys
    assert [it["signals"] for it in results.values()] == [400, 400, 0]
    assert [results[key]["statements"] for key in keys[:2]] == [1000, 1000]
    assert results["bulk_create"]["statements"] < 50
    assert all(it["rate"] > 0 and it["peak_mib"] > 10 for it in results.values())
    assert not (tmp_path / "a.sqlite3").exists()


def test_the_command_changes_rows_that_are_there(tmp_path: Path) -> None:
    """All rows of both tables are changed, with the signals of save() or none."""
    keys = ["one_transaction", "carpool_inline", "bulk_update", "raw_update"]
    text, data = run_benchmarks(
        *("update", tmp_path, "--rows=200", "--all-fields-rows=50"),
        *(f"--only={key}" for key in keys),
    )
    assert "Failed:" not in text
    for rows, measured in zip([200, 50], data["tables"], strict=True):
        results = {it["key"]: it for it in measured["results"]}
        assert list(results) == keys
        assert [it["signals"] for it in results.values()] == [2 * rows, 2 * rows, 0, 0]
        assert all(it["rate"] > 0 for it in results.values())
        assert results["one_transaction"]["statements"] == 1000 * (rows + 1) / rows
        assert results["raw_update"]["statements"] <= 1000 * 2 / rows


def test_an_sqlite_file_that_exists_is_refused(tmp_path: Path) -> None:
    """Nobody's rows are emptied for a benchmark."""
    file = tmp_path / "precious.sqlite3"
    file.write_bytes(b"rows")
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks", "create", "--database-url", f"sqlite:///{file}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 1
    assert "exists" in finished.stderr
    assert file.read_bytes() == b"rows"
