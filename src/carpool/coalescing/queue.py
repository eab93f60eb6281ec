"""What is queued: rows by table, how much that is, and whether the database may refuse any of it.

It sends nothing. `inserts` and `changes` put rows in; the unit takes all of them out when it
flushes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Set
from typing import Any

from django.db import models

from carpool.coalescing.knowledge import Knowledge
from carpool.coalescing.rows import Row, Table, generated_from
from carpool.coalescing.shapes import ChangedRow, NewRow
from carpool.coalescing.values import MISSING

MOST_ROWS = 10_000
"""Rows the queue holds before it is written."""

MOST_BYTES = 8 * 1024 * 1024
"""Bytes likewise, about."""


class Queue:
    """The queued rows of one unit.

    Attributes:
        tables: the rows, by table.
        rows: how many there are.
        number: the next row's. Rows are numbered in the order of queueing, so that it is known
            what is older than a savepoint.
        mixed: tables with new rows whose keys were not reserved.
    """

    def __init__(self, knowledge: Knowledge) -> None:
        self.tables: dict[str, Table] = {}
        self.rows = 0
        self.number = 0
        self.mixed: set[str] = set()
        self._knowledge = knowledge
        self._bytes = 0
        self._unlooked: list[ChangedRow] = []  # since the last look, whether they may be refused
        self._unsure = False  # a row may be

    @property
    def is_full(self) -> bool:
        """Whether it is time to write it."""
        return self.rows >= MOST_ROWS or self._bytes >= MOST_BYTES

    def append(self, row: Row) -> None:
        """Put a row at the end."""
        if row.number >= self.number:
            self.number = row.number + 1
        shape = row.shape
        try:
            table = self.tables[shape.table]
        except KeyError:
            table = self.tables[shape.table] = Table(self._other_values)
        table.append(row)
        if type(row) is ChangedRow:
            self._unlooked.append(row)
        else:
            self._unsure = True
        self.rows += 1
        self._bytes += shape.sizes.of(row.values)

    def _other_values(self, row: Row, column: str) -> Iterable[Any] | None:
        """Tell what a queued row has in a column of the database now; None if that isn't known."""
        if type(row) is not ChangedRow:
            return () if column in row.shape.columns else None
        if any(column == field.column for field in row.shape.keys):
            return ()
        if column in generated_from(row.shape.model):
            return None  # it may be another when the row is written
        value = self._knowledge.value(row.shape.table, row.key, column)
        return None if value is MISSING else (value,)

    def changed(self, row: Row, before: int) -> None:
        """Take note that a row's values have changed; ``before``: how many bytes they were."""
        self._bytes += row.shape.sizes.of(row.values) - before
        if type(row) is ChangedRow:
            self._unlooked.append(row)

    def may_be_refused(self) -> bool:
        """Tell whether there is a row that the database may refuse, or not find.

        See Note [Savepoints] in `transaction`.
        """
        while self._unlooked and not self._unsure:
            row = self._unlooked.pop()
            shape = row.shape
            self._unsure = (
                shape.may_be_unsettled
                or not self._knowledge.exists(shape.table, row.key)
                or not all(
                    shape.checks.surely_pass(number, row.values[number])
                    for number in range(len(shape.changed))
                )
            )
        return self._unsure

    def clear(self) -> dict[str, Table]:
        """Take all rows out."""
        tables, self.tables = self.tables, {}
        self.rows = self._bytes = 0
        self.mixed.clear()
        self._unlooked.clear()
        self._unsure = False
        return tables

    def discard(self) -> None:
        """Drop all rows: what they belong to is undone."""
        give_no_keys(self.clear())

    def drop(self, goes: Callable[[Row], bool]) -> set[str]:
        """Drop some rows; return the tables that get no row now."""
        dropped = set()
        mixed = set(self.mixed)
        tables = self.clear()
        for table in tables.values():
            give_no_keys(rows_that(goes, {"": table}))
            for row in table.rows:
                if not goes(row):
                    self.append(row)
                elif type(row) is NewRow:
                    dropped.add(row.shape.table)
        self.mixed = mixed & self.tables.keys()
        return dropped


def rows_that(belong: Callable[[Row], bool], tables: dict[str, Table]) -> dict[str, Table]:
    """Return some of the rows; tables that have none of them are left out."""
    parts = {
        name: table.part(place for place, row in enumerate(table.rows) if belong(row))
        for name, table in tables.items()
    }
    return {name: part for name, part in parts.items() if part.rows}


def between(tables: dict[str, Table], lowest: int, end: int) -> dict[str, Table]:
    """Return the rows of some numbers."""
    return rows_that(lambda row: lowest <= row.number < end, tables)


def with_new_rows(tables: dict[str, Table]) -> set[str]:
    """Return the names of the tables that were to get rows."""
    return {
        name for name, table in tables.items() if any(type(row) is NewRow for row in table.rows)
    }


def forget_refused(tables: dict[str, Table], tag: Hashable, suspect: Row | None) -> None:
    """Have the object whose row was refused be as before its ``save()``, and those saved after it.

    Of the rows of a tag, in a block of ``atomic()`` whose user may catch the error, and then save
    the object under another name: ``while True: try: with atomic(): save() …``. Where nothing
    tells which of several it was, they stay as they are.
    """
    rows = [row for table in tables.values() for row in table.rows if row.tag == tag]
    if suspect is None and len(rows) == 1:
        suspect = rows[0]
    if suspect is None or suspect.tag != tag:
        return
    refused = [r for r in rows if type(r) is NewRow and r.number >= suspect.number]
    gone = {id(row.instance) for row in refused if row.instance is not None}
    for row in refused:
        row.forget()
        if row.instance is not None:
            _forget_keys_of(gone, row.instance)


def _forget_keys_of(gone: Set[int], instance: models.Model) -> None:
    """Take out the keys that ``save()`` has copied from objects, by id, whose rows were refused."""
    fields: Iterable[Any] = instance._meta.concrete_fields
    for field in fields:
        is_known = field.is_relation and field.is_cached(instance)
        if is_known and id(field.get_cached_value(instance)) in gone:
            # Past the descriptor, which would forget the object as well.
            instance.__dict__[field.attname] = None


def give_no_keys(tables: dict[str, Table]) -> None:
    """Tell the late keys of rows that will not be written; those that are known stay."""
    for table in tables.values():
        for row in table.rows:
            if type(row) is NewRow and row.late is not None and not row.late.known:
                row.late.arrive(None)
