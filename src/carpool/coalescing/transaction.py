"""The block's transaction: BEGIN and savepoints, sent when something is written after them.

The hooks are those of the connection's own methods that Django calls for a block of ``atomic()``.

Note [Savepoints]
    A block of ``atomic()`` has to meet its own errors, and no others. So what the database might
    refuse is written before a savepoint is made, and before it is released. What it surely takes
    (`Queue.may_be_refused`) stays: ``update_or_create()`` opens a block for each object. Of what
    stays it is known, by the rows' numbers, what is older than the savepoint: it is written first,
    and kept when the savepoint is undone. A savepoint is sent when the first write after it is:
    many a one never is.

Note [Lock]
    SQLite has one write lock. BEGIN IMMEDIATE takes it when the first write is sent, not when the
    block begins, so that several processes prepare their rows side by side. Until then reads are
    in no transaction, as in a plain loop. A transaction that reads first and writes later gets
    "database is locked" at once if another has written between
    (https://www.sqlite.org/lang_transaction.html); this way there is none.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from carpool.coalescing.figures import EarlyFlush, place
from carpool.coalescing.keys import Keys
from carpool.coalescing.knowledge import Knowledge
from carpool.coalescing.queue import Queue, between
from carpool.coalescing.rows import Row, Table

if TYPE_CHECKING:
    from carpool.coalescing.unit import Unit


@dataclass(slots=True)
class _Savepoint:
    """``mark``: the number that the next row had when it was made.

    ``is_idle``: rows before it were refused, so it can't be sent, and undoing it (``is_undone``)
    mends nothing.
    """

    mark: int
    sent: bool = False
    is_idle: bool = False
    is_undone: bool = False


class Transaction:
    """The transaction of one unit, and what of it was not sent yet.

    Attributes:
        waited: seconds, for SQLite's write lock.
    """

    def __init__(self, unit: Unit, queue: Queue, knowledge: Knowledge, keys: Keys | None) -> None:
        self.waited = 0.0
        self._unit = unit
        self._connection = unit.connection
        self._queue = queue
        self._knowledge = knowledge
        self._keys = keys
        self._savepoints: dict[str, _Savepoint] = {}  # those since which nothing was written
        self._to_come: dict[str, _Savepoint] | None = None  # after the part that is being written
        self._begin_is_due = False  # SQLite's BEGIN was put off
        self._send: dict[str, Callable[..., None]] = {}

    def hooks(self) -> dict[str, Callable[..., None]]:
        """Return what takes the place of which methods of the connection."""
        # Private names of BaseDatabaseWrapper, checked on 5.2, 6.0, 6.1.
        hooks: dict[str, Callable[..., None]] = {
            "_savepoint": self._make,
            "_savepoint_commit": self._release,
            "_savepoint_rollback": self._roll_back_to,
            "_rollback": self._roll_back,
        }
        if hasattr(self._connection, "_start_transaction_under_autocommit"):
            hooks["_start_transaction_under_autocommit"] = self._put_off_begin
        self._send = {name: getattr(self._connection, name) for name in hooks}
        return hooks

    # BEGIN: see Note [Lock].

    @property
    def holds_lock(self) -> bool:
        """Whether what is written now is in the transaction."""
        return not self._begin_is_due

    def _put_off_begin(self) -> None:
        if self._unit.is_suspended:
            self._begin_is_due = False
            self._send["_start_transaction_under_autocommit"]()
        else:
            self._begin_is_due = True

    def begin(self) -> None:
        """Send the BEGIN that was put off. If it fails, it is still due, and nothing is lost."""
        if not self._begin_is_due:
            return
        connection = self._connection
        # Not when the block is over already, nor when the connection was closed in it.
        if connection.in_atomic_block and connection.connection is not None:
            began = time.monotonic()
            with connection.wrap_database_errors:
                try:
                    connection.connection.execute("BEGIN IMMEDIATE")
                finally:
                    self.waited += time.monotonic() - began
        self._begin_is_due = False

    def end(self) -> None:
        """Send no BEGIN any more: nothing was written."""
        self._begin_is_due = False

    def forget(self) -> None:
        """Forget what was put off: the transaction is undone, or was on a connection now closed."""
        self._savepoints.clear()
        self._begin_is_due = False

    # Savepoints: see Note [Savepoints].

    def _make(self, sid: str) -> None:
        self._unit.refuse_if_broken()
        if self._queue.may_be_refused():
            self._unit.flush(EarlyFlush("a savepoint", place()))
        self._savepoints[sid] = _Savepoint(self._queue.number)
        if self._unit.is_suspended:
            self.send_savepoints()
            self._savepoints.clear()

    def _release(self, sid: str) -> None:
        if self._unit.broken is not None:
            if sid in self._savepoints and self._savepoints[sid].is_undone:
                self._forget_from(sid)  # as Django does with one that it has just undone
                return
            raise self._unit.broken  # Django undoes the savepoint
        if self._queue.may_be_refused():
            # Django undoes the savepoint if this raises; it could not if the connection were
            # marked for rollback.
            self._unit.flush(EarlyFlush("a savepoint", place()), marks=False)
        savepoint = self._savepoints.get(sid)
        if savepoint is not None:
            self._forget_from(sid)
        if savepoint is None or savepoint.sent:
            self.release_savepoint(sid)

    def _roll_back_to(self, sid: str) -> None:
        unit = self._unit
        savepoint = self._savepoints.get(sid)
        dropped = self._queue.drop(lambda row: savepoint is None or row.number >= savepoint.mark)
        self._knowledge.rolled_back(None if savepoint is None else dropped)
        # rollback_exc: why Django has marked the block for rollback. Checked on 5.2, 6.0, 6.1.
        cause = self._connection.rollback_exc  # type: ignore[attr-defined]
        if savepoint is not None and savepoint.is_idle:
            savepoint.is_undone = True  # the rows that were refused are not
        elif sys.exc_info()[1] is not None or cause is not unit.broken:
            # The rows that were refused are undone as well: see Note [Broken] in `unit`.
            unit.broken = None
        if savepoint is not None:
            self._forget_from(sid)
            self._savepoints[sid] = savepoint
        else:
            self._savepoints.clear()
        if savepoint is None or savepoint.sent:
            self.undo_savepoint(sid)
            if self._keys is not None:
                self._keys.forget()

    def _roll_back(self) -> None:
        self._queue.discard()
        self.forget()
        self._unit.broken = None
        self._send["_rollback"]()

    def _forget_from(self, sid: str) -> None:
        """Forget a savepoint since which nothing was written, and those after it."""
        made = list(self._savepoints)
        for later in made[made.index(sid) :]:
            del self._savepoints[later]

    def is_of_this_savepoint(self, row: Row) -> bool:
        """Tell whether undoing the youngest savepoint drops a queued row."""
        return not self._savepoints or row.number >= next(reversed(self._savepoints.values())).mark

    def _are_of_this_savepoint(self) -> bool:
        """Tell whether that is so of all that is queued."""
        return all(
            self.is_of_this_savepoint(table.rows[0]) for table in self._queue.tables.values()
        )

    # Sending.

    def before_a_read(self) -> None:
        """Send what an error of a statement that reads may have to be undone by."""
        if self._savepoints and self._connection.vendor != "sqlite":
            self.send_savepoints()

    def before_a_write(self) -> None:
        """Send what comes before a write that is not the queue's."""
        if self._queue.rows and not self._are_of_this_savepoint():
            # They come before it, or undoing it would undo them.
            self._unit.flush(EarlyFlush("a write after a savepoint", place()))
        self.begin()
        self.send_savepoints()
        self._savepoints.clear()

    def send_savepoints(self) -> None:
        """Send those that were not: what comes may have to be undone by them."""
        if any(not savepoint.sent for savepoint in self._savepoints.values()):
            self.begin()
            with self._unit.own_statements():
                for sid, savepoint in self._savepoints.items():
                    if not savepoint.sent:
                        self.make_savepoint(sid)
                        savepoint.sent = True

    def refused(self) -> bool:
        """Take note that the part that was being written is; tell if a savepoint follows it."""
        if self._to_come is None:  # none was
            return False
        self._savepoints, self._to_come = self._to_come, None
        for savepoint in self._savepoints.values():
            savepoint.is_idle = True
        return bool(self._savepoints)

    def parts_by_savepoint(self, tables: dict[str, Table]) -> Iterator[dict[str, Table]]:
        """Send the savepoints since which nothing was written; yield the rows between them.

        One that was sent, for the sake of a read, is taken back and sent again in its place.
        """
        waiting, self._savepoints = self._savepoints, {}
        self._to_come = {}
        last = next(reversed(waiting.values()), None)
        if last is not None and not between(tables, 0, last.mark):
            for sid, savepoint in waiting.items():
                if not savepoint.sent:
                    self.make_savepoint(sid)
            yield tables
            self._to_come = None
            return
        for sid, savepoint in reversed(waiting.items()):
            if savepoint.sent:
                self.release_savepoint(sid)
                savepoint.sent = False
        self._to_come = dict(waiting)
        lowest = 0
        for sid, savepoint in waiting.items():
            if older := between(tables, lowest, savepoint.mark):
                yield older
            self.make_savepoint(sid)
            del self._to_come[sid]
            lowest = savepoint.mark
        if lowest == 0:
            yield tables
        elif younger := between(tables, lowest, self._queue.number):
            yield younger
        self._to_come = None

    def make_savepoint(self, sid: str) -> None:
        """Send a savepoint."""
        self._send["_savepoint"](sid)

    def undo_savepoint(self, sid: str) -> None:
        """Go back to a savepoint that was sent."""
        with self._unit.own_statements():
            self._send["_savepoint_rollback"](sid)

    def release_savepoint(self, sid: str) -> None:
        """Release a savepoint that was sent."""
        with self._unit.own_statements():
            self._send["_savepoint_commit"](sid)
