"""A chunk's items, as an attempt asks for them: each time as the source gave them.

An attempt may need an item twice, when its transaction was undone, and the function may have
changed it by then (``row.pop("tags")``, ``obj.total += 1``). So a second time gives a fresh copy:
unpickled again, or loaded again.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from django.db import DatabaseError, DataError
from django.db.models import QuerySet

from carpool.errors import describe
from carpool.functions import loads
from carpool.locking import locked
from carpool.types import GONE, Chunk, Fault

LOADED_AT_ONCE = 500
"""Rows a worker loads by one query. Within SQLite's 999 parameters with room for the queryset's
own; the gain of longer lists is under 2 %."""


class NotLoaded(Exception):
    """One of the rows at ``positions`` is one that the database can't deliver (``__cause__``).

    Which one only tells who asks for fewer. On PostgreSQL the transaction, or a savepoint in it,
    has to be undone first.
    """

    def __init__(self, positions: Sequence[int]) -> None:
        super().__init__(positions)
        self.positions = positions

    def __str__(self) -> str:
        return str(self.__cause__)


class Items(Protocol):
    """Where a chunk's items come from, as often as needed."""

    def load(self, positions: Sequence[int]) -> Iterable[tuple[int, Any]]:
        """Yield each position with its item, `GONE`, or a Fault if it can't be loaded.

        Raises:
            NotLoaded: it takes the database to find out which one can't.
        """


def local_items(queryset: QuerySet[Any] | None, chunk: Chunk, *, lock: bool = False) -> Items:
    """Return a chunk's items for a worker of this process."""
    if queryset is not None:
        return RowItems(queryset, chunk.items, lock=lock)
    used = set(range(len(chunk))) if chunk.again else set()
    return LocalItems(chunk.items, chunk.payloads, used)


def sent_items(
    queryset: QuerySet[Any] | None, payloads: Sequence[bytes | None], *, lock: bool = False
) -> Items:
    """Return a chunk's items for a worker that was sent them pickled."""
    items = SentItems(payloads)
    if queryset is not None:
        keys = [key for _, key in items.load(range(len(payloads)))]
        return RowItems(queryset, keys, lock=lock)
    return items


@dataclass(slots=True)
class SentItems:
    """Items that came pickled, one by one."""

    payloads: Sequence[bytes | None]

    def load(self, positions: Sequence[int]) -> Iterator[tuple[int, Any]]:
        for position in positions:
            payload = self.payloads[position]
            assert payload is not None
            try:
                item = loads(payload)
            except Exception as error:
                item = _not_loadable(error)
            yield position, item


@dataclass(slots=True)
class LocalItems:
    """Items of this process: themselves at first, as in a loop; a copy when one is run again.

    A function may have changed the item (``row.pop("tags")``) before its transaction was undone.
    """

    items: Sequence[Any]
    payloads: Sequence[bytes | None]
    used: set[int] = field(default_factory=set)

    def load(self, positions: Sequence[int]) -> Iterator[tuple[int, Any]]:
        for position in positions:
            item = self._copy(position) if position in self.used else self.items[position]
            self.used.add(position)
            yield position, item

    def _copy(self, position: int) -> Any:
        """Return the item as it was, if that can be had; else as it is."""
        payload = self.payloads[position]
        try:
            return self.items[position] if payload is None else loads(payload)
        except Exception:  # it pickles, but doesn't unpickle
            return self.items[position]


def _not_loadable(error: Exception) -> Fault:
    fault = describe(error, "item")
    return replace(fault, message=f"the item can't be unpickled in the worker: {fault.message}")


class RowItems:
    """The rows of a chunk's keys, loaded where they are used; a deleted one is `GONE`.

    With ``lock`` they are locked then, for the rest of the transaction, and each time anew: an
    undone savepoint may have let them go.
    """

    def __init__(self, queryset: QuerySet[Any], keys: Sequence[Any], *, lock: bool = False) -> None:
        self._queryset = queryset
        self._keys = keys
        self._lock = lock

    def load(self, positions: Sequence[int]) -> Iterator[tuple[int, Any]]:
        for start in range(0, len(positions), LOADED_AT_ONCE):
            part = positions[start : start + LOADED_AT_ONCE]
            try:
                rows = self._rows([self._keys[p] for p in part])
            except DatabaseError as error:
                if _is_of_a_row(error):
                    raise NotLoaded(part) from error
                raise
            for position in part:
                found = rows.get(self._keys[position])
                yield position, found.popleft() if found else GONE

    def _rows(self, keys: list[Any]) -> Mapping[Any, deque[Any]]:
        rows: dict[Any, deque[Any]] = defaultdict(deque)
        try:
            queryset = self._queryset.all().filter(pk__in=keys)
            for row in locked(queryset) if self._lock else queryset:
                rows[row.pk].append(row)
        except DatabaseError:
            raise
        except Exception as error:  # a converter, or a model's __init__, that raises for a row
            if len(keys) == 1:
                return {keys[0]: deque([describe(error, "item")])}
            rows.clear()
            for key in dict.fromkeys(keys):
                rows.update(self._rows([key]))
        return rows


def _is_of_a_row(error: DatabaseError) -> bool:
    """Tell whether it is a value that the database can't deliver, so that other rows are well.

    A division by zero in an annotation, say. SQLite keeps whatever is called text, and then says
    that of what isn't UTF-8 (CPython's Modules/_sqlite/cursor.c, on every version).
    """
    return isinstance(error, DataError) or str(error).startswith("Could not decode to UTF-8")
