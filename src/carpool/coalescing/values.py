"""A row's values as the database is to get them, read off an instance quickly.

What Django does for each value is ``field.get_db_prep_save(field.pre_save(instance, add=True))``:
four to six calls, a microsecond a column, and for most columns nothing happens in them. A
`Preparer` knows, from the fields' classes and those of the values, where that is so.
"""

from __future__ import annotations

import copy
import datetime
import decimal
import uuid
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from django.conf import settings
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.expressions import Col, CombinedExpression, Value

from carpool.coalescing.making import is_plain
from carpool.coalescing.rows import INTEGERS, Field, Row

_PLAIN: dict[str, type] = {
    **dict.fromkeys(("CharField", "TextField", "SlugField"), str),
    **dict.fromkeys(INTEGERS, int),
    "BooleanField": bool,
    "FloatField": float,
}
"""By internal type: values of just this class are stored as they are, on every backend. (For
PostgreSQL, Django wraps an int to tell the server its size; in an INSERT the column does that.)"""


_AUTO = frozenset([models.AutoField, models.BigAutoField, models.SmallAutoField])
_FOREIGN_KEYS = frozenset([models.ForeignKey, models.OneToOneField])


def has_placeholder(field: Field, connection: BaseDatabaseWrapper) -> bool:
    """Tell whether a field writes its own SQL around a value (GIS does)."""
    if type(field) is models.BinaryField and connection.vendor != "mysql":
        return False  # there it is "_binary %s", elsewhere nothing
    # get_placeholder() on 5.2, get_placeholder_sql() from 6.0 on.
    return hasattr(field, "get_placeholder") or hasattr(field, "get_placeholder_sql")


Given = dict[tuple[int, int], Any]
"""By field's and instance's id: what the field's own pre_save() gave, which is not to be asked
twice: a file is stored once, and a time taken once."""

MOST_CLASSES = 1024
"""Combinations of values' classes that are remembered; each nullable column can double them."""


class Preparer:
    """The values of some fields of an instance, as the database is to get them.

    Quickly, where all of the values are of classes met before: then they are picked from the
    instance's ``__dict__`` at once, and only the columns whose class asks for it are looked at.
    Else field by field, as Django does it.

    Args:
        fields: whose values, in order.
        add: what pre_save() is to be told: whether it is for an INSERT.
    """

    def __init__(
        self, fields: Sequence[Field], connection: BaseDatabaseWrapper, *, add: bool
    ) -> None:
        self._connection = connection
        self._add = add
        self._columns = [_Column(field, connection) for field in fields]
        self._timed = [
            (number, column, vars(column.field))
            for number, column in enumerate(self._columns)
            if column.is_timed
        ]
        self._attnames = [field.attname for field in fields]
        self._plainly_read: dict[type[models.Model], bool] = {}
        is_quick = not any(column.has_pre_save and not column.is_timed for column in self._columns)
        self._pick = _picker(self._attnames) if is_quick else None
        self._known: dict[tuple[type, ...], list[tuple[int, Callable[[Any], Any], _Column]]] = {}

    def quick(self, obj: models.Model) -> list[Any] | None:
        """Return an instance's prepared values; None where it has to be done field by field."""
        if self._pick is None or not self._reads_plainly(obj.__class__):
            return None
        try:
            picked = self._pick(obj.__dict__)
        except KeyError:  # deferred
            return None
        # Looked at each time: programs switch auto_now off and on, and tests mock pre_save().
        stamps = [
            (number, column)
            for number, column, state in self._timed
            if state["auto_now"] or (self._add and state["auto_now_add"]) or "pre_save" in state
        ]
        return self._stamped(obj, picked, stamps) if stamps else self.ready(picked)

    def _stamped(
        self, obj: models.Model, picked: Sequence[Any], stamps: Sequence[tuple[int, _Column]]
    ) -> list[Any] | None:
        """Return values prepared, some of them those of pre_save(): called if all others are ready,
        since who does it field by field will call it, too."""
        picked = list(picked)
        for number, _ in stamps:
            picked[number] = _LATER
        try:
            values = self.ready(picked)
        except Exception:  # raised at its place, field by field
            return None
        if values is None:
            return None
        for number, column in stamps:
            value = column.prepared(column.field.pre_save(obj, self._add), self._connection)
            if value is MISSING:
                return None
            values[number] = value
        return values

    def _reads_plainly(self, kind: type[models.Model]) -> bool:
        """Tell whether what is in the ``__dict__`` is what a class' attributes give."""
        try:
            return self._plainly_read[kind]
        except KeyError:
            found = self._plainly_read[kind] = (
                kind.__getattribute__ is object.__getattribute__
                and all(is_plain(kind, attname) for attname in self._attnames)
            )
            return found

    def ready(self, picked: Sequence[Any]) -> list[Any] | None:
        """Return values prepared; None if there is one that can't be queued."""
        classes = tuple(map(type, picked))
        try:
            work = self._known[classes]
        except KeyError:
            work = [
                (number, column.quick or _nothing, column)
                for number, (column, kind) in enumerate(zip(self._columns, classes, strict=True))
                if kind is not _Later and not column.takes_as_it_is(kind)
            ]
            if len(self._known) < MOST_CLASSES:
                self._known[classes] = work
        values = list(picked)
        for number, quick, column in work:
            value = quick(values[number])
            if value is None:
                value = column.prepared(values[number], self._connection)
                if value is MISSING:
                    return None
            values[number] = value
        return values

    def one_by_one(self, obj: models.Model, given: Given, *, raw: bool = False) -> list[Any] | None:
        """Return an instance's prepared values; None if there is one that can't be queued.

        What its fields' own pre_save() gave is in ``given`` then.
        """
        data = obj.__dict__ if self._reads_plainly(obj.__class__) else {}
        values: list[Any] = []
        queueable = True
        for column in self._columns:
            if raw or not column.has_pre_save:
                try:
                    value = data[column.field.attname]
                except KeyError:  # deferred, or with a descriptor of its own
                    value = getattr(obj, column.field.attname)
            else:
                value = given[id(column.field), id(obj)] = column.field.pre_save(obj, self._add)
            if queueable:
                value = column.prepared(value, self._connection)
                queueable = value is not MISSING
            values.append(value)
        return values if queueable else None


class _Later:
    """Stands for the value that pre_save() will give."""


_LATER = _Later()


def _picker(names: Sequence[str]) -> Callable[[dict[str, Any]], tuple[Any, ...]] | None:
    """Return what takes these values out of a dict, as a tuple."""
    if len(names) == 1:
        (name,) = names
        return lambda data: (data[name],)
    return itemgetter(*names) if names else None


class _Column:
    """How one column's value is prepared.

    ``has_pre_save``: whether it may do more than Django's, which reads the attribute. ``plain``:
    the class whose values are stored as they are. ``quick``: prepares some other values quickly,
    and returns None for all that it can't; None where not even NULL is sure to stay NULL.
    """

    __slots__ = ("field", "has_pre_save", "is_timed", "plain", "quick")

    def __init__(self, field: Field, connection: BaseDatabaseWrapper) -> None:
        kind = type(field)
        self.field = field
        self.is_timed = kind in (models.DateTimeField, models.DateField, models.TimeField)
        self.has_pre_save = kind.pre_save is not models.Field.pre_save or "pre_save" in vars(field)
        self.plain = plain_type(field, connection)
        self.quick = _quick(field, connection)

    def takes_as_it_is(self, kind: type) -> bool:
        """Tell whether values of a class need no look."""
        if kind is type(None):
            return self.quick is not None and self.field.null
        return kind is self.plain

    def prepared(self, value: Any, connection: BaseDatabaseWrapper) -> Any:
        """Return one value prepared, or MISSING if it can't be queued."""
        if type(value) is self.plain:
            return value
        field, quick = self.field, self.quick
        ready = quick(value) if quick is not None else None
        if ready is not None:
            return ready
        if value is None and quick is not None:
            return None if field.null else MISSING  # the error is raised at its place
        if hasattr(value, "resolve_expression") or hasattr(value, "prepare_database_save"):
            return MISSING
        value = frozen(field.get_db_prep_save(value, connection=connection))
        if hasattr(value, "as_sql") or (value is None and not field.null):
            return MISSING
        return value


def _quick(field: Field, connection: BaseDatabaseWrapper) -> Callable[[Any], Any] | None:
    kind = type(field)
    if _refuses_zero(field, connection):
        return _but_zero
    if kind is models.DateTimeField and settings.USE_TZ:
        if connection.vendor == "postgresql":
            return _aware
        if connection.vendor in ("sqlite", "mysql") and connection.timezone is datetime.UTC:
            return _in_utc
    if kind in _FOREIGN_KEYS:
        return _nothing if _quick(field.target_field, connection) else None
    if kind.__module__ == "django.db.models.fields":
        return _nothing
    return None


def _nothing(value: Any) -> None:
    return None


def _but_zero(value: Any) -> Any:
    return value if type(value) is int and value else None


def _refuses_zero(field: Any, connection: BaseDatabaseWrapper) -> bool:
    """Tell whether Django raises for 0, which MySQL takes for a key that it is to give itself."""
    while type(field) in _FOREIGN_KEYS:
        field = field.target_field
    return type(field) in _AUTO and not connection.features.allows_auto_pk_0


def _aware(value: Any) -> Any:
    return value if type(value) is datetime.datetime and value.tzinfo is not None else None


def _in_utc(value: Any) -> str | None:
    """Do as adapt_datetimefield_value() of SQLite and MySQL: naive, in the connection's zone."""
    if type(value) is datetime.datetime and value.tzinfo is datetime.UTC:
        return value.isoformat(" ")[:-6]  # without +00:00
    return None


def plain_type(field: Field, connection: BaseDatabaseWrapper) -> type | None:
    """Return the class whose values ``get_db_prep_save()`` leaves as they are."""
    kind = type(field)
    if _refuses_zero(field, connection):
        return None
    if kind in _FOREIGN_KEYS:
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
    if type(value).__module__.startswith("psycopg") and isinstance(
        getattr(value, "obj", None), memoryview | bytearray | bytes
    ):
        return type(value)(bytes(value.obj))
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


def is_hashable(value: Any) -> bool:
    """Tell whether a value can be a key of a dictionary."""
    try:
        hash(value)
    except (TypeError, ValueError):  # the second: a memoryview of a bytearray
        return False
    return True
