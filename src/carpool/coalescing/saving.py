"""``Model.save()`` for the time of a block: straight into the queue.

For each row ``save()`` lists the model's fields anew, asks its manager for a queryset, that for a
query, that for a compiler, and the compiler asks the unit: a third of what a queued row costs, for
objects that are thrown away. While any block is open, in any thread, ``_save_table`` and
``_do_insert`` first ask the unit of this thread's connection. What is known of the model beforehand
is in a `Plan`; without one, or without a unit, everything goes the usual way.

Everything is right without ``_save_table`` and ``_do_insert``, only slower. ``_do_update`` is where
an UPDATE of ``save()``'s can be told from any other: it asks only whether there was a row.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from django.db import connections, models

from carpool.coalescing import late
from carpool.coalescing.late import LateKey
from carpool.coalescing.registry import unit_of
from carpool.coalescing.values import MISSING

if TYPE_CHECKING:
    from carpool.coalescing.shapes import InsertShape, UpdateShape
    from carpool.coalescing.unit import Unit

_lock = threading.Lock()
_blocks = 0
_originals: dict[str, Any] = {}


def install() -> None:
    """Put the hooks in place, until `remove` is called as often."""
    global _blocks
    with _lock:
        _blocks += 1
        if _blocks == 1:
            # Private names of Model, with the same parameters on 5.2, 6.0, 6.1, but that
            # _do_update has returning_fields from 6.0 on, and returns rows then.
            for hook in (_save_table, _do_insert, _do_update):
                _originals[hook.__name__] = getattr(models.Model, hook.__name__)
                setattr(models.Model, hook.__name__, hook)


def remove() -> None:
    """Undo one `install`."""
    global _blocks
    with _lock:
        _blocks -= 1
        if _blocks == 0:
            for name, original in _originals.items():
                setattr(models.Model, name, original)


def _save_table(
    self: models.Model,
    raw: bool = False,
    cls: Any = None,
    force_insert: bool = False,
    force_update: bool = False,
    using: Any = None,
    update_fields: Any = None,
) -> Any:
    if not raw:
        unit = unit_of(connections[using])
        if unit is not None and unit.takes_rows():
            plan = unit.plan_of(type(self), cls)
            if plan is not None:
                updated = plan.save(self, using, force_insert, force_update, update_fields)
                if updated is not None:
                    return updated
    return _originals["_save_table"](
        self, raw, cls, force_insert, force_update, using, update_fields
    )


def _do_insert(
    self: models.Model, manager: Any, using: str, fields: Any, returning_fields: Any, raw: bool
) -> Any:
    if type(manager) is models.Manager:
        unit = unit_of(connections[using])
        if unit is not None and unit.given_up is None:
            returned = unit.take(manager.model, [self], fields, returning_fields, raw=raw)
            if returned is not None:
                return returned
    return _originals["_do_insert"](self, manager, using, fields, returning_fields, raw)


def _do_update(
    self: models.Model,
    base_qs: Any,
    using: str,
    pk_val: Any,
    values: Any,
    update_fields: Any,
    forced_update: Any,
    *returning_fields: Any,
) -> Any:
    unit = unit_of(connections[using])
    model = base_qs.model
    if (
        unit is not None
        and values
        and not any(returning_fields)
        and type(base_qs) is models.QuerySet
        and not base_qs.query.where  # a lock of one's own: super()._do_update(base_qs.filter(…))
        and not _own(type(self), "_do_update")
        and not _looks_first(type(self))
        and type(model._base_manager) is models.Manager
        and (forced_update or _is_surely_saved(self, model, using))
        and unit.takes_rows()
    ):
        shape = unit.update_shape(model, [field for field, _, _ in values])
        forced = _forced(bool(update_fields)) if forced_update else ""
        given = [value for _, _, value in values]
        if shape is not None and unit.update(shape, self, pk_val, given, forced):
            return [()] if returning_fields else True
    return _originals["_do_update"](
        self, base_qs, using, pk_val, values, update_fields, forced_update, *returning_fields
    )


def _is_surely_saved(obj: models.Model, model: type[models.Model], using: str) -> bool:
    """Tell whether ``save()`` without a word of how will find a row, as far as the object knows."""
    state = obj._state
    meta: Any = model._meta
    return not (
        state.adding or state.db != using or meta.order_with_respect_to or late.is_moved(obj)
    )


def _forced(by_fields: bool) -> str:
    """Return what Django says if there is no row to update."""
    # Model._save_table, the same words on 5.2, 6.0, 6.1.
    if by_fields:
        return "Save with update_fields did not affect any rows."
    return "Forced update did not affect any rows."


def _looks_first(kind: Any) -> bool:
    """Tell whether objects of a class, a proxy maybe, are saved with a query beforehand.

    For databases whose count of updated rows is not to be trusted, so that nothing is queued.
    """
    return bool(kind._meta.select_on_save)


def _own(kind: Any, name: str) -> bool:
    """Tell whether a class has a method of its own in place of Model's."""
    return getattr(kind, name) is not getattr(models.Model, name)


MOST_SHAPES = 100
"""Sets of columns that are remembered for a model; programs use a few."""


class Plan:
    """How the objects of a class are saved in one of its tables, as far as that never changes.

    It does what ``Model._save_table`` does (checked against 5.2, 6.0, 6.1), in the cases that are
    plain enough: one column for a key, Django's own manager, no ``order_with_respect_to``.
    """

    def __init__(self, unit: Unit, kind: type[models.Model], model: type[models.Model]) -> None:
        meta = model._meta
        key: Any = meta.pk
        self._unit = unit
        self._model = model
        self._key = str(key.attname)
        self._key_has_default = key.has_default() or key.has_db_default()
        self._updates_at_once = _looks_first(kind)
        self._returning = list(meta.db_returning_fields)
        self._fields = [f for f in meta.local_concrete_fields if not f.generated]
        self._shapes: dict[bool, InsertShape] = {}
        self._updates: dict[Any, UpdateShape | None] = {}

    @classmethod
    def of(cls, unit: Unit, kind: type[models.Model], model: type[models.Model]) -> Plan | None:
        """Return the plan for objects of a class (``kind``) in the table of ``model``, if any."""
        meta: Any = model._meta
        if (
            _own(kind, "_do_insert")
            or _own(kind, "_do_update")
            or type(model._base_manager) is not models.Manager
            or meta.order_with_respect_to
            or len(meta.pk_fields) != 1
            or any(field.generated for field in meta.local_concrete_fields)
        ):
            return None
        unit.watch(meta.pk)
        return cls(unit, kind, model)

    def save(
        self,
        obj: models.Model,
        using: str,
        force_insert: bool,
        force_update: bool,
        update_fields: Any,
    ) -> bool | None:
        """Queue an object's row; return whether it is an UPDATE, or None if it isn't queued."""
        key = obj.__dict__.get(self._key, MISSING)
        if key is MISSING or key.__class__ is LateKey:
            return None
        if key is None:
            if self._key_has_default or force_update or update_fields:
                return None
            return self._insert(obj, with_key=False)
        if force_insert or (self._key_has_default and not force_update and obj._state.adding):
            return self._insert(obj, with_key=True)
        if self._updates_at_once:
            return None
        forced = ""
        # Django raises for force_update first.
        if force_update or update_fields:
            forced = _forced(not force_update)
        elif not _is_surely_saved(obj, self._model, using):
            return None
        shape = self._update_shape(update_fields)
        if shape is None or not self._unit.update(shape, obj, key, None, forced):
            return None
        return True

    def _update_shape(self, update_fields: Any) -> UpdateShape | None:
        try:
            return self._updates[update_fields]
        except KeyError:
            changed = [
                field
                for field in self._fields
                if not field.primary_key
                and (not update_fields or {field.name, field.attname} & set(update_fields))
            ]
            shape = self._unit.update_shape(self._model, changed)
            if len(self._updates) < MOST_SHAPES:
                self._updates[update_fields] = shape
            return shape
        except TypeError:  # a list, from a save_base() of one's own
            return None

    def _insert(self, obj: models.Model, *, with_key: bool) -> bool | None:
        shape = self._shapes.get(with_key)
        if shape is None:
            shape = self._find_shape(with_key)
            if shape is None:
                return None
        returned = self._unit.insert(shape, obj)
        if returned is None:
            return None
        for field, value in zip(self._returning, returned, strict=False):
            setattr(obj, field.attname, value)
        late.has_settled(obj)
        return False

    def _find_shape(self, with_key: bool) -> InsertShape | None:
        auto = self._model._meta.auto_field
        fields = [f for f in self._fields if with_key or f is not auto]
        shape = self._unit.shape(self._model, fields, self._returning, None, 1)
        if shape is not None:
            self._shapes[with_key] = shape
        return shape
