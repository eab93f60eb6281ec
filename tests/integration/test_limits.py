"""More workers than the database server allows connections: said before the first item."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

import carpool
from carpool import limits

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.only_on("postgresql", "mysql"),
]

ALLOWED = 3


@pytest.fixture
def limited(database_vendor: str) -> Iterator[list[str]]:
    """Two aliases for one account, which may have three connections at a time."""
    account = f"limited_{os.getpid()}"
    made = {
        "postgresql": [f"CREATE ROLE {account} LOGIN PASSWORD 'x' CONNECTION LIMIT {ALLOWED}"],
        "mysql": [
            f"CREATE USER {account} IDENTIFIED BY 'x' WITH MAX_USER_CONNECTIONS {ALLOWED}",
            f"GRANT ALL ON *.* TO {account}",
        ],
    }
    aliases = ["limited", "limited too"]
    execute(*made[database_vendor])
    for alias in aliases:
        # ConnectionHandler.settings: what aliases are made from. Checked on 5.2, 6.0, 6.1.
        mine = {**connections.settings["default"], "USER": account, "PASSWORD": "x"}
        connections.settings[alias] = mine
    yield aliases
    for alias in aliases:
        connections[alias].close()
        del connections[alias]
        del connections.settings[alias]
    execute(f"DROP {'ROLE' if database_vendor == 'postgresql' else 'USER'} {account}")


def execute(*statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


class Meeting:
    """A function that waits until so many items are there at the same time."""

    def __init__(self, parties: int) -> None:
        self.calls = 0
        self._barrier = threading.Barrier(parties)

    def __call__(self, item: int) -> None:
        self.calls += 1
        self._barrier.wait(60)


def run(function: Any, workers: int, using: Any, items: int, **options: Any) -> carpool.Report:
    given: dict[str, Any] = {"executor": "threads", "chunk_size": 1, "progress": False, **options}
    return carpool.run(function, range(items), workers=workers, using=using, **given)


def test_more_than_an_account_may_have(limited: list[str]) -> None:
    """One worker too many is refused, with the numbers and the remedy, and no item is run."""
    meeting = Meeting(1)

    with pytest.raises(
        carpool.ConfigurationError,
        match=r"4 workers need 4 connections.*limited_\d+.*allows 3\. Use fewer workers",
    ) as caught:
        run(meeting, ALLOWED + 1, limited[0], 8)

    assert meeting.calls == 0
    assert caught.value.report is not None and caught.value.report.total == 0


def test_as_many_as_an_account_may_have(limited: list[str]) -> None:
    """As many workers as there may be connections do work, all at once."""
    assert run(Meeting(ALLOWED), ALLOWED, limited[0], 6).succeeded == 6


def test_the_callers_own_connection_counts(limited: list[str]) -> None:
    """The connection that the caller has open is one less for the workers."""
    connections[limited[0]].ensure_connection()

    with pytest.raises(carpool.ConfigurationError, match=r"the run itself has 1;.*allows 3"):
        run(Meeting(1), ALLOWED, limited[0], 6)


def test_aliases_of_one_account_are_added_up(limited: list[str]) -> None:
    """Two workers with a connection to each of two aliases need four of the same account."""
    with pytest.raises(carpool.ConfigurationError, match=r"2 workers need 4 connections"):
        run(Meeting(1), 2, limited, 8)


def test_connections_of_others_are_warned_of(limited: list[str]) -> None:
    """Where there could be enough, but others have them now, the run begins with a warning."""
    other = connections[limited[0]].copy()
    other.ensure_connection()
    try:
        with pytest.warns(RuntimeWarning, match=r"allows 3, of which 1 is in use now"):
            report = run(Meeting(1), ALLOWED, limited[0], 1)
    finally:
        other.close()

    assert report.succeeded == 1


@pytest.mark.parametrize("executor", ["threads", "processes", "futures", "auto"])
def test_more_than_the_server_allows(executor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the workers are made, none is, and no connection is tried for them."""
    pool = ThreadPoolExecutor(1)
    monkeypatch.setattr("carpool.executors.auto.PATIENCE", 0.0)

    with pytest.raises(
        carpool.ConfigurationError, match=r"100,000 workers.*\(max_connections\) allows \d+\."
    ):
        run(abs, 100_000, "default", 500, executor=pool if executor == "futures" else executor)


def test_the_journals_connection_counts(limited: list[str]) -> None:
    """The journal's thread has a connection to each alias, so that there is one less."""
    said = limits.refusal(ALLOWED, [limited[0]], more=1)

    assert said is not None and "3 workers need 3 connections, and the run itself has 1" in said


def test_the_callers_connection_is_left_alone() -> None:
    """What is asked is asked elsewhere: the caller's connection sees no statement of it."""
    connection.ensure_connection()
    with CaptureQueriesContext(connection) as captured:
        report = run(abs, 2, "default", 4)

    assert (report.succeeded, len(captured)) == (4, 0)


def test_a_server_that_does_not_answer() -> None:
    """Nothing is said of a server that can't be asked: the run finds out by itself."""
    settings = {**connections.settings["default"], "PORT": "1"}
    connections.settings["nowhere"] = settings
    try:
        assert limits.refusal(1_000_000, ["nowhere"]) is None
    finally:
        del connections.settings["nowhere"]


@pytest.mark.only_on("postgresql")
def test_behind_a_pooler_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another process answers than the one connected to, the limits are not the workers'."""
    monkeypatch.setattr(limits, "_through_pooler", lambda connection, pid: pid != 0)

    assert limits.refusal(1_000_000, ["default"]) is None


@pytest.mark.only_on("postgresql")
def test_a_database_with_a_limit(limited: list[str]) -> None:
    """A database's own CONNECTION LIMIT counts, too."""
    name = connection.settings_dict["NAME"]
    execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT 2')
    try:
        said = limits.refusal(ALLOWED, [limited[0]])
    finally:
        execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT -1')

    assert said is not None and f"the database {name!r} (CONNECTION LIMIT) allows 2" in said


@pytest.mark.only_on("postgresql")
def test_what_is_reserved_for_superusers(limited: list[str]) -> None:
    """Others may have fewer connections than max_connections says."""
    (server, *_) = limits._limits_of(connections[limited[0]])
    with connection.cursor() as cursor:
        cursor.execute("SHOW max_connections")
        most = int(cursor.fetchone()[0])
        cursor.execute("SHOW superuser_reserved_connections")
        reserved = int(cursor.fetchone()[0])

    assert server.allowed == most - reserved
    assert reserved > 0


@pytest.mark.only_on("mysql")
def test_a_limit_that_is_lowered() -> None:
    """The server's limit is the one of the moment."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@max_connections")
        before = cursor.fetchone()[0]
    execute("SET GLOBAL max_connections = 12")
    try:
        said = limits.refusal(20, ["default"])
    finally:
        execute(f"SET GLOBAL max_connections = {before}")

    assert said is not None and "the server (max_connections) allows 12" in said
