"""Which column fills which field.

A column is matched, in this order, by the explicit mapping; by a field's name or attname
(``customer``, ``customer_id``); by a path along foreign keys (``customer__email``); by a field's
verbose name, in upper or lower case. Nothing is guessed beyond that, and nothing is left out in
silence: a column that is for no field is refused, unless it is mapped to "" or None.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.db.models.constants import LOOKUP_SEP

from carpool.exceptions import ConfigurationError

Field: TypeAlias = "models.Field[Any, Any]"


@dataclass(frozen=True, slots=True)
class Target:
    """What a column fills: the model's ``own`` field.

    If that is a foreign key, ``path`` leads from the related model to the ``field`` that names the
    row; for a column ``customer_id`` to what the key points at. Else ``path`` is empty.
    """

    own: Field
    path: str
    field: Field


@dataclass(frozen=True, slots=True)
class Part:
    """One column of a natural key."""

    column: str
    path: str
    field: Field


@dataclass(frozen=True, slots=True)
class Foreign:
    """A foreign key, and the columns that name its row together."""

    field: models.ForeignKey[Any, Any]
    parts: tuple[Part, ...]

    @property
    def by_key(self) -> bool:
        """Tell whether the row is named by what the foreign key holds, as Django checks it."""
        return len(self.parts) == 1 and self.parts[0].field is self.field.target_field

    @property
    def columns(self) -> str:
        """Return the columns, for a message."""
        return " and ".join(repr(part.column) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the columns of a row fill: fields by their own value, and foreign keys.

    ``by_default``: names of fields without a column that have a default, or may be null.
    """

    plain: tuple[tuple[str, Field], ...]
    foreign: tuple[Foreign, ...]
    by_default: frozenset[str]

    def column_of(self, name: str) -> str | None:
        """Return what fills the field of this name, for a message."""
        for column, field in self.plain:
            if field.name == name:
                return repr(column)
        return next((f.columns for f in self.foreign if f.field.name == name), None)


class Columns:
    """The columns that a model's rows may have.

    Args:
        model: whose fields are filled.
        mapping: column to field name or path; to None or "" for a column to be left out.

    Raises:
        ConfigurationError: the mapping names what can't be filled from a column.
    """

    def __init__(self, model: type[models.Model], mapping: Mapping[str, str | None]) -> None:
        self.model = model
        self._mapped = {
            column: _target(model, path, f"The column {column!r} is mapped to {path!r}: ")
            if path
            else None
            for column, path in mapping.items()
        }

    def plan(self, columns: Sequence[str]) -> Plan:
        """Return what a row with these columns fills.

        Raises:
            ConfigurationError: a column is for no field, or two are for the same.
        """
        unknown = []
        targets: list[tuple[str, Target]] = []
        for column in columns:
            target = self._target(column)
            if target is not None:
                targets.append((column, target))
            elif column not in self._mapped:
                unknown.append(column)
        if unknown:
            raise ConfigurationError(self._unknown(unknown))
        return self._planned(targets)

    def refuse_unused(self, columns: Iterable[str]) -> None:
        """Refuse a mapping of columns that are not among these.

        Raises:
            ConfigurationError: naming them.
        """
        columns = list(columns)
        if unused := [column for column in self._mapped if column not in columns]:
            raise ConfigurationError(
                f"There is no column {_listed(unused)}, which the mapping names. The columns are "
                f"{_listed(columns)}."
            )

    def _target(self, column: Any) -> Target | None:
        if column in self._mapped:
            return self._mapped[column]
        if not isinstance(column, str):
            return None
        name = column if _has(self.model, column.partition(LOOKUP_SEP)[0]) else None
        name = name or self._by_verbose_name(column)
        return _target(self.model, name, f"The column {column!r}: ") if name else None

    def _by_verbose_name(self, column: str) -> str | None:
        name = column.strip().casefold()
        found = [
            field
            for field in self.model._meta.get_fields()
            if isinstance(field, models.Field) and str(field.verbose_name).casefold() == name
        ]
        if len(found) > 1:
            raise ConfigurationError(
                f"The column {column!r} is the verbose name of {len(found)} fields: "
                f"{_listed(field.name for field in found)}. Map it to one of them."
            )
        return found[0].name if found else None

    def _planned(self, targets: Iterable[tuple[str, Target]]) -> Plan:
        plain: dict[Field, str] = {}
        parts: dict[Field, list[Part]] = {}
        for column, target in targets:
            if not target.path:
                if target.own in plain:
                    raise _twice(target.own.name, plain[target.own], column)
                plain[target.own] = column
                continue
            others = parts.setdefault(target.own, [])
            for other in others:
                if other.path == target.path:
                    path = f"{target.own.name}{LOOKUP_SEP}{target.path}"
                    raise _twice(path, other.column, column)
            others.append(Part(column, target.path, target.field))
        return Plan(
            tuple((column, field) for field, column in plain.items()),
            tuple(
                Foreign(field, tuple(some))
                for field, some in parts.items()
                if isinstance(field, models.ForeignKey)
            ),
            frozenset(
                field.name
                for field in self.model._meta.concrete_fields
                if field not in plain and field not in parts and (field.has_default() or field.null)
            ),
        )

    def _unknown(self, columns: list[Any]) -> str:
        names = [field.name for field in _fields(self.model)]
        hints = []
        for column in columns:
            path = str(column).strip().casefold().replace(" ", "_").replace("-", "_")
            if close := difflib.get_close_matches(path, names, 1):
                hints.append(f"{{{column!r}: {close[0]!r}}}")
        likely = f", such as {' or '.join(hints)}" if hints else ""
        return (
            f"No field of {self.model._meta.label} for the column {_listed(columns)}. The fields "
            f"are {_listed(names)}. Map each column{likely}; to a foreign key's natural key as "
            '"customer__email"; or to "", to leave it out.'
        )


def _has(model: type[models.Model], name: str) -> bool:
    try:
        model._meta.get_field(name)
    except FieldDoesNotExist:
        return name == "pk"
    return True


def _target(model: type[models.Model], path: str, prefix: str) -> Target:
    """Return what a field's name, or a path along foreign keys, leads to."""
    first, *rest = path.split(LOOKUP_SEP)
    own = _field(model, first, prefix, is_own=True)
    if isinstance(own, models.ForeignKey) and not rest:
        # Whatever the key holds names the row, by the field that it points at.
        rest = [own.target_field.name]
    field = own
    for name in rest:
        if not isinstance(field, models.ForeignKey):
            raise ConfigurationError(
                f"{prefix}{field.model._meta.label}.{field.name} is not a foreign key, so {name!r} "
                "can't follow it. (Nor can lookups, such as iexact: rows are found by equality.)"
            )
        field = _field(field.related_model, name, prefix, is_own=False)
    return Target(own, LOOKUP_SEP.join(rest), field)


def _field(model: Any, name: str, prefix: str, *, is_own: bool) -> Field:
    """Return the model's field that a column may fill, or that may name its row."""
    label = model._meta.label
    try:
        field = model._meta.pk if name == "pk" else model._meta.get_field(name)
    except FieldDoesNotExist as error:
        names = [f.name for f in _fields(model)]
        close = difflib.get_close_matches(name, names)
        likely = f"Did you mean {' or '.join(close)}?" if close else f"It has {_listed(names)}."
        raise ConfigurationError(f"{prefix}{label} has no field {name!r}. {likely}") from error
    reason = _why_not(field, is_own=is_own)
    if reason is not None:
        raise ConfigurationError(f"{prefix}{label}.{name} {reason}")
    assert isinstance(field, models.Field)
    return field


def _why_not(field: Any, *, is_own: bool) -> str | None:
    """Say why a column can't fill a field, or name a row by it."""
    if field.many_to_many and not field.auto_created:
        return (
            'is many-to-many, which is set after save(). Leave the column out (map it to ""), or '
            "write a function that saves the object and then calls .set()."
        )
    if not field.concrete:
        return (
            "is no column of the table: a relation from elsewhere, a generic one, or a key of "
            "several columns. Map the columns of the table, or write a function."
        )
    if is_own and getattr(field, "generated", False):
        return 'is computed by the database. Leave the column out: map it to "".'
    if is_own and getattr(field.remote_field, "parent_link", False):
        return "is the link to the parent's row, which is saved with it. Map the parent's fields."
    return None


def _fields(model: Any) -> list[Field]:
    """Return the fields that a column can fill."""
    return [f for f in model._meta.concrete_fields if _why_not(f, is_own=True) is None]


def _twice(field: str, column: str, other: str) -> ConfigurationError:
    return ConfigurationError(
        f'The columns {column!r} and {other!r} are both for {field}. Map one of them to "", to '
        "leave it out."
    )


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(map(repr, names))
