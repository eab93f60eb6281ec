"""A key's attribute for the time of the block: keys that are late, and keys that are changed.

MySQL and MariaDB can't reserve a key: the database gives it at the flush. Such a row is queued
without one. Its instance has a `LateKey` in the key's place, which nobody sees: the
attribute's descriptor is replaced, for the time of the block, by one that flushes when the key is
read. So does the key itself when it is pickled or deep-copied inside the instance's ``__dict__``,
and the class' ``__reduce_ex__``, which is also how ``copy.copy()`` copies.

After the block all keys have arrived. A row that was rolled back has None for a key. The
descriptors go with the last block, or the last run (`saving.kept`).

The same descriptor sees an object get another key (``obj.pk = 7; obj.save()``): it may be another
row from then on, or none yet. What was changed before the block, or before the block has first
saved an object of the model, is not seen; nor is it of a copy that is made after the change.
"""

from __future__ import annotations

import operator
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

from django.db import models
from django.db.models.query_utils import DeferredAttribute

_lock = threading.Lock()
_installed: dict[type[models.Model], tuple[int, str]] = {}
"""By model: how many blocks need the hooks, and the key's attribute."""

_reduces: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
"""All hooks of ``__reduce_ex__`` there ever were, and what was there before them."""

_moved: dict[int, weakref.ref[models.Model]] = {}
"""By id: objects whose key was changed after they had been saved or loaded."""

_MISSING = object()


def is_moved(instance: models.Model) -> bool:
    """Tell whether an object's key has been changed since it was last known to have a row."""
    if not _moved:
        return False
    found = _moved.get(id(instance))
    return found is not None and found() is instance


def has_settled(instance: models.Model) -> None:
    """Take note that an object has a row with its key."""
    _moved.pop(id(instance), None)


def _note_move(instance: models.Model) -> None:
    number = id(instance)

    def forget(gone: weakref.ref[models.Model]) -> None:
        if _moved.get(number) is gone:
            del _moved[number]

    _moved[number] = weakref.ref(instance, forget)


class LateKey:
    """Stands in an instance's ``__dict__`` until its row is written."""

    __slots__ = ("attname", "flush", "instance", "known", "value")

    def __init__(
        self, instance: models.Model, attname: str, flush: Callable[[LateKey], None]
    ) -> None:
        self.instance: models.Model | None = instance
        self.attname = attname
        self.flush = flush
        self.known = False
        self.value: Any = None

    def arrive(self, value: Any) -> None:
        """Become ``value``: None if there will be no row."""
        self.known = True
        self.value = value
        instance, self.instance = self.instance, None
        if instance is not None and instance.__dict__.get(self.attname) is self:
            instance.__dict__[self.attname] = value

    def get(self) -> Any:
        """Return the key; writes what is queued if it isn't known. None while it is written."""
        if not self.known:
            self.flush(self)
        return self.value

    # Who takes it out of the instance's __dict__ (``url.format(**obj.__dict__)``) takes the key.

    def __str__(self) -> str:
        return str(self.get())

    def __repr__(self) -> str:
        return repr(self.get())

    def __format__(self, spec: str) -> str:
        return format(self.get(), spec)

    def __int__(self) -> int:
        return int(self.get())

    def __index__(self) -> int:
        return operator.index(self.get())

    def __eq__(self, other: object) -> Any:
        return self.get() == (other.get() if isinstance(other, LateKey) else other)

    def __hash__(self) -> int:
        return hash(self.get())

    def __reduce__(self) -> Any:
        return _same, (self.get(),)

    def __copy__(self) -> Any:
        return self.get()

    def __deepcopy__(self, memo: Any) -> Any:
        return self.get()


def _same(value: Any) -> Any:
    return value


class Attribute:
    """A field's attribute for the time of the block: never shows a `LateKey`."""

    def __init__(self, attname: str, original: Any) -> None:
        self.attname = attname
        self.original = original
        self.sets = hasattr(original, "__set__")
        self.shows = getattr(type(original), "__get__", None) is not DeferredAttribute.__get__

    def __get__(self, instance: models.Model | None, owner: type | None = None) -> Any:
        if instance is None:
            return self.original.__get__(None, owner)
        try:
            value = instance.__dict__[self.attname]
        except KeyError:
            return self.original.__get__(instance, owner)
        if value.__class__ is LateKey:
            key = value.get()
            if value.known and instance.__dict__.get(self.attname) is value:
                instance.__dict__[self.attname] = key
            value = key
        # A descriptor of the user's own may show it as something else.
        return self.original.__get__(instance, owner) if self.shows else value

    def __set__(self, instance: models.Model, value: Any) -> None:
        data = instance.__dict__
        if value.__class__ is LateKey:  # by Django, as what an INSERT has returned
            value = value.value if value.known else value
        else:
            before = data.get(self.attname, value)
            if before.__class__ is not LateKey and before != value:
                state = data.get("_state")  # before Model.__init__ there is none
                if state is not None and not state.adding:
                    _note_move(instance)
        if self.sets:  # a foreign key's, which forgets the object that it pointed at
            self.original.__set__(instance, value)
        else:
            data[self.attname] = value

    def __delete__(self, instance: models.Model) -> None:
        delete = getattr(self.original, "__delete__", None)
        if delete is not None:
            delete(instance)
        elif self.sets:
            raise AttributeError("__delete__")  # Python's own words
        elif instance.__dict__.pop(self.attname, _MISSING) is _MISSING:
            message = f"{type(instance).__name__!r} object has no attribute {self.attname!r}"
            raise AttributeError(message, name=self.attname, obj=instance)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)


def install(model: type[models.Model], attname: str) -> None:
    """Hide late keys of a model, in all threads, until `remove` is called as often."""
    with _lock:
        if model not in _installed:
            _take_away(model, attname)  # a mock may have put them back after their block
            inherited = model.__reduce_ex__

            def reduce_ex(self: models.Model, protocol: Any) -> Any:
                getattr(self, attname)  # a late key arrives
                return inherited(self, protocol)

            _reduces[reduce_ex] = vars(model).get("__reduce_ex__", _MISSING)
            setattr(model, attname, Attribute(attname, vars(model)[attname]))
            setattr(model, "__reduce_ex__", reduce_ex)  # noqa: B010 (mypy knows its type)
        count, _ = _installed.get(model, (0, attname))
        _installed[model] = (count + 1, attname)


def remove(model: type[models.Model], attname: str) -> None:
    """Undo one `install`; what nobody needs is in place until `sweep`."""
    with _lock:
        count, _ = _installed[model]
        _installed[model] = (count - 1, attname)


def sweep() -> None:
    """Take away what nobody needs."""
    with _lock:
        for model, (count, attname) in list(_installed.items()):
            if not count:
                del _installed[model]
                _take_away(model, attname)
        if not _installed:
            _moved.clear()


def _take_away(model: type[models.Model], attname: str) -> None:
    """Put back what was there before the hooks, unless something else has taken their place."""
    attribute = vars(model).get(attname)
    if type(attribute) is Attribute:
        setattr(model, attname, attribute.original)
    reduce = vars(model).get("__reduce_ex__")
    if type(reduce) is not types.FunctionType or reduce not in _reduces:
        return
    if _reduces[reduce] is _MISSING:
        del model.__reduce_ex__
    else:
        model.__reduce_ex__ = _reduces[reduce]  # type: ignore[method-assign]
