"""``Model.save()`` for the time of a block: straight into the queue.

For each row ``save()`` looks at all of the model's fields several times, lists them anew, asks its
manager for a queryset, that for a query, that for a compiler, and the compiler asks the unit: most
of what a queued row would cost, for objects that are thrown away. While any block is open, in any
thread, the methods of `Model` that are named here first ask the unit of this thread. What is known
of the model beforehand is in a `Plan`; without one, or without a unit, everything goes the usual
way.

Everything is right without these hooks, only slower. But ``_do_update`` is where an UPDATE of
``save()``'s can be told from any other: it asks only whether there was a row.
"""

from __future__ import annotations

import functools
import operator
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from django.db import connections, models, router

from carpool.coalescing import late, making
from carpool.coalescing.originals import has_own, is_djangos
from carpool.coalescing.plans import CALLED, forced_message, is_surely_saved, looks_first
from carpool.coalescing.registry import here, unit_of

_lock = threading.Lock()
_blocks = 0
_installed: list[tuple[type[Any], str, Any, Any]] = []
"""Where each hook is, and what was there before it."""

_hooks: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""All hooks there ever were, and what they stand for: a mock may put one back after the block."""

_methods_of = operator.attrgetter(*CALLED)
_djangos: Any = None
"""What `_methods_of` a class are if none is its own, nor anybody's patch of Model."""

_djangos_save_table: Any = None


def install() -> None:
    """Put the hooks in place, until `remove` is called as often."""
    global _blocks, _djangos, _djangos_save_table
    with _lock:
        _blocks += 1
        if _blocks > 1:
            return
        # Names of Model, private where they begin with an underscore, with the same parameters on
        # 5.2, 6.0, 6.1, but that _do_update has returning_fields from 6.0 on, and returns rows
        # then, and that save() takes no positional arguments from 6.0 on.
        hooks: list[tuple[type[Any], str, Callable[[Any], Any]]] = [
            (models.Model, "__init__", making.init),
            (models.Model, "save", _save),
            (models.Model, "_save_table", _save_table),
            (models.Model, "_do_insert", _do_insert),
            (models.Model, "_do_update", _do_update),
            (making.owner_of_create(), "create", making.create),
        ]
        for owner, name, hook in hooks:
            found = vars(owner)[name]
            if not is_djangos(found):
                continue  # somebody's patch of Model, which wants to be called
            original = _hooks.get(found, found)
            # With its signature, and alters_data, which keeps templates from calling it.
            here_now = functools.update_wrapper(hook(original), original)
            _hooks[here_now] = original
            _installed.append((owner, name, here_now, original))
            setattr(owner, name, here_now)
        _djangos = None
        if not any(has_own(models.Model, name) for name in CALLED):
            _djangos = _methods_of(models.Model)
            _djangos_save_table = _hooks[vars(models.Model)["_save_table"]]


def remove() -> None:
    """Undo one `install`."""
    global _blocks
    with _lock:
        _blocks -= 1
        if _blocks == 0:
            for owner, name, hook, original in _installed:
                if vars(owner)[name] is hook:  # else it was patched, and the patch may call it
                    setattr(owner, name, original)
            _installed.clear()
            making.forget()
            late.sweep()


@contextmanager
def kept() -> Iterator[None]:
    """Have the hooks of classes stay where they are from block to block.

    Each change of a class makes Python look its attributes up anew; after a thousand of them,
    Python 3.13 remembers none of the class' and its subclasses' any more. (MAX_VERSIONS_PER_CLASS
    in CPython's Objects/typeobject.c.)
    """
    install()
    try:
        yield
    finally:
        remove()


def _save(original: Any) -> Any:
    def save(
        self: Any,
        *args: Any,
        force_insert: Any = False,
        force_update: Any = False,
        using: Any = None,
        update_fields: Any = None,
    ) -> None:
        if args:
            given = {
                "force_insert": force_insert,
                "force_update": force_update,
                "using": using,
                "update_fields": update_fields,
            }
            if not hasattr(self, "_parse_save_params"):  # from 6.0 on
                # It raises TypeError, and counts the arguments.
                original(self, *args, **{k: v for k, v in given.items() if v not in (None, False)})
            # Here and not in the original, for the place that its warning names.
            force_insert, force_update, using, update_fields = self._parse_save_params(
                *args, method_name="save", **given
            )
        units = here.units
        kind = self.__class__
        if (
            not units
            or update_fields is not None
            or force_update
            or _djangos is None
            # Not by ==: a proxy is equal to what is behind it.
            or not all(map(operator.is_, _methods_of(kind), _djangos))
            or "save_base" in self.__dict__  # a mock
        ):
            original(
                self,
                force_insert=force_insert,
                force_update=force_update,
                using=using,
                update_fields=update_fields,
            )
            return
        state = self._state
        if state.__dict__.get("fields_cache"):
            # Private, the same on 5.2, 6.0, 6.1: without an object that a field points at, it does
            # nothing.
            self._prepare_related_fields_for_save(operation_name="save")
        using = using or router.db_for_write(kind, instance=self)
        unit = units.get(using)
        if unit is not None and (force_insert is True or force_insert is False):
            plan = unit.plans.of_all(kind)
            if plan is not None and (
                force_insert or using != state.db or plan.is_complete(self.__dict__)
            ):
                plan.save_all(self, using, force_insert, _djangos_save_table)
                return
        original(self, force_insert=force_insert, using=using)

    return save


def _save_table(original: Any) -> Any:
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
            unit = here.units.get(using)
            if unit is not None:
                plan = unit.plans.of(type(self), cls)
                if plan is not None:
                    updated = plan.save(self, using, force_insert, force_update, update_fields)
                    if updated is not None:
                        return updated
                try:
                    return original(
                        self, raw, cls, force_insert, force_update, using, update_fields
                    )
                finally:
                    unit.inserts.given_up = None  # if it has raised before its INSERT
        return original(self, raw, cls, force_insert, force_update, using, update_fields)

    return _save_table


def _do_insert(original: Any) -> Any:
    def _do_insert(
        self: models.Model, manager: Any, using: str, fields: Any, returning_fields: Any, raw: bool
    ) -> Any:
        if type(manager) is models.Manager:
            unit = unit_of(connections[using])
            if unit is not None and unit.inserts.given_up is None and unit.writes_as_django:
                returned = unit.inserts.take(
                    manager.model, [self], fields, returning_fields, raw=raw
                )
                if returned is not None:
                    return returned
        return original(self, manager, using, fields, returning_fields, raw)

    return _do_insert


def _do_update(original: Any) -> Any:
    def _do_update(
        self: models.Model,
        base_qs: Any,
        using: str,
        pk_val: Any,
        values: Any,
        update_fields: Any,
        forced_update: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        # From 6.0 on, the fields that are to be returned.
        returning_fields = (*args, *kwargs.values())
        unit = unit_of(connections[using])
        model = base_qs.model
        if (
            unit is not None
            and unit.writes_as_django
            and values
            and not any(returning_fields)
            and type(base_qs) is models.QuerySet
            and not base_qs.query.where  # a lock of one's own: super()._do_update(….filter(…))
            and not has_own(type(self), "_do_update")
            and not looks_first(type(self))
            and type(model._base_manager) is models.Manager
            and (forced_update or is_surely_saved(self, model, using))
            and unit.takes_rows()
        ):
            shape = unit.changes.shape(model, [field for field, _, _ in values])
            forced = forced_message(bool(update_fields)) if forced_update else ""
            given = [value for _, _, value in values]
            if shape is not None and unit.changes.update(shape, self, pk_val, given, forced):
                return [()] if returning_fields else True
        return original(
            self, base_qs, using, pk_val, values, update_fields, forced_update, *args, **kwargs
        )

    return _do_update
