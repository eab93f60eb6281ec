"""One try of a chunk's transaction: its items are run, in groups, and what fails is found.

A group is a savepoint's worth of items, at first the whole chunk::

    SAVEPOINT
      before_chunk(items)      if there is one, once for the group
      function(item) …         what it queues is tagged with its item (see `coalescing`)
      what is queued           is written; refused rows are their items' failures
      deferred constraints     are checked, if COMMIT has refused them lately
    RELEASE

Where the group must be undone, the rest of it is run again, in smaller groups from then on (see
Note [Groups] in `grouping`). By what happened it is known who is left out:

- an item raised, and had reached the database: that item;
- several were asked for at once (before_chunk, the load of rows, a deferred constraint): nobody
  knows, and the group is halved until one is left that is to blame;
- an item has changed a row that isn't there: it runs once more, by itself and uncoalesced.

An item that raised before anything of it reached the database costs the others nothing: what it
has queued is dropped.

Nothing is committed here, and nothing tried again: the transaction is `attempt`'s, which is told
by `Undone` and `Plainly` that it has to be undone as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from django.db import IntegrityError, connections, transaction

from carpool import callbacks, databases, deferred
from carpool.coalescing import RowIsGone, Unit
from carpool.errors import Trouble, describe, trouble_of
from carpool.exceptions import TransactionBroken
from carpool.grouping import SMALL_GROUP, Grouping
from carpool.items import Items, NotLoaded
from carpool.observer import Observer, Stop
from carpool.probe import Probe
from carpool.types import GONE, Fault, Job


class Undone(Exception):
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


class Plainly(Exception):
    """Undoes the chunk's transaction, to try it again with nothing queued."""


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


class _BadGroup(Exception):
    """Undoes the group: a row of it violates a deferred constraint (``__cause__``)."""


class _BadHook(Exception):
    """Undoes the group: before_chunk has raised (``__cause__``) for the items at ``positions``."""

    def __init__(self, positions: list[int]) -> None:
        super().__init__(positions)
        self.positions = positions


@dataclass
class Work:
    """A chunk's items, and how they are run: what all its tries share.

    Args:
        job: what to run.
        positions: of the items.
        items: gives them.
        observer: is told of each step.
        grouping: how many items a savepoint covers; learns from this chunk.
        pack: turns what the function returned into what is sent back; what it raises fails the
            item before anything of it is committed.
        interruptible: a KeyboardInterrupt is the user's Ctrl-C, not the function's doing.
    """

    job: Job
    positions: Sequence[int]
    items: Items
    observer: Observer
    grouping: Grouping
    pack: Callable[[Any], Any] | None = None
    interruptible: bool = False

    def __post_init__(self) -> None:
        self.connections = [connections[alias] for alias in self.job.using]
        # Aliases whose COMMIT is this chunk's, and not that of a transaction around the run.
        self.own = [c.alias for c in self.connections if not c.in_atomic_block]
        self.inside_outer = len(self.own) < len(self.connections)
        self.alone = len(self.positions) == 1 and not self.inside_outer  # needs no savepoint
        self.probe = Probe()
        self.blamed: dict[int, Fault] = {}  # for what undid a whole try: they are left out
        self.calls = 0


class Try:
    """Runs a chunk's items in the transaction that is open; knows what became of each.

    ``units`` and ``checks``: what queues the items' rows, and what looks for rows that COMMIT
    would refuse, by connection, where there is such a thing.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self.connections = work.connections
        self.observer = work.observer
        self.grouping = work.grouping
        self.probe = work.probe
        self.items = work.items
        self.blamed = work.blamed
        self.units: list[Unit] = []
        self.checks: list[deferred.DeferredCheck] = []
        self.call = _call_of(work.job)  # what an item is passed to
        self.faults: dict[int, Fault] = dict(work.blamed)
        self.values: dict[int, Any] = {}
        self.skipped: set[int] = set()
        self.to_run_alone: list[int] = []
        self.registered: dict[int, list[Any]] = {}  # of an item: its entries in run_on_commit
        self.interrupted = False

    def interrupt(self) -> None:
        """Take note of a Ctrl-C that comes when COMMIT has begun or is over."""
        self.interrupted = True
        self.observer.interrupted()

    # Its groups.

    def run(self) -> None:
        """Run all items but those that are blamed already.

        Raises:
            Undone: the transaction has to be undone.
            Plainly: it has, and is to be tried again with nothing queued.
            Stop: the observer wants no more of it.
        """
        left = [p for p in self.work.positions if p not in self.blamed]
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
            if self.work.alone:
                raise Undone(bad.position, bad.fault, None) from bad
            if any(map(databases.is_aborted, self.connections)):
                # Not even its savepoint could be undone, so the transaction has to be.
                raise Undone(bad.position, bad.fault, None) from bad
            self._group_failed(group)
            self.faults[bad.position] = bad.fault
            self._run_the_others(group)
        except _ToRunAlone as alone:
            if self.work.alone or any(map(databases.is_aborted, self.connections)):
                raise Plainly from alone
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
            if self.work.alone:
                raise Undone((rest or group)[0], fault, None) from refused
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
        if self.work.alone or any(map(databases.is_aborted, self.connections)):
            # The savepoint can't be undone, so the transaction has to be, and not time after time.
            raise Undone(first, fault, None, others)
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
        if self.work.alone:
            yield
            return
        with ExitStack() as stack:
            for alias in self.work.job.using:
                stack.enter_context(transaction.atomic(using=alias))
            yield

    def _check_deferred(self) -> None:
        try:
            for check in self.checks:
                check.end_group()
        except Exception as error:
            trouble = trouble_of(error)
            if trouble is not None:
                raise Undone(None, describe(error, "run"), trouble) from error
            if not isinstance(error, IntegrityError):
                raise
            raise _BadGroup from error

    # What is called before its items.

    def _items_of(self, group: list[int]) -> Iterable[tuple[int, Any]]:
        """Return the group's items; if there is a before_chunk, call it with them first."""
        before = self.work.job.before_chunk
        if before is None:
            return self.items.load(group)
        positions, items = self._converted(group)
        if items:
            result = self._prepared(before, positions, items)
            function = self.work.job.function
            self.call = lambda item: function(item, result)
        return zip(positions, items, strict=True)

    def _converted(self, group: list[int]) -> tuple[list[int], list[Any]]:
        """Load and convert the items; settle those that are gone, or can't be loaded or converted.

        Each of them counts as being run, so that a conversion that fails, or never ends, is its
        item's doing.
        """
        convert, calls = self.work.job.convert, self.work.calls
        positions: list[int] = []
        items: list[Any] = []
        self.call = items.append if convert is None else lambda item: items.append(convert(item))
        for position, item in self.items.load(group):
            self._run_item(position, item)
            self.observer.idle()
            self.values.pop(position, None)
            if len(items) > len(positions):
                positions.append(position)
        self.work.calls = calls
        return positions, items

    def _prepared(
        self, before: Callable[[list[Any]], Any], positions: list[int], items: list[Any]
    ) -> Any:
        """Return what before_chunk makes of the items. What it saves is sent at once."""
        marks = [len(c.run_on_commit) for c in self.connections]
        result, error = self._result_of(before, items)
        try:
            self._refuse_if_it_failed(positions, error)
        finally:
            error = None  # its traceback holds this frame: see `run`, in settled()
        callbacks.tag(self, positions, marks)
        return result

    def _result_of(
        self, before: Callable[[list[Any]], Any], items: list[Any]
    ) -> tuple[Any, BaseException | None]:
        """Call before_chunk with nothing queued; return its result, or what it raised."""
        self.probe.undone = None
        with ExitStack() as stack:
            for unit in self.units:
                stack.enter_context(unit.suspended())
            try:
                return before([*items]), None
            except BaseException as raised:
                if isinstance(raised, KeyboardInterrupt) and self.work.interruptible:
                    raise
                return None, raised

    def _refuse_if_it_failed(self, positions: list[int], error: BaseException | None) -> None:
        met = self.probe.undone or error
        trouble = trouble_of(met) if met is not None else None
        if met is not None and trouble is not None:
            if not (self.work.inside_outer and trouble is Trouble.RETRY):
                raise Undone(positions[0], describe(met), trouble, positions[1:]) from met
        elif error is None and any(map(databases.is_aborted, self.connections)):
            error = TransactionBroken(
                "it returned, but its transaction can't be committed any more: it caught a "
                "database error outside of an atomic() block of its own, or closed the "
                "connection. Put `with transaction.atomic():` around the statement whose error "
                "it catches."
            )
        if error is not None:
            raise _BadHook(positions) from error

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
            raise Undone(group[0], describe(error), trouble) from error
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

    def forget_errors(self) -> None:
        """Let go of the errors met, whose tracebacks lead here."""
        self.probe.undone = None
        for unit in self.units:
            unit.broken = None

    # Its items.

    def _run_item(self, position: int, item: Any) -> None:
        if item is GONE:
            self.skipped.add(position)
            return
        if isinstance(item, Fault):
            self.faults[position] = item
            return
        marks = [len(c.run_on_commit) for c in self.connections]
        error = self._error_of(position, item)
        try:
            self._settle(position, error, marks)
        finally:
            error = None  # its traceback holds this frame: see `run`, in settled()
            for unit in self.units:
                unit.tag = None  # what is written next is not this item's doing

    def _error_of(self, position: int, item: Any) -> BaseException | None:
        """Call the function; return what it raised."""
        self.probe.statements = 0
        self.probe.undone = None
        for unit in self.units:
            unit.tag = position
        self.work.calls += 1
        self.observer.item(position)
        try:
            value = self.call(item)
            if self.work.job.keep_values:
                self.values[position] = value if self.work.pack is None else self.work.pack(value)
        except Stop:
            raise
        except BaseException as raised:  # sys.exit() in a function fails its item, not the worker
            if isinstance(raised, KeyboardInterrupt) and self.work.interruptible:
                raise
            return raised
        return None

    def _settle(self, position: int, error: BaseException | None, marks: list[int]) -> None:
        """Undo what a failed item has left; raise if that takes more than dropping its rows.

        ``marks``: how many on_commit callbacks there were before it, by connection.
        """
        probe = self.probe
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
            if self.work.inside_outer and trouble is Trouble.RETRY:
                return error  # only the caller, who began the outer transaction, can repeat it
            raise Undone(position, describe(met), trouble) from met
        if any(c.closed_in_transaction for c in self.connections):
            closed = TransactionBroken(
                "the function closed the database connection inside the chunk's transaction. "
                "Leave it open: carpool closes its workers' connections itself."
            )
            raise Undone(position, describe(closed), None)
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
