"""One chunk in one transaction, and the bad items found.

A chunk's life::

    BEGIN (on SQLite: IMMEDIATE)
      SAVEPOINT            a group of items, at first the whole chunk
        before_chunk(items)  if there is one, once for the group
        function(item) …   one raises: ROLLBACK TO, and the others of the group again, in
      RELEASE              smaller groups from now on (see Note [Groups])
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from django.db import IntegrityError, connections, transaction

from carpool import callbacks, databases, deferred
from carpool.coalescing import Figures, RowIsGone, Unit, unit_of
from carpool.errors import Trouble, describe, trouble_of
from carpool.exceptions import OutcomeUnknown, TakenOver, TransactionBroken
from carpool.grouping import SMALL_GROUP, Grouping
from carpool.items import Items, NotLoaded
from carpool.journal.recording import Note, Standing, record
from carpool.observer import Observer, Stop
from carpool.probe import Probe, only_reads
from carpool.types import GONE, ChunkResult, Ending, Fault, Job

BACK_OFF = 0.05
"""Seconds before the first retry, doubled for each further one, times 0.5 to 1.5 by chance (so
that two that collided don't collide again). A deadlock's victim need not wait long: the winner is
through within a chunk's time."""

LONGEST_BACK_OFF = 3.0
"""Seconds at most between tries: a server that restarts is back in a few of these."""


class _BadItem(Exception):
    """Undoes the group: the item at ``position`` is to blame."""

    def __init__(self, position: int, fault: Fault) -> None:
        super().__init__(position, fault)
        self.position = position
        self.fault = fault


class _ToRunAlone(Exception):
    """Undoes the group: the item at ``position`` has changed a row that isn't there."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class _Plainly(Exception):
    """Undoes the chunk's transaction, to try it again with nothing queued."""


class _BadGroup(Exception):
    """Undoes the group: a row of it violates a deferred constraint (``__cause__``)."""


class _BadHook(Exception):
    """Undoes the group: before_chunk has raised (``__cause__``) for the items at ``positions``."""

    def __init__(self, positions: list[int]) -> None:
        super().__init__(positions)
        self.positions = positions


class _Undone(Exception):
    """Undoes the chunk's transaction.

    ``trouble`` None: the item at ``position`` is to blame; else it only met the trouble first.
    ``others`` share its fate: what failed is before_chunk, which was called for all of them.
    """

    def __init__(
        self,
        position: int | None,
        fault: Fault,
        trouble: Trouble | None,
        others: Sequence[int] = (),
    ) -> None:
        super().__init__(position, fault, trouble, others)
        self.position = position
        self.fault = fault
        self.trouble = trouble
        self.others = others


class _Ended(Exception):
    """Trying again won't help, or must not be done."""

    def __init__(self, ending: Ending, fault: Fault) -> None:
        super().__init__(ending, fault)
        self.ending = ending
        self.fault = fault


class Attempt:
    """Tries a chunk's transaction until it is committed, refused or given up.

    Args:
        job: what to run.
        number: the chunk's.
        positions: of the items.
        items: gives them.
        observer: is told of each step.
        grouping: how many items a savepoint covers; learns from this chunk.
        pack: turns what the function returned into what is sent back; what it raises fails the
            item before anything of it is committed.
        reserved: keys, by alias, that the chunks before have left; and these for the next.
        owns_connections: this thread exists for the run: a lost connection may be closed.
        interruptible: a KeyboardInterrupt is the user's Ctrl-C, not the function's doing.
        note: what to write into the journal with the chunk, if the job has one.
    """

    def __init__(
        self,
        job: Job,
        number: int,
        positions: Sequence[int],
        items: Items,
        *,
        observer: Observer,
        grouping: Grouping,
        pack: Callable[[Any], Any] | None = None,
        reserved: dict[str, Any] | None = None,
        owns_connections: bool = True,
        interruptible: bool = False,
        note: Note | None = None,
    ) -> None:
        self.job = job
        self.call = _call_of(job)  # what an item is passed to
        self.number = number
        self.positions = positions
        self.items = items
        self.observer = observer
        self.grouping = grouping
        self.pack = pack
        self.reserved = {} if reserved is None else reserved
        self.owns_connections = owns_connections
        self.interruptible = interruptible
        self.note = note
        self.connections = [connections[alias] for alias in job.using]
        # Aliases whose COMMIT is this chunk's, and not that of a transaction around the run.
        self.own = [c.alias for c in self.connections if not c.in_atomic_block]
        self.inside_outer = len(self.own) < len(self.connections)
        self.alone = len(positions) == 1 and not self.inside_outer  # needs no savepoint
        self.probe = Probe()
        self.checks: list[deferred.DeferredCheck] = []
        self.blamed: dict[int, Fault] = {}  # holds through further tries
        self.retries = 0
        self.calls = 0
        self.figures = Figures()
        self.units: list[Unit] = []
        self._forget()

    def _forget(self) -> None:
        """Drop what the try that was just undone had found."""
        self.faults: dict[int, Fault] = dict(self.blamed)
        self.values: dict[int, Any] = {}
        self.skipped: set[int] = set()
        self.to_run_alone: list[int] = []
        self.registered: dict[int, list[Any]] = {}  # of an item: its entries in run_on_commit
        self.committed_aliases: list[str] = []
        self.interrupted = False
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
            self._forget()
            try:
                self._transaction()
                self.grouping.chunk_passed()
                return self._result(Ending.COMMITTED)
            except Stop:
                return self._result(Ending.STOPPED)
            except _Plainly:
                self.job = replace(self.job, coalesce=False)
            except _Ended as ended:
                if ended.ending is Ending.REFUSED and self.grouping.commit_refused(
                    can_check=all(map(deferred.can_check, self.connections))
                ):
                    continue
                return self._result(ended.ending, ended.fault)
            except _Undone as undone:
                self.observer.idle()
                if undone.trouble is None:
                    self._blame(undone)
                elif tries < self.job.retries and self._can_retry(undone.trouble):
                    self.retries += 1
                    pause = min(LONGEST_BACK_OFF, BACK_OFF * 2**tries)
                    time.sleep(pause * random.uniform(0.5, 1.5))
                    tries += 1
                elif undone.position is None or self.inside_outer:
                    at_commit = undone.fault.stage == "commit"
                    ending = Ending.REFUSED if at_commit else Ending.UNAVAILABLE
                    return self._result(ending, undone.fault)
                else:
                    self._blame(undone)
                    tries = 0

    def _blame(self, undone: _Undone) -> None:
        """Fail, through all further tries, the items for which the transaction was undone."""
        assert undone.position is not None
        self.blamed.update(dict.fromkeys((undone.position, *undone.others), undone.fault))

    def _can_retry(self, trouble: Trouble) -> bool:
        """Clear the way for another try, unless an outer transaction isn't ours to repeat."""
        if self.inside_outer:
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
        waited = sum(unit.transaction.waited for unit in self.units)
        seconds = time.monotonic() - self.began - waited
        return ChunkResult(
            number=self.number,
            ending=ending,
            seconds=seconds,
            retries=self.retries,
            faults=dict(self.faults),
            skipped=tuple(sorted(self.skipped)),
            values=dict(self.values),
            values_are_packed=self.pack is not None,
            fault=fault,
            repeated=max(0, self.calls - len(self.positions)),
            figures=self.figures if self.figures.queued else None,
            cpu=min(cpu, seconds),  # of what is waited for a lock, a part is computed, too
            database=self.probe.seconds
            + self.committing_seconds
            + sum(unit.copying for unit in self.units),
        )

    # The transaction.

    def _transaction(self) -> None:
        committing = False
        try:
            with (
                self._coalescing(),
                ExitStack() as probing,
                databases.chunk_transaction(self.job.using),
            ):
                self._begin_the_clocks()
                self._watch(probing)
                for alias in self.own:
                    transaction.on_commit(functools.partial(self._note_commit, alias), using=alias)
                self._groups()
                self.observer.idle()
                for unit in self.units:
                    unit.end()
                probing.close()
                self._record()
                if self.job.dry_run:
                    self._roll_back_at_the_end()
                self.observer.prepared(self._result(Ending.COMMITTED))
                if not self.job.dry_run:
                    self.observer.committing()
                    committing = True
                self.commit_began = time.monotonic()
            if self.job.dry_run:
                self.committing_seconds = time.monotonic() - self.commit_began
            if committing and not self._is_stored():
                rolled_back = TransactionBroken("the transaction was rolled back without an error")
                if self.committed_aliases:
                    raise self._half_stored(rolled_back)
                raise _Undone(None, describe(rolled_back, "run"), Trouble.LOST)
        except (_Undone, _Ended, _Plainly):
            raise
        except KeyboardInterrupt as error:
            if not committing or not self.own:
                raise
            self.interrupt()
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
        self.units = []
        with ExitStack() as stack:
            for connection in self.connections:
                outer = unit_of(connection)
                if outer is not None:
                    stack.enter_context(outer.suspended())
                elif self.job.coalesce:
                    unit = Unit(
                        connection, isolates=True, reserved=self.reserved.get(connection.alias)
                    )
                    if unit.has_strategy:
                        self.reserved[connection.alias] = unit.keys
                        stack.enter_context(unit.installed())
                        stack.enter_context(unit.counting(self.figures))
                        self.units.append(unit)
            yield

    def _record(self) -> None:
        """Write the chunk into the journal, so that both commit or neither does."""
        permit, note = self.job.permit, self.note
        if permit is None or note is None:
            return
        for connection in self.connections:
            faults = sorted(self.faults)
            standing = record(connection, permit, self.number, note, faults, len(self.skipped))
            if standing is Standing.TAKEN_OVER:
                error = TakenOver("another process has taken the run over")
                raise _Ended(Ending.TAKEN_OVER, describe(error, "run"))
            if standing is Standing.ENDED:
                twice = OutcomeUnknown("it was delivered a second time")
                raise _Ended(Ending.DELIVERED_TWICE, describe(twice, "unknown"))

    def interrupt(self) -> None:
        """Take note of a Ctrl-C that comes when COMMIT has begun or is over."""
        self.interrupted = True
        self.observer.interrupted()

    def _watch(self, probing: ExitStack) -> None:
        """See all statements of this try; check deferred constraints early if it seems needed."""
        self.checks = []
        if self.job.dry_run:
            probing.enter_context(only_reads(self.job.using))
        for connection in self.connections:
            probing.enter_context(self.probe.watch(connection))
            # A COMMIT that fails on one alias is too late if another's has succeeded.
            early = self.grouping.checks_early or len(self.own) > 1
            if early and deferred.can_check(connection):
                lowest = next((u.lowest for u in self.units if u.connection is connection), None)
                check = deferred.check_for(connection, {} if lowest is None else lowest)
                probing.enter_context(connection.execute_wrapper(check.watch))
                self.checks.append(check)

    def _explain(self, error: Exception, *, committing: bool) -> None:
        """Raise what an error at BEGIN, SAVEPOINT, loading or COMMIT means."""
        trouble = trouble_of(error)
        if self.committed_aliases:
            raise self._half_stored(error) from error
        if committing and trouble is Trouble.LOST:
            raise _Ended(Ending.UNKNOWN, describe(error, "unknown")) from error
        if trouble is not None:
            fault = describe(error, "commit" if committing else "run")
            raise _Undone(None, fault, trouble) from error
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
        return len(self.committed_aliases) == len(self.own)

    def _roll_back_at_the_end(self) -> None:
        """End a dry run; say what COMMIT would have refused, where that can be asked."""
        for connection in self.connections:
            if connection.features.supports_deferrable_unique_constraints:
                try:
                    connection.check_constraints()
                except Exception as error:
                    raise _Ended(Ending.REFUSED, describe(error, "commit")) from error
        for alias in self.job.using:
            transaction.set_rollback(True, using=alias)

    # Its groups.

    def _groups(self) -> None:
        left = [p for p in self.positions if p not in self.blamed]
        while left:
            size = self.grouping.size(len(left))
            group, left = left[:size], left[size:]
            self._run_group(group)
        self._run_victims()
        self._run_alone()

    def _run_victims(self) -> None:
        """Run again what failed beside rows that turned out to be refused.

        It may have failed because of them, by a unique key they had: a row that would have been
        refused by itself is in nobody's way.
        """
        if any(p not in self.blamed and f.stage == "commit" for p, f in self.faults.items()):
            victims = [
                p
                for p, f in sorted(self.faults.items())
                if p not in self.blamed and f.stage == "function"
            ]
            for position in victims:
                del self.faults[position]
            self._run_small_groups(victims)

    def _run_alone(self) -> None:
        """Run again, by itself and with nothing queued, what has changed a row that isn't there.

        ``save()`` inserts it then, and says so in ``post_save``.
        """
        while self.to_run_alone:
            position = self.to_run_alone.pop(0)
            with ExitStack() as stack:
                for unit in self.units:
                    stack.enter_context(unit.suspended())
                self._run_group([position])

    def _run_group(self, group: list[int]) -> None:
        """Run a group under a savepoint; where an item is bad, the others again without it."""
        try:
            with self._savepoints():
                for check in self.checks:
                    check.begin_group()
                for unit in self.units:
                    unit.begin_group()
                for position, item in self._items_of(group):
                    self._run_item(position, item)
                    self.observer.idle()  # the next may have to be loaded first
                    self._blame_refused()
                self._write_the_rest(group)
                if self.checks:
                    self._check_deferred()
        except _BadItem as bad:
            if self.alone:
                raise _Undone(bad.position, bad.fault, None) from bad
            if any(map(databases.is_aborted, self.connections)):
                # Not even its savepoint could be undone, so the transaction has to be.
                raise _Undone(bad.position, bad.fault, None) from bad
            self._group_failed(group)
            self.faults[bad.position] = bad.fault
            self._run_the_others(group)
        except _ToRunAlone as alone:
            if self.alone or any(map(databases.is_aborted, self.connections)):
                raise _Plainly from alone
            self._group_failed(group)
            self.to_run_alone.append(alone.position)
            self._run_the_others(group)
        except _BadHook as bad:
            assert bad.__cause__ is not None
            fault = describe(bad.__cause__)
            fault = replace(fault, message=f"before_chunk: {fault.message}")
            self._one_of_them_failed(group, bad.positions, fault)
        except NotLoaded as bad:
            assert bad.__cause__ is not None
            self._one_of_them_failed(group, bad.positions, describe(bad.__cause__, "item"))
        except _BadGroup as refused:
            assert refused.__cause__ is not None
            fault = describe(refused.__cause__, "commit")
            rest = self._rest_of(group)
            if self.alone:
                raise _Undone((rest or group)[0], fault, None) from refused
            self._group_failed(group)
            if len(rest) == 1:
                self.faults[rest[0]] = fault
                return
            self._run_halves(rest)
        else:
            self.grouping.group_passed(len(group))

    def _one_of_them_failed(self, group: list[int], asked: Sequence[int], fault: Fault) -> None:
        """Halve the group until what was asked for several of its items does well, or for one."""
        first, *others = asked
        if self.alone or any(map(databases.is_aborted, self.connections)):
            # The savepoint can't be undone, so the transaction has to be, and not time after time.
            raise _Undone(first, fault, None, others)
        self._group_failed(group)
        if not others:
            self.faults[first] = fault
            self._run_the_others(group)
            return
        self._run_halves(self._rest_of(group))

    def _rest_of(self, group: list[int]) -> list[int]:
        """Return the items of a group that was undone that are neither settled nor set aside."""
        return [p for p in group if p not in self.faults and p not in self.to_run_alone]

    def _run_halves(self, positions: list[int]) -> None:
        middle = len(positions) // 2
        for half in (positions[:middle], positions[middle:]):
            if half:
                self._run_group(half)

    def _run_the_others(self, group: list[int]) -> None:
        self._run_small_groups(self._rest_of(group))

    def _run_small_groups(self, positions: list[int]) -> None:
        for start in range(0, len(positions), SMALL_GROUP):
            self._run_group(positions[start : start + SMALL_GROUP])

    def _group_failed(self, group: list[int]) -> None:
        self.observer.idle()
        self.skipped.difference_update(group)  # a row may be there at the next look
        self.grouping.group_failed()

    @contextmanager
    def _savepoints(self) -> Iterator[None]:
        """Open a savepoint on each alias, unless the transaction will do."""
        if self.alone:
            yield
            return
        with ExitStack() as stack:
            for alias in self.job.using:
                stack.enter_context(transaction.atomic(using=alias))
            yield

    def _check_deferred(self) -> None:
        try:
            for check in self.checks:
                check.end_group()
        except Exception as error:
            trouble = trouble_of(error)
            if trouble is not None:
                raise _Undone(None, describe(error, "run"), trouble) from error
            if not isinstance(error, IntegrityError):
                raise
            raise _BadGroup from error

    # What is called before its items.

    def _items_of(self, group: list[int]) -> Iterable[tuple[int, Any]]:
        """Return the group's items; if there is a before_chunk, call it with them first."""
        before = self.job.before_chunk
        if before is None:
            return self.items.load(group)
        positions, items = self._converted(group)
        if items:
            result = self._prepared(before, positions, items)
            function = self.job.function
            self.call = lambda item: function(item, result)
        return zip(positions, items, strict=True)

    def _converted(self, group: list[int]) -> tuple[list[int], list[Any]]:
        """Load and convert the items; settle those that are gone, or can't be loaded or converted.

        Each of them counts as being run, so that a conversion that fails, or never ends, is its
        item's doing.
        """
        convert, calls = self.job.convert, self.calls
        positions: list[int] = []
        items: list[Any] = []
        self.call = items.append if convert is None else lambda item: items.append(convert(item))
        for position, item in self.items.load(group):
            self._run_item(position, item)
            self.observer.idle()
            self.values.pop(position, None)
            if len(items) > len(positions):
                positions.append(position)
        self.calls = calls
        return positions, items

    def _prepared(
        self, before: Callable[[list[Any]], Any], positions: list[int], items: list[Any]
    ) -> Any:
        """Return what before_chunk makes of the items. What it saves is sent at once."""
        probe = self.probe
        probe.undone = None
        marks = [len(c.run_on_commit) for c in self.connections]
        error: BaseException | None = None
        result = None
        with ExitStack() as stack:
            for unit in self.units:
                stack.enter_context(unit.suspended())
            try:
                result = before([*items])
            except BaseException as raised:
                if isinstance(raised, KeyboardInterrupt) and self.interruptible:
                    raise
                error = raised
        met = probe.undone or error
        trouble = trouble_of(met) if met is not None else None
        if met is not None and trouble is not None:
            if not (self.inside_outer and trouble is Trouble.RETRY):
                raise _Undone(positions[0], describe(met), trouble, positions[1:]) from met
        elif error is None and any(map(databases.is_aborted, self.connections)):
            error = TransactionBroken(
                "it returned, but its transaction can't be committed any more: it caught a "
                "database error outside of an atomic() block of its own, or closed the "
                "connection. Put `with transaction.atomic():` around the statement whose error "
                "it catches."
            )
        if error is not None:
            raise _BadHook(positions) from error
        callbacks.tag(self, positions, marks)
        return result

    # What its items have queued.

    def _write_the_rest(self, group: list[int]) -> None:
        """Write what is queued; find the items whose rows are refused."""
        try:
            for unit in self.units:
                unit.tag = None
                unit.flush(None)
        except Exception as error:
            trouble = trouble_of(error)
            if trouble is None:
                raise
            raise _Undone(group[0], describe(error), trouble) from error
        self._blame_refused()

    def _blame_refused(self) -> None:
        """Fail the items whose rows were refused at a flush; the others' are written."""
        for unit in self.units:
            while unit.refused:
                position, error = unit.refused.popitem()
                assert isinstance(position, int)
                is_gone = isinstance(error, RowIsGone)
                # All of its calls are ours and Django's: whose row it is, they don't tell.
                fault = describe(error, frames=1)
                if self._has_written(position):  # earlier rows of it are in the database
                    bad = _ToRunAlone(position) if is_gone else _BadItem(position, fault)
                    raise bad from error
                for other in self.units:
                    other.drop(position)
                callbacks.drop(self, position)  # no savepoint is undone, and they with it
                self.values.pop(position, None)
                if is_gone:
                    self.to_run_alone.append(position)
                else:
                    self.faults[position] = fault

    def _has_written(self, position: int) -> bool:
        return any(position in unit.written for unit in self.units)

    def _is_undone_by_dropping(self, position: int) -> bool:
        """Drop what a failed item has queued, and tell whether that undoes all of it."""
        if not self.units:
            return not self.probe.statements
        if self._has_written(position) or any(
            databases.is_aborted_by_server(c) or c.closed_in_transaction for c in self.connections
        ):
            return False
        for unit in self.units:
            unit.drop(position)
        for connection in self.connections:
            # The atomic() around a failed save() has marked it; but nothing was sent.
            connection.needs_rollback = False
        return True

    # Its items.

    def _run_item(self, position: int, item: Any) -> None:
        if item is GONE:
            self.skipped.add(position)
            return
        if isinstance(item, Fault):
            self.faults[position] = item
            return
        probe = self.probe
        probe.statements = 0
        probe.undone = None
        marks = [len(c.run_on_commit) for c in self.connections]
        for unit in self.units:
            unit.tag = position
        self.calls += 1
        error: BaseException | None = None
        self.observer.item(position)
        try:
            value = self.call(item)
            if self.job.keep_values:
                self.values[position] = value if self.pack is None else self.pack(value)
        except Stop:
            raise
        except BaseException as raised:  # sys.exit() in a function fails its item, not the worker
            if isinstance(raised, KeyboardInterrupt) and self.interruptible:
                raise
            error = raised
        for connection in self.connections:
            if connection.needs_rollback:  # save() raised before its first statement
                probe.statements += 1
        for unit in self.units:
            if isinstance(unit.broken, RowIsGone):  # the function may have caught it
                error = unit.broken
        if isinstance(error, RowIsGone):
            raise _ToRunAlone(position) from error
        if probe.statements or (error is not None and trouble_of(error) is not None):
            error = self._look_at_the_transaction(position, error)
        if error is None:
            if marks != [len(c.run_on_commit) for c in self.connections]:
                callbacks.tag(self, [position], marks)
            return
        if not self._is_undone_by_dropping(position):
            raise _BadItem(position, describe(error)) from error
        # Nothing of it has reached the database: there is nothing to undo but its callbacks.
        for connection, mark in zip(self.connections, marks, strict=True):
            del connection.run_on_commit[mark:]
        self.faults[position] = describe(error)

    def _look_at_the_transaction(
        self, position: int, error: BaseException | None
    ) -> BaseException | None:
        """Return the error of an item that has sent statements; raise if the chunk is undone."""
        met = self.probe.undone or error
        trouble = trouble_of(met) if met is not None else None
        if met is not None and trouble is not None:
            if self.inside_outer and trouble is Trouble.RETRY:
                return error  # only the caller, who began the outer transaction, can repeat it
            raise _Undone(position, describe(met), trouble) from met
        if any(c.closed_in_transaction for c in self.connections):
            closed = TransactionBroken(
                "the function closed the database connection inside the chunk's transaction. "
                "Leave it open: carpool closes its workers' connections itself."
            )
            raise _Undone(position, describe(closed), None)
        broken = any(unit.broken is not None for unit in self.units)
        if error is None and (broken or any(map(databases.is_aborted, self.connections))):
            return TransactionBroken(
                "the function returned, but its transaction can't be committed any more: it "
                "caught a database error (or called set_rollback) outside of an atomic() block "
                "of its own. Put `with transaction.atomic():` around the statement whose error "
                "it catches."
            )
        return error


def _call_of(job: Job) -> Callable[[Any], Any]:
    """Return what an item is passed to: the function itself, if its items aren't converted."""
    function, convert = job.function, job.convert
    return function if convert is None else lambda item: function(convert(item))
