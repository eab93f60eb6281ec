"""The queue into the database: in an order that holds, and with an answer for what is refused.

New rows go first, tables after those that their foreign keys name; then what changes, a table at a
time. Any order that succeeds leaves the same rows as the order in which they were queued, since no
row is changed twice. It may be refused where that order is not: an object takes the name that
another has just given up. So what is refused is tried once more, row by row, as it was queued.
(What succeeds would have succeeded row by row, too: new rows only get into the way of others by
coming first, and rows whose unique columns change go one by one: Note [Unique] in `updating`.)

A change whose row isn't there is what ``save()`` would have noticed: see `Flusher._is_missing`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, models

from carpool.coalescing.rows import Row, Table, in_order, runs
from carpool.coalescing.shapes import ChangedRow, InsertShape, NewRow, UpdateShape
from carpool.coalescing.updating import Updater
from carpool.coalescing.writers import Writer
from carpool.errors import trouble_of

if TYPE_CHECKING:
    from carpool.coalescing.unit import Unit


class RowIsGone(Exception):
    """A row that was to be changed isn't there: its item has to be run again by itself."""


class Flusher:
    """Writes queued rows; afterwards `Unit.hand_out` may give late keys away."""

    def __init__(self, unit: Unit, writer: Writer, updater: Updater | None) -> None:
        self._unit = unit
        self._writer = writer
        self._updater = updater
        self._numbers = count()
        self._culprit: Row | None = None

    def write(self, tables: dict[str, Table]) -> None:
        """Write all rows.

        Raises:
            DatabaseError: a row was refused; or isn't there.
        """
        if not may_be_in_its_own_way(tables):
            self._write(tables)
            self._unit.hand_out()
            return
        point = self.point()
        error = self.attempt(tables, point)
        if error is not None:
            error = self.attempt(tables, point, as_queued=True)
        if error is not None:
            point.release()
            raise error

    def point(self) -> Point:
        """Return a place to go back to."""
        return Point(self._unit, f"carpool_{next(self._numbers)}")

    def attempt(
        self, tables: dict[str, Table], point: Point, *, as_queued: bool = False
    ) -> Exception | None:
        """Write rows; or undo them, and return the error."""
        if len(tables) > 1 or not self._writer.is_one_statement(next(iter(tables.values())).rows):
            point.set()
        try:
            if as_queued:
                self._write_as_queued(tables)
            else:
                self._write(tables)
        except Exception as error:
            if trouble_of(error) is not None:  # whose fault it is, is not the question
                raise
            point.undo()
            return error
        point.release()
        self._unit.hand_out()
        return None

    def suspect(self, error: Exception) -> Row | None:
        """Return the row that seems to have been refused; None if nothing tells."""
        return self._culprit or self._writer.suspect(error)

    # All that is in some tables.

    def _write(self, tables: dict[str, Table]) -> None:
        self._begin()
        for run in in_order({name: _of(table, NewRow) for name, table in tables.items()}):
            self._insert(run)
        left: list[ChangedRow] = []
        for table in tables.values():
            for rows in self._batches(_of(table, ChangedRow)):
                assert self._updater is not None
                left += self._updater.update(rows)
        for row in sorted(left, key=lambda row: row.number):
            self._update(row)

    def _batches(self, rows: list[ChangedRow]) -> Iterable[list[ChangedRow]]:
        """Group a table's changes by what one statement can do."""
        by_shape: dict[UpdateShape, list[ChangedRow]] = defaultdict(list)
        for row in rows:
            by_shape[row.shape].append(row)
        in_turn = self._updater is not None and self._updater.changes_unique_columns
        if in_turn and any(s.unique for s in by_shape):
            return runs(rows)
        return by_shape.values()

    def _write_as_queued(self, tables: dict[str, Table]) -> None:
        self._begin()
        for run in runs(as_queued(tables)):
            if isinstance(run[0], NewRow):
                self._insert(run)
            else:
                for row in run:
                    self._update(row)

    def _begin(self) -> None:
        self._unit.begin_handing_out()
        self._culprit = None

    def _insert(self, rows: Sequence[Any]) -> None:
        self._writer.write(rows)
        self._unit.inserted(rows)

    def _update(self, row: Any) -> None:
        assert self._updater is not None
        self._culprit = row
        if not self._updater.update_one(row):
            self._is_missing(row)
        self._culprit = None

    def _is_missing(self, row: ChangedRow) -> None:
        """Do what ``save()`` does when its UPDATE has found no row.

        It raises if it was told to update; else it inserts the row. Its signals have said
        otherwise by now: so where an item can be run again by itself, it is.
        """
        if row.forced:
            # NotUpdated from Django 6.0 on, a DatabaseError before.
            raise getattr(row.instance, "NotUpdated", DatabaseError)(row.forced)
        if self._unit.isolates:
            raise RowIsGone(row.shape.table)
        self._insert([self._instead(row)])

    def _instead(self, row: ChangedRow) -> NewRow:
        """Return the row that ``save()`` would insert in place of the one that isn't there."""
        connection = self._unit.connection
        model = row.shape.model
        fields: list[Any] = [f for f in model._meta.local_concrete_fields if not f.generated]
        values = []
        for field in fields:
            if type(field).pre_save is not models.Field.pre_save:
                value = field.pre_save(row.instance, add=True)
                values.append(field.get_db_prep_save(value, connection=connection))
            else:
                values.append(row.values[row.shape.columns[field.column]])
        shape = InsertShape(connection, model, fields, None)
        return NewRow(row.number, shape, values, row.tag, None)


class Point:
    """A savepoint that is sent where it is needed."""

    def __init__(self, unit: Unit, sid: str) -> None:
        self._unit = unit
        self._sid = sid
        self._is_set = False

    def set(self) -> None:
        """Be here: nothing was written since it was set."""
        if not self._is_set:
            self._unit.transaction.make_savepoint(self._sid)
            self._is_set = True

    def undo(self) -> None:
        """Undo what was written since."""
        if self._is_set:
            self._unit.transaction.undo_savepoint(self._sid)

    def release(self) -> None:
        """Keep what was written since."""
        if self._is_set:
            self._unit.transaction.release_savepoint(self._sid)
            self._is_set = False


def as_queued(tables: dict[str, Table]) -> list[Row]:
    """Return the rows of all tables in the order of queueing."""
    return sorted(
        (row for table in tables.values() for row in table.rows), key=lambda row: row.number
    )


def _of(table: Table, kind: Any) -> list[Any]:
    return [row for row in table.rows if type(row) is kind]


def may_be_in_its_own_way(tables: dict[str, Table]) -> bool:
    """Tell whether another order than the queue's may be refused where the queue's is not."""
    kinds = {type(row) for table in tables.values() for row in table.rows}
    return len(kinds) > 1
