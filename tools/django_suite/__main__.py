"""The command line: see `tools.django_suite`."""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import django

from tools.binaries import ServerError
from tools.django_suite.checkout import cache_folder, tests_folder
from tools.django_suite.comparison import Comparison, compare, read_allowed
from tools.django_suite.modules import groups_for
from tools.django_suite.results import Results
from tools.processes import end_with_parent
from tools.servers import in_ci, servers

ROOT = Path(__file__).resolve().parent.parent.parent

DIFFERENCES = ROOT / "tests" / "django" / "differences.toml"

DATABASES = ("sqlite", "postgres", "mysql")

BY_DEFAULT = ("sqlite", "postgres")

BLOCKS = ("plain", "coalesced")

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


class RunError(Exception):
    """A run ended without results."""


@dataclass(frozen=True)
class Run:
    """One run of some of Django's tests: on a database, in a kind of block."""

    database: str
    block: str
    url: str
    labels: Sequence[str]

    @cached_property
    def name(self) -> str:
        """A name for its database and its files. Plain results are good while it is the same."""
        how = [Path(__file__).with_name(name).read_text() for name in ("runner.py", "settings.py")]
        what = repr((sys.version, self.labels, how))
        return f"{self.block}_{hashlib.sha256(what.encode()).hexdigest()[:8]}"

    @property
    def path(self) -> Path:
        """The JSON that it writes."""
        folder = cache_folder(django.get_version())
        return folder / f"{self.database}_{self.labels[0]}_{self.name}.json"

    def results(self, *, fresh: bool) -> Results:
        """Run the tests, and return what became of them. Plain results are kept for next time."""
        if self.block == "plain" and self.path.exists() and not fresh:
            return Results.read(self.path)
        self.path.unlink(missing_ok=True)
        log = self.path.with_suffix(".log")
        command = [sys.executable, "runtests.py", "--settings=tools.django_suite.settings"]
        with log.open("wb") as output:
            subprocess.run(
                [*command, "--noinput", "--parallel=1", "--verbosity=0", *self.labels],
                cwd=tests_folder(django.get_version()),
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    "CARPOOL_TEST_DATABASE_URL": self.url,
                    "CARPOOL_DJANGO_BLOCK": self.block,
                    "CARPOOL_DJANGO_NAME": self.name,
                    "CARPOOL_DJANGO_RESULTS": str(self.path),
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=end_with_parent(signal.SIGTERM),
            )
        if not self.path.exists():
            end = "\n".join(log.read_text(errors="replace").splitlines()[-40:])
            raise RunError(f"{self.database}, {self.block}: ended without results\n{end}")
        return Results.read(self.path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for, say how the results differ, and close with the counts."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.django_suite",
        description="Run Django's tests inside coalesce(), and compare with a plain run.",
    )
    parser.add_argument(
        "--db",
        choices=DATABASES,
        action="append",
        help=f"only this database; default: {' and '.join(BY_DEFAULT)}",
    )
    parser.add_argument(
        "--jobs", type=int, default=CORES, help=f"runs side by side; default {CORES}, the cores"
    )
    parser.add_argument("--fresh", action="store_true", help="use no plain results kept before")
    parser.add_argument("labels", nargs="*", metavar="LABEL", help="as Django's runtests.py has it")
    options = parser.parse_args(arguments)
    wanted = options.db or BY_DEFAULT
    allowed = read_allowed(DIFFERENCES, django.VERSION[:2])
    try:
        tests_folder(django.get_version())
        with servers([name for name in wanted if name != "sqlite"]) as running:
            there = [name for name in wanted if name not in running.left_out]
            runs = [
                Run(name, block, running.urls.get(name, ""), labels)
                for name in there
                for labels in ([options.labels] if options.labels else groups_for(name))
                for block in BLOCKS
            ]
            results = run_all(runs, jobs=options.jobs, fresh=options.fresh)
    except (ServerError, RunError, subprocess.CalledProcessError) as error:
        print(f"test-django: {error}")
        return 1
    comparisons = []
    for name in there:
        plain, coalesced = results[name, "plain"], results[name, "coalesced"]
        comparison = compare(name, plain, coalesced, allowed, complete=not options.labels)
        print(f"\n=== {name}, Django {django.get_version()}")
        print(f"    plain: {plain}\ncoalesced: {coalesced}")
        print(comparison)
        comparisons.append(comparison)
    for name, reason in running.left_out.items():
        print(f"LEFT OUT: everything on {name}: {reason}")
    must_have = bool(options.db) or in_ci()
    return sum_up(comparisons, missing=len(running.left_out) if must_have else 0)


def run_all(runs: Sequence[Run], *, jobs: int, fresh: bool) -> dict[tuple[str, str], Results]:
    """Return the results by database and block; `jobs` runs are at work at a time."""
    results = {(run.database, run.block): Results() for run in runs}
    folder = cache_folder(django.get_version())
    print(f"Django's tests in {len(runs)} runs; their output is in {folder}", flush=True)
    with ThreadPoolExecutor(jobs) as pool:
        try:
            done = pool.map(lambda run: run.results(fresh=fresh), runs)
            for run, its_results in zip(runs, done, strict=True):
                results[run.database, run.block].add(its_results)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for (database, block), result in results.items():
        if block == "coalesced" and not result.queued:
            raise RunError(f"{database}: coalesce() has queued nothing, so nothing was tested")
    return results


def sum_up(comparisons: Sequence[Comparison], missing: int) -> int:
    """Print the closing line, and return the exit code."""
    passed = sum(comparison.passed for comparison in comparisons)
    failed = sum(comparison.failed for comparison in comparisons) + missing
    skipped = sum(comparison.not_compared for comparison in comparisons)
    if passed + failed == 0:
        print("No test was compared")
        failed = 1
    if counts_file := os.environ.get("CARPOOL_TEST_COUNTS"):
        with Path(counts_file).open("a") as file:
            file.write(f"{passed} {failed} {skipped}\n")
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
