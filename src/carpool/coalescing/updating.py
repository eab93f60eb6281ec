"""Queued changes into the database: many rows by one UPDATE, by what each backend is best at.

SQLite: one prepared UPDATE, executed for each row (``executemany``). PostgreSQL: UPDATE … FROM
(VALUES …); MariaDB and MySQL: UPDATE of a join with such a list. Both lock the rows in the order
of their keys, so that two workers that change the same rows wait for one another instead of
deadlocking.

Note [Unique]
    The rows of one UPDATE are changed in an order that nobody knows, and databases check unique
    constraints row by row. So a row whose unique columns change is left out of it (the statement
    asks for them to be as they are), to be written by itself, in its turn, as ``save()`` would
    have done. An object that is saved as a whole mostly leaves them as they were.

What such a statement has not changed is returned: these rows, and those that don't exist.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from django.db.backends.base.base import BaseDatabaseWrapper

from carpool.coalescing.rows import Field
from carpool.coalescing.shapes import ChangedRow, UpdateShape
from carpool.coalescing.writers import parts

if TYPE_CHECKING:
    from carpool.coalescing.unit import Unit

ASKED_AT_ONCE = 400
"""Rows whose existence is asked for by one statement: SQLite takes 999 parameters, and 1,000
terms of an OR."""


class Updater(Protocol):
    """Changes rows of one shape.

    ``changes_unique_columns``: Note [Unique] doesn't hold, since the rows are changed in their
    order; so rows that change such columns must come in theirs.
    """

    changes_unique_columns: bool

    def update(self, rows: Sequence[ChangedRow]) -> list[ChangedRow]:
        """Change the rows; return those it has left alone, in their order."""

    def update_one(self, row: ChangedRow) -> bool:
        """Change a row; return whether there is one."""


def updater_for(unit: Unit) -> Updater | None:
    """Return what suits a unit's database; None if every UPDATE must be sent at its place."""
    connection: Any = unit.connection
    if connection.vendor == "sqlite":
        return OneByOne(unit)
    if connection.vendor == "postgresql":
        return FromValues(unit)
    if connection.vendor == "mysql":
        if connection.mysql_is_mariadb:
            return ByJoin(unit, "(")
        if connection.mysql_version >= (8, 0, 19):  # VALUES ROW(…)
            return ByJoin(unit, "ROW(")
    return None


class _Updater:
    changes_unique_columns = False

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._quote = unit.connection.ops.quote_name

    def update(self, rows: Sequence[ChangedRow]) -> list[ChangedRow]:
        if len(rows) == 1:
            return [] if self.update_one(rows[0]) else list(rows)
        return self._update_many(rows)

    def _update_many(self, rows: Sequence[ChangedRow]) -> list[ChangedRow]:
        raise NotImplementedError

    def update_one(self, row: ChangedRow) -> bool:
        return self._unit.execute(self._one(row.shape), row.values).matched > 0

    def _one(self, shape: UpdateShape) -> str:
        """Return the UPDATE of one row, its key at the end."""
        changes = ", ".join(f"{name} = %s" for name in self._names(shape.changed))
        return f"UPDATE {shape.quoted} SET {changes} WHERE {self._is(shape)}"

    def _names(self, fields: Sequence[Field]) -> list[str]:
        return [self._quote(field.column) for field in fields]

    def _is(self, shape: UpdateShape) -> str:
        return " AND ".join(f"{shape.quoted}.{name} = %s" for name in self._names(shape.keys))

    def _equal_keys(self, shape: UpdateShape, mine: str) -> str:
        """Return the condition that joins the table, as t, with a list of rows."""
        start = len(shape.changed)
        return " AND ".join(
            f"t.{name} = {mine}.c{start + number}"
            for number, name in enumerate(self._names(shape.keys))
        )

    def _as_it_is(self, shape: UpdateShape, mine: str, same: str) -> str:
        """Return the condition that no unique column changes: see Note [Unique]."""
        names = self._names(shape.changed)
        return "".join(f" AND t.{names[n]} {same} {mine}.c{n}" for n in shape.unique)


class OneByOne(_Updater):
    """One statement for any number of rows, in one call and in their order."""

    changes_unique_columns = True

    def _update_many(self, rows: Sequence[ChangedRow]) -> list[ChangedRow]:
        shape = rows[0].shape
        values = [row.values for row in rows]
        if self._unit.execute(self._one(shape), values, many=True).matched == len(rows):
            return []
        left = []
        for start in range(0, len(rows), ASKED_AT_ONCE):
            part = rows[start : start + ASKED_AT_ONCE]
            found = self._unit.ask(
                f"SELECT {', '.join(self._names(shape.keys))} FROM {shape.quoted} "
                f"WHERE {' OR '.join([self._is(shape)] * len(part))}",
                [value for row in part for value in row.key_values],
            )
            left += _without(part, found)
        return left


class FromValues(_Updater):
    """PostgreSQL: https://www.postgresql.org/docs/current/sql-update.html, and the locking clause
    in a subquery, https://www.postgresql.org/docs/current/sql-select.html.

    Note [Plans]
        A table that was vacuumed when it was empty counts as having one row until it is vacuumed
        again, however many it has got since. A join with it is then planned as two nested scans of
        it: a statement of four rows took half a minute with two thousand in the table. So nothing
        is left to the planner that it could get wrong: LATERAL looks each key up, and by
        ``= ANY (…)`` the UPDATE reads the listed rows and no others, whatever it then joins how.
    """

    def _update_many(self, rows: Sequence[ChangedRow]) -> list[ChangedRow]:
        left = []
        for part in parts(by_key(rows), self._unit.connection):
            found = self._unit.ask(self._sql(part), [v for row in part for v in row.values])
            left += _without(part, found)
        return sorted(left, key=lambda row: row.number)

    def _sql(self, rows: Sequence[ChangedRow]) -> str:
        shape = rows[0].shape
        names = [f"c{number}" for number in range(len(shape.fields))]
        keys = names[len(shape.changed) :]
        changes = ", ".join(f"{n} = v.c{i}" for i, n in enumerate(self._names(shape.changed)))
        listed = " AND ".join(
            f"t.{name} = ANY (ARRAY(SELECT {key} FROM v))"
            for name, key in zip(self._names(shape.keys), keys, strict=True)
        )
        return (
            f"WITH v AS MATERIALIZED ("
            f"SELECT w.* FROM (SELECT * FROM ({self._list(shape, len(rows))}) "
            f"AS w ({', '.join(names)}) ORDER BY {', '.join(keys)}) AS w "
            f"CROSS JOIN LATERAL (SELECT FROM {shape.quoted} AS t "
            f"WHERE {self._equal_keys(shape, 'w')} FOR NO KEY UPDATE) AS locked) "
            f"UPDATE {shape.quoted} AS t SET {changes} FROM v "
            f"WHERE {self._equal_keys(shape, 'v')} AND {listed}"
            f"{self._as_it_is(shape, 'v', 'IS NOT DISTINCT FROM')} "
            f"RETURNING {', '.join(f'v.{key}' for key in keys)}"
        )

    def _list(self, shape: UpdateShape, rows: int) -> str:
        # The first row's types are those of all, as long as what follows has just these types.
        types = [type_to_cast_to(field, self._unit.connection) for field in shape.fields]
        typed = "(" + ", ".join(f"CAST(%s AS {name})" for name in types) + ")"
        is_djangos = all(type(f).__module__.startswith("django.db.models.") for f in shape.fields)
        others = "(" + ", ".join(["%s"] * len(shape.fields)) + ")" if is_djangos else typed
        return f"VALUES {', '.join([typed, *[others] * (rows - 1)])}"


class ByJoin(_Updater):
    """MariaDB and MySQL: https://dev.mysql.com/doc/refman/8.4/en/update.html.

    The list begins with no row of the table itself, which gives its columns the table's types and
    collations. STRAIGHT_JOIN reads the list first, in its order. Matched rows are counted, not
    changed ones, since Django asks for that (CLIENT.FOUND_ROWS).
    """

    def __init__(self, unit: Unit, row: str) -> None:
        super().__init__(unit)
        self._row = row

    def _update_many(self, rows: Sequence[ChangedRow]) -> list[ChangedRow]:
        left = []
        for part in parts(by_key(rows), self._unit.connection):
            shape = part[0].shape
            params = [value for row in part for value in row.values]
            joined = self._joined(shape, len(part))
            changes = ", ".join(
                f"t.{name} = v.c{number}" for number, name in enumerate(self._names(shape.changed))
            )
            if self._unit.execute(f"UPDATE {joined} SET {changes}", params).matched != len(part):
                start = len(shape.changed)
                given = ", ".join(f"v.c{start + n}" for n in range(len(shape.keys)))
                left += _without(part, self._unit.ask(f"SELECT {given} FROM {joined}", params))
        return sorted(left, key=lambda row: row.number)

    def _joined(self, shape: UpdateShape, rows: int) -> str:
        row = self._row + ", ".join(["%s"] * len(shape.fields)) + ")"
        named = ", ".join(f"{n} AS c{i}" for i, n in enumerate(self._names(shape.fields)))
        return (
            f"(SELECT {named} FROM {shape.quoted} WHERE FALSE "
            f"UNION ALL VALUES {', '.join([row] * rows)}) AS v "
            f"STRAIGHT_JOIN {shape.quoted} AS t ON {self._equal_keys(shape, 'v')}"
            f"{self._as_it_is(shape, 'v', '<=>')}"
        )


def by_key(rows: Sequence[ChangedRow]) -> list[ChangedRow]:
    """Return rows of one shape in the order of their keys; in their own if keys have none."""
    try:
        return sorted(rows, key=lambda row: row.key_values)
    except TypeError:
        return list(rows)


def _without(rows: Sequence[ChangedRow], found: Sequence[Any]) -> list[ChangedRow]:
    """Return the rows whose keys have not been found."""
    keys = set(map(tuple, found))
    return [row for row in rows if tuple(row.key_values) not in keys]


_LENGTH = re.compile(r"(varchar|character varying|numeric|decimal)\s*\([^)]*\)", re.IGNORECASE)


def type_to_cast_to(field: Field, connection: BaseDatabaseWrapper) -> str | None:
    """Return a column's type without its length, to which a cast would cut text silently.

    None if it has a length that means something else: ``char`` is ``char(1)``.
    """
    name = _LENGTH.sub(r"\1", field.db_type(connection) or "(")
    return None if "(" in name else name
