"""What a worker writes, in its chunk's own transaction, just before COMMIT.

Needs no model: a worker knows the tables by name, and has one statement for all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from django.db.backends.base.base import BaseDatabaseWrapper

from carpool.journal.marks import Marks
from carpool.journal.spans import Spans

_SHARED_LOCK = {"postgresql": "FOR SHARE", "mysql": "LOCK IN SHARE MODE", "sqlite": ""}
"""By vendor, since Django knows no shared locks. SQLite has one writer at a time: nobody else can
change the lease before COMMIT. https://www.postgresql.org/docs/current/explicit-locking.html,
https://dev.mysql.com/doc/refman/8.4/en/innodb-locking-reads.html."""

COLUMNS = ("run_id", "fence", "chunk", "done", "failed", "succeeded", "skipped", "marks", "void")


@dataclass(frozen=True, slots=True)
class Permit:
    """A coordinator's right to have entries written: for each alias a run's key and a fence."""

    runs: dict[str, tuple[int, int]]
    run_table: str
    entry_table: str
    lease_table: str


class Standing(Enum):
    """Whether a chunk may commit. The value says why it may not."""

    OPEN = ""
    ENDED = "it has ended: committed, or given up for good"
    TAKEN_OVER = "another coordinator has the run"


@dataclass(frozen=True, slots=True)
class Note:
    """What a chunk's entry says, as far as the coordinator knows before the chunk has run.

    ``done``: its positions, as text. ``ends``: the position of each item.
    """

    done: str
    ends: Sequence[int]
    marks: str

    def failed(self, faults: Iterable[int]) -> str:
        """Return the positions of the failed items, as text."""
        return Spans((self.ends[p], self.ends[p]) for p in faults).dumps()


@dataclass(frozen=True, slots=True)
class Places:
    """Where a chunk's items are in the input.

    An item covers the positions from ``start`` to ``end``: its own, and those before it at which
    there is nothing (keys that no row has). ``digests``: None for an item that is marked already.
    """

    starts: Sequence[int]
    ends: Sequence[int]
    digests: Sequence[int | None]

    def part(self, positions: Sequence[int]) -> Places:
        """Return those of some of the chunk's items."""
        return Places(
            [self.starts[p] for p in positions],
            [self.ends[p] for p in positions],
            [self.digests[p] for p in positions],
        )

    def spans(self) -> Spans:
        """Return all positions."""
        spans = Spans()
        first = last = None
        for start, end in zip(self.starts, self.ends, strict=True):
            if last is not None and start == last + 1:  # nearly always: no search is needed
                last = end
                continue
            if first is not None and last is not None:
                spans.add(first, last)
            first, last = start, end
        if first is not None and last is not None:
            spans.add(first, last)
        return spans

    def marks(self, step: int) -> Marks:
        """Return the marks of those items that have a digest."""
        if self._are_in_a_row():
            digests = [digest for digest in self.digests if digest is not None]
            if len(digests) == len(self.ends):
                return Marks.of_row(step, self.ends[0], digests)
        pairs = zip(self.ends, self.digests, strict=True)
        return Marks.of_items(step, [(end, digest) for end, digest in pairs if digest is not None])

    def without(self, known: Spans) -> Places:
        """Return the same without the digests of items whose positions are known."""
        pairs = zip(self.ends, self.digests, strict=True)
        digests = [None if end in known else digest for end, digest in pairs]
        return Places(self.starts, self.ends, digests)

    def _are_in_a_row(self) -> bool:
        return self.ends[-1] - self.ends[0] + 1 == len(self.ends)

    def note(self, step: int) -> Note:
        """Return what is sent to the worker."""
        ends = list(self.ends)
        if self._are_in_a_row():
            return Note(
                self.spans().dumps(), range(ends[0], ends[-1] + 1), self.marks(step).dumps()
            )
        return Note(self.spans().dumps(), ends, self.marks(step).dumps())


def record(
    connection: BaseDatabaseWrapper,
    permit: Permit,
    number: int,
    note: Note,
    faults: Sequence[int],
    skipped: int,
) -> Standing:
    """Insert a chunk's entry, if it may commit; return whether it may.

    If not, the transaction must be rolled back. See Note [Fence] and Note [Closed] in `models`.

    Raises:
        IntegrityError: there is an entry for it, or the table refuses rows. A transaction that
            has failed can't tell which; the coordinator asks the journal (`settling`).
    """
    run, fence = permit.runs[connection.alias]
    quote = connection.ops.quote_name
    values: list[int | str] = [
        run,
        fence,
        number,
        note.done,
        note.failed(faults),
        len(note.ends) - len(faults) - skipped,
        skipped,
        note.marks,
        False,
    ]
    sql = (
        f"INSERT INTO {quote(permit.entry_table)} ({', '.join(map(quote, COLUMNS))}) "
        f"SELECT {', '.join(['%s'] * len(values))} FROM {quote(permit.lease_table)} "
        f"WHERE {quote('run_id')} = %s AND {quote('fence')} = %s AND {quote('closed')} <= %s "
        f"{shared_lock(connection)}"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [*values, run, fence, number])
        recorded = bool(cursor.rowcount == 1)
        if recorded and connection.vendor == "sqlite":
            # The coordinator's own beats may wait for the one write lock, and wait, behind workers
            # that pass it on to one another. Here it is held. The format is Django's Now().
            cursor.execute(
                f"UPDATE {quote(permit.run_table)} "
                f"SET {quote('beat_at')} = STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW') "
                f"WHERE {quote('id')} = %s",
                [run],
            )
    if recorded:
        return Standing.OPEN
    return Standing.ENDED if _has_the_run(connection, permit) else Standing.TAKEN_OVER


def _has_the_run(connection: BaseDatabaseWrapper, permit: Permit) -> bool:
    run, fence = permit.runs[connection.alias]
    quote = connection.ops.quote_name
    with connection.cursor() as cursor:
        # With the lock: without it MySQL would answer from the transaction's snapshot.
        cursor.execute(
            f"SELECT {quote('fence')} FROM {quote(permit.lease_table)} "
            f"WHERE {quote('run_id')} = %s {shared_lock(connection)}",
            [run],
        )
        return bool(cursor.fetchone() == (fence,))


def standing_of(connection: BaseDatabaseWrapper, permit: Permit, number: int) -> Standing:
    """Tell, before a chunk is begun, whether it may commit: it may have been delivered twice.

    Outside of a transaction. That it is open may change until it is recorded.
    """
    run, fence = permit.runs[connection.alias]
    quote = connection.ops.quote_name
    entry = (
        f"SELECT {quote('chunk')} FROM {quote(permit.entry_table)} "
        f"WHERE {quote('run_id')} = %s AND {quote('fence')} = %s AND {quote('chunk')} = %s"
    )
    lease = (
        f"SELECT {quote('closed')} FROM {quote(permit.lease_table)} "
        f"WHERE {quote('run_id')} = %s AND {quote('fence')} = %s"
    )
    with connection.cursor() as cursor:
        # In this order: an entry is taken away only after its number has been closed.
        cursor.execute(entry, [run, fence, number])
        if cursor.fetchone() is not None:
            return Standing.ENDED
        cursor.execute(lease, [run, fence])
        row = cursor.fetchone()
    if row is None:
        return Standing.TAKEN_OVER
    return Standing.ENDED if row[0] > number else Standing.OPEN


def shared_lock(connection: BaseDatabaseWrapper) -> str:
    """Return the clause; a database that nobody has looked at gets the exclusive one."""
    return _SHARED_LOCK.get(connection.vendor, "FOR UPDATE")
