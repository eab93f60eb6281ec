"""What a transaction knows of the rows that are in the database.

A queued UPDATE answers "one row changed" before the database has said so. That is right as long as
the row exists. Where the transaction itself has given reason to doubt it (it has deleted rows of
the table, or made some and gone back behind that), and where a key is the user's own to change and
no query has shown it yet, the UPDATE is sent at its place.

A queued UPDATE names its row by key only. A query by another column (``get(email=…)``) may mean
that row, unless it is known what the row has there: from the query that has found it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any

from django.apps import apps

from carpool.coalescing import barrier
from carpool.coalescing.values import MISSING, is_hashable

MOST_KNOWN = 50_000
"""Rows of a table that are remembered; after that, the memory begins anew."""


_DELETES_NOTHING = frozenset(["INSERT", "PRAGMA", "SET", "SHOW", "UPDATE"])


class Knowledge:
    """Of one transaction, about rows by table and key. A key is as the database has it."""

    def __init__(self) -> None:
        self._existing: dict[str, set[Any]] = defaultdict(set)
        self._values: dict[str, dict[Any, dict[str, Any]]] = defaultdict(dict)
        self._inserted: set[str] = set()
        self._doubted: set[str] = set()
        self._doubts_all = False

    # Which rows exist.

    def doubts(self, table: str) -> bool:
        """Tell whether there is a reason why a row that was once saved may not be there."""
        return self._doubts_all or table in self._doubted

    def exists(self, table: str, key: Any) -> bool:
        """Tell whether a row was seen in this transaction."""
        return key in self._existing.get(table, ())

    def inserted(self, table: str, keys: Iterable[Any] = ()) -> None:
        """Rows of the table were made."""
        self._inserted.add(table)
        self._add(table, keys)

    def _add(self, table: str, keys: Iterable[Any]) -> None:
        existing = self._existing[table]
        try:
            existing.update(keys)
        except (TypeError, ValueError):  # unhashable, as a list of PostgreSQL's is
            pass
        if len(existing) > MOST_KNOWN:
            existing.clear()

    def deleted(self, model: Any) -> None:
        """Rows of a model's table were deleted, and those that the database deletes with them."""
        tables = {model._meta.db_table}
        waiting = [model]
        while waiting:
            for other in _deleted_with(waiting.pop()):
                if other._meta.db_table not in tables:
                    tables.add(other._meta.db_table)
                    waiting.append(other)
        self._doubted |= tables
        for table in tables:
            self.forget(table)

    def rolled_back(self, tables: set[str] | None) -> None:
        """A savepoint was undone, and with it rows that were made.

        ``tables``: theirs, if nothing had been sent since the savepoint.
        """
        if tables is None:
            self._doubted |= self._inserted
            self._existing.clear()
            self._values.clear()
        else:
            self._doubted |= tables

    def unknown_sql(self, sql: Any) -> None:
        """SQL of the user's own was sent, which is no SELECT."""
        self._existing.clear()
        self._values.clear()
        found = re.match(r"\s*(\w+)", sql) if isinstance(sql, str) else None
        if found is None or found[1].upper() not in _DELETES_NOTHING:
            self._doubts_all = True

    def forget(self, table: str) -> None:
        """Rows of the table were changed."""
        self._values.pop(table, None)

    # What they have.

    def learn(self, compiler: Any, result: Any) -> None:
        """Remember the row that a query by plain values has found, if it is one.

        Args:
            compiler: Django's, of a SELECT.
            result: what ``execute_sql(MULTI)`` returned, read to the end: lists of rows.
        """
        if type(result) is not list or not result or not isinstance(result[0], list | tuple):
            return
        if compiler.query.combinator or compiler.query.explain_info:
            return  # its conditions are those of its first part; it gives no rows
        key_of = _key_of(compiler)
        if key_of is None:
            return
        query = compiler.query
        base = query.get_initial_alias()
        table = query.alias_map[base].table_name
        if len(result) > 1 or len(result[0]) > 1:
            for rows in result:
                self._add(table, map(key_of, rows))
            return
        key = key_of(result[0][0])
        self._add(table, [key])
        where = query.where
        if where.negated or where.connector != "AND" or not is_hashable(key):
            return
        values = {}
        for condition in where.children:
            found = barrier.asked(condition, compiler.connection)
            if found is not None and found[0].alias == base and len(found[1]) == 1:
                values[str(found[0].target.column)] = found[1][0]
        if values:
            known = self._values[table]
            if len(known) >= MOST_KNOWN:
                known.clear()
            known.setdefault(key, {}).update(values)

    def value(self, table: str, key: Any, column: str) -> Any:
        """Return what a row has in a column, or MISSING if it isn't known."""
        return self._values.get(table, {}).get(key, {}).get(column, MISSING)


def _key_of(compiler: Any) -> Callable[[Any], Any] | None:
    """Return what takes the primary key from the rows of a SELECT of model instances."""
    # SQLCompiler.klass_info and .select: checked on 5.2, 6.0, 6.1.
    info = compiler.klass_info
    if info is None:
        return None
    positions = {
        getattr(compiler.select[position][0], "target", None): position
        for position in info["select_fields"]
    }
    keys = compiler.query.get_meta().pk_fields
    if not all(key in positions for key in keys):
        return None
    return itemgetter(*(positions[key] for key in keys))


def _deleted_with(model: Any) -> list[Any]:
    """Return the models whose rows the database itself deletes with a row of this one."""
    # on_delete=DB_CASCADE, from Django 6.1 on; before, Django deletes them, one model at a time.
    # By table: a foreign key may be to a proxy; and a migration's models are of its own registry.
    table = model._meta.db_table
    return [
        other
        for registry in {apps, model._meta.apps}
        for other in registry.get_models(include_auto_created=True)
        for field in other._meta.local_concrete_fields
        if field.remote_field is not None
        and _table_of(field.related_model) == table
        and getattr(field.remote_field.on_delete, "on_delete_sql", None) is not None
    ]


def _table_of(model: Any) -> str | None:
    """Return a model's table; None if it is only a name, of a model that isn't there."""
    return None if isinstance(model, str) else model._meta.db_table
