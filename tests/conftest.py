"""What every test may use: the database at hand, a look at its connections, subprocesses."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from hypothesis import settings as settings_of_hypothesis

# A machine that stalls for a moment is no failure. Where CI is set, the rest is Hypothesis' own.
settings_of_hypothesis.register_profile("carpool", settings_of_hypothesis(), deadline=None)
settings_of_hypothesis.load_profile("carpool")

ROOT = Path(__file__).resolve().parent.parent

#: How long a server may take to notice that a client has gone.
GOODBYE_SECONDS = 60.0


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder of this run's files, unless whoever started this run has made it."""
    folder: Path = settings.FOLDER
    if not folder.exists():
        folder.mkdir(mode=0o700)
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ["CARPOOL_TEST_FOLDER"] = str(folder)  # for the processes that tests start


def pytest_report_header() -> str:
    """Say in the log what this run is about."""
    return f"database: {connections[DEFAULT_DB_ALIAS].vendor}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose ``only_on`` mark doesn't name the database at hand."""
    at_hand = connections[DEFAULT_DB_ALIAS].vendor
    for mark in item.iter_markers("only_on"):
        if at_hand not in mark.args:
            pytest.skip(f"only on {' and '.join(mark.args)}")


@pytest.fixture
def database_vendor() -> str:
    """The vendor as Django names it: "sqlite", "postgresql" or "mysql" (MariaDB too)."""
    return connections[DEFAULT_DB_ALIAS].vendor


@pytest.fixture
def subprocess_environment(transactional_db: None) -> dict[str, str]:
    """An environment in which a subprocess with ``tests.settings`` sees the test databases."""
    return environment_with_databases()


@pytest.fixture(scope="class")
def class_environment(django_db_setup: None) -> dict[str, str]:
    """The same, for programs that serve all tests of a class."""
    return environment_with_databases()


def environment_with_databases() -> dict[str, str]:
    """Return what a subprocess needs to see the test databases, which must be there by now."""
    names = {alias: str(connections[alias].settings_dict["NAME"]) for alias in connections}
    python_path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "CARPOOL_TEST_NAMES": json.dumps(names),
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "PYTHONFAULTHANDLER": "1",
        "PYTHONPATH": os.pathsep.join(python_path),
    }


@pytest.fixture
def no_connections_left(transactional_db: None) -> Iterator[None]:
    """Fail if the test leaves a connection to the test databases that was not there before it.

    The server is asked, so a connection of a worker that outlived its pool is found as well. On
    SQLite, which has no server, the other processes that hold the file open are counted.
    """
    before = clients()
    yield
    deadline = time.monotonic() + GOODBYE_SECONDS
    while left := clients() - before:
        if time.monotonic() > deadline:
            pytest.fail(f"connections left, by the server's ids (on SQLite, processes): {left}")
        time.sleep(0.05)


def clients() -> set[int]:
    """Return who is connected to the test databases, this thread's own connections aside.

    As the server's ids of the connections, or on SQLite as process ids.
    """
    names = [str(connections[alias].settings_dict["NAME"]) for alias in connections]
    connection = connections[DEFAULT_DB_ALIAS]
    if connection.vendor == "sqlite":
        return processes_holding({Path(name) for name in names})
    if connection.vendor == "postgresql":
        # The server's own workers have no client_port.
        rows = "pid FROM pg_stat_activity WHERE client_port IS NOT NULL AND datname"
    else:
        rows = "id FROM information_schema.processlist WHERE db"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {rows} IN (%s, %s)", names)
        found = {row[0] for row in cursor.fetchall()}
    return found - {server_id(connections[alias]) for alias in connections}


def server_id(connection: BaseDatabaseWrapper) -> int | None:
    """Return the server's id of this connection, or None if it isn't open."""
    driver_connection: Any = connection.connection
    if driver_connection is None:
        return None
    if connection.vendor == "postgresql":
        return int(driver_connection.info.backend_pid)
    return int(driver_connection.thread_id())


def processes_holding(paths: set[Path]) -> set[int]:
    """Return the other processes that have these files open, as far as /proc shows them."""
    found = set()
    for descriptors in Path("/proc").glob("[0-9]*/fd"):
        process = int(descriptors.parent.name)
        with contextlib.suppress(OSError):  # It has ended, or is not ours to look at.
            if process != os.getpid() and any(link in paths for link in links(descriptors)):
                found.add(process)
    return found


def links(folder: Path) -> Iterator[Path]:
    """Yield what the links in a folder point at, but for those that go away meanwhile."""
    for link in folder.iterdir():
        with contextlib.suppress(OSError):
            yield link.readlink()
