"""A model's rows, built and saved as a form would: cleaned, then ``save()``."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import models
from django.forms.utils import from_current_timezone

from carpool.cells import python_value, refuse_surplus
from carpool.exceptions import ConfigurationError, InvalidItem
from carpool.savers.columns import Columns, Field, Plan
from carpool.savers.lookups import Key, Lookups, find, key_of, look_up

KEPT_PLANS = 256
"""Sets of columns whose meaning is remembered. A file has one; JSON lines may have some."""


class ModelSaver:
    """Creates an instance of ``model`` for each row: full_clean(), then save().

    ::

        saver = ModelSaver(Order, {"Customer E-mail": "customer__email", "Notes": ""})
        saver.check(reader.fieldnames)
        lookups = saver.before_chunk(rows)      # a query for each foreign key
        for row in rows:
            saver(row, lookups)

    Columns are matched as `columns` says; those of ``mapping`` by what it says. A cell is what the
    field makes of it (``to_python()``); empty text in a field that may be null is None; a date and
    time without a zone is in the current one. A field without a column keeps its default, as it
    is; one that has no default and may not be null is refused by full_clean().

    A foreign key is given by its own column (``customer``, ``customer_id``), or by one or several
    that name the related row (``customer__email``). The instance gets the key, not the object:
    whoever needs ``order.customer`` loads it as it is then.

    ``using``: the alias to look up and save in; None: as the routers say. (What full_clean() asks
    about unique fields goes where the routers send reads of the model, as ever.)

    New rows only: a primary key that exists is refused by full_clean(). It pickles.

    Raises:
        ConfigurationError: the model has no table, or the mapping names what can't be filled.
    """

    def __init__(
        self,
        model: type[models.Model],
        mapping: Mapping[str, str | None] | None = None,
        using: str | None = None,
    ) -> None:
        if model._meta.abstract or model._meta.swapped:
            why = "is abstract" if model._meta.abstract else f"is swapped for {model._meta.swapped}"
            raise ConfigurationError(
                f"{model.__module__}.{model.__qualname__} {why}, so it has no table. Name the "
                "model that the rows are of."
            )
        self.model = model
        self.mapping = dict(mapping or {})
        self.using = using
        self._columns = Columns(model, self.mapping)
        self._plan = functools.lru_cache(KEPT_PLANS)(self._columns.plan)

    def __reduce__(self) -> Any:
        return type(self), (self.model, self.mapping, self.using)

    def check(self, columns: Collection[str]) -> None:
        """Refuse columns that are for no field, before the first row.

        Raises:
            ConfigurationError: naming columns and fields; also for a column that the mapping names
                and that isn't there.
        """
        self._columns.refuse_unused(columns)
        self._plan(tuple(columns))

    def before_chunk(self, items: Iterable[Any]) -> Lookups:
        """Look up what the foreign keys of these rows point at, by a query for each.

        Rows that are wrong are passed over: they are told of when they are saved. What was looked
        up holds for the transaction it was looked up in.
        """
        keys: dict[Any, set[Key]] = defaultdict(set)
        for item in items:
            try:
                plan = self._plan_of(item)
            except InvalidItem:
                continue
            for foreign in plan.foreign:
                try:
                    key = key_of(foreign, item)
                    if key is not None:
                        keys[foreign].add(key)
                except (ValidationError, TypeError):  # a TypeError: one that can't be hashed
                    continue
        return look_up(keys, self.using)

    def __call__(self, item: Any, lookups: Lookups | None = None) -> None:
        """Save the row as a new instance.

        Raises:
            InvalidItem: naming the columns, with the messages of the fields or of the model.
        """
        instance = self.build(item, lookups)
        if self.using is None:
            instance.save()
        else:
            instance.save(using=self.using)

    def build(self, item: Any, lookups: Lookups | None = None) -> models.Model:
        """Return the row as a cleaned instance, not saved. Raises as a call does."""
        plan = self._plan_of(item)
        values, found, problems = self._values(plan, item, lookups or Lookups())
        if problems:
            raise InvalidItem("; ".join(problems))
        instance = self.model(**values)
        if self.using is not None:
            instance._state.db = self.using
        try:
            with _cleaned_but_for(instance, plan.by_default, found):
                instance.full_clean()
        except ValidationError as error:
            raise InvalidItem(_message(error, plan)) from error
        return instance

    def _plan_of(self, item: Any) -> Plan:
        if not isinstance(item, Mapping):
            raise InvalidItem(
                f"The item is a {type(item).__name__!r}; a {self.model._meta.label} is made of a "
                "row, a mapping of columns to cells."
            )
        refuse_surplus(item)
        try:
            return self._plan(tuple(item))
        except ConfigurationError as error:
            raise InvalidItem(str(error)) from error

    def _values(
        self, plan: Plan, row: Mapping[str, Any], lookups: Lookups
    ) -> tuple[dict[str, Any], set[str], list[str]]:
        """Return the values by attname, the foreign keys that were found, and what is wrong."""
        values: dict[str, Any] = {}
        found: set[str] = set()
        problems = []
        for column, field in plan.plain:
            try:
                values[field.attname] = _value(field, row[column])
            except ValidationError as error:
                problems.append(f"{column!r}: {' '.join(error.messages)}")
        for foreign in plan.foreign:
            field = foreign.field
            try:
                key = key_of(foreign, row)
                if key is None:
                    values[field.attname] = None
                    continue
                held = lookups.get(foreign, key)
                values[field.attname] = find(foreign, key, self.using) if held is None else held
                field.run_validators(values[field.attname])
                found.add(field.name)
            except ValidationError as error:
                problems.append(f"{foreign.columns}: {' '.join(error.messages)}")
        return values, found, problems


def _value(field: Field, cell: Any) -> Any:
    if cell == "" and field.null:
        return None
    value = python_value(field, cell)
    if isinstance(field, models.DateTimeField):
        return from_current_timezone(value)  # as forms do; undocumented, checked on 5.2, 6.0, 6.1
    return value


@contextmanager
def _cleaned_but_for(
    instance: models.Model, by_default: Collection[str], found: Collection[str]
) -> Iterator[None]:
    """Have full_clean() leave fields out of clean_fields().

    Those that keep their default, which need not be what a form would take (``default=""``). And
    foreign keys whose rows have been found: Django would send a query for each, once more. A model
    with a clean_fields() of its own is asked about these as ever: slower, never different.

    Not by full_clean(exclude=…): unique checks have to know them all.
    """
    cls = type(instance)
    names = {*by_default}
    if cls.clean_fields is models.Model.clean_fields:
        names |= {*found}

    def clean_fields(exclude: Collection[str] | None = None) -> None:
        cls.clean_fields(instance, exclude={*(exclude or ()), *names})

    vars(instance)["clean_fields"] = clean_fields
    try:
        yield
    finally:
        del vars(instance)["clean_fields"]


def _message(error: ValidationError, plan: Plan) -> str:
    """Return the model's messages, each with the column that it is about."""
    if not hasattr(error, "error_dict"):
        return " ".join(error.messages)
    parts = []
    for name, messages in error.message_dict.items():
        label = "" if name == NON_FIELD_ERRORS else f"{plan.column_of(name) or name}: "
        parts.append(label + " ".join(messages))
    return "; ".join(parts)
