"""A queryset in words: ``shop.Order:state=open,total__gt=100``."""

from __future__ import annotations

import csv
from typing import Any

from django.core.exceptions import FieldError, ValidationError
from django.db.models import Model, QuerySet

from carpool.exceptions import ConfigurationError
from carpool.targets import resolve_target

_OF_SEVERAL = ("__in", "__range")
_WORDS = {"true": True, "false": False}


def queryset_of(text: str, using: str | None) -> QuerySet[Any]:
    """Return the rows that the words mean: an app's model, and what filter() is to be called with.

    Conditions are separated by commas; one with a comma in it is put in double quotes, as in CSV.
    Values are text, which the fields know how to read; "true" and "false" are understood, and of
    ``__in`` and ``__range`` they are separated by bars.

    Raises:
        ConfigurationError: no such model, field or lookup, or a value that a field can't read.
    """
    name, _, conditions = text.partition(":")
    model = resolve_target(name)
    if not (isinstance(model, type) and issubclass(model, Model)):
        raise ConfigurationError(f"--queryset {text!r}: {name} is not a model.")
    queryset: QuerySet[Any] = model._default_manager.using(using)
    for condition in next(csv.reader([conditions])) if conditions.strip() else []:
        field, equals, value = condition.strip().partition("=")
        if not equals or not field:
            raise ConfigurationError(
                f"--queryset {text!r}: {condition!r} is not FIELD=VALUE. A condition with a comma "
                "in it is put in double quotes."
            )
        try:
            queryset = _filtered(queryset, field.strip(), value)
        except (FieldError, ValidationError, ValueError, TypeError) as error:
            words = " ".join(getattr(error, "messages", [str(error)]))
            raise ConfigurationError(f"--queryset {text!r}: {condition!r}: {words}") from error
    return queryset


def _filtered(queryset: QuerySet[Any], field: str, value: str) -> QuerySet[Any]:
    if field.endswith(_OF_SEVERAL):
        return queryset.filter(**{field: value.split("|")})
    if field.endswith("__isnull"):  # which refuses text only when the query is sent
        return queryset.filter(**{field: _WORDS.get(value.lower(), value)})
    try:
        return queryset.filter(**{field: value})
    except (ValidationError, ValueError):
        if value.lower() not in _WORDS:  # a field of truth values knows Python's words only
            raise
        return queryset.filter(**{field: _WORDS[value.lower()]})
