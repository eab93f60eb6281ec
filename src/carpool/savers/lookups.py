"""The rows that foreign keys' columns name, looked up for a whole chunk.

A key that is found once, spelled as in the row, is sure. All else is asked for again when its item
is saved: the row may have been made by an item before it, the database may hold other spellings
equal, and what isn't there, or is there twice, has to be said of that item. So a chunk is a
query for each foreign key, and each doubtful item one more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import ValidationError
from django.db import router
from django.db.models import QuerySet

from carpool.cells import python_value
from carpool.savers.columns import Foreign

LOOKED_UP_AT_ONCE = 500
"""Values in one query: within SQLite's 999 parameters, with room for the manager's own."""

MOST_COUNTED = 21
"""Rows read of a key that should name one: a message needn't count further."""

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Lookups:
    """What a chunk's foreign keys hold, by their columns' values. Plain data; only sure ones."""

    found: Mapping[Foreign, Mapping[Key, Any]] = field(default_factory=dict)

    def get(self, foreign: Foreign, key: Key) -> Any:
        """Return what the foreign key holds, or None if that has to be asked for."""
        try:
            return self.found.get(foreign, {}).get(key)
        except TypeError:  # a value that can't be hashed, of a JSONField
            return None


def key_of(foreign: Foreign, row: Mapping[str, Any]) -> Key | None:
    """Return the values by which the row names the related one; None if all cells are empty.

    Raises:
        ValidationError: a cell is no value of its field.
    """
    cells = [row[part.column] for part in foreign.parts]
    if all(cell is None or cell == "" for cell in cells):
        return None
    return tuple(
        python_value(part.field, cell) for part, cell in zip(foreign.parts, cells, strict=True)
    )


def look_up(keys: Mapping[Foreign, Collection[Key]], using: str | None) -> Lookups:
    """Look up the keys of a chunk."""
    return Lookups({foreign: _sure(foreign, some, using) for foreign, some in keys.items()})


def find(foreign: Foreign, key: Key, using: str | None) -> Any:
    """Return what the foreign key holds for a row with this key, as of now.

    Of rows that the database holds equal, the one that is spelled as the key is meant.

    Raises:
        ValidationError: there is none, or several.
    """
    conditions = {part.path: value for part, value in zip(foreign.parts, key, strict=True)}
    rows = list(_rows(foreign, _related(foreign, using).filter(**conditions)[:MOST_COUNTED]))
    held = {value for found, value in rows if found == key} or {value for _, value in rows}
    if len(held) == 1:
        return held.pop()
    label = foreign.field.related_model._meta.label
    named = " and ".join(f"{path} {value!r}" for path, value in conditions.items())
    if not held:
        raise ValidationError(f"there is no {label} with {named}.")
    number = f"{MOST_COUNTED - 1} or more" if len(rows) == MOST_COUNTED else len(held)
    raise ValidationError(
        f"there are {number} {label} with {named}, and a foreign key needs one. Map columns that "
        "name it, such as a unique one."
    )


def _sure(foreign: Foreign, keys: Collection[Key], using: str | None) -> dict[Key, Any]:
    held: dict[Key, set[Any]] = defaultdict(set)
    related = _related(foreign, using)
    for batch in _batches(keys, LOOKED_UP_AT_ONCE // len(foreign.parts)):
        # Of several columns, any of the values of each: more than was asked for, in one query.
        conditions = {
            f"{part.path}__in": {key[number] for key in batch}
            for number, part in enumerate(foreign.parts)
        }
        for key, value in _rows(foreign, related.filter(**conditions)):
            held[key].add(value)
    return {key: values.pop() for key, values in held.items() if len(values) == 1}


def _related(foreign: Foreign, using: str | None) -> QuerySet[Any]:
    """Return the rows that the foreign key may point at.

    By the key itself through the base manager, as ForeignKey.validate() does; by a natural key
    through the default one, as code would look for it. ``limit_choices_to`` holds for both.
    """
    model = foreign.field.related_model
    manager = model._base_manager if foreign.by_key else model._default_manager
    alias = using or router.db_for_write(model)
    limits = foreign.field.get_limit_choices_to()
    return manager.using(alias).complex_filter(limits).order_by()


def _rows(foreign: Foreign, queryset: QuerySet[Any]) -> Iterator[tuple[Key, Any]]:
    """Yield each row's key, and what a foreign key to it holds."""
    paths = [part.path for part in foreign.parts]
    for value, *key in queryset.values_list(foreign.field.target_field.attname, *paths):
        yield tuple(key), value


def _batches(keys: Iterable[Key], size: int) -> Iterator[list[Key]]:
    left = list(keys)
    for start in range(0, len(left), size):
        yield left[start : start + size]
