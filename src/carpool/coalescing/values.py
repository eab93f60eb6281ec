"""A row's values as the database is to get them, read off an instance quickly.

What Django does for each value is ``field.get_db_prep_save(field.pre_save(instance, add=True))``:
four to six calls, a microsecond a column, and for most columns nothing happens in them. A `Reader`
knows, from the field's class, for which values that is so.
"""

from __future__ import annotations

import copy
import datetime
import decimal
import uuid
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.expressions import Col, CombinedExpression, Value

from carpool.coalescing.rows import INTEGERS, Field, Row

_PLAIN: dict[str, type] = {
    **dict.fromkeys(("CharField", "TextField", "SlugField"), str),
    **dict.fromkeys(INTEGERS, int),
    "BooleanField": bool,
    "FloatField": float,
}
"""By internal type: values of just this class are stored as they are, on every backend. (For
PostgreSQL, Django wraps an int to tell the server its size; in an INSERT the column does that.)"""


def has_placeholder(field: Field) -> bool:
    """Tell whether a field writes its own SQL around a value (GIS does)."""
    # get_placeholder() on 5.2, get_placeholder_sql() from 6.0 on.
    return hasattr(field, "get_placeholder") or hasattr(field, "get_placeholder_sql")


Reader = tuple[Field, str, Callable[..., Any] | None, type | None, Callable[[Any], Any] | None]
"""How one column's value is read: the field; its attribute; its own pre_save(), None where it is
Django's, which is to read the attribute; the class whose values need no preparing; and what
prepares some others quickly (None for all that it can't), or None: then not even NULL is sure to
stay NULL. A tuple, since it is taken apart a million times."""


def reader_of(field: Field, connection: BaseDatabaseWrapper) -> Reader:
    """Return how a column's value is read."""
    own = type(field).pre_save is not models.Field.pre_save
    return (
        field,
        field.attname,
        field.pre_save if own else None,
        plain_type(field, connection),
        _quick(field, connection),
    )


def _quick(field: Field, connection: BaseDatabaseWrapper) -> Callable[[Any], Any] | None:
    kind = type(field)
    if kind is models.DateTimeField and settings.USE_TZ:
        if connection.vendor == "postgresql":
            return _aware
        if connection.vendor in ("sqlite", "mysql") and connection.timezone is datetime.UTC:
            return _in_utc
    if kind in (models.ForeignKey, models.OneToOneField):
        return _nothing if _quick(field.target_field, connection) else None
    if kind.__module__ == "django.db.models.fields":
        return _nothing
    return None


def _nothing(value: Any) -> None:
    return None


def _aware(value: Any) -> Any:
    return value if type(value) is datetime.datetime and value.tzinfo is not None else None


def _in_utc(value: Any) -> str | None:
    """Do as adapt_datetimefield_value() of SQLite and MySQL: naive, in the connection's zone."""
    if type(value) is datetime.datetime and value.tzinfo is datetime.UTC:
        return str(value.replace(tzinfo=None))
    return None


def plain_type(field: Field, connection: BaseDatabaseWrapper) -> type | None:
    """Return the class whose values ``get_db_prep_save()`` leaves as they are."""
    kind = type(field)
    if kind in (models.ForeignKey, models.OneToOneField):
        found = plain_type(field.target_field, connection)
        return None if found is str else found  # an empty string may become NULL
    if kind.__module__ != "django.db.models.fields":  # a field of one's own may do anything
        return None
    if kind is models.UUIDField and connection.features.has_native_uuid_field:
        return uuid.UUID
    return _PLAIN.get(field.get_internal_type())


_IMMUTABLE = frozenset(
    [
        bool,
        bytes,
        datetime.date,
        datetime.datetime,
        datetime.time,
        datetime.timedelta,
        decimal.Decimal,
        float,
        int,
        str,
        type(None),
        uuid.UUID,
    ]
)


def frozen(value: Any) -> Any:
    """Return a prepared value as it is now, whatever becomes of the object that it came from.

    psycopg's Jsonb, for one, holds the dict, and is turned into text when it is sent.
    """
    if type(value) in _IMMUTABLE or isinstance(value, str | int) or hasattr(value, "as_sql"):
        return value
    dumps = getattr(value, "dumps", None)
    if dumps is not None and type(value).__module__.startswith("psycopg"):
        text = dumps(value.obj)
        return type(value)(None, dumps=lambda _: text)
    if isinstance(value, memoryview | bytearray):
        return bytes(value)
    return copy.deepcopy(value)


MISSING: Any = object()
"""In place of a value that can't be told."""


def sum_on(value: Any, field: Any, row: Row, number: int) -> Any:
    """Return what ``F("column") + 1`` comes to on a queued row; MISSING for any other expression.

    Whole numbers only: their sums are the database's. A sum too large is refused by it as ever.
    """
    if type(value) is not CombinedExpression or value.connector not in ("+", "-"):
        return MISSING
    left, right = value.lhs, value.rhs
    if type(left) is not Col or type(right) is not Value or type(right.value) is not int:
        return MISSING
    before = row.values[number]
    if left.target.column != field.column or not isinstance(before, int):
        return MISSING
    # psycopg's Int4 and the like are ints, and their sum is not one of them
    return int(before) + (right.value if value.connector == "+" else -right.value)
