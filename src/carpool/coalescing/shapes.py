"""The shapes of queued rows: what the rows of an INSERT, or of an UPDATE, have in common."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

from carpool.coalescing.late import LateKey
from carpool.coalescing.rows import TEXTS, Field, Row, Shape, uniquely_constrained
from carpool.coalescing.values import Preparer, frozen, is_hashable


class InsertShape(Shape):
    """Rows of one INSERT, and where their keys come from.

    Args:
        fields: those the INSERT names, in order; with the key's at the end where it is reserved.
        on_conflict: as Django's INSERT query has it: None, or to ignore.
        reserve: the key's field; a key is reserved.
        late: likewise; it comes at the flush.
        given: likewise; it is among the values, and Django wants it back.
    """

    def __init__(
        self,
        connection: BaseDatabaseWrapper,
        model: type[models.Model],
        fields: Sequence[Field],
        on_conflict: Any,
        *,
        reserve: Any = None,
        late: Any = None,
        given: Any = None,
    ) -> None:
        super().__init__(connection, model, fields)
        if on_conflict is not None:
            self.key_of = None  # the row may not be written
        self.on_conflict = on_conflict
        self.quoted_columns = ", ".join(map(connection.ops.quote_name, self.columns))
        self.insert = (
            f"{connection.ops.insert_statement(on_conflict=on_conflict)} {self.quoted} "
            f"({self.quoted_columns})"
        )
        self.suffix = connection.ops.on_conflict_suffix_sql(list(fields), on_conflict, [], [])
        self.placeholders = "(" + ", ".join(["%s"] * len(fields)) + ")"
        self.copyable: bool | None = None  # not known yet
        self.values = Preparer([f for f in fields if f is not reserve], connection, add=True)
        self.reserve = reserve
        self.late = late
        self.given = given
        field = reserve or late or given
        self._connection = connection
        self._converters: list[Any] = []
        if field is not None:
            column = field.get_col(self.table)
            self._column = column
            self._converters = [
                *connection.ops.get_db_converters(column),
                *column.get_db_converters(connection),
            ]

        self.converts = bool(self._converters)

    def converted(self, key: Any) -> Any:
        """Return a key as reading it from the database would."""
        for converter in self._converters:
            key = converter(key, self._column, self._connection)
        return key


class UpdateShape(Shape):
    """Rows of one UPDATE by primary key: the new values, then the key.

    Attributes:
        changed: the fields that get a new value.
        keys: the fields of the primary key.
        key_is_own: whether a key is given, and so may be changed, by the user: then an object that
            was saved once may be another by now.
        key_has_spellings: whether a collation may hold two keys equal that differ: then one row may
            be changed twice, as if it were two.
        unique: the numbers of those changed columns that decide whether rows are in each other's
            way; see Note [Unique] in `updating`.
    """

    def __init__(
        self,
        connection: BaseDatabaseWrapper,
        model: type[models.Model],
        changed: Sequence[Field],
    ) -> None:
        self.keys: list[Field] = list(model._meta.pk_fields)
        super().__init__(connection, model, [*changed, *self.keys])
        self.changed = list(changed)
        self.key_is_own = not all(map(_is_made, self.keys))
        self.key_has_spellings = any(_has_spellings(key, connection) for key in self.keys)
        self.values = Preparer(self.changed, connection, add=False)
        self._connection = connection
        looked_at = uniquely_constrained(model)
        self.unique = [
            number
            for number, field in enumerate(self.changed)
            if looked_at is None or field.column in looked_at
        ]
        self.may_be_unsettled = any(field.remote_field for field in self.changed) and not (
            connection.features.can_defer_constraint_checks
        )
        """Whether a foreign key may point at a row that is still queued, and is checked at once."""

    def prepared_key(self, key: Any) -> list[Any] | None:
        """Return the key's columns as a condition would compare them; None if it can't be told."""
        parts = key if len(self.keys) > 1 else (key,)
        found = []
        for field, part in zip(self.keys, parts, strict=True):
            field = _pointed_at(field)
            if type(part) is not int or field.get_internal_type() not in _COUNTED:
                if hasattr(part, "resolve_expression"):
                    return None
                part = frozen(
                    field.get_db_prep_value(part, connection=self._connection, prepared=False)
                )
                if part is None or hasattr(part, "as_sql") or not is_hashable(part):
                    return None
            found.append(part)
        return found

    def all_values(self, values: Sequence[Any]) -> list[Any] | None:
        """Return what ``save()`` has read from an instance, prepared; None: it can't be queued."""
        found: list[Any] = []
        for field, value in zip(self.changed, values, strict=True):
            if hasattr(value, "prepare_database_save"):
                if field.remote_field is None:
                    return None  # Django says that it is not a value
                value = value.prepare_database_save(field)
            found.append(value)
        return self.values.ready(found)


class NewRow(Row):
    """A row to insert. ``late``: stands for the key that will come.

    Attributes:
        instance: whose row it is, where it may be refused and the object go on: see `forget`.
    """

    __slots__ = ("_adding", "_db", "_links", "instance", "late")
    shape: InsertShape

    def __init__(
        self,
        number: int,
        shape: InsertShape,
        values: list[Any],
        tag: Hashable,
        late: LateKey | None,
    ) -> None:
        self.number = number
        self.shape = shape
        self.values = values
        self.tag = tag
        self.late = late
        self.instance: models.Model | None = None

    def remember(self, instance: models.Model) -> None:
        """Take note whose row it is, before that is told that it is saved."""
        self.instance = instance
        self._adding, self._db = instance._state.adding, instance._state.db
        links = _links_to(self.shape.model, type(instance))
        self._links = [(attname, instance.__dict__.get(attname)) for attname in links]

    def forget(self) -> None:
        """Have the object be as it was before it was saved."""
        instance = self.instance
        if instance is not None:
            instance._state.adding, instance._state.db = self._adding, self._db
            if self.shape.reserve is not None:
                setattr(instance, self.shape.reserve.attname, None)
            for attname, key in self._links:
                setattr(instance, attname, key)


class ChangedRow(Row):
    """A row to update.

    Args:
        instance: whose row it is.
        forced: what Django says if there is no such row; empty: it inserts one then.
    """

    __slots__ = ("forced", "instance")
    shape: UpdateShape

    def __init__(
        self,
        number: int,
        shape: UpdateShape,
        values: list[Any],
        tag: Hashable,
        instance: models.Model,
        forced: str,
    ) -> None:
        super().__init__(number, shape, values, tag)
        self.instance = instance
        self.forced = forced

    @property
    def key(self) -> Any:
        """The row's primary key, a tuple where it has several columns."""
        assert self.shape.key_of is not None
        return self.shape.key_of(self.values)

    @property
    def key_values(self) -> list[Any]:
        """The columns of the row's primary key, just as they are."""
        return self.values[len(self.shape.changed) :]


_COUNTED = frozenset(["AutoField", "BigAutoField", "IntegerField", "BigIntegerField"])


def _pointed_at(field: Field) -> Field:
    """Return the field that a foreign key takes its values from, or the field itself."""
    while field.remote_field is not None:
        field = field.target_field
    return field


@lru_cache(maxsize=1024)
def _links_to(parent: type[models.Model], child: type[models.Model]) -> tuple[str, ...]:
    """Return the attributes that link inherited objects to their row in a parent's table."""
    fields: Iterable[Any] = child._meta.concrete_fields
    return tuple(
        field.attname
        for field in fields
        if getattr(field.remote_field, "parent_link", False)
        and field.related_model._meta.concrete_model is parent._meta.concrete_model
    )


def _is_made(key: Field) -> bool:
    """Tell whether a key comes from the database or a default."""
    key = _pointed_at(key)
    return isinstance(key, models.AutoField) or key.has_default() or key.has_db_default()


def _has_spellings(key: Field, connection: BaseDatabaseWrapper) -> bool:
    key = _pointed_at(key)
    # MySQL's and MariaDB's default collations ignore case and accents.
    is_text = key.get_internal_type() in TEXTS
    return is_text and bool(connection.vendor == "mysql" or getattr(key, "db_collation", None))
