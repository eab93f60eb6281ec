"""Rows that wait to be written, and the order in which they may be."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from operator import itemgetter
from typing import Any, TypeVar

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

Field = Any  # models.Field can only be parametrised for a type checker

INTEGERS = frozenset(
    [
        "AutoField",
        "BigAutoField",
        "BigIntegerField",
        "IntegerField",
        "PositiveBigIntegerField",
        "PositiveIntegerField",
        "PositiveSmallIntegerField",
        "SmallAutoField",
        "SmallIntegerField",
    ]
)
"""The internal types whose columns hold whole numbers."""


class Shape:
    """What rows of one statement have in common.

    Args:
        model: whose table it is.
        fields: those whose values a row has, in order.

    Attributes:
        key_of: takes a row's values and gives its primary key, a tuple where it has several
            columns; None where the key is not among the values.
        columns: by column, the number of its value in a row.
    """

    def __init__(
        self, connection: BaseDatabaseWrapper, model: type[models.Model], fields: Sequence[Field]
    ) -> None:
        meta = model._meta
        self.model = model
        self.table = meta.db_table
        self.fields = list(fields)
        self.columns = {field.column: number for number, field in enumerate(fields)}
        self.key_of: Callable[[list[Any]], Any] | None = None
        keys = list(meta.pk_fields)
        if all(field.column in self.columns for field in keys):
            self.key_of = itemgetter(*(self.columns[field.column] for field in keys))
        self.quoted = connection.ops.quote_name(self.table)
        self.sizes = Sizes(self.fields)
        self.checks = Checks(connection, model, self.fields)


TEXTS = frozenset(["CharField", "FileField", "FilePathField", "SlugField", "TextField"])


def folded(value: Any) -> Any:
    """Return text without what a collation may ignore, as far as it is ASCII."""
    return value.casefold().rstrip(" ") if isinstance(value, str) else value


_UNBOUNDED = ("TextField", "BinaryField", "JSONField")


class Sizes:
    """About how many bytes a row takes in memory and on its way; what is short isn't measured."""

    def __init__(self, fields: list[Field]) -> None:
        self._constant = 100 + 32 * len(fields)
        self._unbounded = [
            number
            for number, field in enumerate(fields)
            if field.get_internal_type() in _UNBOUNDED
            or (field.max_length or 0) > 255
            or not type(field).__module__.startswith("django.db.models.")
        ]

    def of(self, values: list[Any]) -> int:
        """Return a row's size."""
        size = self._constant
        for number in self._unbounded:
            value = values[number]
            if value is not None:
                size += len(value) if isinstance(value, (str, bytes)) else 256
        return size


class Checks:
    """Which values of a shape's columns the database will surely not refuse.

    None of a column that a unique, check or exclusion constraint may look at, or that a column is
    computed from: that may fail. Foreign keys don't count: where they are changed in the queue,
    they are checked at COMMIT.
    """

    def __init__(
        self, connection: BaseDatabaseWrapper, model: type[models.Model], fields: list[Field]
    ) -> None:
        looked_at = uniquely_constrained(model)
        anything = looked_at is None or any(
            isinstance(constraint, models.CheckConstraint) for constraint in model._meta.constraints
        )
        never = set(looked_at or ()).union(*generated_from(model).values())
        self._rules = [
            _never if anything or field.column in never else _rule(field, connection)
            for field in fields
        ]

    def surely_pass(self, number: int, value: Any) -> bool:
        """Tell whether a column's value will surely be taken."""
        return self._rules[number](value)


@lru_cache(maxsize=1024)
def uniquely_constrained(model: type[models.Model]) -> frozenset[str] | None:
    """Return the columns that decide whether two rows of a table are in each other's way.

    None if that can't be told: a constraint of a class of its own.
    """
    meta = model._meta
    names = {name for together in meta.unique_together for name in together}
    names.update(field.name for field in meta.local_concrete_fields if field.unique)
    for constraint in meta.constraints:
        if isinstance(constraint, models.CheckConstraint):
            continue
        if not isinstance(constraint, models.UniqueConstraint):
            return None
        names.update(constraint.fields)
        names.update(_names_in(constraint.condition))
        names.update(*map(_names_in, constraint.expressions))
    columns = _columns(model, names)
    return columns.union(*(read for made, read in generated_from(model).items() if made in columns))


@lru_cache(maxsize=1024)
def generated_from(model: type[models.Model]) -> dict[str, frozenset[str]]:
    """Return the columns that the database computes, and which ones each is computed from."""
    return {
        str(field.column): _columns(model, _names_in(vars(field)["expression"]))
        for field in model._meta.local_concrete_fields
        if field.generated
    }


def _columns(model: type[models.Model], names: set[str]) -> frozenset[str]:
    return frozenset(
        str(field.column)
        for field in model._meta.local_concrete_fields
        if field.name in names or field.attname in names
    )


def _names_in(expression: Any) -> set[str]:
    """Return the fields that a condition or an expression of a constraint names."""
    if isinstance(expression, models.Q):
        return set().union(*map(_names_in, expression.children))
    if isinstance(expression, tuple):  # of a Q: ("state__in", ["open"])
        lookup, value = expression
        return {lookup.partition("__")[0]} | _names_in(value)
    if isinstance(expression, models.F):
        return {str(vars(expression)["name"]).partition("__")[0]}
    if hasattr(expression, "get_source_expressions"):
        return set().union(*map(_names_in, expression.get_source_expressions()))
    return set()


def _never(value: Any) -> bool:
    return False


def _is_storable(text: str) -> bool:
    """Tell whether a database takes the characters: no NUL, no lone surrogate."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


_MOMENTS = frozenset(["DateField", "DateTimeField", "DurationField", "TimeField"])


def _is_moment(value: Any) -> bool:
    """Tell whether it is a prepared date or time: Python's own, an ISO text or microseconds.

    MySQL's dates begin with the year 1000
    (https://dev.mysql.com/doc/refman/8.4/en/datetime.html).
    """
    if isinstance(value, str):
        return not value.startswith("0") or value[2:3] == ":"
    return value is None or isinstance(
        value, datetime.date | datetime.time | datetime.timedelta | int
    )


def _rule(field: Field, connection: BaseDatabaseWrapper) -> Callable[[Any], bool]:
    while isinstance(field, models.ForeignKey):
        field = field.target_field
    kind = field.get_internal_type()
    if not type(field).__module__.startswith("django.db.models."):
        return _never
    if kind == "BooleanField":
        return lambda value: value is None or isinstance(value, bool)
    if kind in ("CharField", "SlugField", "TextField"):
        longest = field.max_length if kind != "TextField" else None
        return lambda value: (
            value is None
            or (
                isinstance(value, str)
                and (longest is None or len(value) <= longest)
                and _is_storable(value)
            )
        )
    if kind in _MOMENTS:
        return _is_moment
    try:
        lowest, highest = connection.ops.integer_field_range(kind)
    except KeyError:
        return _never
    if lowest is None:  # SQLite's own range
        lowest = 0 if kind.startswith("Positive") else -(2**63)
        highest = 2**63 - 1
    return lambda value: (
        value is None or (isinstance(value, int) and lowest <= value <= (highest or 0))
    )


class Row:
    """One row: its prepared values, by the shape's columns.

    Args:
        number: in the order of queueing.
        tag: whose it is.
    """

    __slots__ = ("number", "shape", "tag", "values")

    def __init__(self, number: int, shape: Any, values: list[Any], tag: Hashable) -> None:
        self.number = number
        self.shape = shape
        self.values = values
        self.tag = tag


R = TypeVar("R", bound=Row)


class Index:
    """What the queued rows have in one column, in a form whose equality is the database's.

    Args:
        comparable: turns a value into that form, or into None if it can't say what it equals.

    A value that has been changed since may still be in it.
    """

    __slots__ = ("_comparable", "_values", "in_doubt")

    def __init__(self, comparable: Callable[[Any], Any]) -> None:
        self._comparable = comparable
        self._values: set[Any] = set()
        self.in_doubt = False

    def add(self, value: Any) -> None:
        if value is None:  # NULL equals nothing
            return
        form = self._comparable(value)
        if form is None:
            self.in_doubt = True
        else:
            self._values.add(form)

    def lacks(self, values: Iterable[Any]) -> bool:
        """Tell whether surely none of these is there."""
        if self.in_doubt:
            return False
        for value in values:
            form = self._comparable(value)
            if form is None or form in self._values:
                return False
        return True


class Table:
    """The queued rows of one table, in order.

    What is asked of the rows by key or by a column is looked up in what is made when it is first
    asked for: most tables of a block are only ever appended to.

    Args:
        others: tells the values that a row which is there already has in a column, as far as they
            are known.
    """

    def __init__(self, others: Callable[[Row, str], Iterable[Any] | None]) -> None:
        self.rows: list[Row] = []
        self._by_key: dict[Any, Row] = {}
        self._keyed = 0  # rows that are in it
        self._others = others
        self._indexes: dict[str, Index] = {}

    def append(self, row: Row) -> None:
        self.rows.append(row)
        if self._indexes:
            for column, index in self._indexes.items():
                self._enter(column, index, row)

    @property
    def by_key(self) -> dict[Any, Row]:
        """The rows whose primary key is among their values."""
        if self._keyed < len(self.rows):
            for row in self.rows[self._keyed :]:
                key_of = row.shape.key_of
                if key_of is not None:
                    self._by_key[key_of(row.values)] = row
            self._keyed = len(self.rows)
        return self._by_key

    def change(self, row: Row, number: int, value: Any) -> None:
        row.values[number] = value
        for column, index in self._indexes.items():
            if row.shape.columns.get(column) == number:
                index.add(value)

    def widen(self, row: Row, shape: Shape, values: list[Any]) -> None:
        """Give a row more columns: another shape, and all its values."""
        row.shape = shape
        row.values = values
        for column, index in self._indexes.items():
            self._enter(column, index, row)

    def part(self, places: Iterable[int]) -> Table:
        """Return a table of some of the rows."""
        part = Table(self._others)
        part.rows = [self.rows[place] for place in places]
        return part

    def index(self, column: str, comparable: Callable[[Any], Any]) -> Index:
        """Return a column's index; made when it is first asked for, and kept up from then on."""
        if column not in self._indexes:
            index = self._indexes[column] = Index(comparable)
            for row in self.rows:
                self._enter(column, index, row)
        return self._indexes[column]

    def _enter(self, column: str, index: Index, row: Row) -> None:
        others = self._others(row, column)
        if others is None:
            index.in_doubt = True
            return
        for value in others:
            index.add(value)
        number = row.shape.columns.get(column)
        if number is not None:
            index.add(row.values[number])


def in_order(tables: dict[str, list[Row]]) -> Iterator[list[Row]]:
    """Yield runs of new rows, each of one shape, so that none comes before one it points at.

    Tables after those that their foreign keys name; the rows of a table in their own order. Where
    tables point at each other in a circle, all rows in the order in which they were made: each
    could be written when it was made.
    """
    names = [name for name, rows in tables.items() if rows]
    if len(names) > 1:
        graph = {
            name: {
                target
                for shape in {row.shape for row in tables[name]}
                for target in targets(shape.model)
                if target in names and target != name
            }
            for name in names
        }
        try:
            names = list(TopologicalSorter(graph).static_order())
        except CycleError:
            rows = [row for rows in tables.values() for row in rows]
            yield from runs(sorted(rows, key=lambda row: row.number))
            return
    for name in names:
        yield from runs(tables[name])


def targets(model: type[models.Model]) -> set[str]:
    """Return the tables that the foreign keys of a model's table point at."""
    return {
        field.related_model._meta.db_table
        for field in model._meta.local_concrete_fields
        if field.remote_field is not None and isinstance(field.related_model, type)
    }


def runs(rows: Iterable[R]) -> Iterator[list[R]]:
    """Yield rows of one shape that follow on one another."""
    run: list[R] = []
    for row in rows:
        if run and run[-1].shape is not row.shape:
            yield run
            run = []
        run.append(row)
    if run:
        yield run
