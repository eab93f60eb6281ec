"""INSERTs into the queue: each row with its prepared values, and its key where one is reserved.

`saving` brings single rows, `compilers` what else Django would insert. What can't be queued is
executed at once; the values that were prepared by then are not asked for again, since a field's
pre_save() may have stored a file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, models

from carpool.coalescing.figures import EarlyFlush, place
from carpool.coalescing.handing_over import done_by_waiting_thread
from carpool.coalescing.keys import Keys
from carpool.coalescing.late import LateKey
from carpool.coalescing.originals import has_own
from carpool.coalescing.queue import Queue
from carpool.coalescing.shapes import InsertShape, NewRow
from carpool.coalescing.values import MISSING, Given, has_placeholder

if TYPE_CHECKING:
    from carpool.coalescing.unit import Unit

FEW = 2
"""Rows of a table whose flush, for the sake of a late key, was not worth the queueing."""

OFTEN = 16
"""Such flushes in a row after which the table's rows are written at once, to the block's end."""

FIRST_SAVES = 3
"""Rows of a table that are sent at once, since there may be no more that need a key reserved."""

FIRST_BULKS = 6
"""Likewise, small bulk_create()s."""

SMALL_BULK = 100
"""Rows up to which a bulk_create() joins the queue; a larger one is a batch by itself."""


class Inserts:
    """Puts the rows of a unit's INSERTs into its queue.

    Attributes:
        given_up: after an INSERT that was not queued, the values that its compiler must not ask
            for again.
    """

    def __init__(self, unit: Unit, queue: Queue, keys: Keys | None) -> None:
        self.given_up: Given | None = None
        self._unit = unit
        self._connection = unit.connection
        self._queue = queue
        self._keys = keys
        self._shapes = InsertShapes(unit, queue, keys)
        self._read_at_once: Counter[str] = Counter()

    def take(
        self,
        model: type[models.Model],
        objs: Sequence[models.Model],
        fields: Sequence[Any],
        returning: Sequence[Any] | None,
        *,
        raw: bool = False,
        on_conflict: Any = None,
    ) -> list[Any] | None:
        """Queue the rows of an INSERT; return what it returns, or None if it must be executed.

        The arguments are those of Django's INSERT query. ``returning``: the fields whose values
        are wanted back. After None, see `given_up`.
        """
        unit = self._unit
        if not unit.has_strategy or len(objs) > SMALL_BULK:
            return None
        if unit.is_suspended or unit.has_lost_its_transaction():
            return None
        unit.refuse_if_broken()
        if unit.connection.needs_rollback:
            self.given_up = {}  # Django refuses it, but tells of a bad value first
            return None
        shape = self.shape(model, fields, returning or [], on_conflict, len(objs))
        if shape is None:
            return None
        if shape.late is not None and (
            self._read_at_once[shape.table] >= OFTEN
            or any(_is_told_of_its_key(type(obj)) for obj in objs)
        ):
            return None
        prepared = []
        given: Given = {}
        for obj in objs:
            values = shape.values.quick(obj) if not raw else None
            if values is None:
                values = shape.values.one_by_one(obj, given, raw=raw)
            if values is None:
                self.given_up = given
                return None
            prepared.append(values)
        returned = [(self._enter(shape, obj, v),) for obj, v in zip(objs, prepared, strict=True)]
        unit.queued()
        return returned if returning else []

    def insert(self, shape: InsertShape, obj: models.Model) -> Any:
        """Queue a single row, if that can be done quickly; return what RETURNING would, or None.

        `MISSING`: nothing has happened, and `take` is the way. Ask `Unit.takes_rows` before.
        """
        if shape.late is not None and self._read_at_once[shape.table] >= OFTEN:
            return MISSING
        values = shape.values.quick(obj)
        if values is None:
            return MISSING
        returned = self._enter(shape, obj, values)
        self._unit.queued()
        return returned

    def shape(
        self,
        model: type[models.Model],
        fields: Sequence[Any],
        returning: Sequence[Any],
        on_conflict: Any,
        number: int,
    ) -> InsertShape | None:
        """Return the shape of an INSERT of so many rows; None if it must be executed."""
        shape = self._shapes.of(model, fields, returning, on_conflict, number)
        if shape is MISSING:
            self.given_up = {}  # the compiler need not ask again
            return None
        return shape

    def _enter(self, shape: InsertShape, obj: Any, values: list[Any]) -> Any:
        """Queue one row; return what RETURNING would, or None."""
        queue = self._queue
        name = shape.table
        returned: Any = None
        waiting: LateKey | None = None
        if shape.reserve is not None:
            assert self._keys is not None
            if name in queue.mixed:
                self._unit.flush(EarlyFlush(name, place()))
            returned = self._keys.next(name, shape.reserve.column)
            values.append(returned)
            if shape.converts:
                returned = shape.converted(returned)
        elif shape.late is not None:
            returned = waiting = LateKey(obj, shape.late.attname, self._flush_for)
            self._unit.watch(shape.late)
        else:
            if self._keys is not None:
                given = shape.key_of(values) if shape.key_of is not None else None
                if self._keys.given(name, given):
                    queue.mixed.add(name)
            if shape.given is not None:
                returned = shape.converted(values[shape.columns[shape.given.column]])
        row = NewRow(queue.number, shape, values, self._unit.tag, waiting)
        if self._connection.savepoint_ids:  # there is a block that may catch the row's error
            row.remember(obj)
        queue.append(row)
        return returned

    def _flush_for(self, key: LateKey, at: str | None = None) -> None:
        """Write what is queued because a key is read; without a row, there is no key."""
        at = at or place()
        try:
            self._connection.validate_thread_sharing()
        except DatabaseError as error:
            if done_by_waiting_thread(partial(self._flush_for, key, at)):
                return
            raise DatabaseError(
                "The key of an object that was saved inside coalesce(), or by an item of a run, "
                "was read in another thread before it was known. The database gives it when the "
                "row is written, which only the block's own thread can do: read obj.pk there first."
            ) from error
        if self._queue.rows:
            instance = key.instance
            name = instance._meta.db_table if instance is not None else "a key"
            # Where every key is read at once, queueing gains nothing.
            table = self._queue.tables.get(name)
            if table is not None and len(table.rows) <= FEW:
                self._read_at_once[name] += 1
            else:
                self._read_at_once[name] = 0
            self._unit.flush(EarlyFlush(name, at))
        # While its row is being written, an execute wrapper may look; it will come.
        if not key.known and not self._unit.is_writing:
            key.arrive(None)


def _is_told_of_its_key(kind: type[models.Model]) -> bool:
    """Tell whether a class has code that would be given a late key, which nobody is to see."""
    return kind.__setattr__ is not object.__setattr__ or any(
        # _assign_returned_values: from 6.0 on.
        has_own(kind, name)
        for name in ("_do_insert", "_assign_returned_values")
        if hasattr(models.Model, name)
    )


class InsertShapes:
    """The shapes of a unit's INSERTs, each found out once: whether it is queued, and whence keys
    come."""

    def __init__(self, unit: Unit, queue: Queue, keys: Keys | None) -> None:
        self._unit = unit
        self._queue = queue
        self._keys = keys
        self._keys_are_late = unit.connection.vendor == "mysql"
        self._known: dict[Any, list[tuple[Any, Any, Any, InsertShape | None]]] = {}
        self._firsts: Counter[str] = Counter()

    def of(
        self,
        model: type[models.Model],
        fields: Sequence[Any],
        returning: Sequence[Any],
        on_conflict: Any,
        number: int,
    ) -> InsertShape | None:
        """Return the shape of an INSERT of so many rows; None if such a one is never queued.

        `MISSING`: this one is not, the next may be.
        """
        known = self._known.setdefault(model, [])
        for its_fields, its_returning, its_conflict, shape in known:
            if its_fields == fields and its_returning == returning and its_conflict is on_conflict:
                return shape
        shape = self._new(model, fields, returning, on_conflict, number)
        if shape is not MISSING:
            known.append((list(fields), list(returning), on_conflict, shape))
        return shape

    def _new(
        self,
        model: type[models.Model],
        all_fields: Sequence[Any],
        returning: Sequence[Any],
        conflict: Any,
        number: int,
    ) -> InsertShape | None:
        connection = self._unit.connection
        meta = model._meta
        auto: Any = meta.auto_field
        if conflict is not None and conflict.name != "IGNORE":
            return None
        if not meta.managed or meta.db_table.startswith('"'):
            return None
        if any(has_placeholder(field, connection) for field in all_fields):
            return None
        if any(field is not auto for field in returning):
            return None
        fields = list(all_fields)
        wanted = bool(returning) and auto not in fields
        if wanted and conflict is not None:
            return None
        if wanted and self._keys_are_late:
            if not fields:
                return None
            return InsertShape(connection, model, fields, conflict, late=auto)
        if wanted:
            if self._keys is None:
                return None
            if self._is_one_of_the_first(meta.db_table, number):
                return MISSING  # type: ignore[no-any-return]
            if meta.db_table in self._queue.mixed:  # the first look must see its rows
                self._unit.flush(EarlyFlush(meta.db_table, place()))
            if not self._keys.can_reserve(meta.db_table, auto.column):
                return None
            return InsertShape(connection, model, [*fields, auto], conflict, reserve=auto)
        if not fields:
            return None
        given = auto if auto in fields and returning else None
        return InsertShape(connection, model, fields, conflict, given=given)

    def _is_one_of_the_first(self, table: str, number: int) -> bool:
        """Tell whether rows should be sent at once, since there may be no more of them.

        Reserving a key takes a statement: a block with a single row, or a single bulk_create(),
        of a table would be slower for it. In a run there are more; and where other rows are queued
        already, sending this one at once would mean sending those that it depends on.
        """
        most = FIRST_SAVES if number == 1 else FIRST_BULKS
        if self._unit.isolates or self._queue.rows or self._firsts[table] >= most:
            return False
        self._firsts[table] += 1
        return True
