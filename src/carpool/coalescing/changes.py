"""UPDATEs into the queue: changes of rows that are still in it, and of rows that are there.

A queryset's ``update()`` returns how many rows it has changed, so it is taken only where all of
them are new rows of the queue (`Changes.take`). An UPDATE of ``save()``'s asks only whether there
is a row; it is queued, or changes what is queued for its row already (`Changes.update`).

A queued value is changed only where it would surely have been taken as it was: a loop would have
met the error. And only one of a row that undoing the last savepoint would drop: it has no earlier
values to go back to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.sql.constants import ROW_COUNT

from carpool.coalescing import barrier
from carpool.coalescing.figures import EarlyFlush, place
from carpool.coalescing.knowledge import Knowledge
from carpool.coalescing.queue import Queue
from carpool.coalescing.rows import Row, Table
from carpool.coalescing.shapes import ChangedRow, NewRow, UpdateShape
from carpool.coalescing.transaction import Transaction
from carpool.coalescing.updating import type_to_cast_to
from carpool.coalescing.values import MISSING, frozen, has_placeholder, is_hashable, sum_on

if TYPE_CHECKING:
    from carpool.coalescing.unit import Unit


class Changes:
    """Puts the rows of a unit's UPDATEs into its queue.

    Args:
        can_update: whether an UPDATE of a row that is there may be queued at all.
    """

    def __init__(
        self,
        unit: Unit,
        queue: Queue,
        transaction: Transaction,
        knowledge: Knowledge,
        *,
        can_update: bool,
    ) -> None:
        self._unit = unit
        self._connection = unit.connection
        self._queue = queue
        self._transaction = transaction
        self._knowledge = knowledge
        self._can_update = can_update
        self._shapes: dict[tuple[Any, ...], UpdateShape | None] = {}

    # A queryset's update(), of new rows that are still queued.

    def take(self, compiler: Any, result_type: Any) -> int | None:
        """Change rows that are still queued; return how many, or None if it must be executed."""
        query = compiler.query
        if result_type != ROW_COUNT or not self._queue.rows or self._unit.is_suspended:
            return None
        table = self._queue.tables.get(query.get_meta().db_table)
        if table is None or not table.by_key:
            return None
        rows = _asked_rows(query, table, self._connection)
        if not rows:
            return None
        changes: list[tuple[NewRow, int, Any]] = []
        for field, model, value in query.values:
            if model is not None and model._meta.concrete_model is not (
                query.get_meta().concrete_model
            ):
                return None
            for row in rows:
                number = row.shape.columns.get(field.column)
                if number is None or field.primary_key:
                    return None
                new = _new_value(field, value, row, number, self._connection)
                if new is MISSING or (new is None and not field.null):
                    return None
                if not _may_become(row, number, new):
                    return None
                changes.append((row, number, new))
        if not all(map(self._transaction.is_of_this_savepoint, rows)):
            return None
        self._connection.validate_no_broken_transaction()
        for row, number, new in changes:
            before = row.shape.sizes.of(row.values)
            self._queue.tables[row.shape.table].change(row, number, new)
            self._queue.changed(row, before)
            self._tie(row)
        self._unit.queued()
        return len(rows)

    # save(), of rows that are there.

    def shape(self, model: type[models.Model], changed: Sequence[Any]) -> UpdateShape | None:
        """Return the shape of an UPDATE by primary key; None if such a one must be executed."""
        key = (model, *(field.column for field in changed))
        if key not in self._shapes:
            may_be_queued = (
                self._can_update
                and changed
                and model._meta.managed
                and not model._meta.db_table.startswith('"')
                and _can_be_listed([*changed, *model._meta.pk_fields], self._connection)
            )
            shape = UpdateShape(self._connection, model, changed) if may_be_queued else None
            self._shapes[key] = shape
            if shape is not None and not shape.key_is_own:
                self._unit.watch(shape.keys[0])
        return self._shapes[key]

    def update(
        self, shape: UpdateShape, obj: models.Model, key: Any, values: Any, forced: str
    ) -> bool:
        """Queue the change of a single row; return False if it must be executed.

        Ask `Unit.takes_rows` before.

        Args:
            key: the primary key's value.
            values: what the fields' pre_save() gave; None: they are to be read off the instance,
                if that can be done quickly.
            forced: what Django says if there is no such row; empty: it inserts one.
        """
        if self._knowledge.doubts(shape.table):
            return False
        prepared_key = shape.prepared_key(key)
        if prepared_key is None:
            return False
        prepared = shape.values.quick(obj) if values is None else shape.all_values(values)
        if prepared is None:
            return False
        prepared += prepared_key
        must_be_known = shape.key_has_spellings or (shape.key_is_own and not forced)
        if must_be_known and not self._exists(shape, prepared):
            return False
        self._enter(shape, obj, prepared, forced)
        self._unit.queued()
        return True

    def _exists(self, shape: UpdateShape, values: list[Any]) -> bool:
        """Tell whether there is a row with the key of these values: queued, or seen."""
        assert shape.key_of is not None
        key = shape.key_of(values)
        table = self._queue.tables.get(shape.table)
        if table is not None and key in table.by_key:
            return True
        return self._knowledge.exists(shape.table, key)

    def _enter(self, shape: UpdateShape, obj: models.Model, values: list[Any], forced: str) -> None:
        assert shape.key_of is not None
        queue = self._queue
        table = queue.tables.get(shape.table)
        row = table.by_key.get(shape.key_of(values)) if table is not None else None
        if row is not None:
            assert table is not None
            if self._change(table, row, shape, values):
                return
            self._unit.flush(EarlyFlush(shape.table, place()))
        queue.append(ChangedRow(queue.number, shape, values, self._unit.tag, obj, forced))

    def _change(self, table: Table, row: Row, shape: UpdateShape, values: list[Any]) -> bool:
        """Change a row that is queued already; return False if it has to be written before."""
        if not self._transaction.is_of_this_savepoint(row):
            return False
        columns = row.shape.columns
        if type(row) is NewRow and (
            shape.may_be_unsettled or not all(field.column in columns for field in shape.changed)
        ):
            return False
        for field, value in zip(shape.changed, values, strict=False):
            number = columns.get(field.column)
            if number is not None and not _may_become(row, number, value):
                return False
        before = row.shape.sizes.of(row.values)
        more = [field for field in shape.changed if field.column not in columns]
        if more:
            assert type(row) is ChangedRow
            wider = self.shape(shape.model, [*row.shape.changed, *more])
            if wider is None:
                return False
            new = [values[shape.columns[field.column]] for field in more]
            at = len(row.shape.changed)
            table.widen(row, wider, [*row.values[:at], *new, *row.values[at:]])
        for field, value in zip(shape.changed, values, strict=False):
            table.change(row, row.shape.columns[field.column], value)
        self._queue.changed(row, before)
        self._tie(row)
        return True

    def _tie(self, row: Row) -> None:
        """Take note that a row of another tag is changed: both belong together from now on."""
        unit = self._unit
        if row.tag != unit.tag:  # whoever drops one of them must not keep half of the other
            unit.written.update((row.tag, unit.tag))


def _may_become(row: Row, number: int, new: Any) -> bool:
    """Tell whether a queued value may be changed: not if it may be refused as it was."""
    old = row.values[number]
    return bool(old == new or row.shape.checks.surely_pass(number, old))


def _asked_rows(query: Any, table: Table, connection: BaseDatabaseWrapper) -> list[NewRow] | None:
    """Return the queued rows that an UPDATE's condition names by key, if it names no others."""
    where = query.where
    if (
        query.related_updates
        or query.is_sliced
        or query.combinator
        or query.extra_tables
        or query.annotations
        or where.negated
        or where.connector != "AND"
        or len(where.children) != 1
    ):
        return None
    used = [alias for alias, uses in query.alias_refcount.items() if uses]
    if len(used) > 1:
        return None
    found = barrier.asked(where.children[0], connection)
    if found is None:
        return None
    column, values = found
    if not column.target.primary_key or column.target.model is not query.get_meta().model:
        return None
    if not all(map(is_hashable, values)):
        return None
    rows: list[NewRow] = []
    for value in dict.fromkeys(values):
        row = table.by_key.get(value)
        if type(row) is not NewRow:
            return None
        rows.append(row)
    return rows


def _new_value(
    field: Any, value: Any, row: Row, number: int, connection: BaseDatabaseWrapper
) -> Any:
    """Return a column's new value as the database is to get it, or MISSING."""
    if hasattr(value, "resolve_expression"):
        return sum_on(value, field, row, number)
    if has_placeholder(field, connection):
        return MISSING
    if field.remote_field is not None and not connection.features.can_defer_constraint_checks:
        return MISSING  # it may point at a row that is written later
    if hasattr(value, "prepare_database_save"):
        if not field.remote_field:
            return MISSING
        value = value.prepare_database_save(field)
    value = frozen(field.get_db_prep_save(value, connection=connection))
    return MISSING if hasattr(value, "as_sql") else value


def _can_be_listed(fields: Sequence[Any], connection: BaseDatabaseWrapper) -> bool:
    """Tell whether values for these columns can stand in a list of rows."""
    return not any(has_placeholder(field, connection) for field in fields) and (
        connection.vendor != "postgresql"
        or all(type_to_cast_to(field, connection) for field in fields)
    )
