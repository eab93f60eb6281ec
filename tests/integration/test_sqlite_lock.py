"""SQLite's write lock is taken when a chunk begins, on any connection, and only for the chunk."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from carpool import databases

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.only_on("sqlite")]


def begins(using: tuple[str, ...] = ("default",)) -> list[str]:
    """Return the BEGIN statements that a chunk's transaction sends."""
    seen: list[str] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        seen.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note), databases.chunk_transaction(using):
        pass
    return [sql for sql in seen if sql.startswith("BEGIN")]


def test_the_first_chunk_of_a_fresh_connection_begins_immediate() -> None:
    """A worker's very first transaction, on a connection not yet opened, is BEGIN IMMEDIATE."""
    connection.close()
    assert begins() == ["BEGIN IMMEDIATE"]


def test_the_connection_is_as_before_afterwards() -> None:
    """Mode and busy time-out are the caller's own again after a chunk."""
    connection.ensure_connection()
    mode = connection.transaction_mode  # type: ignore[attr-defined]
    with connection.cursor() as cursor:
        before = cursor.execute("PRAGMA busy_timeout").fetchone()
    begins()
    with connection.cursor() as cursor:
        assert cursor.execute("PRAGMA busy_timeout").fetchone() == before
    assert connection.transaction_mode == mode  # type: ignore[attr-defined]
