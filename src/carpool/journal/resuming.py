"""Reading a source again: what is done is passed over, and compared with what it was.

Items are known by their position. Of an iterable that is its index; of a QuerySet the primary key,
a whole number, since rows that are done may no longer match its filters. Only an iterable can be
compared: a row's key is all that the source says of it.

Of a stretch of positions that share a mark, none is given out before all have been compared. So
nothing is written of a source that has changed, as far as it is known by then; and at most a
stretch is held in memory, one item of four thousand, four thousand of sixteen million.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from carpool.exceptions import SourceChanged, SourceRepeats
from carpool.journal.marks import Marks, digest
from carpool.journal.spans import Spans
from carpool.words import counted


class Place(NamedTuple):
    """An item that is to be run, and where it is.

    ``start`` and ``end`` are what it covers, as in `recording.Places`; ``digest`` is None where the
    item is marked already, since it has failed before. ``number`` is its index. ``torn``: it is
    stored in some databases of the run and not in all, so it must not be run.
    """

    number: int
    start: int
    end: int
    digest: int | None
    item: Any
    torn: bool = False


class Resumption:
    """What is left of a source.

    ``succeeded``: how many items have, as the journal says. ``stops``: asked while items are passed
    over, whether to end.

    Attributes:
        passed: items passed over.
    """

    def __init__(
        self,
        settled: Spans,
        failed: Spans,
        marks: Marks,
        *,
        torn: Spans | None = None,
        marked: Spans | None = None,
        by_key: bool,
        succeeded: int = 0,
        retry_failed: bool,
        ignore_changes: bool,
        stops: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settled = settled
        self._failed = failed
        self._marks = marks
        self._torn = Spans() if torn is None else torn
        self._marked = settled if marked is None else marked
        self._by_key = by_key
        self._retry_failed = retry_failed
        self._ignore_changes = ignore_changes
        self._stops = stops
        self._succeeded = succeeded
        self._passed_failed = 0
        self._retried = 0
        self.passed = 0

    @property
    def already(self) -> int:
        """Items that are done, those among them that the source doesn't give any more.

        Rows that are done may match a queryset's filters no longer.
        """
        return self._succeeded if self._by_key else self.passed - self._passed_failed

    @property
    def failed_before(self) -> int:
        """Items that have failed before, and are not tried again."""
        return self._failed.count() - self._retried if self._by_key else self._passed_failed

    def left(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield what is to be run: places; then, where nothing is known any more, bare items.

        A bare item's place follows from the one before it, and costs nothing until it is asked for.

        Raises:
            SourceChanged: an item is not what it was.
            SourceRepeats: a queryset gives a row twice.
        """
        return self._left_by_key(items) if self._by_key else self._left_by_index(items)

    def _passes(self, position: int) -> bool:
        """Count an item that isn't to be run."""
        if position not in self._settled:
            return False
        if position in self._failed:
            if self._retry_failed:
                self._retried += 1
                return False
            self._passed_failed += 1
        self.passed += 1
        return True

    def _left_by_key(self, keys: Iterable[Any]) -> Iterator[Place]:
        previous: int | None = None
        for index, key in enumerate(keys):
            if key == previous:
                raise SourceRepeats(
                    f"The queryset gives the row with the key {key!r} twice (it joins a to-many "
                    "relation, say). A journal knows rows by their key: add .distinct()."
                )
            start = key if previous is None else previous + 1
            settled = self._settled.below(key)
            if settled is not None:  # what is known of keys that aren't given any more stays so
                start = max(start, settled + 1)
            previous = key
            if not self._passes(key):
                yield Place(index, start, key, None, key, key in self._torn)
            elif self._stops():
                return

    def _left_by_index(self, items: Iterable[Any]) -> Iterator[Any]:
        held: list[Place] = []  # of the stretch that is being compared
        total = 0
        end = -1  # the last position of that stretch
        index = -1
        known = self._marked.highest
        items = iter(items)
        for index, item in zip(range(self._after_the_known()), items, strict=False):
            expected = None if self._ignore_changes else self._marks.of(index)
            value = digest(item, index)
            if expected is not None and index > end:
                total, end = 0, self._marks.stretch(index)[1]
            marked = index in self._marked
            if marked:
                total += value
            if not self._passes(index):
                torn = index in self._torn
                place = Place(index, index, index, None if marked else value, item, torn)
                if expected is None:
                    yield place
                    continue
                held.append(place)
            elif self._stops():
                return
            if index == end:
                self._compare(index, total)
                yield from held
                held.clear()
        if known is not None and known > index and not self._ignore_changes:
            self._refuse_shorter(index + 1, known)
        if index < end:
            self._compare(index, total)
        yield from held
        for item in items:  # the first of them says where the bare ones begin
            first = index + 1
            yield Place(first, first, first, digest(item, first), item)
            break
        yield from items

    def _after_the_known(self) -> int:
        """Return the first position of which nothing is known, nor of its stretch."""
        highest = [s.highest for s in (self._settled, self._marked, self._torn)]
        known = [self._marks.stretch(number)[1] for number in highest if number is not None]
        return max(known) + 1 if known else 0

    def _compare(self, index: int, total: int) -> None:
        expected = self._marks.of(index)
        if expected == total % (1 << 64):
            return
        first, last = self._marks.stretch(index)
        what = f"the item at position {first}"
        if first != last:
            what = f"an item at one of the positions {first} to {last}"
        raise SourceChanged(
            f"The source has changed: {what} is not what it was when the run did it (digest then "
            f"{expected or 0:016x}, now {total % (1 << 64):016x}). From there on nothing was run. "
            "A run is taken up with the same items in the same order; give a changed source "
            "another journal name. Or, if you are sure that each position still means the same, "
            "pass ignore_changed_source=True.",
            position=first,
        )

    def _refuse_shorter(self, count: int, known: int) -> None:
        raise SourceChanged(
            f"The source has changed: it has {counted(count, 'item')} now, and the item at "
            f"position {known} was done before. Or it ended early: a file cut short, say. Give a "
            "changed source another journal name.",
            position=count,
        )
