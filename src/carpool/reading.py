"""Taking chunks from a source: at most so many items, so many bytes, and so much time."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from carpool.errors import describe
from carpool.exceptions import NotSendable, OutcomeUnknown
from carpool.functions import dumps
from carpool.interrupts import Interrupts
from carpool.journal.marks import digest
from carpool.journal.recording import Places
from carpool.journal.resuming import Place, Resumption
from carpool.pacing import MOST_BYTES
from carpool.sources import Source
from carpool.types import Chunk, Fault

LONGEST_GATHERING = 0.25
"""Seconds after which a chunk goes as it is: a source may be slower than the workers."""


@dataclass(slots=True)
class Taken:
    """A chunk, and beside it the items that can't be sent (index, item, why, where)."""

    chunk: Chunk | None
    unsendable: list[tuple[int, Any, Fault, Places | None]] = field(default_factory=list)


class Reader:
    """Reads a source once.

    Attributes:
        read: items so far, those passed over not among them.
        exhausted: there are no more.
        resumption: passes over what a journal knows; None without one.
        error: what the source raised, if it did.
    """

    def __init__(
        self,
        source: Source,
        interrupts: Interrupts,
        resumption: Resumption | None = None,
        step: Callable[[], int] = lambda: 1,
    ) -> None:
        self._interrupts = interrupts
        self._source = source
        self.resumption = resumption
        self._step = step
        self._iterator: Any = None
        self._chunks = 0
        self._index = 0  # of the next item, where it doesn't tell itself
        self.read = 0
        self.exhausted = False
        self.error: BaseException | None = None

    @property
    def passed(self) -> int:
        """Items of the source so far, those among them that a journal knows."""
        return self.read + (0 if self.resumption is None else self.resumption.passed)

    @property
    def next_number(self) -> int:
        """The number that the next chunk will have."""
        return self._chunks + 1

    def number(self) -> int:
        """Return a number that no chunk has yet."""
        self._chunks += 1
        return self._chunks

    def take(self, size: int, *, local: bool) -> Taken:
        """Return the next chunk; ``chunk`` is None where there is nothing to send.

        ``local``: the function will get the items themselves, so they needn't be picklable.
        """
        items: list[Any] = []
        payloads: list[bytes | None] = []
        indexes: list[int] = []
        places: list[Place | None] = []
        taken = Taken(None)
        weight = 0
        began = self.read
        deadline = time.monotonic() + LONGEST_GATHERING
        while len(items) + len(taken.unsendable) < size and weight < MOST_BYTES:
            if self.read > began and time.monotonic() > deadline:
                break
            item = self._next()
            if self.exhausted:
                break
            index, place = self._index, None
            if type(item) is Place:
                index, place, item = item.number, item, item.item
            self._index = index + 1
            self.read += 1
            if place is not None and place.torn:
                taken.unsendable.append((index, item, _torn(), None))
                continue
            try:
                payload = pickle.dumps(item, pickle.HIGHEST_PROTOCOL) if local else dumps(item)
            except Exception as error:
                if not local:
                    fault = _not_sendable(item, error)
                    where = self._places([index], [item], [place])
                    taken.unsendable.append((index, item, fault, where))
                    continue
                payload = None
            items.append(item)
            payloads.append(payload)
            indexes.append(index)
            places.append(place)
            weight += len(payload) if payload is not None else 0
        if items:
            taken.chunk = Chunk(
                self.number(),
                indexes,
                items,
                payloads,
                local,
                places=self._places(indexes, items, places),
                step=self._step(),
            )
        return taken

    def _places(
        self, indexes: list[int], items: list[Any], places: Sequence[Place | None]
    ) -> Places | None:
        """Return where a chunk's items are, if a journal wants to know."""
        if self.resumption is None:
            return None
        if not any(places):
            return Places(indexes, indexes, list(map(digest, items, indexes)))
        whole = [
            place or Place(index, index, index, digest(item, index), item)
            for index, item, place in zip(indexes, items, places, strict=True)
        ]
        return Places(
            [place.start for place in whole],
            [place.end for place in whole],
            [place.digest for place in whole],
        )

    def _next(self) -> Any:
        """Return the source's next item, or set ``exhausted``. Ctrl-C is raised in here."""
        self._interrupts.raising = True
        try:
            if self._iterator is None:
                resumption = self.resumption
                whole = self._source
                self._iterator = iter(whole if resumption is None else resumption.left(whole))
            return next(self._iterator)
        except StopIteration:
            self.exhausted = True
        except KeyboardInterrupt:
            self.exhausted = True
            self._interrupts.pending = True
        except BaseException as error:
            self.exhausted = True
            self.error = error
        finally:
            self._interrupts.raising = False
        return None


def _torn() -> Fault:
    return describe(
        OutcomeUnknown(
            "stored in some of the run's databases and not in all: the chunk was lost between "
            "their COMMITs. Look what is there; the run won't do it again."
        ),
        "unknown",
    )


def _not_sendable(item: Any, error: Exception) -> Fault:
    kind = type(item)
    return describe(
        NotSendable(
            f"the item is a {kind.__module__}.{kind.__qualname__}, which can't be sent to a worker "
            f"({type(error).__name__}: {error}). Yield plain data (ids, dicts), or use "
            'executor="threads" or "inline".'
        ),
        "item",
    )
