"""Cells of dataclasses and attrs classes, turned into what their annotations say.

Django's model fields do it: they are at hand, well kept, and speak the user's language. That is
for numbers, text, dates, UUIDs, and for enums, literals and what may be None; annotations that are
no plain classes (``list[int]``, ``int | str``, ``Any``) are not looked at. Whoever needs more has
msgspec or pydantic.
"""

from __future__ import annotations

import datetime
import types
import typing
import uuid
from collections.abc import Callable, Iterable, Mapping, Set
from decimal import Decimal
from enum import Enum
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models

from carpool.cells import python_value

_FIELDS: dict[type, models.Field[Any, Any]] = {
    bool: models.BooleanField(),
    int: models.IntegerField(),
    float: models.FloatField(),
    Decimal: models.DecimalField(),
    str: models.CharField(),
    datetime.date: models.DateField(),
    datetime.datetime: models.DateTimeField(),
    datetime.time: models.TimeField(),
    datetime.timedelta: models.DurationField(),
    uuid.UUID: models.UUIDField(),
}

_NULL = models.Field.default_error_messages["null"]


def scalar_converter(hint: Any) -> Callable[[Any], Any] | None:
    """Return what turns a cell into what the annotation says, or None where it may be anything.

    It raises Django's ValidationError.
    """
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return _one_of({value: value for value in typing.get_args(hint)})
    if origin in (typing.Union, types.UnionType):
        return _nullable(typing.get_args(hint))
    if not isinstance(hint, type) or hint in (object, Any) or getattr(hint, "_is_protocol", False):
        return None
    if hint in _FIELDS:
        return _by_field(hint)
    if issubclass(hint, Enum):
        return _one_of({member.value: member for member in hint})
    return _instance_of(hint)


def _nullable(parts: tuple[Any, ...]) -> Callable[[Any], Any] | None:
    """Convert for ``X | None``: no value, or empty text where text is not asked for, is None."""
    others = [part for part in parts if part is not types.NoneType]
    if len(others) != 1 or len(parts) != 2:
        return None
    convert = scalar_converter(others[0])
    if convert is None:
        return None

    def nullable(cell: Any) -> Any:
        if cell is None or (cell == "" and others[0] is not str):
            return None
        return convert(cell)

    return nullable


def _by_field(kind: type) -> Callable[[Any], Any]:
    field = _FIELDS[kind]

    def by_field(cell: Any) -> Any:
        if isinstance(cell, kind):
            return cell
        if cell is None:  # csv.DictReader's word for a row that is too short, too
            raise ValidationError(_NULL)
        if isinstance(cell, Mapping | list | tuple | Set | bytes):
            raise ValidationError(f"{cell!r} is a {type(cell).__name__}, not a {kind.__name__}.")
        return python_value(field, cell)

    return by_field


def _one_of(choices: Mapping[Any, Any]) -> Callable[[Any], Any]:
    """Convert to one of the values, which a file may have as text."""
    as_text = {str(value): chosen for value, chosen in choices.items()}

    def one_of(cell: Any) -> Any:
        if any(cell is chosen for chosen in choices.values()):
            return cell
        if isinstance(cell, str) and cell in as_text:
            return as_text[cell]
        for value, chosen in choices.items():
            if type(cell) is type(value) and cell == value:
                return chosen
        raise ValidationError(f"{cell!r} is not one of {_listed(choices)}.")

    return one_of


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(map(repr, values))


def _instance_of(kind: type) -> Callable[[Any], Any]:
    """Pass instances of a class that carpool knows no conversion to; refuse all else."""

    def instance_of(cell: Any) -> Any:
        if isinstance(cell, kind):
            return cell
        raise ValidationError(
            f"{cell!r} is a {type(cell).__name__}, not a {kind.__name__}, and carpool knows no "
            f"conversion. Annotate the field with {type(cell).__name__} | {kind.__name__} and "
            "convert it in the class, or use msgspec or pydantic."
        )

    return instance_of
