"""Run the tests once for each database, and sum up in one line.

::

    python -m tools.suite                               everything
    python -m tools.suite --db postgres -- -k deadlock  one database, and arguments for pytest

The runs: ``tests/unit``, which needs no database, once; everything else once on SQLite, once on
PostgreSQL and once on MariaDB, whose servers `tools/servers.py` provides, with a Redis that they
share, as a broker for Celery; but for ``tests/cluster``, which is asked for by name
(``make test-cluster``). On each database there are two runs, whole programs (``PROGRAMS``) and the
rest, so that none is alone for long at the end. There are as many at a time as there are cores, of
each database one; each one's output is shown when it ends.

It fails if a test fails, if a run executes no test, if a run takes longer than it may
(``CARPOOL_TEST_LIMIT``, seconds), or if a run leaves processes behind. A database that can't be
had is left out and named at the end; with ``CI=true``, or if ``--db`` asked for it, that fails.

The closing line is ``N passed, N failed, N skipped``. If ``CARPOOL_TEST_COUNTS`` names a file,
the three numbers are appended to it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn
from xml.etree import ElementTree

from tools.binaries import BROKER_VARIABLES, URL_VARIABLES, ServerError
from tools.processes import end_with_parent
from tools.servers import in_ci, servers

ROOT = Path(__file__).resolve().parent.parent

DATABASES = ("sqlite", "postgres", "mysql")

CLIENTS: Mapping[str, str] = {"postgres": "psycopg", "mysql": "MySQLdb"}

#: Seconds for one run of pytest: several times what the slowest one needs on two cores.
LIMIT = float(os.environ.get("CARPOOL_TEST_LIMIT", "4500"))

#: Seconds for what a run started to end after it. A pool's helpers notice within milliseconds
#: that their parent is gone; what lives longer is an orphan.
GRACE = 30.0

NO_TESTS_COLLECTED = 5  # pytest's exit code

#: What starts whole programs, and takes about as long as all the rest on a database.
PROGRAMS = ("tests/acceptance", "tests/torment")

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


@dataclass
class Counts:
    """What pytest counted, and what it said of the tests it skipped."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


class Stopped(Exception):
    """Somebody asked this program to stop, by the signal named."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def read_report(path: Path) -> Counts:
    """Read pytest's JUnit report. An error in a fixture counts as a failure."""
    counts = Counts()
    for suite in ElementTree.parse(path).getroot().iter("testsuite"):
        numbers = {name: int(suite.get(name, 0)) for name in ("tests", "errors", "failures")}
        counts.skipped += int(suite.get("skipped", 0))
        counts.failed += numbers["errors"] + numbers["failures"]
        counts.passed += numbers["tests"] - numbers["errors"] - numbers["failures"]
        counts.passed -= int(suite.get("skipped", 0))
        counts.reasons.update(skip.get("message", "") for skip in suite.iter("skipped"))
    return counts


@dataclass
class Run:
    """One run of pytest, in a process group of its own.

    ``database``: the one that it has to itself.
    """

    label: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    may_be_empty: bool = False
    database: str | None = None

    def start(self, *, quiet: bool = False) -> None:
        """Start pytest, with a folder for its files, which it can't remove if it is killed.

        `quiet` keeps its output until it ends, for runs side by side.
        """
        self.began = time.monotonic()
        self.folder = tempfile.TemporaryDirectory(prefix="carpool-suite-")
        self.report = Path(self.folder.name) / "junit.xml"
        self.output = (Path(self.folder.name) / "output").open("w+b") if quiet else None
        if not quiet:
            print(f"\n=== {self.label}", flush=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pytest", f"--junitxml={self.report}", *self.arguments],
            cwd=ROOT,
            env={**self.environment, "CARPOOL_TEST_FOLDER": self.folder.name},
            stdout=self.output,
            stderr=subprocess.STDOUT if quiet else None,
            start_new_session=True,
            preexec_fn=end_with_parent(signal.SIGINT),
        )

    def has_ended(self) -> bool:
        """Whether pytest has; it is made to if it takes too long."""
        if self.process.poll() is not None:
            return True
        if time.monotonic() - self.began < LIMIT:
            return False
        self.process.send_signal(signal.SIGABRT)  # faulthandler dumps all threads, then it aborts.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE)
        return True

    def end(self) -> Counts:
        """Tidy up after pytest, and count; what went wrong besides tests counts as a failure."""
        orphans = end_group(self.process.pid)
        self.process.wait()
        if self.output:
            print(f"\n=== {self.label}", flush=True)
            self.output.seek(0)
            shutil.copyfileobj(self.output, sys.stdout.buffer)
            sys.stdout.flush()
            self.output.close()
        try:
            counts = read_report(self.report)
        except (OSError, ElementTree.ParseError):
            counts = Counts()
        self.folder.cleanup()
        counts.seconds = time.monotonic() - self.began
        wrong = []
        if counts.seconds > LIMIT:
            wrong.append(f"took longer than {LIMIT:.0f} seconds; its stacks are above")
        elif self.process.returncode == NO_TESTS_COLLECTED and self.may_be_empty:
            pass
        elif self.process.returncode and not counts.failed:
            wrong.append(f"pytest ended with exit code {self.process.returncode}")
        elif counts.passed + counts.failed == 0:
            wrong.append("no test was executed")
        if orphans:
            wrong.append("\n    ".join(["left processes behind, which were killed:", *orphans]))
        for what in wrong:
            print(f"{self.label}: {what}", flush=True)
        counts.failed += len(wrong)
        return counts


def run_side_by_side(runs: Sequence[Run], jobs: int) -> Iterator[tuple[str, Counts]]:
    """Run all, `jobs` of them at a time, and yield what each counted when it ends.

    They begin in their order, but for those whose database another one has.
    """
    waiting, running = list(runs), list[Run]()
    quiet = jobs > 1 and len(runs) > 1
    try:
        while waiting or running:
            taken = {run.database for run in running} - {None}
            free = [run for run in waiting if run.database not in taken]
            if free and len(running) < jobs:
                waiting.remove(free[0])
                running.append(free[0])
                free[0].start(quiet=quiet)
                continue
            for run in running:
                if run.has_ended():
                    running.remove(run)
                    yield run.label, run.end()
                    break
            else:
                time.sleep(0.05)
    except Stopped:
        for run in running:
            run.process.send_signal(signal.SIGINT)  # by which pytest tidies up, and by no other
        raise
    finally:
        for run in running:
            run.end()


def end_group(group: int) -> list[str]:
    """Wait for the processes of this group to end; kill and return those that don't."""
    deadline = time.monotonic() + GRACE
    while (alive := group_members(group)) and time.monotonic() < deadline:
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    return alive


def group_members(group: int) -> list[str]:
    """Return the living processes of a process group, by id and command line (Linux only)."""
    members = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # "pid (name) state ppid pgrp …", where the name may hold anything.
            state, _, its_group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                members.append(f"{folder.name} {command.decode(errors='replace').strip()}")
    return members


def missing_client(name: str) -> str | None:
    """Return why Django could not talk to this database, or None if it could."""
    try:
        importlib.import_module(CLIENTS[name])
    except ImportError as error:
        return f"its client library is not installed: {error}"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for, list what was skipped or left out, and close with the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--db", choices=DATABASES, action="append", help="only this database")
    parser.add_argument(
        "--jobs", type=int, default=CORES, help=f"runs side by side; default {CORES}, the cores"
    )
    parser.add_argument("pytest", nargs="*", metavar="-- ARGUMENTS", help="for pytest")
    options = parser.parse_args(arguments)
    wanted = options.db or DATABASES

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise Stopped(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    left_out: dict[str, str] = {}
    for name in CLIENTS:
        if name in wanted and (reason := missing_client(name)):
            left_out[name] = reason
    needed = [name for name in URL_VARIABLES if name in wanted and name not in left_out]
    needed.append("redis")
    results: dict[str, Counts] = {}
    try:
        with servers(needed) as running:
            left_out.update(running.left_out)
            runs = plan(wanted, options.pytest, running.urls)
            results.update(run_side_by_side(runs, options.jobs))
    except ServerError as error:
        print(f"servers: {error}")
        left_out.update(dict.fromkeys(set(needed) - set(results), "its server could not be had"))
    except Stopped as stopped:
        print(f"Stopped by {signal.Signals(stopped.number).name}")
        return 128 + stopped.number
    return sum_up(results, left_out, must_have=bool(options.db) or in_ci())


def plan(wanted: Sequence[str], arguments: Sequence[str], urls: Mapping[str, str]) -> list[Run]:
    """Return the runs: of each database there is, and with SQLite that of ``tests/unit``."""
    # With paths of the caller's own, pytest is not given ours.
    paths = [argument for argument in arguments if (ROOT / argument.partition("::")[0]).exists()]
    # The counts are ours to write; a test of this very module would add to them.
    environment = {**os.environ, "CARPOOL_TEST_DATABASE_URL": "", "CARPOOL_TEST_COUNTS": ""}
    # Tests start thousands of interpreters, of which each would compile what it imports.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment |= {BROKER_VARIABLES[name]: urls[name] for name in BROKER_VARIABLES if name in urls}
    rest = ["tests", *(f"--ignore={path}" for path in ("tests/unit", "tests/cluster", *PROGRAMS))]
    # pytest ignores no path that it is given.
    programs = [path for path in PROGRAMS if f"--ignore={path}" not in arguments]
    parts = [("", [])] if paths else [("", rest), (", programs", programs)]
    runs = [
        Run(
            name + part,
            [*own, *arguments],
            {**environment, "CARPOOL_TEST_DATABASE_URL": urls.get(name, "")},
            may_be_empty=bool(arguments),
            database=name,
        )
        for part, own in parts
        if own or paths
        for name in wanted
        if name == "sqlite" or name in urls
    ]
    if "sqlite" in wanted and not paths:
        # Last: it is short.
        unit = ["tests/unit", *arguments]
        runs.append(Run("unit", unit, environment, may_be_empty=bool(arguments)))
    return runs


def sum_up(results: Mapping[str, Counts], left_out: Mapping[str, str], *, must_have: bool) -> int:
    """Print the closing lines, and return the exit code."""
    total = Counts()
    print("\n=== all runs")
    for name, counts in results.items():
        print(f"{name:>18}: {counts} in {counts.seconds:.0f} s")
        total.passed += counts.passed
        total.failed += counts.failed
        total.skipped += counts.skipped
    for name, counts in results.items():
        for reason, times in counts.reasons.items():
            print(f"Skipped on {name}, {times} ×: {reason}")
    for name, reason in left_out.items():
        print(f"LEFT OUT: everything on {name}: {reason}")
    if left_out and must_have:
        total.failed += len(left_out)
    if total.passed + total.failed == 0:
        print("No test was executed")
        total.failed += 1
    if counts_file := os.environ.get("CARPOOL_TEST_COUNTS"):
        with Path(counts_file).open("a") as file:
            file.write(f"{total.passed} {total.failed} {total.skipped}\n")
    print(total, flush=True)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
