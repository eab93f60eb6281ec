"""Keys that are known before their row is written.

PostgreSQL: a block of the sequence's ``nextval()``. SQLite: ``sqlite_sequence`` is moved forward.
Gaps in a sequence are normal on both. MySQL and MariaDB can't: see `late`.

Blocks grow with what turns out to be needed. What is left at the end is lost, unless it is handed
to the next unit on the connection.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper

if TYPE_CHECKING:
    from carpool.coalescing.unit import Unit

BLOCKS = (64, 1024, 4096)
"""Keys reserved at a time: the first is small, for a block that makes a few rows."""


class Keys(Protocol):
    """Gives keys of one connection's tables; outlives the unit that it was made for."""

    def begin(self, unit: Unit) -> None:
        """Serve this unit from now on."""

    def can_reserve(self, table: str, column: str) -> bool:
        """Tell whether there are keys to be had for a table's column."""

    def next(self, table: str, column: str) -> int:
        """Return a key that nobody else will get; `can_reserve` must have been true."""

    def given(self, table: str, key: Any) -> bool:
        """Take note of a row whose key was not asked for here (None: the database will give it).

        Returns whether the queue has to be written before the next key is reserved.
        """

    def forget(self, table: str | None = None) -> None:
        """Look anew: rows came into the table (None: any table) that were not queued; or a
        savepoint was undone. Nothing of the table is queued now.
        """


def keys_for(connection: BaseDatabaseWrapper) -> Keys | None:
    """Return what suits a database; None if it can't reserve keys."""
    if connection.vendor == "postgresql":
        return SequenceKeys()
    # SQLite 3.35 has RETURNING.
    if connection.vendor == "sqlite" and connection.features.can_return_columns_from_insert:
        return AutoincrementKeys()
    return None


class SequenceKeys:
    """PostgreSQL: https://www.postgresql.org/docs/current/functions-sequence.html.

    ``nextval`` is never rolled back, and explicit keys don't move a sequence. A column GENERATED
    ALWAYS takes no explicit key; there is none to reserve for it.
    """

    _unit: Unit

    def __init__(self) -> None:
        self._blocks: dict[str, deque[int]] = {}
        self._with: dict[str, bool] = {}
        self._sizes: dict[str, int] = {}

    def begin(self, unit: Unit) -> None:
        self._unit = unit

    def can_reserve(self, table: str, column: str) -> bool:
        if table not in self._blocks:
            self._blocks[table] = deque(self._reserve(table, column))
            self._with[table] = bool(self._blocks[table])
        return self._with[table]

    def next(self, table: str, column: str) -> int:
        block = self._blocks[table]
        if not block:
            block.extend(self._reserve(table, column))
        return block.popleft()

    def _reserve(self, table: str, column: str) -> list[int]:
        quoted = self._unit.connection.ops.quote_name(table)
        number = self._sizes.get(table, 0)
        self._sizes[table] = number + 1
        # OFFSET 0, so that the sequence is looked up once, and not for each of its numbers; an
        # array, since a row for each costs several times what its number does.
        rows = self._unit.ask(
            "SELECT array_agg(nextval(number)), bool_and(is_plain) FROM ("
            "SELECT pg_get_serial_sequence(%s, %s)::regclass AS number, "
            "relkind IN ('r', 'p') AND NOT relrowsecurity AS is_plain "
            "FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid "
            "WHERE attrelid = %s::regclass AND attname = %s AND attidentity <> 'a' OFFSET 0"
            ") AS found, generate_series(1, %s)",
            [quoted, column, quoted, column, BLOCKS[min(number, len(BLOCKS) - 1)]],
        )
        numbers, is_plain = rows[0]
        if numbers is None:  # GENERATED ALWAYS: nothing was found
            return []
        self._unit.plain_tables[table] = is_plain  # asked by the way, for COPY
        return [key for key in numbers if key is not None]

    def given(self, table: str, key: Any) -> bool:
        if key is not None:
            return False
        # Its nextval comes at the flush: those that are reserved by then would follow it.
        if table in self._blocks:
            self._blocks[table].clear()
        return True

    def forget(self, table: str | None = None) -> None:
        pass


class _Range:
    """Keys of one SQLite table. ``end`` None: we have the write lock, all that follow are ours."""

    __slots__ = ("end", "following")

    def __init__(self, following: int, end: int | None) -> None:
        self.following = following
        self.end = end


class AutoincrementKeys:
    """SQLite, for AUTOINCREMENT columns: https://www.sqlite.org/autoinc.html.

    As long as this connection has no write lock, a block is reserved in a short transaction of its
    own. Once it has, nobody else can make a row, and inserting a key moves the sequence by itself:
    then one look is enough.
    """

    _unit: Unit

    def __init__(self) -> None:
        self._ranges: dict[str, _Range] = {}
        self._sizes: dict[str, int] = {}
        self._with: dict[str, bool] = {}

    def begin(self, unit: Unit) -> None:
        self._unit = unit
        self.forget()  # what followed from having the write lock

    def can_reserve(self, table: str, column: str) -> bool:
        if table not in self._with:
            found = self._reserve(table)
            self._with[table] = found is not None
            if found is not None:
                self._ranges[table] = found
        return self._with[table]

    def next(self, table: str, column: str) -> int:
        found = self._ranges.get(table)
        if found is None or (found.end is not None and found.following >= found.end):
            found = self._reserve(table)
            if found is None:  # it was taken away since: the table was made anew
                raise DatabaseError(f"no key can be reserved for {table!r} any more")
            self._ranges[table] = found
        key = found.following
        found.following += 1
        return key

    def _reserve(self, table: str) -> _Range | None:
        unit = self._unit
        number = self._sizes.get(table, 0)
        self._sizes[table] = number + 1
        size = BLOCKS[min(number, len(BLOCKS) - 1)]
        highest = f"(SELECT COALESCE(MAX(rowid), 0) FROM {unit.connection.ops.quote_name(table)})"
        is_autoincrement = (
            "EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = %s "
            "AND sql LIKE '%%PRIMARY KEY AUTOINCREMENT%%')"
        )
        locked = unit.transaction.holds_lock
        if locked:
            size = 0
        move = (
            f"UPDATE sqlite_sequence SET seq = MAX(seq, {highest}) + %s "
            f"WHERE name = %s AND {is_autoincrement} RETURNING seq"
        )
        # As long as no row was inserted there is no sequence. Its name is not unique: two workers
        # that make one would both have the first keys. So the other may have done it meanwhile.
        begin = (
            f"INSERT INTO sqlite_sequence (name, seq) SELECT %s, {highest} + %s "
            f"WHERE {is_autoincrement} "
            "AND NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = %s) RETURNING seq"
        )
        rows = (
            unit.ask(move, [size, table, table])
            or unit.ask(begin, [table, size, table, table])
            or unit.ask(move, [size, table, table])
        )
        if not rows:
            return None
        last = rows[0][0]
        return _Range(last - size + 1, None if locked else last + 1)

    def given(self, table: str, key: Any) -> bool:
        found = self._ranges.get(table)
        if found is None:
            return True
        if isinstance(key, int) and key < found.following:
            return False
        del self._ranges[table]
        return True

    def forget(self, table: str | None = None) -> None:
        # A block reserved before the transaction stays ours, whatever happens in it.
        self._ranges = {
            name: r
            for name, r in self._ranges.items()
            if r.end is not None or table not in (None, name)
        }
