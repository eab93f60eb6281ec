"""One chunk in one transaction, tried until it is stored or nothing more can be done.

A chunk's life::

    BEGIN (on SQLite: IMMEDIATE)
      its items            in groups, each under a savepoint: see `tries`
      INSERT               into the journal, if there is one: both are stored, or neither is
    COMMIT                 announced before, so that a death in it is told from one before it
    on_commit callbacks    each told from the next: one that raises costs its own item only

Deadlocks and their like undo the whole transaction and try it again, with jittered back-off. What
can't be told here (a COMMIT refused with no row to blame) is handed back for `run` to split.

A function is therefore called again for an item when a *neighbour* fails or the transaction is
retried. Its database writes count once; what else it does (mail, files) happens again. That is in
the documentation; ``chunk_size=1`` turns the first of the two off.

Nothing is refused here, and nothing raised: whatever happens comes back as a `ChunkResult`.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from django.db import connections, transaction

from carpool import databases, deferred
from carpool.coalescing import Figures, Unit, unit_of
from carpool.errors import Trouble, describe, trouble_of
from carpool.exceptions import OutcomeUnknown, TakenOver, TransactionBroken
from carpool.journal.recording import Note, Standing, record
from carpool.observer import Stop
from carpool.probe import only_reads
from carpool.tries import Plainly, Try, Undone, Work
from carpool.types import ChunkResult, Ending, Fault

BACK_OFF = 0.05
"""Seconds before the first retry, doubled for each further one, times 0.5 to 1.5 by chance (so
that two that collided don't collide again). A deadlock's victim need not wait long: the winner is
through within a chunk's time."""

LONGEST_BACK_OFF = 3.0
"""Seconds at most between tries: a server that restarts is back in a few of these."""


class _Ended(Exception):
    """Trying again won't help, or must not be done."""

    def __init__(self, ending: Ending, fault: Fault) -> None:
        super().__init__(ending, fault)
        self.ending = ending
        self.fault = fault


class Attempt:
    """Tries a chunk's transaction until it is committed, refused or given up.

    Args:
        work: the items, and how they are run.
        number: the chunk's.
        reserved: keys, by alias, that the chunks before have left; and these for the next.
        owns_connections: this thread exists for the run: a lost connection may be closed.
        note: what to write into the journal with the chunk, if the job has one.
    """

    def __init__(
        self,
        work: Work,
        number: int,
        *,
        reserved: dict[str, Any] | None = None,
        owns_connections: bool = True,
        note: Note | None = None,
    ) -> None:
        self.work = work
        self.number = number
        self.reserved = {} if reserved is None else reserved
        self.owns_connections = owns_connections
        self.note = note
        self.connections = work.connections
        self.observer = work.observer
        self.probe = work.probe
        self.retries = 0
        self.figures = Figures()

    def _begin_try(self) -> None:
        """Forget what the try before, which was undone, had found."""
        self.current = Try(self.work)
        self.committed_aliases: list[str] = []
        self._begin_the_clocks()

    def _begin_the_clocks(self) -> None:
        self.began = time.monotonic()
        self.cpu_before = time.thread_time()
        self.probe.seconds = self.committing_seconds = 0.0
        self.commit_began = self.began

    # The tries.

    def run(self) -> ChunkResult:
        """Return what became of the chunk."""
        tries = 0
        while True:
            self._begin_try()
            try:
                self._transaction()
                self.work.grouping.chunk_passed()
                return self._result(Ending.COMMITTED)
            except Stop:
                return self._result(Ending.STOPPED)
            except Plainly:
                self.work.job = replace(self.work.job, coalesce=False)
            except _Ended as ended:
                if ended.ending is Ending.REFUSED and self.work.grouping.commit_refused(
                    can_check=all(map(deferred.can_check, self.connections))
                ):
                    continue
                return self._result(ended.ending, ended.fault)
            except Undone as undone:
                self.observer.idle()
                if undone.trouble is None:
                    self._blame(undone)
                elif tries < self.work.job.retries and self._can_retry(undone.trouble):
                    self.retries += 1
                    pause = min(LONGEST_BACK_OFF, BACK_OFF * 2**tries)
                    time.sleep(pause * random.uniform(0.5, 1.5))
                    tries += 1
                elif undone.position is None or self.work.inside_outer:
                    at_commit = undone.fault.stage == "commit"
                    ending = Ending.REFUSED if at_commit else Ending.UNAVAILABLE
                    return self._result(ending, undone.fault)
                else:
                    self._blame(undone)
                    tries = 0
            finally:
                self.current.forget_errors()

    def _blame(self, undone: Undone) -> None:
        """Fail, through all further tries, the items for which the transaction was undone."""
        assert undone.position is not None
        self.work.blamed.update(dict.fromkeys((undone.position, *undone.others), undone.fault))

    def _can_retry(self, trouble: Trouble) -> bool:
        """Clear the way for another try, unless an outer transaction isn't ours to repeat."""
        if self.work.inside_outer:
            return False
        if trouble is Trouble.LOST and self.owns_connections:
            # All of them: it may be one that the function uses besides the chunk's own.
            for connection in connections.all(initialized_only=True):
                connection.close()
        elif trouble is Trouble.LOST:
            # The caller's: only what is of no use to anybody any more.
            for connection in self.connections:
                if connection.connection is not None and not connection.is_usable():
                    connection.close()
        return True

    def _result(self, ending: Ending, fault: Fault | None = None) -> ChunkResult:
        cpu = time.thread_time() - self.cpu_before
        waited = sum(unit.transaction.waited for unit in self.current.units)
        seconds = time.monotonic() - self.began - waited
        return ChunkResult(
            number=self.number,
            ending=ending,
            seconds=seconds,
            retries=self.retries,
            faults=dict(self.current.faults),
            skipped=tuple(sorted(self.current.skipped)),
            values=dict(self.current.values),
            values_are_packed=self.work.pack is not None,
            fault=fault,
            repeated=max(0, self.work.calls - len(self.work.positions)),
            figures=self.figures if self.figures.queued else None,
            cpu=min(cpu, seconds),  # of what is waited for a lock, a part is computed, too
            database=self.probe.seconds
            + self.committing_seconds
            + sum(unit.copying for unit in self.current.units),
        )

    # The transaction.

    def _transaction(self) -> None:
        committing = False
        try:
            with (
                self._coalescing(),
                ExitStack() as probing,
                databases.chunk_transaction(self.work.job.using),
            ):
                self._begin_the_clocks()
                self._watch(probing)
                for alias in self.work.own:
                    transaction.on_commit(functools.partial(self._note_commit, alias), using=alias)
                self.current.run()
                self.observer.idle()
                for unit in self.current.units:
                    unit.end()
                probing.close()
                self._record()
                if self.work.job.dry_run:
                    self._roll_back_at_the_end()
                self.observer.prepared(self._result(Ending.COMMITTED))
                if not self.work.job.dry_run:
                    self.observer.committing()
                    committing = True
                self.commit_began = time.monotonic()
            if self.work.job.dry_run:
                self.committing_seconds = time.monotonic() - self.commit_began
            if committing and not self._is_stored():
                rolled_back = TransactionBroken("the transaction was rolled back without an error")
                if self.committed_aliases:
                    raise self._half_stored(rolled_back)
                raise Undone(None, describe(rolled_back, "run"), Trouble.LOST)
        except (Undone, _Ended, Plainly):
            raise
        except KeyboardInterrupt as error:
            if not committing or not self.work.own:
                raise
            self.current.interrupt()
            if not self._is_stored():
                raise _Ended(Ending.UNKNOWN, describe(error, "unknown")) from error
        except Exception as error:
            self._explain(error, committing=committing)

    @contextmanager
    def _coalescing(self) -> Iterator[None]:
        """Queue what the items save, if that is wanted.

        Not inside a `coalesce()` block of the caller's, which knows nothing of items: its queue
        stands still for the time.
        """
        self.current.units = []
        with ExitStack() as stack:
            for connection in self.connections:
                outer = unit_of(connection)
                if outer is not None:
                    stack.enter_context(outer.suspended())
                elif self.work.job.coalesce:
                    unit = Unit(
                        connection, isolates=True, reserved=self.reserved.get(connection.alias)
                    )
                    if unit.has_strategy:
                        self.reserved[connection.alias] = unit.keys
                        stack.enter_context(unit.installed())
                        stack.enter_context(unit.counting(self.figures))
                        self.current.units.append(unit)
            yield

    def _record(self) -> None:
        """Write the chunk into the journal, so that both commit or neither does."""
        permit, note = self.work.job.permit, self.note
        if permit is None or note is None:
            return
        for connection in self.connections:
            faults = sorted(self.current.faults)
            standing = record(
                connection, permit, self.number, note, faults, len(self.current.skipped)
            )
            if standing is Standing.TAKEN_OVER:
                error = TakenOver("another process has taken the run over")
                raise _Ended(Ending.TAKEN_OVER, describe(error, "run"))
            if standing is Standing.ENDED:
                twice = OutcomeUnknown("it was delivered a second time")
                raise _Ended(Ending.DELIVERED_TWICE, describe(twice, "unknown"))

    def _watch(self, probing: ExitStack) -> None:
        """See all statements of this try; check deferred constraints early if it seems needed."""
        self.current.checks = []
        if self.work.job.dry_run:
            probing.enter_context(only_reads(self.work.job.using))
        for connection in self.connections:
            probing.enter_context(self.probe.watch(connection))
            # A COMMIT that fails on one alias is too late if another's has succeeded.
            early = self.work.grouping.checks_early or len(self.work.own) > 1
            if early and deferred.can_check(connection):
                lowest = next(
                    (u.lowest for u in self.current.units if u.connection is connection), None
                )
                check = deferred.check_for(connection, {} if lowest is None else lowest)
                probing.enter_context(connection.execute_wrapper(check.watch))
                self.current.checks.append(check)

    def _explain(self, error: Exception, *, committing: bool) -> None:
        """Raise what an error at BEGIN, SAVEPOINT, loading or COMMIT means."""
        trouble = trouble_of(error)
        if self.committed_aliases:
            raise self._half_stored(error) from error
        if committing and trouble is Trouble.LOST:
            raise _Ended(Ending.UNKNOWN, describe(error, "unknown")) from error
        if trouble is not None:
            fault = describe(error, "commit" if committing else "run")
            raise Undone(None, fault, trouble) from error
        if committing:
            raise _Ended(Ending.REFUSED, describe(error, "commit")) from error
        raise _Ended(Ending.UNAVAILABLE, describe(error, "run")) from error

    def _half_stored(self, error: Exception) -> _Ended:
        """Return what ends a chunk that is stored on some alias: it must not be tried again."""
        fault = describe(error, "unknown")
        missing = "" if self._is_stored() else ", but not on every alias"
        stored = f"stored on {', '.join(self.committed_aliases)}{missing}; then: "
        return _Ended(Ending.UNKNOWN, replace(fault, message=stored + fault.message))

    def _note_commit(self, alias: str) -> None:
        """Be the alias' first on_commit callback: from here on its rows are stored."""
        self.committed_aliases.append(alias)
        if self._is_stored():
            self.committing_seconds = time.monotonic() - self.commit_began
            self.observer.committed()

    def _is_stored(self) -> bool:
        """Tell whether every COMMIT of this chunk's has succeeded."""
        return len(self.committed_aliases) == len(self.work.own)

    def _roll_back_at_the_end(self) -> None:
        """End a dry run; say what COMMIT would have refused, where that can be asked."""
        for connection in self.connections:
            if connection.features.supports_deferrable_unique_constraints:
                try:
                    connection.check_constraints()
                except Exception as error:
                    raise _Ended(Ending.REFUSED, describe(error, "commit")) from error
        for alias in self.work.job.using:
            transaction.set_rollback(True, using=alias)
