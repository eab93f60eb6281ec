"""Rows into the database, by what each is best at.

SQLite: one prepared INSERT, executed for each row (``executemany``). PostgreSQL: ``COPY``, where
the columns' types make it equal to an INSERT. Else, and on MariaDB and MySQL, INSERTs of many rows
each, within the backend's limits.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from django.db.backends.base.base import BaseDatabaseWrapper

from carpool.coalescing.literals import Literals, can_write_literals, written_by
from carpool.coalescing.rows import INTEGERS, R, Row
from carpool.coalescing.shapes import InsertShape, NewRow
from carpool.coalescing.wrapping import is_wrapped

if TYPE_CHECKING:
    from carpool.coalescing.unit import Unit

LARGEST_STATEMENT = 512 * 1024
"""Bytes of values in one statement, about. MySQL's max_allowed_packet is 16 MiB by default, but
may be 1 MiB; and a longer statement is not a faster one."""

MOST_ROWS = 1000
"""Rows in one INSERT. More gains nothing measurable; the parser's memory grows."""

FEWEST_ROWS_TO_COPY = 8
"""COPY takes two round trips more than an INSERT."""

MOST_ROWS_TO_COPY = 2000
"""A COPY more takes half a millisecond. What one is refused for is told when all of it was sent."""

FEWEST_ROWS_BY_COLUMN = 3
"""Writing values column by column costs 12 µs a statement and gains 4 µs a row."""


class Writer(Protocol):
    """Sends rows of one shape."""

    def write(self, rows: Sequence[NewRow]) -> None:
        """Insert the rows, in order; late keys arrive."""

    def suspect(self, error: Exception) -> NewRow | None:
        """Return the row that the last `write` was probably refused for. It may be wrong."""

    def is_one_statement(self, rows: Sequence[Row]) -> bool:
        """Tell whether a table's rows are one INSERT, which leaves nothing if it is refused."""


def writer_for(unit: Unit) -> Writer | None:
    """Return what suits a unit's database; None if nothing does."""
    connection = unit.connection
    if connection.vendor == "sqlite":
        return ExecuteMany(unit)
    if connection.vendor == "postgresql":
        is_psycopg3 = connection.Database.__name__ == "psycopg"  # type: ignore[attr-defined]
        return Copy(unit) if is_psycopg3 else MultiRow(unit)
    if connection.vendor == "mysql":
        return MultiRow(unit)
    return None


class ExecuteMany:
    """One statement for any number of rows, in one call."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._rows: Sequence[NewRow] = ()
        self._changes = 0

    def write(self, rows: Sequence[NewRow]) -> None:
        self._rows = rows
        self._changes = self._all_changes()
        shape = rows[0].shape
        sql = f"{shape.insert} VALUES {shape.placeholders} {shape.suffix}".rstrip()
        if len(rows) == 1:
            self._unit.execute(sql, rows[0].values)
        else:
            self._unit.execute(sql, [row.values for row in rows], many=True)

    def suspect(self, error: Exception) -> NewRow | None:
        # The rows before it are in, until the savepoint is undone.
        number = self._all_changes() - self._changes
        return self._rows[number] if number < len(self._rows) else None

    def is_one_statement(self, rows: Sequence[Row]) -> bool:
        # Not even of a single row: a trigger's RAISE(FAIL) leaves what was done before it
        # (https://www.sqlite.org/lang_createtrigger.html).
        return False

    def _all_changes(self) -> int:
        # https://docs.python.org/3/library/sqlite3.html#sqlite3.Connection.total_changes
        return int(self._unit.connection.connection.total_changes)


class MultiRow:
    """INSERT … VALUES (…), (…), …"""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._rows: Sequence[NewRow] = ()

    def suspect(self, error: Exception) -> NewRow | None:
        found = _DUPLICATE.search(str(error))
        if found is None:
            return None
        value = found[1] or found[2]
        same = [row for row in self._rows if any(str(v) == value for v in row.values)]
        return same[min(1, len(same) - 1)] if same else None  # the second of two that are equal

    def is_one_statement(self, rows: Sequence[Row]) -> bool:
        # https://dev.mysql.com/doc/refman/8.4/en/innodb-error-handling.html
        return (
            0 < len(rows) <= MOST_ROWS
            and all(type(row) is NewRow and row.shape is rows[0].shape for row in rows)
            and len(parts(rows, self._unit.connection)) == 1
        )

    def write(self, rows: Sequence[NewRow]) -> None:
        for part in parts(rows, self._unit.connection):
            self._insert(part)

    def _insert(self, rows: Sequence[NewRow]) -> None:
        self._rows = rows
        shape = rows[0].shape
        driver = self._unit.connection.connection
        if len(rows) >= FEWEST_ROWS_BY_COLUMN and can_write_literals(driver):
            with written_by(driver):
                self._send("%s", [Literals(driver, [row.values for row in rows])])
        else:
            values = ", ".join([shape.placeholders] * len(rows))
            self._send(values, [value for row in rows for value in row.values])

    def _send(self, values: str, params: list[Any]) -> None:
        """Send the INSERT of what is in hand, with so many placeholders."""
        rows, shape = self._rows, self._rows[0].shape
        sql = f"{shape.insert} VALUES {values}"
        if shape.suffix:
            sql += f" {shape.suffix}"
        if rows[0].late is None:
            self._unit.execute(sql, params)
        else:
            self._unit.take_keys(rows, self._with_keys(sql, params, rows))

    def _with_keys(self, sql: str, params: list[Any], rows: Sequence[NewRow]) -> Sequence[int]:
        """Insert, and return the rows' keys.

        The rows of one INSERT get rising keys in their order, whichever innodb_autoinc_lock_mode
        is set: their number is known beforehand
        (https://dev.mysql.com/doc/refman/8.4/en/innodb-auto-increment-handling.html, "simple
        inserts"). The order in which RETURNING gives them is not promised; so they are sorted.
        """
        unit = self._unit
        if unit.connection.features.can_return_rows_from_bulk_insert:
            column = unit.connection.ops.quote_name(str(rows[0].shape.model._meta.pk.column))
            return sorted(key for (key,) in unit.ask(f"{sql} RETURNING {column}", params))
        first = unit.execute(sql, params).last_id
        if unit.auto_increment is None:
            unit.auto_increment = unit.ask("SELECT @@auto_increment_increment", [])[0][0]
        return [first + unit.auto_increment * number for number in range(len(rows))]


class Copy(MultiRow):
    """COPY … FROM STDIN (psycopg 3), or an INSERT where it would not be the same.

    https://www.psycopg.org/psycopg3/docs/basic/copy.html. An INSERT converts between types on
    assignment (1.5 into an integer), COPY parses text; so only Django's own fields are copied,
    whose prepared values have the column's type.
    """

    def write(self, rows: Sequence[NewRow]) -> None:
        shape = rows[0].shape
        if (
            len(rows) < FEWEST_ROWS_TO_COPY
            or not self._can_copy(shape)
            or is_wrapped(self._unit.connection)
        ):
            super().write(rows)
            return
        for first in range(0, len(rows), MOST_ROWS_TO_COPY):
            self._copy(rows[first : first + MOST_ROWS_TO_COPY])

    def _copy(self, rows: Sequence[NewRow]) -> None:
        self._rows = rows
        unit, shape = self._unit, rows[0].shape
        unit.figures_sent(1)
        connection = unit.connection
        began = time.perf_counter()
        with connection.cursor() as cursor, connection.wrap_database_errors:
            with cursor.copy(f"COPY {shape.quoted} ({shape.quoted_columns}) FROM STDIN") as copy:
                write_row = copy.write_row
                for row in rows:
                    write_row(row.values)
        unit.copying += time.perf_counter() - began

    def suspect(self, error: Exception) -> NewRow | None:
        # CONTEXT:  COPY auth_user, line 7
        context = getattr(getattr(error.__cause__, "diag", None), "context", None) or ""
        found = re.search(r"COPY .*, line (\d+)", context)
        if found is None:
            return super().suspect(error)
        number = int(found[1]) - 1
        return self._rows[number] if number < len(self._rows) else None

    def is_one_statement(self, rows: Sequence[Row]) -> bool:
        # After any error, nothing goes on but from a savepoint:
        # https://www.postgresql.org/docs/15/sql-savepoint.html
        return False

    def _can_copy(self, shape: InsertShape) -> bool:
        if shape.copyable is None:
            shape.copyable = (
                shape.on_conflict is None
                and all(
                    type(field).__module__.startswith("django.db.models.")
                    and field.get_internal_type() in _COPIED
                    for field in shape.fields
                )
                and self._unit.is_plain_table(shape)
            )
        return shape.copyable


_DUPLICATE = re.compile(
    r"Duplicate entry '(.*)' for key"  # MySQL, MariaDB
    r"|Key \(.*\)=\((.*)\) already exists"  # PostgreSQL
)

_COPIED = INTEGERS | {
    "BooleanField",
    "CharField",
    "DateField",
    "DateTimeField",
    "DecimalField",
    "DurationField",
    "FileField",
    "FilePathField",
    "FloatField",
    "ForeignKey",
    "GenericIPAddressField",
    "JSONField",
    "OneToOneField",
    "SlugField",
    "TextField",
    "TimeField",
    "UUIDField",
}


def parts(rows: Sequence[R], connection: BaseDatabaseWrapper) -> list[Sequence[R]]:
    """Cut rows of one shape into what fits a statement."""
    # bulk_batch_size: documented for backends; how many rows one INSERT may have.
    most = connection.ops.bulk_batch_size(rows[0].shape.fields, rows)
    if connection.vendor == "postgresql":  # 65,535 parameters, where they are bound by the server
        most = min(most, 65_535 // max(1, len(rows[0].shape.fields)))
    most = max(1, min(most, MOST_ROWS))
    found: list[Sequence[R]] = []
    start = size = 0
    for number, row in enumerate(rows):
        own = row.shape.sizes.of(row.values)
        size += own
        if number > start and (number - start >= most or size > LARGEST_STATEMENT):
            found.append(rows[start:number])
            start, size = number, own
    found.append(rows[start:])
    return found
