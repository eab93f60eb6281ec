"""A flush that the database refuses, when the queue's rows are tagged with whose they are.

All rows are tried at once: mostly that is all. If they are refused, what the database says, or how
far it came, mostly tells for which row. What comes before that row's tag is written, then the tag
alone, then what comes after it; where nothing tells, what is refused is cut in halves. Each try is
under a savepoint, and what is told is a hint, no more: only what is refused alone is to blame.

So that a hundred bad rows don't cost a hundred times what one costs, two things are learnt on the
way. A try takes as many tags as there have been to each that was to blame: what is sent and refused
was sent in vain. And at the second row that is refused for a value that another row has, the
database is asked which of the values of that column it has already; see Note [Taken].

Note [Taken]
    A row of a value that its unique column has, in a row of the table or in one queued before it,
    will be refused, whatever else is written. So its tag is set aside until all others are written,
    and then tried alone, as every tag that is to blame. The outcome is that of the queue's order:
    nothing of a refused tag stays, so when it is tried makes no difference to the others. One thing
    could make a tag that was set aside a good one: the queued row that has its value is refused
    itself. It is put back in its place among the others then.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence, Set
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError

from carpool.coalescing.flushing import Flusher, as_queued, may_be_in_its_own_way
from carpool.coalescing.queue import give_no_keys
from carpool.coalescing.rows import Row, Table
from carpool.coalescing.shapes import InsertShape, NewRow
from carpool.coalescing.values import MISSING
from carpool.errors import trouble_of

if TYPE_CHECKING:
    from carpool.coalescing.unit import Unit

MOST_VALUES = 900
"""Values in one question; SQLite's least limit is 999 parameters."""


class Isolator:
    """Writes all rows of a flush but those of the tags to blame, which go into `Unit.refused`."""

    def __init__(self, unit: Unit, flusher: Flusher) -> None:
        self._unit = unit
        self._flusher = flusher

    def write(self, tables: dict[str, Table]) -> None:
        """Write all rows that the database takes.

        Raises:
            DatabaseError: rows of the tag that is being queued just now were refused.
        """
        unit, flusher = self._unit, self._flusher
        queued = _ByTag(tables)
        tries = _Tries(queued.tags)
        point = flusher.point()
        asked: set[tuple[str, str]] = set()
        while tags := tries.next():
            part = queued.part(tags)
            error = flusher.attempt(part, point)
            if error is not None and len(tags) == 1 and may_be_in_its_own_way(part):
                error = flusher.attempt(part, point, as_queued=True)
            if error is None:
                unit.written.update(tags)
                tries.written(tags)
            elif len(tags) > 1:
                suspect = flusher.suspect(error)
                tries.refused(tags, suspect)
                column = _column_of(error, suspect) if tries.to_blame else None
                if column is not None and column not in asked:
                    asked.add(column)
                    point.set()
                    try:
                        tries.set_aside(self._taken(queued.part(tries.left()), *column))
                    except DatabaseError as refused:  # who may insert may not select, say
                        if trouble_of(refused) is not None:
                            raise
                        point.undo()
            else:
                give_no_keys(part)
                unit.refused[tags[0]] = error
                tries.blamed(tags[0])
        point.release()
        if unit.tag in unit.refused:
            raise unit.refused.pop(unit.tag)

    def _taken(self, tables: dict[str, Table], name: str, column: str) -> dict[Hashable, Hashable]:
        """Return the tags of rows whose value in a unique column is taken, and by which tag's row.

        MISSING: by a row that is there already.
        """
        if name not in tables or not all(type(row) is NewRow for row in tables[name].rows):
            return {}  # a change may free a value
        first: dict[Any, Hashable] = {}
        taken: dict[Hashable, Hashable] = {}
        rows = []
        for row in tables[name].rows:
            shape = row.shape
            number = shape.columns.get(column)
            value = None if number is None else row.values[number]
            if value is None or not isinstance(shape, InsertShape) or shape.on_conflict is not None:
                continue
            try:
                by = first.setdefault(value, row.tag)
            except TypeError:  # unhashable
                return {}
            if by != row.tag:
                taken.setdefault(row.tag, by)
            rows.append((value, row.tag))
        there = self._values_there(name, column, list(first))
        taken.update((tag, MISSING) for value, tag in rows if value in there)
        return taken

    def _values_there(self, name: str, column: str, values: Sequence[Any]) -> set[Any]:
        quote = self._unit.connection.ops.quote_name
        sql = f"SELECT {quote(column)} FROM {quote(name)} WHERE {quote(column)} IN"
        there: set[Any] = set()
        for first in range(0, len(values), MOST_VALUES):
            some = values[first : first + MOST_VALUES]
            found = self._unit.ask(f"{sql} ({', '.join(['%s'] * len(some))})", some)
            there.update(value for (value,) in found)
        return there


class _Tries:
    """What is left to be tried, in order."""

    def __init__(self, tags: list[Hashable]) -> None:
        self._all = tags
        self._parts = [tags]  # the next one last, as in all that follows
        self._aside: dict[Hashable, Hashable] = {}
        self._settled = 0
        self.to_blame = 0

    @cached_property
    def _order(self) -> dict[Hashable, int]:
        return {tag: number for number, tag in enumerate(self._all)}

    def next(self) -> list[Hashable]:
        """Return the tags of the next try; none at the end."""
        if not self._parts:
            return [self._aside.popitem()[0]] if self._aside else []
        tags = self._parts.pop()
        most = max(1, self._settled // self.to_blame) if self.to_blame else len(tags)
        if len(tags) > most:
            self._parts.append(tags[most:])
            tags = tags[:most]
        return tags

    def left(self) -> list[Hashable]:
        """Return the tags that are neither settled nor set aside."""
        return [tag for part in reversed(self._parts) for tag in part]

    def written(self, tags: Sequence[Hashable]) -> None:
        """Take note that tags are settled."""
        self._settled += len(tags)

    def blamed(self, tag: Hashable) -> None:
        """Take note that a tag is to blame."""
        self._settled += 1
        self.to_blame += 1
        self._put_back({tag})

    def refused(self, tags: list[Hashable], suspect: Row | None) -> None:
        """Cut tags that were refused around the suspect's, or else in the middle."""
        if suspect is not None and suspect.tag in tags:
            at = tags.index(suspect.tag)
            parts = [tags[:at], tags[at : at + 1], tags[at + 1 :]]
        else:
            middle = len(tags) // 2
            parts = [tags[:middle], tags[middle:]]
        self._parts += [part for part in reversed(parts) if part]

    def set_aside(self, taken: dict[Hashable, Hashable]) -> None:
        """Try tags last, but those whose value is taken by one that is tried last, too."""
        aside: dict[Hashable, Hashable] = {}
        for tag, by in self._sorted(taken.items()):
            if by not in aside:
                aside[tag] = by
        if not aside:
            return
        self._put(tag for tag in self.left() if tag not in aside)
        self._put_back(aside.keys())
        self._aside = dict(reversed(self._sorted([*self._aside.items(), *aside.items()])))
        self._settled = self.to_blame = 0  # of what will be refused now, nothing is known

    def _put_back(self, gone: Set[Hashable]) -> None:
        """Put what was set aside because of a tag into its place: nothing after it is written."""
        freed = [tag for tag, by in self._aside.items() if by in gone]
        if freed:
            for tag in freed:
                del self._aside[tag]
            self._put(sorted([*freed, *self.left()], key=self._order.__getitem__))

    def _put(self, tags: Iterable[Hashable]) -> None:
        part = list(tags)
        self._parts = [part] if part else []

    def _sorted(self, tags: Iterable[tuple[Hashable, Hashable]]) -> list[tuple[Hashable, Hashable]]:
        return sorted(tags, key=lambda item: self._order[item[0]])


class _ByTag:
    """Queued rows, to be taken out by their tags."""

    def __init__(self, tables: dict[str, Table]) -> None:
        self._tables = tables
        self.tags: list[Hashable] = list(dict.fromkeys(row.tag for row in as_queued(tables)))
        self._places: dict[Hashable, list[tuple[str, int]]] = defaultdict(list)

    def part(self, tags: Sequence[Hashable]) -> dict[str, Table]:
        """Return some tags' rows; tables that have none of them are left out."""
        if len(tags) == len(self.tags):
            return self._tables
        if not self._places:
            for name, table in self._tables.items():
                for place, row in enumerate(table.rows):
                    self._places[row.tag].append((name, place))
        wanted: dict[str, list[int]] = {name: [] for name in self._tables}
        for tag in tags:
            for name, place in self._places[tag]:
                wanted[name].append(place)
        return {
            name: self._tables[name].part(sorted(places))
            for name, places in wanted.items()
            if places
        }


_COLUMN = re.compile(
    r"UNIQUE constraint failed: \w+\.(\w+)$"  # SQLite
    r"|Key \(\"?(\w+)\"?\)=\("  # PostgreSQL
    r"|Duplicate entry .* for key '(?:[^'.]+\.)?(\w+)'"  # MariaDB, MySQL, where it is the column's
)


def _column_of(error: Exception, suspect: Row | None) -> tuple[str, str] | None:
    """Return the table and column whose value was refused for being there already, if it is told.

    Only of a field that is unique for all rows: a constraint may be for some.
    """
    found = _COLUMN.search(str(error))
    if found is None or suspect is None:
        return None
    shape = suspect.shape
    column = str(found[1] or found[2] or found[3])
    fields: Iterable[Any] = shape.model._meta.local_concrete_fields
    if any(field.column == column and field.unique for field in fields):
        return shape.table, column
    return None
