"""Rows that wait to be written, and the order in which they may be."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

from carpool.coalescing.late import LateKey

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
    """What rows of one INSERT statement have in common.

    Args:
        model: whose table it is.
        fields: those the INSERT names, in order; with the key's at the end where it is reserved.
        on_conflict: as Django's INSERT query has it: None, or to ignore.
    """

    def __init__(
        self,
        connection: BaseDatabaseWrapper,
        model: type[models.Model],
        fields: Sequence[Field],
        on_conflict: Any,
    ) -> None:
        meta = model._meta
        self.model = model
        self.table = meta.db_table
        self.fields = list(fields)
        self.on_conflict = on_conflict
        self.columns = {field.column: number for number, field in enumerate(fields)}
        key = getattr(meta.pk, "column", None)
        self.key = self.columns.get(key) if on_conflict is None and key is not None else None
        self.quoted = connection.ops.quote_name(self.table)
        self.quoted_columns = ", ".join(map(connection.ops.quote_name, self.columns))
        self.insert = (
            f"{connection.ops.insert_statement(on_conflict=on_conflict)} {self.quoted} "
            f"({self.quoted_columns})"
        )
        self.suffix = connection.ops.on_conflict_suffix_sql(list(fields), on_conflict, [], [])
        self.sizes = Sizes(self.fields)
        self.checks = Checks(connection, model, self.fields)
        self.copyable: bool | None = None  # not known yet
        self.placeholders = "(" + ", ".join(["%s"] * len(fields)) + ")"


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

    None of a column that a unique, check or exclusion constraint may look at. Foreign keys don't
    count: where they are changed in the queue, they are checked at COMMIT.
    """

    def __init__(
        self, connection: BaseDatabaseWrapper, model: type[models.Model], fields: list[Field]
    ) -> None:
        meta = model._meta
        self._rules: list[Callable[[Any], bool]] = []
        constrained = {name for names in meta.unique_together for name in names}
        anything = False
        for constraint in meta.constraints:
            if isinstance(constraint, models.UniqueConstraint) and constraint.fields:
                constrained.update(constraint.fields)
                anything = anything or constraint.condition is not None
            else:
                anything = True
        for field in fields:
            if anything or field.unique or field.name in constrained:
                self._rules.append(_never)
            else:
                self._rules.append(_rule(field, connection))

    def surely_pass(self, number: int, value: Any) -> bool:
        """Tell whether a column's value will surely be taken."""
        return self._rules[number](value)


def _never(value: Any) -> bool:
    return False


def _is_storable(text: str) -> bool:
    """Tell whether a database takes the characters: no NUL, no lone surrogate."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


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
    """One row: its prepared values, by the shape's columns."""

    __slots__ = ("late", "number", "shape", "tag", "values")

    def __init__(
        self, number: int, shape: Shape, values: list[Any], tag: Hashable, late: LateKey | None
    ) -> None:
        self.number = number
        self.shape = shape
        self.values = values
        self.tag = tag
        self.late = late


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
    """The queued rows of one table, in order."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.by_key: dict[Any, Row] = {}
        self._indexes: dict[str, Index] = {}

    def append(self, row: Row) -> None:
        self.rows.append(row)
        shape = row.shape
        if shape.key is not None:
            self.by_key[row.values[shape.key]] = row
        if self._indexes:
            for column, index in self._indexes.items():
                self._enter(column, index, row)

    def change(self, row: Row, number: int, value: Any) -> None:
        row.values[number] = value
        for column, index in self._indexes.items():
            if row.shape.columns.get(column) == number:
                index.add(value)

    def index(self, column: str, comparable: Callable[[Any], Any]) -> Index:
        """Return a column's index; made when it is first asked for, and kept up from then on."""
        if column not in self._indexes:
            index = self._indexes[column] = Index(comparable)
            for row in self.rows:
                self._enter(column, index, row)
        return self._indexes[column]

    def _enter(self, column: str, index: Index, row: Row) -> None:
        number = row.shape.columns.get(column)
        if number is None:  # the database gives it
            index.in_doubt = True
        else:
            index.add(row.values[number])


def in_order(tables: dict[str, Table]) -> Iterator[list[Row]]:
    """Yield runs of rows, each of one shape, so that no row comes before one it points at.

    Tables after those that their foreign keys name; the rows of a table in their own order. Where
    tables point at each other in a circle, all rows in the order in which they were made: each
    could be written when it was made.
    """
    names = list(tables)
    if len(names) > 1:
        graph = {
            name: {
                target
                for shape in {row.shape for row in table.rows}
                for target in targets(shape.model)
                if target in tables and target != name
            }
            for name, table in tables.items()
        }
        try:
            names = list(TopologicalSorter(graph).static_order())
        except CycleError:
            rows = [row for table in tables.values() for row in table.rows]
            yield from _runs(sorted(rows, key=lambda row: row.number))
            return
    for name in names:
        yield from _runs(tables[name].rows)


def targets(model: type[models.Model]) -> set[str]:
    """Return the tables that the foreign keys of a model's table point at."""
    return {
        field.related_model._meta.db_table
        for field in model._meta.local_concrete_fields
        if field.remote_field is not None and isinstance(field.related_model, type)
    }


def _runs(rows: Iterable[Row]) -> Iterator[list[Row]]:
    run: list[Row] = []
    for row in rows:
        if run and run[-1].shape is not row.shape:
            yield run
            run = []
        run.append(row)
    if run:
        yield run
