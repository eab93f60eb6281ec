"""How the objects of a class are saved, as far as that never changes: what `saving` goes by."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.db import models, transaction
from django.db.models.signals import post_save, pre_save

from carpool.coalescing import late
from carpool.coalescing.late import LateKey
from carpool.coalescing.making import is_constant, is_plain
from carpool.coalescing.originals import has_own
from carpool.coalescing.values import MISSING

if TYPE_CHECKING:
    from carpool.coalescing.shapes import InsertShape, UpdateShape
    from carpool.coalescing.unit import Unit


def is_surely_saved(obj: models.Model, model: type[models.Model], using: str) -> bool:
    """Tell whether ``save()`` without a word of how will find a row, as far as the object knows."""
    state = obj._state
    meta: Any = model._meta
    return not (
        state.adding or state.db != using or meta.order_with_respect_to or late.is_moved(obj)
    )


def forced_message(by_fields: bool) -> str:
    """Return what Django says if there is no row to update."""
    # Model._save_table, the same words on 5.2, 6.0, 6.1.
    if by_fields:
        return "Save with update_fields did not affect any rows."
    return "Forced update did not affect any rows."


def looks_first(kind: Any) -> bool:
    """Tell whether objects of a class, a proxy maybe, are saved with a query beforehand.

    For databases whose count of updated rows is not to be trusted, so that nothing is queued.
    """
    return bool(kind._meta.select_on_save)


CALLED = ("_prepare_related_fields_for_save", "_save_parents", "_save_table", "save_base")
"""What ``Model.save`` and ``save_base`` call, of which a class may have its own."""

_USED = (
    "__getattribute__",
    "__setattr__",
    "_assign_returned_values",  # from 6.0 on
    "_do_insert",
    "_do_update",
    "_get_pk_val",
    "_is_pk_set",
)
"""What ``Model._save_table`` uses, likewise."""

_methods_of = operator.attrgetter(*(name for name in _USED if hasattr(models.Model, name)))

MOST_SHAPES = 100
"""Sets of columns that are remembered for a model; programs use a few."""


class Plan:
    """How the objects of a class are saved in one of its tables, as far as that never changes.

    It does what ``Model._save_table`` does (checked against 5.2, 6.0, 6.1), in the cases that are
    plain enough: one column for a key, Django's own manager, no ``order_with_respect_to``.

    Attributes:
        fields: the model's fields when this was made; it has others since if it is another list.
        is_all: whether `save_all` may be used: the table is all that the class has, and what
            ``save()`` calls is Django's.
    """

    def __init__(self, unit: Unit, kind: type[models.Model], model: type[models.Model]) -> None:
        meta: Any = model._meta
        key = meta.pk
        self._unit = unit
        self._kind = kind
        self._methods = _methods_of(kind)
        self._model = model
        self._key = str(key.attname)
        self._key_has_default = key.has_default() or key.has_db_default()
        self._key_is_asked_for = self._key_has_default or not _is_left_to_the_database(key)
        self._updates_at_once = looks_first(kind)
        self._returning = list(meta.db_returning_fields)
        self._fields = [f for f in meta.local_concrete_fields if not f.generated]
        self._attnames = frozenset(f.attname for f in meta.concrete_fields if not f.generated)
        self._sends_signals = not meta.auto_created
        self._shapes: dict[bool, InsertShape] = {}
        self._updates: dict[Any, UpdateShape | None] = {}
        self.fields = meta.fields
        self.is_all = (
            model is kind._meta.concrete_model
            and not meta.parents
            and not any(has_own(kind, name) for name in (*CALLED, "_validate_force_insert"))
        )

    @classmethod
    def of(cls, unit: Unit, kind: type[models.Model], model: type[models.Model]) -> Plan | None:
        """Return the plan for objects of a class (``kind``) in the table of ``model``, if any."""
        meta: Any = model._meta
        if (
            not unit.writes_as_django
            or any(has_own(kind, name) for name in _USED)
            or type(model._base_manager) is not models.Manager
            or meta.order_with_respect_to
            or len(meta.pk_fields) != 1
            or any(field.generated for field in meta.local_concrete_fields)
            or not is_plain(kind, meta.pk.attname)
        ):
            return None
        unit.watch(meta.pk)
        return cls(unit, kind, model)

    def is_current(self) -> bool:
        """Tell whether the model still has the fields that this was made for."""
        meta: Any = self._model._meta
        return self.fields is meta.fields

    def is_complete(self, data: dict[str, Any]) -> bool:
        """Tell whether no column of an object is deferred."""
        return data.keys() >= self._attnames

    def save_all(
        self, obj: models.Model, using: str, force_insert: bool, save_table: Callable[..., Any]
    ) -> None:
        """Do what ``Model.save_base`` does (checked against 5.2, 6.0, 6.1).

        ``save_table``: Django's, for a row that isn't queued.
        """
        kind = self._kind
        if self._sends_signals:
            pre_save.send(sender=kind, instance=obj, raw=False, using=using, update_fields=None)
        try:
            updated = self.save(obj, using, force_insert, False, None)
            if updated is None:
                try:
                    updated = save_table(obj, False, self._model, force_insert, False, using, None)
                finally:
                    self._unit.inserts.given_up = None  # if it has raised before its INSERT
        except Exception:
            with transaction.mark_for_rollback_on_error(using=using):
                raise
        state = obj._state
        state.db = using
        state.adding = False
        if self._sends_signals:
            post_save.send(
                sender=kind,
                instance=obj,
                created=not updated,
                update_fields=None,
                raw=False,
                using=using,
            )

    def save(
        self,
        obj: models.Model,
        using: str,
        force_insert: Any,
        force_update: Any,
        update_fields: Any,
    ) -> bool | None:
        """Queue an object's row; return whether it is an UPDATE, or None if it isn't queued."""
        unit = self._unit
        if not unit.takes_rows() or self._is_patched():
            return None
        data = obj.__dict__
        key = data.get(self._key, MISSING)
        if key is None:
            if self._key_is_asked_for or force_update or update_fields:
                return None
            with_key = False
        elif key is MISSING or key.__class__ is LateKey:
            return None
        elif force_insert or (self._key_has_default and not force_update and obj._state.adding):
            with_key = True
        else:
            return self._update(obj, using, key, force_update, update_fields)
        try:
            shape = self._shapes[with_key]
        except KeyError:
            found = self._find_shape(with_key)
            if found is None:
                return None
            shape = found
        value = unit.inserts.insert(shape, obj)
        if value is MISSING:
            return None
        if self._returning:
            data[self._key] = value
        late.has_settled(obj)
        return False

    def _is_patched(self) -> bool:
        """Tell whether methods were replaced since this was made, as tests do."""
        return not all(map(operator.is_, _methods_of(self._kind), self._methods))

    def _update(
        self, obj: models.Model, using: str, key: Any, force_update: Any, update_fields: Any
    ) -> bool | None:
        if self._updates_at_once:
            return None
        forced = ""
        # Django raises for force_update first.
        if force_update or update_fields:
            forced = forced_message(not force_update)
        elif not is_surely_saved(obj, self._model, using):
            return None
        shape = self._update_shape(update_fields)
        if shape is None or not self._unit.changes.update(shape, obj, key, None, forced):
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
            shape = self._unit.changes.shape(self._model, changed)
            if len(self._updates) < MOST_SHAPES:
                self._updates[update_fields] = shape
            return shape
        except TypeError:  # a list, from a save_base() of one's own
            return None

    def _find_shape(self, with_key: bool) -> InsertShape | None:
        auto = self._model._meta.auto_field
        fields = [f for f in self._fields if with_key or f is not auto]
        shape = self._unit.inserts.shape(self._model, fields, self._returning, None, 1)
        if shape is not None:
            self._shapes[with_key] = shape
        return shape


class Plans:
    """The plans of one unit, each made when an object of its class is first saved."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._plans: dict[tuple[type[models.Model], type[models.Model]], Plan | None] = {}
        self._plans_of_all: dict[type[models.Model], Plan | None] = {}

    def of(self, kind: type[models.Model], model: type[models.Model]) -> Plan | None:
        """Return how objects of a class are saved in a model's table; None: as Django does it."""
        try:
            plan = self._plans[kind, model]
            if plan is None or plan.is_current():
                return plan
        except KeyError:
            pass
        plan = Plan.of(self._unit, kind, model) if self._unit.has_strategy else None
        self._plans[kind, model] = plan
        return plan

    def of_all(self, kind: type[models.Model]) -> Plan | None:
        """Return the plan that is all of how objects of a class are saved, if there is one."""
        try:
            plan = self._plans_of_all[kind]
            if plan is None or plan.is_current():
                return plan
        except KeyError:
            pass
        plan = self.of(kind, kind._meta.concrete_model or kind)
        if plan is not None and not plan.is_all:
            plan = None
        self._plans_of_all[kind] = plan
        return plan


def _is_left_to_the_database(key: Any) -> bool:
    """Tell whether an object without a key is saved without asking the field for one."""
    kind = type(key)
    return is_constant(key) and kind.get_pk_value_on_save is models.Field.get_pk_value_on_save
