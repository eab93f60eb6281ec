"""Connections as a worker needs them: the right ones, none inherited, none left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction

from carpool import databases
from carpool.databases import SQLITE_BUSY_TIMEOUT, chunk_transaction
from tests.app.models import AuditLine, Author


@pytest.fixture
def settings_kept() -> Iterator[dict[str, dict[str, Any]]]:
    """Give back the connections' settings as they were."""
    before = {alias: connections.settings[alias] for alias in connections}
    yield databases.capture()
    databases.adopt(before)


def test_what_is_captured_is_a_copy() -> None:
    """Changing it does not change this process' connections."""
    captured = databases.capture()
    captured["default"]["NAME"] = "changed"
    assert connections["default"].settings_dict["NAME"] != "changed"


def test_adopted_settings_are_used_by_the_next_connection(
    settings_kept: dict[str, dict[str, Any]],
) -> None:
    """A worker connects where the parent says, whatever its settings module says."""
    settings_kept["default"]["NAME"] = "elsewhere.sqlite3"
    databases.adopt(settings_kept)
    assert connections["default"].settings_dict["NAME"] == "elsewhere.sqlite3"


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_inherited_connections_are_forgotten_and_not_closed() -> None:
    """They are another process': a goodbye on its socket would break it."""
    connection.ensure_connection()
    wrapper, theirs = connections["default"], connection.connection
    try:
        databases.discard_inherited()
        assert connections["default"] is not wrapper
        assert connections["default"].connection is None
        assert theirs.execute("SELECT 1").fetchone() == (1,)
        assert any(entry[0] is wrapper for entry in databases._leaked)
    finally:
        databases._leaked.clear()
        connections["default"] = wrapper


class Pool:
    def __init__(self) -> None:
        self.closed = False


def test_inherited_pools_are_forgotten_and_not_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pool of psycopg's would hand out the parent's connections (Django ticket 36957)."""
    pools = {"default": Pool()}
    monkeypatch.setattr(type(connections["default"]), "_connection_pools", pools, raising=False)
    before = len(databases._leaked)
    databases.discard_inherited()
    assert pools == {}
    assert [entry["default"].closed for entry in databases._leaked[before:] if "default" in entry]
    del databases._leaked[before:]


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_a_threads_connections_are_all_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those after one that says that it is lost."""
    for alias in connections:
        connections[alias].ensure_connection()

    def lost() -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(connections["default"], "close", lost)
    driver = connections["default"].connection
    databases.close_mine()
    assert [connections[alias].connection for alias in connections] == [None, None]
    driver.close()


@pytest.mark.parametrize("pool", [True, {"min_size": 2}], ids=str)
def test_a_worker_has_no_pool_of_connections(
    settings_kept: dict[str, dict[str, Any]], pool: Any
) -> None:
    """It has one thread, and the other options of the database hold."""
    options = {"pool": pool, "timeout": 9}
    settings_kept["default"]["OPTIONS"] = options
    databases.adopt(settings_kept)
    assert connections["default"].settings_dict["OPTIONS"] == {"pool": False, "timeout": 9}
    assert options["pool"] is pool


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize(("mode", "at_once"), [("delete", True), ("wal", False)])
def test_a_source_leaves_no_cursor_open_where_it_would_block_the_workers(
    mode: str, at_once: bool, connected: bool
) -> None:
    """For the block only, and not with a write-ahead log; whether or not it is connected yet."""
    with connection.cursor() as cursor:
        cursor.execute(f"PRAGMA journal_mode = {mode}")
    before = connections["default"]
    try:
        if not connected:
            connection.close()
            del connections["default"]
        with databases.no_open_cursors(("default",)):
            assert connection.features.can_use_chunked_reads is not at_once
        assert connection.features.can_use_chunked_reads is True
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode = delete")
        if not connected:
            connection.close()
    finally:
        connections["default"] = before


def test_a_database_in_memory_is_told() -> None:
    """Files are files, and backends that know no such thing have none."""
    assert not databases.is_in_memory("default")
    name = connections["default"].settings_dict["NAME"]
    try:
        connections["default"].settings_dict["NAME"] = ":memory:"
        assert databases.is_in_memory("default")
    finally:
        connections["default"].settings_dict["NAME"] = name


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
class TestChunks:
    """A chunk's transaction."""

    def test_it_covers_all_aliases_and_the_first_commits_last(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If the last COMMIT fails it is the first alias', usually the one that matters most."""
        order: list[str] = []

        def note(alias: str, commit: Callable[[], Any]) -> None:
            order.append(alias)
            commit()

        for alias in connections:
            commit: Any = connections[alias]._commit  # type: ignore[attr-defined]
            monkeypatch.setattr(connections[alias], "_commit", partial(note, alias, commit))
        with chunk_transaction(("default", "other")):
            assert databases.in_atomic_block() == ["default", "other"]
            Author.objects.create(name="a")
            AuditLine.objects.create(name="a")
        assert order == ["other", "default"]
        assert databases.in_atomic_block() == []

    def test_an_error_undoes_all_aliases(self) -> None:
        """Nothing stays on any of them."""
        with pytest.raises(ZeroDivisionError), chunk_transaction(("default", "other")):
            Author.objects.create(name=str(AuditLine.objects.create(name="a").pk / 0))
        assert not AuditLine.objects.exists()

    def test_sqlite_takes_its_write_lock_at_the_beginning(self) -> None:
        """A chunk that reads first can still write: nobody else can have written in between."""
        connection.close()
        for _ in range(2):  # on a connection's first chunk as on any other
            with chunk_transaction(("default",)):
                other = connection.copy()
                with closing(other):
                    other.settings_dict = {**other.settings_dict, "OPTIONS": {"timeout": 0}}
                    with other.cursor() as cursor, pytest.raises(OperationalError, match="locked"):
                        cursor.execute("BEGIN IMMEDIATE")

    def test_a_chunk_waits_long_for_the_lock_and_leaves_the_patience_as_it_was(self) -> None:
        """Django's five seconds are for requests; the caller's own setting is put back."""

        def patience() -> int:
            with connection.cursor() as cursor:
                return int(cursor.execute("PRAGMA busy_timeout").fetchone()[0])

        for before in (5_000, 2 * SQLITE_BUSY_TIMEOUT):
            with connection.cursor() as cursor:
                cursor.execute(f"PRAGMA busy_timeout = {before}")
            mode = connection.transaction_mode
            with chunk_transaction(("default",)):
                assert patience() == max(before, SQLITE_BUSY_TIMEOUT)
            assert patience() == before
            assert connection.transaction_mode == mode
        connection.close()

    def test_inside_a_transaction_it_is_a_savepoint(self) -> None:
        """The caller's transaction is not touched, also where the chunk is undone."""
        with transaction.atomic():
            Author.objects.create(name="before")
            with pytest.raises(ZeroDivisionError), chunk_transaction(("default",)):
                Author.objects.create(name=str(1 / 0))
            assert databases.in_atomic_block() == ["default"]
        assert Author.objects.count() == 1

    def test_a_transaction_that_cannot_be_committed_is_told(self) -> None:
        """Django's mark, a closed connection, or the server's own word."""
        with chunk_transaction(("default",)):
            assert not databases.is_aborted(connections["default"])
            transaction.set_rollback(True)
            assert databases.is_aborted(connections["default"])

    def test_a_server_that_has_aborted_the_transaction_is_asked(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """psycopg's status, where there is one: 3 is "in error"."""

        class Driver:
            class pgconn:  # noqa: N801
                transaction_status = 2

        monkeypatch.setattr(connections["default"], "connection", Driver)
        assert not databases.is_aborted(connections["default"])
        Driver.pgconn.transaction_status = 3
        assert databases.is_aborted(connections["default"])
        monkeypatch.undo()

    @pytest.mark.parametrize(("status", "aborted"), [(2, False), (3, True)])
    def test_psycopg2_is_asked_in_its_own_way(
        self, status: int, aborted: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The older driver, which Django supports as well, has a method."""

        class Driver:
            @staticmethod
            def get_transaction_status() -> int:
                return status

        monkeypatch.setattr(connections["default"], "connection", Driver)
        assert databases.is_aborted(connections["default"]) == aborted
        monkeypatch.undo()
