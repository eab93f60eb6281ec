"""The journal in one database: taken with a lease, kept small, asked after a loss.

All of it is called by the clerk's thread, on that thread's own connection.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import django
from django.db import Error, IntegrityError, connections, transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Now

from carpool import databases
from carpool.errors import Trouble, trouble_of
from carpool.exceptions import ConfigurationError, RunIsTaken, TakenOver
from carpool.journal.marks import Marks
from carpool.journal.models import Entry, Lease, Run
from carpool.journal.recording import Places
from carpool.journal.spans import Spans
from carpool.journal.states import EDGES, State, check_edge
from carpool.version import carpool_version

BEAT = 4.0
"""Seconds between two beats: one commit each."""

STALE = 15.0
"""Seconds without a beat after which a run may be taken over: three that did not come. What is
taken too early is no harm: the fence holds."""

LOCK_WAIT = 10
"""Seconds to wait for a lock at a time, before it is tried again: a chunk that commits holds the
lease for milliseconds."""

DELETED_AT_ONCE = 500


@dataclass(slots=True)
class Done:
    """What a journal says is done. Counts are of items; spans may cover keys that no row has."""

    settled: Spans = field(default_factory=Spans)
    failed: Spans = field(default_factory=Spans)
    marks: Marks = field(default_factory=Marks)
    succeeded: int = 0
    skipped: int = 0

    def add(
        self, spans: Spans, failed: Spans, marks: Marks, succeeded: int = 0, skipped: int = 0
    ) -> None:
        """Take in what an entry says. What failed before and is done now has succeeded."""
        self.settled.update(spans)
        if self.failed:
            for start, end in spans:
                for position in self.failed.within(start, end):
                    self.failed.discard(position)
        self.failed.update(failed)
        self.marks.update(marks)
        self.succeeded += succeeded
        self.skipped += skipped


class Book:
    """One database's part of a run's journal."""

    def __init__(self, alias: str, name: str) -> None:
        self.alias = alias
        self.name = name
        self.key = 0
        self.fence = 0
        self.done = Done()
        self.is_new = False  # nobody had taken the run before
        self._takes = 0
        self._folded = Spans()  # numbers of this coordinator's chunks that have committed
        self._stale = True  # what is in memory may not be what is in the database

    def _runs(self) -> QuerySet[Run]:
        return Run._base_manager.using(self.alias).filter(pk=self.key)

    def _mine(self) -> QuerySet[Run]:
        return self._runs().filter(fence=self.fence)

    def _entries(self) -> QuerySet[Entry]:
        return Entry._base_manager.using(self.alias).filter(run_id=self.key)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with transaction.atomic(using=self.alias):
            databases.limit_lock_wait(connections[self.alias], LOCK_WAIT)
            yield

    # Taking it.

    def open(self, positions: str, about: dict[str, Any], *, take_over: bool) -> None:
        """Take the run, new or not, and read what is done. May be tried again.

        Raises:
            RunIsTaken: somebody else runs it.
            ConfigurationError: the name, or what is done, is another run's.
        """
        runs = Run._base_manager.using(self.alias)
        # bulk_create(): no receiver of the user's hears of carpool's own rows.
        runs.bulk_create([Run(name=self.name)], ignore_conflicts=True)
        self.key, name = runs.values_list("pk", "name").get(name=self.name)
        if name != self.name:
            raise ConfigurationError(
                f"journal={self.name!r} is the name {name!r} of another run to the database "
                f"{self.alias!r}. Choose one that differs in more than case, accents or spaces at "
                "its end."
            )
        self._takes += 1
        leases = Lease._base_manager.using(self.alias)
        leases.bulk_create([Lease(run_id=self.key)], ignore_conflicts=True)
        with self._transaction():
            # First a write: it waits for chunks that are committing, and on SQLite for the lock.
            leases.filter(run_id=self.key).update(fence=F("fence") + 1, closed=0)
            run = self._runs().annotate(now=Now()).get()
            if not take_over:
                self._refuse_taken(run)
            self._refuse_other_positions(run, positions)
            self.fence = leases.values_list("fence", flat=True).get(run_id=self.key)
            self._take(run, {"positions": positions, **about})
        self.fold()

    def _refuse_taken(self, run: Any) -> None:
        if run.state != State.RUNNING or run.beat_at is None:
            return
        if self._takes > 1 and (run.host, run.pid) == (socket.gethostname(), os.getpid()):
            return  # by this very book, when the answer was lost
        silent = run.now - run.beat_at
        left = timedelta(seconds=STALE) - silent
        if left > timedelta(0):
            raise RunIsTaken(
                f"The run {self.name!r} is being run by process {run.pid} on {run.host}, which was "
                f"heard of {_seconds(silent)} ago. If it is dead, call again in {_seconds(left)}, "
                "or at once with take_over=True; its chunks can't commit after that."
            )

    def _refuse_other_positions(self, run: Run, positions: str) -> None:
        if run.positions in ("", positions):
            return
        raise ConfigurationError(
            f"The run {self.name!r} went by {run.positions}, and now it would go by {positions}. "
            "Another source needs another journal name."
        )

    def _take(self, run: Any, about: dict[str, Any]) -> None:
        before = State(run.state)
        self.is_new = self.is_new or before is State.NEW
        reason = EDGES[(before, State.RUNNING)] if before is not State.RUNNING else ""
        if before is State.RUNNING:
            check_edge(State.RUNNING, State.INTERRUPTED)
            heard = "" if run.beat_at is None else f" for {_seconds(run.now - run.beat_at)}"
            reason = f"taken over from process {run.pid} on {run.host}, not heard of{heard}"
        self._runs().update(
            fence=self.fence,
            state=State.RUNNING,
            reason=reason,
            wanted="",  # Note [Wanted] in `models`
            beat_at=Now(),
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=run.started_at or Now(),
            finished_at=None,
            carpool_version=carpool_version(),
            django_version=django.get_version(),
            **about,
        )

    # Keeping it.

    def look(self) -> str:
        """Return what the coordinator is asked to do; and now and then say that it lives.

        Raises:
            TakenOver: it has been taken over.
        """
        columns = self._mine().annotate(now=Now()).values_list("wanted", "beat_at", "now")
        row = columns.first()
        if row is None:
            raise self._taken_over()
        wanted, beat_at, now = row
        if beat_at is None or now - beat_at > timedelta(seconds=BEAT):
            try:
                with databases.impatient(connections[self.alias]):
                    self._mine().update(beat_at=Now())
            except Error as error:  # another time, then; what is wanted is known
                if trouble_of(error) is not Trouble.RETRY:
                    raise
        return wanted

    def _taken_over(self) -> TakenOver:
        run = self._runs().first()
        who = "gone" if run is None else f"run by process {run.pid} on {run.host} now"
        return TakenOver(
            f"The run {self.name!r} was taken over and is {who}. What this process has committed "
            "counts; what it had not, it can't commit any more."
        )

    def fold(
        self,
        failures: Iterable[Places] = (),
        *,
        fence: int | None = None,
        closed: int | None = None,
        **columns: Any,
    ) -> None:
        """Make the entries part of the run's row, so that there are never many.

        ``failures``: items that failed without a transaction of their own. ``fence``: the lowest
        with which a chunk can still commit; by default this coordinator's. ``closed``: where chunks
        may be delivered twice, the number below which all have ended; see Note [Closed] in
        `models`. None: they can't.

        Raises:
            TakenOver: it has been taken over.
        """
        lowest = self.fence if fence is None else fence
        with self._transaction():
            if closed is not None:
                # Before the row's lock, as open() does. Waits for chunks that are committing.
                leases = Lease._base_manager.using(self.alias)
                leases.filter(run_id=self.key, fence=self.fence).update(closed=closed)
            # First the row's lock: the COMMIT of an earlier fold, whose answer was lost, may still
            # be on its way. What is read after it has happened, or won't.
            if not self._mine().update(beat_at=Now()):
                raise self._taken_over()
            if self._stale:
                self._read()
            self._stale = True
            done = self.done
            entries = list(self._entries())
            for entry in entries:
                if entry.fence == self.fence and not entry.void:
                    self._folded.add(entry.chunk, entry.chunk)
                if not entry.void:
                    done.add(
                        Spans.loads(entry.done),
                        Spans.loads(entry.failed),
                        Marks.loads(entry.marks),
                        entry.succeeded,
                        entry.skipped,
                    )
            for places in failures:
                # They may be here already, if the answer to an earlier COMMIT was lost.
                marks = places.without(done.settled).marks(done.marks.step)
                failed = Spans((end, end) for end in places.ends)
                done.add(places.spans(), failed, marks)
            self._runs().update(
                settled=done.settled.dumps(),
                failed_positions=done.failed.dumps(),
                marks=done.marks.dumps(),
                succeeded=done.succeeded,
                failed=done.failed.count(),
                skipped=done.skipped,
                **columns,
            )
            # A void entry is what keeps its chunk from committing, as long as the fence holds.
            kept = [e for e in entries if e.fence >= lowest and (e.void or closed is not None)]
            kept = [e for e in kept if closed is None or e.chunk >= closed]
            self._make_void([e.pk for e in kept if not e.void])
            self._delete(sorted({e.pk for e in entries} - {e.pk for e in kept}))
        self._stale = False

    def _read(self) -> None:
        run = self._runs().get()
        self.done = Done(
            Spans.loads(run.settled),
            Spans.loads(run.failed_positions),
            Marks.loads(run.marks),
            run.succeeded,
            run.skipped,
        )

    def _make_void(self, keys: list[int]) -> None:
        nothing = {"done": "[]", "failed": "[]", "succeeded": 0, "skipped": 0, "marks": ""}
        for start in range(0, len(keys), DELETED_AT_ONCE):
            part = keys[start : start + DELETED_AT_ONCE]
            self._entries().filter(pk__in=part).update(void=True, **nothing)

    def _delete(self, keys: list[int]) -> None:
        # Not QuerySet.delete(), which tells receivers.
        connection = connections[self.alias]
        table = connection.ops.quote_name(Entry._meta.db_table)
        column = connection.ops.quote_name("id")
        with connection.cursor() as cursor:
            for start in range(0, len(keys), DELETED_AT_ONCE):
                part = keys[start : start + DELETED_AT_ONCE]
                marks = ", ".join(["%s"] * len(part))
                cursor.execute(f"DELETE FROM {table} WHERE {column} IN ({marks})", part)

    # Asking it.

    def has_committed(self, chunk: int) -> bool:
        """Tell whether a chunk whose worker or connection was lost during COMMIT has committed.

        By inserting an entry in its place: that waits until the other transaction has ended, if
        the server still works at it, and fails if it has committed. If it succeeds, that chunk
        can't commit any more, whoever may still try.

        Raises:
            TakenOver: it has been taken over.
        """
        if chunk in self._folded:
            return True
        entry = Entry(
            run_id=self.key,
            fence=self.fence,
            chunk=chunk,
            done="[]",
            failed="[]",
            succeeded=0,
            skipped=0,
            marks="",
            void=True,
        )
        try:
            with self._transaction():
                if not self._mine().update(beat_at=Now()):
                    raise self._taken_over()
                Entry._base_manager.using(self.alias).bulk_create([entry])
        except IntegrityError:
            written = self._entries().filter(fence=self.fence, chunk=chunk)
            void = written.values_list("void", flat=True).first()
            if void is None:  # it was not for an entry that is there already
                raise
            return not void
        return False

    # Closing it.

    def close(self, state: State, reason: str, failures: Iterable[Places], **columns: Any) -> None:
        """Write how it ended."""
        check_edge(State.RUNNING, state)
        # Whoever still has a chunk of this run in hand, lost and forgotten, can't commit it now.
        leases = Lease._base_manager.using(self.alias).filter(run_id=self.key, fence=self.fence)
        leases.update(fence=F("fence") + 1, closed=0)
        self.fold(
            failures,
            fence=self.fence + 1,
            state=state,
            reason=reason or EDGES[(State.RUNNING, state)],
            wanted="",
            finished_at=Now(),
            **columns,
        )


def _seconds(span: timedelta) -> str:
    return f"{max(0.0, span.total_seconds()):.1f} seconds"
