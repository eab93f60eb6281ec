"""Where items come from: any iterable, read once and lazily, or a QuerySet, by its primary keys.

A QuerySet is not evaluated here. Its keys are read page by page, in key order, each page a short
query of its own (no OFFSET, no cursor or transaction held open). A worker is sent keys and loads
its own chunk, with the queryset's filters, select_related, prefetch_related, only and defer.

So rows that were deleted, or no longer match the filters, when their chunk is loaded are skipped;
and rows added meanwhile are left alone where their key is above the highest there was at the start
(with random keys such as UUIDs, some may be met).

Refused: what can't be cut by key (slices, unions, values(), distinct(fields), windows, values of a
to-many relation), a queryset of a database that the run doesn't cover, and locks where there can
be none.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from django.db import connections
from django.db.models import QuerySet
from django.db.models.manager import BaseManager
from django.db.models.query import ModelIterable
from django.db.models.sql import Query

from carpool.exceptions import ConfigurationError
from carpool.locking import refuse_unlockable

PAGE = 2_000
"""Keys read by one query of the parent's: a few milliseconds, and 100 kB or so."""


class Source(Protocol):
    """What `run` reads items from."""

    queryset: Any
    """None, or what a worker loads the rows of the keys from."""

    def total(self) -> int | None:
        """Return how many items there will be, as far as known without reading them."""

    def __iter__(self) -> Iterator[Any]:
        """Yield the items, or the keys."""


def source_of(items: Any, using: Sequence[str], *, lock: bool = False) -> Source:
    """Return the source for what the user passed as ``items``.

    Raises:
        ConfigurationError: it can't be iterated, or is a queryset that can't be cut by key; or its
            rows can't be locked, as ``lock`` asks.
    """
    if isinstance(items, BaseManager):
        items = items.all()
    if isinstance(items, QuerySet):
        return QuerySetSource(items, using, lock=lock)
    if isinstance(items, str | bytes) or not isinstance(items, Iterable):
        raise ConfigurationError(
            f"items is {type(items).__name__!r}, which carpool can't take items from. Pass an "
            "iterable (a list, a generator, an open csv.DictReader …) or a QuerySet."
        )
    if lock:
        raise ConfigurationError(
            f"lock=True is for the rows of a QuerySet, and items is {type(items).__name__!r}. Pass "
            "the QuerySet itself, or leave lock out and have the function load its row with "
            "select_for_update()."
        )
    return IterableSource(items)


class IterableSource:
    """Any iterable; ``iter()`` is taken once."""

    queryset: Any = None

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = items

    def total(self) -> int | None:
        try:
            hint = operator.length_hint(self._items, -1)
        except Exception:  # a __len__ that needs what isn't there; the total is only for show
            return None
        return hint if hint >= 0 else None

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)


class QuerySetSource:
    """The primary keys of a queryset's rows, in key order."""

    def __init__(
        self, queryset: QuerySet[Any], using: Sequence[str], *, lock: bool = False
    ) -> None:
        _refuse_uncuttable(queryset)
        # A router may send reads to a copy: locks belong where is written.
        alias = (queryset.select_for_update() if lock else queryset).db
        if alias not in using:
            raise ConfigurationError(
                f"The queryset reads from the database {alias!r}, but the run covers only "
                f"{', '.join(map(repr, using))}. Pass using={alias!r}, or add it to using."
            )
        if lock:
            refuse_unlockable(queryset, connections[alias])
        self.queryset = _unevaluated(queryset.using(alias).order_by())
        keys = queryset.using(alias).select_related(None).prefetch_related(None)
        keys.query.select_for_update = False  # it belongs in the chunk's transaction, not here
        self._keys = keys.order_by("pk").values_list("pk", flat=True)

    def total(self) -> int | None:
        return self._keys.count()

    def __iter__(self) -> Iterator[Any]:
        highest = self._keys.reverse().first()
        if highest is None:
            return
        keys = self._keys.filter(pk__lte=highest)
        page = list(keys[:PAGE])
        while page:
            if len(page) < PAGE:
                yield from page
                return
            # A join may give a key several times, as a loop over the queryset would: the last
            # key's rows may go on beyond the page, so they are left to the next one.
            last = page[-1]
            whole = [key for key in page if key != last]
            if not whole:
                whole = list(keys.filter(pk=last))
            yield from whole
            page = list(keys.filter(pk__gt=whole[-1])[:PAGE])


def _refuse_uncuttable(queryset: QuerySet[Any]) -> None:
    query = queryset.query
    remedy = None
    if query.is_sliced:
        what = "is sliced"
        remedy = "filter by keys instead: Model.objects.filter(pk__in=[…the slice's keys…])"
    elif query.combinator:
        what = f"is a {query.combinator} of others"
        remedy = "filter by keys instead: Model.objects.filter(pk__in=…), or run each part"
    # QuerySet._iterable_class: there is no public word for "values() was called". 5.2, 6.0, 6.1.
    elif queryset._iterable_class is not ModelIterable:
        what = "gives values, not model instances"
        remedy = "leave values()/values_list() out, or pass an iterator over it: qs.iterator()"
    elif query.distinct_fields:
        what = "uses distinct() with fields"
        remedy = "filter by keys instead: Model.objects.filter(pk__in=…)"
    elif _looks_at_other_rows(query):
        what = "computes over a window of rows"
        remedy = "pass an iterator over it: qs.iterator()"
    elif _takes_values_from_several_rows(query):
        what = "takes a value from several rows of a relation"
        remedy = "pass an iterator over it: qs.iterator()"
    elif any(f.get_internal_type() == "JSONField" for f in queryset.model._meta.pk_fields):
        what = "has a primary key that can't be ordered"
        remedy = "pass an iterator over it: qs.iterator()"
    if remedy is not None:
        raise ConfigurationError(
            f"The queryset {what}, so it can't be cut into chunks by primary key; {remedy}."
        )


def _looks_at_other_rows(query: Query) -> bool:
    """Tell whether there is a ``Window()``: a worker would compute it over its chunk's rows."""
    # WhereNode.contains_over_clause, as each expression has it. Checked on 5.2, 6.0, 6.1.
    parts: list[Any] = [query.where, *query.annotations.values()]
    return any(part.contains_over_clause for part in parts)


def _takes_values_from_several_rows(query: Query) -> bool:
    """Tell whether rows of one key differ, by an annotation such as ``F("books__title")``.

    They may be in different chunks, whose workers can't tell which of them is meant. (Rows that a
    join only repeats are all the same, and aggregates have one row a key.)
    """
    # Query.alias_map and Join.join_field, the only way to see which joins a query has. Parents
    # come before their children. Checked on 5.2, 6.0, 6.1.
    many: set[str] = set()
    for alias, join in query.alias_map.items():
        to_many = getattr(getattr(join, "join_field", None), "multiple", False)
        if to_many or join.parent_alias in many:
            many.add(alias)
    return query.group_by is None and any(
        getattr(part, "alias", None) in many
        for annotation in query.annotations.values()
        for part in annotation.flatten()
    )


def _unevaluated(queryset: QuerySet[Any]) -> QuerySet[Any]:
    """Return a copy that pickles without being evaluated first.

    QuerySet.__getstate__ fetches everything unless there is a result; an empty one is what
    Django's own Prefetch gives. `items.RowItems` never uses it. Checked on 5.2, 6.0, 6.1.
    """
    copy = queryset.all()
    copy._result_cache = []
    return copy
