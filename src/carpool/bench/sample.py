"""The first items of a source, kept so that each pass gets them as they came.

A function may change its item (``row.pop("tags")``), so a pass is given copies, made before its
clock starts. Of a queryset the sample is its first rows by key; each pass loads them again, as a
run does.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from typing import Any

from carpool.functions import dumps, loads
from carpool.items import Items, LocalItems, RowItems
from carpool.sources import source_of


class Sample:
    """Some of the source's first items.

    Attributes:
        total: items of the whole source, if it tells, or if the sample is all of it.
        reading_seconds: that the source took an item; None of a queryset.
    """

    def __init__(
        self,
        items: Sequence[Any],
        payloads: Sequence[bytes | None],
        queryset: Any,
        total: int | None,
        reading: float | None,
    ) -> None:
        self._items = items
        self._payloads = payloads
        self._queryset = queryset
        self.total = total
        self.reading_seconds = reading

    @classmethod
    def take(
        cls, source: Iterable[Any], number: int, using: Sequence[str], *, lock: bool = False
    ) -> Sample:
        """Read so many items, or as many as there are.

        Raises:
            ConfigurationError: `run` would refuse the source.
            Whatever the source raises.
        """
        found = source_of(source, using, lock=lock)
        total = found.total()
        began = time.perf_counter()
        iterator = iter(found)
        items = list(itertools.islice(iterator, number))
        seconds = time.perf_counter() - began
        if hasattr(iterator, "close"):  # a generator's file
            iterator.close()
        if len(items) < number:
            total = len(items)
        reading = seconds / len(items) if items and found.queryset is None else None
        payloads = [] if found.queryset is not None else [_payload(item) for item in items]
        return cls(items, payloads, found.queryset, total, reading)

    def __len__(self) -> int:
        return len(self._items)

    def part(self, number: int) -> Sample:
        """Return the sample's first items."""
        items, payloads = self._items[:number], self._payloads[:number]
        return Sample(items, payloads, self._queryset, self.total, self.reading_seconds)

    def source(self) -> Any:
        """Return what `run` is passed: copies of the items, or the queryset's first rows."""
        if self._queryset is not None:
            return self._queryset.filter(pk__lte=self._items[-1])
        return self._copies()

    def local(self, *, lock: bool) -> Items:
        """Return what a loop goes over."""
        if self._queryset is not None:
            return RowItems(self._queryset, self._items, lock=lock)
        return LocalItems(self._copies(), self._payloads)

    def _copies(self) -> list[Any]:
        return [
            item if payload is None else loads(payload)
            for item, payload in zip(self._items, self._payloads, strict=True)
        ]


def _payload(item: Any) -> bytes | None:
    """Pickle an item; None if it can't be: then it is passed as it is."""
    try:
        payload = dumps(item)
        loads(payload)
        return payload
    except Exception:
        return None
