"""Asking a database, before COMMIT, about constraints that it checks only then.

COMMIT refuses a whole chunk and blames no row. These checks are made at the end of a group of
items, once a COMMIT has been refused, so that a bad item is found by its group's savepoint.

They only have to find the usual culprits: what they miss, COMMIT refuses, and the chunk is split.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from django.db import DatabaseError, IntegrityError
from django.db.backends.base.base import BaseDatabaseWrapper


class DeferredCheck(Protocol):
    """One connection's check, for one transaction."""

    def begin_group(self) -> None:
        """Note where the database stands."""

    def end_group(self) -> None:
        """Raise IntegrityError if a row written since `begin_group` violates a constraint."""

    def watch(
        self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        """See each statement, as an execute wrapper."""


def can_check(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether there is a check that doesn't read whole tables."""
    # True where constraints can be put off at all: PostgreSQL, SQLite, Oracle.
    return connection.features.can_defer_constraint_checks


def check_for(connection: BaseDatabaseWrapper, lowest: dict[str, int]) -> DeferredCheck:
    """Return the check for a connection; `can_check` must be true of it.

    ``lowest``: by table, the lowest key that a row written since `begin_group` has, where rows
    may have keys that were reserved long before.
    """
    # True where there is SET CONSTRAINTS, which Django's check_constraints() then is.
    if connection.features.supports_deferrable_unique_constraints:
        return SetConstraints(connection)
    return NewRows(connection, lowest)


class SetConstraints:
    """``SET CONSTRAINTS ALL IMMEDIATE`` checks just what this transaction has put off.

    Under a savepoint that is rolled back, which puts back what was deferred and what was not:
    Django's check_constraints() ends with ``ALL DEFERRED``, and so would put off constraints that
    are immediate by their definition.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection

    def begin_group(self) -> None:
        pass

    def end_group(self) -> None:
        savepoint = self._connection.savepoint() or ""  # None outside of atomic() only
        with self._connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        self._connection.savepoint_rollback(savepoint)
        self._connection.savepoint_commit(savepoint)

    def watch(
        self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        return execute(sql, params, many, context)


class NewRows:
    """For SQLite: look up what the group's new rows point at.

    SQLite can neither check early nor say how many violations it has counted, and its
    ``PRAGMA foreign_key_check`` reads whole tables. But a chunk has the write lock, so the rows
    inserted since a moment are those with a higher rowid than there was at that moment
    (https://www.sqlite.org/autoinc.html); or with a key that was reserved before.
    """

    _insert = re.compile(r'\s*INSERT\s+(?:OR\s+\w+\s+)?INTO\s+"([^"]+)"', re.IGNORECASE)

    def __init__(self, connection: BaseDatabaseWrapper, lowest: dict[str, int]) -> None:
        self._connection = connection
        self._lowest = lowest
        self._highest: dict[str, int] = {}  # by table, at the group's beginning
        self._checks: dict[str, list[str]] = {}

    def watch(
        self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        found = self._insert.match(sql)
        if found is not None and found[1] not in self._highest:
            self._note(found[1])
        return execute(sql, params, many, context)

    def begin_group(self) -> None:
        for table in list(self._highest):
            self._note(table)

    def end_group(self) -> None:
        for table, highest in self._highest.items():
            highest = min(highest, self._lowest.get(table, highest + 1) - 1)
            for sql in self._checks_of(table):
                if self._ask(sql, [highest]):
                    raise IntegrityError("FOREIGN KEY constraint failed")  # SQLite's own words

    def _note(self, table: str) -> None:
        try:
            self._highest[table] = self._ask(f'SELECT MAX(rowid) FROM "{table}"') or 0
        except DatabaseError:  # a table WITHOUT ROWID, or a view
            self._checks[table] = []
            self._highest[table] = 0

    def _checks_of(self, table: str) -> list[str]:
        if table not in self._checks:
            with self._connection.cursor() as cursor:
                # https://www.sqlite.org/pragma.html#pragma_foreign_key_list; id, seq, table, from,
                # to, … for each column. Django's introspection doesn't tell a key of two columns
                # from two keys.
                cursor.execute(f'PRAGMA foreign_key_list("{table}")')
                columns = cursor.fetchall()
            keys = Counter(number for number, *_ in columns)
            self._checks[table] = [
                _dangling(*(name.replace("%", "%%") for name in (table, column, parent, key)))
                for number, _, parent, column, key, *_ in columns
                if keys[number] == 1 and key is not None
            ]
        return self._checks[table]

    def _ask(self, sql: str, params: list[Any] | None = None) -> Any:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, params)
            return cursor.fetchone()[0]


def _dangling(table: str, column: str, parent: str, key: str) -> str:
    """Return a query that tells whether a row above a rowid points at nothing."""
    return (
        f'SELECT EXISTS (SELECT 1 FROM "{table}" AS c WHERE c.rowid > %s '
        f'AND c."{column}" IS NOT NULL AND NOT EXISTS '
        f'(SELECT 1 FROM "{parent}" AS p WHERE p."{key}" = c."{column}"))'
    )
