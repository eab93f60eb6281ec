"""``Model.__init__`` and ``Manager.create()`` for the time of a block: the same, in fewer steps.

For each instance Django asks every field for its default and sets every attribute by itself: a
fifth of what a queued row costs, to fill a ``__dict__`` with what is mostly the same each time. A
`Maker` knows of a class what never changes, and fills the ``__dict__`` at once. ``create()`` by a
manager makes a queryset, and that a query, of which nothing is used.

Only where that can't be told from Django's way: attributes that Django's own descriptors hold,
keyword arguments that name columns or related objects, no receiver of ``pre_init`` (it may change
the arguments), no ``__setattr__`` of one's own. All else goes to Django's; so does all that happens
in threads without a block, and after it, where somebody has kept a method that they found in it.

Everything is right without this module, only slower.
"""

from __future__ import annotations

import inspect
from typing import Any

from django.db import models, router
from django.db.models import query
from django.db.models.base import DEFERRED, ModelState
from django.db.models.fields.related_descriptors import (
    ForeignKeyDeferredAttribute,
    ForwardManyToOneDescriptor,
    ForwardOneToOneDescriptor,
)
from django.db.models.manager import BaseManager
from django.db.models.query_utils import DeferredAttribute
from django.db.models.signals import post_init, pre_init

from carpool.coalescing import late
from carpool.coalescing.originals import is_djangos
from carpool.coalescing.registry import here

_makers: dict[type[models.Model], Maker | None] = {}
"""By class. Model classes come and go in tests, so it is emptied when no block is open."""

_direct: dict[type[BaseManager[Any]], bool] = {}
"""By class of manager: whether its ``create()`` is Django's own all through."""


def forget() -> None:
    """Forget all classes."""
    _makers.clear()
    _direct.clear()


def is_plain(kind: type[models.Model], attname: str) -> bool:
    """Tell whether setting a new instance's attribute does no more than fill its ``__dict__``."""
    found = inspect.getattr_static(kind, attname, None)
    if type(found) is late.Attribute:
        found = found.original
    # A foreign key's attribute forgets the object it pointed at: a new instance has none.
    return type(found) in (DeferredAttribute, ForeignKeyDeferredAttribute)


class Maker:
    """How the instances of one class are filled.

    It does what ``Model.__init__`` does (checked against 5.2, 6.0, 6.1).

    Attributes:
        fields: the class' fields when this was made; it has others since if it is another list.
    """

    __slots__ = (
        "_attnames",
        "_constants",
        "_defaults",
        "_loaded",
        "_names",
        "_related",
        "_steps",
        "_template",
        "fields",
    )

    def __init__(self, kind: type[models.Model]) -> None:
        meta: Any = kind._meta
        self.fields = meta.fields
        own = [f for f in meta.fields if f.column is not None and not f.generated]
        constant = {f.attname for f in own if is_constant(f)}
        #: What every instance begins with, in the order in which Django fills it.
        self._template: dict[str, Any] = {"_state": None}
        self._template.update(
            (f.attname, f.get_default() if f.attname in constant else None) for f in own
        )
        self._defaults = [(f.attname, f) for f in own if f.attname not in constant]
        #: Where Django reads its constant defaults each time: one may be patched, or its getter.
        self._constants = [
            (f.attname, vars(f)) for f in own if f.attname in constant and f.has_default()
        ]
        self._attnames = frozenset(f.attname for f in own)
        self._loaded = tuple(f.attname for f in meta.concrete_fields)
        #: Related objects that may be given, by the field's name: its attribute.
        self._related = {f.name: f.attname for f in own if _takes_an_object(kind, f)}
        self._names = self._attnames | self._related.keys()
        self._steps = [(f.attname, f.name if f.name in self._related else None, f) for f in own]

    @classmethod
    def of(cls, kind: type[models.Model]) -> Maker | None:
        """Return the class' maker; None where only Django's way will do."""
        meta: Any = getattr(kind, "_meta", None)
        if meta is None:  # Model itself
            return None
        after = kind.__mro__[kind.__mro__.index(models.Model) :]
        if (
            meta.abstract
            or after != models.Model.__mro__  # another base's __init__ would be called
            or kind.__setattr__ is not object.__setattr__
            or inspect.getattr_static(kind, "_state", None) is not None
            or not all(is_plain(kind, f.attname) for f in meta.concrete_fields)
            or any(f.default is DEFERRED for f in meta.concrete_fields)
        ):
            return None
        return cls(kind)

    def takes(self, kwargs: dict[str, Any]) -> bool:
        """Tell whether these arguments are columns and related objects, and nothing else."""
        return kwargs.keys() <= self._names

    def fill(self, obj: models.Model, kwargs: dict[str, Any]) -> bool:
        """Do as ``Model.__init__`` with keyword arguments; False: nothing has happened."""
        is_related = not kwargs.keys() <= self._attnames
        if is_related and (
            not self.takes(kwargs)
            or any(name in kwargs and self._related[name] in kwargs for name in self._related)
        ):
            return False
        for value in kwargs.values():
            if value is DEFERRED:
                return False
        data = obj.__dict__
        if is_related:
            data["_state"] = ModelState()
            self._fill_step_by_step(obj, data, kwargs)
            return True
        data.update(self._template)
        data["_state"] = ModelState()
        for name, field in self._constants:
            if "get_default" not in field:
                data[name] = field["default"]
            elif name not in kwargs:
                data[name] = field["get_default"]()
        for name, default in self._defaults:
            if name not in kwargs:
                data[name] = default.get_default()
        data.update(kwargs)
        return True

    def _fill_step_by_step(
        self, obj: models.Model, data: dict[str, Any], kwargs: dict[str, Any]
    ) -> None:
        # For each related object the routers are asked: what they see is the instance so far.
        for attname, name, field in self._steps:
            if name in kwargs:
                setattr(obj, name, kwargs[name])
            elif attname in kwargs:
                data[attname] = kwargs[attname]
            else:
                data[attname] = field.get_default()

    def load(self, obj: models.Model, args: tuple[Any, ...]) -> bool:
        """Do as ``Model.__init__`` with a value for each column; False: nothing has happened."""
        if len(args) != len(self._loaded):
            return False
        for value in args:
            if value is DEFERRED:
                return False
        data = obj.__dict__
        data["_state"] = ModelState()
        data.update(zip(self._loaded, args, strict=True))
        return True


def is_constant(field: Any) -> bool:
    """Tell whether a field's default is always the same object, unless somebody patches it."""
    kind = type(field)
    # _get_default: private, of Field; checked on 5.2, 6.0, 6.1.
    if (
        field.has_db_default()
        or kind.get_default not in (models.Field.get_default, models.ForeignKey.get_default)
        or inspect.getattr_static(kind, "_get_default", None)
        is not inspect.getattr_static(models.Field, "_get_default")
        or "get_default" in vars(field)
    ):
        return False
    if field.has_default():
        return (
            kind.get_default is models.Field.get_default
            and "default" in vars(field)
            and not callable(field.default)
        )
    return True


def _takes_an_object(kind: type[models.Model], field: Any) -> bool:
    remote = field.remote_field
    return (
        isinstance(remote, models.ForeignObjectRel)
        and not remote.parent_link
        and type(inspect.getattr_static(kind, field.name, None))
        in (ForwardManyToOneDescriptor, ForwardOneToOneDescriptor)
    )


def _maker_of(kind: type[models.Model]) -> Maker | None:
    try:
        maker = _makers[kind]
    except KeyError:
        maker = _makers[kind] = Maker.of(kind)
    if maker is not None and maker.fields is not kind._meta.fields:
        maker = _makers[kind] = Maker.of(kind)
    return maker


def init(original: Any) -> Any:
    """Return what takes the place of ``Model.__init__``."""

    def fill(self: models.Model, *args: Any, **kwargs: Any) -> None:
        # A mock of pre_init.send is an attribute of the signal.
        if here.units and not pre_init.receivers and "send" not in pre_init.__dict__:
            kind = self.__class__
            maker = _maker_of(kind)
            if maker is not None:
                if not args:
                    if maker.fill(self, kwargs):
                        post_init.send(sender=kind, instance=self)
                        return
                elif not kwargs and maker.load(self, args):
                    post_init.send(sender=kind, instance=self)
                    return
        original(self, *args, **kwargs)

    return fill


def create(original: Any) -> Any:
    """Return what takes the place of the ``create()`` of managers."""

    def create(self: Any, *args: Any, **kwargs: Any) -> Any:
        if here.units and not args and _is_direct(self):
            model = self.model
            maker = _maker_of(model)
            # Names of the other side of one-to-one relations, which create() refuses, are not
            # among those that it takes.
            if maker is not None and maker.takes(kwargs):
                obj = model(**kwargs)
                using = self._db or router.db_for_write(model, **self._hints)
                obj.save(force_insert=True, using=using)
                if _HAS_FETCH_MODES:
                    obj._state.fetch_mode = query.DEFAULT_FETCH_MODE
                return obj
        return original(self, *args, **kwargs)

    return create


_HAS_FETCH_MODES = hasattr(query, "DEFAULT_FETCH_MODE")
"""From Django 6.1 on: a queryset's, which it hands to what it creates."""


_CREATE = models.QuerySet.create
_GET_QUERYSET = BaseManager.get_queryset
_ARE_DJANGOS = is_djangos(_CREATE) and is_djangos(_GET_QUERYSET)


def _is_direct(manager: Any) -> bool:
    """Tell whether a manager's queryset adds nothing of its own to ``create()``."""
    kind = manager.__class__
    try:
        is_direct = _direct[kind]
    except KeyError:
        is_direct = _direct[kind] = _ARE_DJANGOS and not _has_its_own(kind._queryset_class)
    data = manager.__dict__
    # Looked at each time, since tests mock them.
    return (
        is_direct
        and kind.get_queryset is _GET_QUERYSET
        and kind._queryset_class.create is _CREATE
        and "get_queryset" not in data
        and "_queryset_class" not in data
    )


def _has_its_own(queryset: Any) -> bool:
    """Tell whether a class of querysets has its own of what ``create()`` uses, but for itself."""
    return any(
        getattr(queryset, name) is not getattr(models.QuerySet, name)
        for name in ("__new__", "__init__", "__getattribute__", "__setattr__", "db")
    )


def owner_of_create() -> type[Any]:
    """Return the class that has the ``create()`` of all managers."""
    # Made by BaseManager.from_queryset(QuerySet), nameless elsewhere; checked on 5.2, 6.0, 6.1.
    return next(kind for kind in models.Manager.__mro__ if "create" in vars(kind))
