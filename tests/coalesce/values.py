"""Say what a value is in words that can be compared between two runs.

The keys that a database makes may have other values in another run. So they are told apart by
type: a `Key` says of which table, and `comparison` pairs them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.db.models.expressions import BaseExpression

from tests.snapshot import plain


@dataclass(frozen=True)
class Key:
    """A key that a database made."""

    table: str
    value: Any

    def __repr__(self) -> str:
        return f"<{self.table} {self.value}>"


#: Columns of keys that don't say so.
UNDECLARED = {"app.BookRow.id": "app.Book", "app.BookRow.author_id": "app.Author"}


def source(field: Any) -> str | None:
    """Name the table whose generated keys the field holds, or None if it holds anything else."""
    while field.remote_field is not None:
        field = field.target_field
    if isinstance(field, models.AutoField):
        label = str(field.model._meta.label)
        return UNDECLARED.get(f"{label}.{field.attname}", label)
    return UNDECLARED.get(f"{field.model._meta.label}.{field.attname}")


def normal(field: Any, value: Any, row: Mapping[str, Any] | None = None) -> Any:
    """Return the value, or what stands for it: a key, a time that is now, an expression."""
    if value is None:
        return None
    if isinstance(field, models.CompositePrimaryKey):
        return tuple(value)
    if isinstance(value, BaseExpression):
        return type(value).__name__
    if field.attname == "object_id":
        return generic_key(row, value)
    table = source(field)
    return plain(value) if table is None else Key(table, value)


def generic_key(row: Mapping[str, Any] | None, value: Any) -> Any:
    """Return the key that a generic foreign key holds."""
    kind = row and row.get("content_type_id")
    if not kind:
        return "of some table"
    model = ContentType.objects.get_for_id(kind).model_class()
    return normal(model._meta.pk, value) if model else value


def normal_keys(model: type[models.Model], keys: Iterable[Any]) -> list[Any]:
    """Return the keys of a model's rows, sorted."""
    return [
        normal(model._meta.pk, key) for key in sorted(keys, key=lambda key: (str(type(key)), key))
    ]


def key_of(instance: models.Model) -> Any:
    """Ask an object for its key."""
    return normal(instance._meta.pk, instance.pk)


def seen(instance: models.Model) -> Any:
    """Return what Python can see of an object: its state and its loaded columns."""
    held = instance.__dict__
    words: list[Any] = [
        instance._meta.label,
        "new" if instance._state.adding else "saved",
        instance._state.db,
    ]
    for field in instance._meta.concrete_fields:
        if field.attname in held or isinstance(field, models.AutoField) or field.primary_key:
            value = getattr(instance, field.attname)
            words.append((field.attname, normal(field, value, held)))
    return words
