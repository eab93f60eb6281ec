"""Receivers that look on, and write down what they saw.

    item runs ──signals──▶ Recording (a list in memory) ──end of the item──▶ app_signallog

A `Recorded` function opens a recording for its item. The receivers note each signal there, and
the end of the item writes the notes in the item's own transaction: so the log holds exactly the
signals of the items that committed, in whichever process they ran. Outside a recording the
receivers do nothing, which is how to switch them off: pass the bare function.

The receivers touch no database and load no deferred field. A recording that asked the database
who is who at each signal would flush whatever a unit of work holds back, and so hide its faults.
Keys are told apart at the end, from the instances that went by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from django.db import DEFAULT_DB_ALIAS, models
from django.db.models.signals import (
    m2m_changed,
    post_delete,
    post_save,
    pre_delete,
    pre_save,
)

from tests.app.models import SignalLog

_current: ContextVar[Recording | None] = ContextVar("recording", default=None)


def natural_name(instance: models.Model) -> str:
    """Name a row by its natural fields, from memory."""
    parts = []
    for name in getattr(type(instance), "natural", ()):
        model_field = instance._meta.get_field(name)
        if model_field.is_relation:
            related = instance._state.fields_cache.get(name)  # type: ignore[attr-defined]
            parts.append(natural_name(related) if related is not None else "?")
        else:
            parts.append(str(instance.__dict__.get(name, "<deferred>")))
    return "/".join(parts)


def hashable(key: Any) -> Any:
    return tuple(key) if isinstance(key, list) else key


@dataclass
class Note:
    signal: str
    sender: type[models.Model]
    instance: str
    detail: dict[str, Any]
    keys: tuple[type[models.Model], frozenset[Any]] | None = None


@dataclass
class Recording:
    """The signals of one item, in their order."""

    item: str
    using: str = DEFAULT_DB_ALIAS
    notes: list[Note] = field(default_factory=list)
    met: list[models.Model] = field(default_factory=list)
    names: dict[tuple[type[models.Model], Any], str] = field(default_factory=dict)

    def note(self, signal: str, sender: Any, instance: Any, /, **detail: Any) -> None:
        self.notes.append(Note(signal, sender, self.meet(instance), detail))

    def meet(self, instance: models.Model) -> str:
        name = natural_name(instance)
        self.met.append(instance)
        return name

    def remember(self, instance: models.Model) -> None:
        """Learn the key now: deleting the row takes it from the instance."""
        key = hashable(instance.pk)
        if key is not None:
            self.names[instance._meta.concrete_model or type(instance), key] = natural_name(
                instance
            )

    def name_of(self, model: type[models.Model], key: Any) -> str:
        concrete = model._meta.concrete_model or model
        name = self.names.get((concrete, key))
        if name is None:
            found = concrete._base_manager.filter(pk=key).first()
            name = self.names[concrete, key] = natural_name(found) if found else "<gone>"
        return name

    def write(self) -> None:
        """Write the notes, in the transaction of the item."""
        for instance in self.met:
            self.remember(instance)
        SignalLog.objects.using(self.using).bulk_create(
            SignalLog(
                item=self.item,
                position=position,
                signal=note.signal,
                sender=note.sender._meta.label,
                instance=note.instance,
                detail=note.detail
                if note.keys is None
                else note.detail
                | {"keys": sorted(self.name_of(note.keys[0], key) for key in note.keys[1])},
            )
            for position, note in enumerate(self.notes)
        )


@contextmanager
def recording(item: str, using: str = DEFAULT_DB_ALIAS) -> Iterator[Recording]:
    """Record what is fired in the block; write it at the end unless the block raises."""
    record = Recording(item, using)
    token = _current.set(record)
    try:
        yield record
    finally:
        _current.reset(token)
    record.write()


def key_of(item: Any) -> str:
    """Name an item: by its key if it is a mapping, else by its natural fields."""
    if isinstance(item, models.Model):
        return f"{item._meta.label} {natural_name(item)}"
    return str(item["key"])


@dataclass(frozen=True)
class Recorded:
    """A function whose signals are written to the log, item by item; it pickles."""

    function: Callable[[Any], Any]
    using: str = DEFAULT_DB_ALIAS

    def __call__(self, item: Any) -> Any:
        with recording(key_of(item), self.using):
            return self.function(item)


def state(instance: models.Model) -> dict[str, Any]:
    """Tell what a receiver can see of an instance's state without asking the database."""
    return {"adding": instance._state.adding, "db": instance._state.db}


def on_pre_save(
    sender: Any, instance: Any, raw: bool, using: str, update_fields: Any, **kwargs: Any
) -> None:
    if record := _current.get():
        record.note(
            "pre_save",
            sender,
            instance,
            raw=raw,
            using=using,
            update_fields=None if update_fields is None else sorted(update_fields),
            **state(instance),
        )


def on_post_save(
    sender: Any,
    instance: Any,
    created: bool,
    raw: bool,
    using: str,
    update_fields: Any,
    **kwargs: Any,
) -> None:
    if record := _current.get():
        record.note(
            "post_save",
            sender,
            instance,
            created=created,
            raw=raw,
            using=using,
            update_fields=None if update_fields is None else sorted(update_fields),
            **state(instance),
        )


def on_pre_delete(sender: Any, instance: Any, using: str, origin: Any, **kwargs: Any) -> None:
    if record := _current.get():
        record.remember(instance)
        record.note("pre_delete", sender, instance, using=using, origin=type(origin).__name__)


def on_post_delete(sender: Any, instance: Any, using: str, origin: Any, **kwargs: Any) -> None:
    if record := _current.get():
        record.note("post_delete", sender, instance, using=using, origin=type(origin).__name__)


def on_m2m_changed(
    sender: Any,
    instance: Any,
    action: str,
    reverse: bool,
    model: type[models.Model],
    pk_set: set[Any] | None,
    using: str,
    **kwargs: Any,
) -> None:
    if record := _current.get():
        detail = {"action": action, "reverse": reverse, "model": model._meta.label, "using": using}
        if pk_set is None:
            detail["keys"] = None
        keys = None if pk_set is None else (model, frozenset(pk_set))
        record.notes.append(Note("m2m_changed", sender, record.meet(instance), detail, keys))


def connect() -> None:
    """Connect to every model's signals; called from `AppConfig.ready()`, once a process."""
    pre_save.connect(on_pre_save, dispatch_uid="log pre_save")
    post_save.connect(on_post_save, dispatch_uid="log post_save")
    pre_delete.connect(on_pre_delete, dispatch_uid="log pre_delete")
    post_delete.connect(on_post_delete, dispatch_uid="log post_delete")
    m2m_changed.connect(on_m2m_changed, dispatch_uid="log m2m_changed")
