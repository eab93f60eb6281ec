"""`run` and `stream`: a window over chunks, and what becomes of each item.

::

    source ──Reader──▶ chunk ──▶ executor ──events──▶ Settling: every item's fate, once
                         ▲                               │
                         └──── parts to run again ◀──────┘

A chunk is read only when the executor wants one, and whatever finishes first makes room for the
next. Nothing below knows that there is more than one worker; here is where a lost worker, a chunk
refused at COMMIT, a failing source, Ctrl-C and the limits on failures are dealt with.
"""

from __future__ import annotations

import functools
import itertools
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Literal

from django.db import Error

from carpool import databases
from carpool.calling import calls_of
from carpool.coalescing import kept
from carpool.errors import describe
from carpool.exceptions import (
    CarpoolError,
    ConfigurationError,
    Interrupted,
    ItemsFailed,
    RunCancelled,
    RunFailed,
    TakenOver,
    TooManyFailures,
)
from carpool.executors.base import Executor
from carpool.executors.choice import check_limits, executor_for
from carpool.executors.cpus import usable_cpus
from carpool.files.files import Files
from carpool.hints import Seen, hint_of
from carpool.interrupts import Interrupts
from carpool.journal.journal import Journal, refuse_keys
from carpool.journal.resuming import Resumption
from carpool.journal.states import State
from carpool.options import ExecutorOption, Options, StartMethod, check_before_chunk
from carpool.pacing import Pacer
from carpool.progress import Snapshot, progress_for
from carpool.reading import Reader
from carpool.rejects import Rejects
from carpool.report import Report
from carpool.requests import Watch
from carpool.savers import ModelSaver
from carpool.settling import Settled, Settling
from carpool.sources import source_of
from carpool.types import Job, Outcome

PAUSED = 0.1
"""Seconds between two looks whether a paused run may go on."""

_RECORDED = ("executor", "workers", "chunk_size", "retries", "timeout", "coalesce", "lock")


def run(
    function: Callable[..., Any],
    items: Iterable[Any],
    *,
    executor: ExecutorOption = "auto",
    workers: int | None = None,
    start_method: StartMethod | None = None,
    setup: Callable[[], Any] | None = None,
    using: str | Iterable[str] = "default",
    chunk_size: int | None = None,
    retries: int = 5,
    timeout: float | None = None,
    on_error: Literal["collect", "raise"] = "collect",
    max_failures: int | None = None,
    rejects: str | os.PathLike[str] | None = None,
    progress: bool | Callable[[Snapshot], Any] | None = None,
    dry_run: bool = False,
    coalesce: bool = True,
    lock: bool = False,
    before_chunk: Callable[[list[Any]], Any] | None = None,
    journal: str | None = None,
    retry_failed: bool = False,
    take_over: bool = False,
    ignore_changed_source: bool = False,
) -> Report:
    """Call ``function(item)`` once for each item, in a pool of workers, and report.

    Each chunk of items is one transaction. An item that fails is rolled back alone; the others of
    its chunk commit. ``save()``, signals, many-to-many and inheritance work as in a loop, since it
    *is* a loop, in each worker. ``on_commit`` callbacks run when the chunk has committed.

    A function may be called again for an item whose rows were rolled back with its chunk: when a
    neighbour failed, and after a deadlock. Its rows count once; what else it does happens again.

    Args:
        function: called with one item. Anything callable that pickles or that cloudpickle can
            send: functions of a script or a shell, lambdas, closures. If its first parameter is
            annotated with a dataclass, an attrs, msgspec or pydantic class or a Django form, items
            are turned into that first. Or a model: each item, a row, is saved as one of it.
        items: an iterable, read once and lazily; or a QuerySet, which is cut by primary key: each
            worker loads its own chunk and calls ``function(instance)``.
        executor: ``"inline"`` (the caller itself), ``"threads"``, ``"processes"``, any
            ``concurrent.futures.Executor``, or a cluster: a ``distributed.Client``, ``"celery"``
            (the workers of the project), or what `carpool.executors.dask` and
            `carpool.executors.celery` return. ``"auto"``: begin in the caller, and hand
            over to processes if it takes long; inside ``atomic()``, stay inline.
        workers: how many; default the processors that this process may use.
        start_method: of processes; default forkserver, with Django preloaded.
        setup: called once in each worker before its first item.
        using: the alias, or several, that a chunk's transaction covers. Several commit one after
            the other, which is not atomic.
        chunk_size: items a transaction; None: as many as take about a third of a second; 1: each
            item has its own, and is never run again for another's fault.
        retries: how often a chunk is tried again after a deadlock, serialization failure, lock
            timeout, SQLite's "database is locked" or a lost connection.
        timeout: seconds that an item may take. Past it its worker is ended, the item fails with
            ItemTimeout, the others go on. Processes only.
        on_error: ``"raise"``: read no more after the first failure, and raise when the chunks in
            flight have ended.
        max_failures: likewise when more than so many have failed.
        rejects: path of a new file that gets each failed item as a line of JSON.
        progress: None: a bar if stderr is a terminal; True, False; or a callable given a
            `Snapshot` after each chunk.
        dry_run: run everything and roll every chunk back. Receivers fire; on_commit doesn't. What
            writes to a database that is not in ``using`` fails, since it would not be undone.
        coalesce: queue the rows that a chunk's items save, and write them together: see
            `carpool.coalesce`. False: every statement is sent at its place.
        lock: of a QuerySet only: lock each row from when its chunk loads it until the chunk's
            COMMIT (``SELECT … FOR UPDATE``, in key order), so that what others write meanwhile
            waits, and ``save()`` doesn't undo it. Rows of the model and its parents, that is, not
            related objects. A ``select_for_update(…)`` of the queryset's own is kept.
        before_chunk: called with a chunk's items, its result passed to the function as second
            argument: the place for one query instead of a thousand. It runs inside the chunk's
            transaction, anew for each savepoint group and each try, so that what it has read is
            never older than that. Where it raises, the items are halved until those are found for
            which it does; they fail by its error. A function with an attribute of this name brings
            its own.
        journal: the run's name. What has committed is recorded in the same transaction
            (``carpool.journal`` in INSTALLED_APPS), so that a call with the same name, after
            whatever ended the last one, runs what is left: each item exactly once.
        retry_failed: with a journal: run those again that failed in an earlier call.
        take_over: with a journal: don't wait until a process that is dead, and has the run, has not
            been heard of for 15 seconds. Should it live, it can commit nothing from then on.
        ignore_changed_source: with a journal: go by positions alone, even where the items are not
            what they were.

    Returns:
        A `Report`. Failed items are in it, not raised, unless you ask for that.

    Raises:
        ConfigurationError: something can't work; nothing was run.
        ItemsFailed: with ``on_error="raise"``. TooManyFailures: more than ``max_failures``.
        RunFailed: the run can't go on.
        Interrupted: Ctrl-C; the report has been printed.
        RunIsTaken, TakenOver, SourceChanged, RunCancelled: with a journal.
        Whatever ``items`` raised, after everything read before it is done.
        All of them have the report as ``.report``.
    """
    options = Options(
        executor=executor,
        workers=workers,
        start_method=start_method,
        setup=setup,
        using=using,
        chunk_size=chunk_size,
        retries=retries,
        timeout=timeout,
        on_error=on_error,
        max_failures=max_failures,
        rejects=rejects,
        progress=progress,
        dry_run=dry_run,
        coalesce=coalesce,
        lock=lock,
        before_chunk=before_chunk,
        journal=journal,
        retry_failed=retry_failed,
        take_over=take_over,
        ignore_changed_source=ignore_changed_source,
    )
    this = _Run(function, items, options, keep_values=False)
    try:
        for _ in this.settled():
            pass
    finally:
        this.shut()
    return this.report()


def stream(
    function: Callable[..., Any],
    items: Iterable[Any],
    *,
    ordered: bool = True,
    executor: ExecutorOption = "auto",
    workers: int | None = None,
    start_method: StartMethod | None = None,
    setup: Callable[[], Any] | None = None,
    using: str | Iterable[str] = "default",
    chunk_size: int | None = None,
    retries: int = 5,
    timeout: float | None = None,
    on_error: Literal["collect", "raise"] = "collect",
    max_failures: int | None = None,
    rejects: str | os.PathLike[str] | None = None,
    progress: bool | Callable[[Snapshot], Any] | None = None,
    dry_run: bool = False,
    coalesce: bool = True,
    lock: bool = False,
    before_chunk: Callable[[list[Any]], Any] | None = None,
) -> Iterator[Outcome]:
    """Do what `run` does and yield an `Outcome` for each item, with what the function returned.

    Outcomes come after their chunk's COMMIT. The run begins at the first ``next()``, and waits
    when its consumer does. Leaving the loop early ends it: chunks in flight finish, no more are
    read.

    Args:
        ordered: in input order; False: as they come. In order, at most some thousands of outcomes
            wait for a slow one before them.

    The other arguments and the errors are `run`'s; bad ones are refused by this call, before the
    first ``next()``. What a function returns must pickle, except inline and in threads.
    """
    options = Options(
        executor=executor,
        workers=workers,
        start_method=start_method,
        setup=setup,
        using=using,
        chunk_size=chunk_size,
        retries=retries,
        timeout=timeout,
        on_error=on_error,
        max_failures=max_failures,
        rejects=rejects,
        progress=progress,
        dry_run=dry_run,
        coalesce=coalesce,
        lock=lock,
        before_chunk=before_chunk,
    )
    this = _Run(function, items, options, keep_values=True)
    return _in_order(this) if ordered else _as_they_come(this)


def _as_they_come(this: _Run) -> Iterator[Outcome]:
    for settled in this.settled():
        yield from settled.outcomes()


MOST_WAITING = 10_000
"""Outcomes held back, in ordered streams, for one before them that is not there yet. Reading
pauses beyond this, so that a slow item costs idle workers rather than memory."""


def _in_order(this: _Run) -> Iterator[Outcome]:
    waiting: dict[int, Outcome | None] = {}  # None: skipped, there is nothing to yield
    index = 0
    for settled in this.settled(pause=lambda: len(waiting) >= MOST_WAITING):
        waiting.update((i, None) for i in settled.skipped_indexes())
        waiting.update((outcome.index, outcome) for outcome in settled.outcomes())
        while index in waiting:
            outcome = waiting.pop(index)
            index += 1
            if outcome is not None:
                yield outcome


class _Run:
    """One run, from checked options to the report."""

    def __init__(
        self, function: Callable[..., Any], items: Any, options: Options, *, keep_values: bool
    ) -> None:
        options.check(function)
        calls = calls_of(function, options.before_chunk, options.aliases)
        if calls.before_chunk is not None:
            check_before_chunk(calls.before_chunk)
        self._options = options
        self._source = source_of(items, options.aliases, lock=options.lock)
        self._job = Job(
            function=calls.function,
            setup=options.setup,
            queryset=self._source.queryset,
            using=options.aliases,
            retries=options.retries,
            dry_run=options.dry_run,
            keep_values=keep_values,
            coalesce=options.coalesce,
            lock=options.lock,
            convert=calls.convert,
            before_chunk=calls.before_chunk,
        )
        self._interrupts = Interrupts()
        self._progress = progress_for(options.progress)
        self._streams = keep_values  # what is yielded goes to the user's code
        self._showing = True
        self._journal: Journal | None = None
        if options.journal is not None:
            if self._source.queryset is not None:
                refuse_keys(self._source.queryset)
            self._journal = Journal(options.journal, options.aliases, notice=self._interrupts.call)
        self._total: int | None = None
        self._began = time.monotonic()
        self._seconds = 0.0
        self._rejects: Rejects | None = None
        try:
            # Before the journal is opened: what is refused here must not be a run in it.
            self._watch = Watch.here()
            self._make_executor()
            if options.rejects is not None:
                _refuse_to_feed_itself(items, options.rejects)
                self._rejects = Rejects(options.rejects, more=self._journal is not None)
            self._begin(self._open_journal(function, items))
        except BaseException:
            if self._rejects is not None:
                self._rejects.close()
            self.shut()
            raise

    def _begin(self, resumption: Resumption | None) -> None:
        """Make what the run consists of, now that workers can be given their permit."""
        options, journal = self._options, self._journal
        self._executor = self._make_executor()
        step = (lambda: journal.step) if journal is not None else (lambda: 1)
        self._reader = Reader(self._source, self._interrupts, resumption, step)
        self._pacer = Pacer(options.chunk_size)
        self._is_one_alone = False  # the chunk that was submitted last is to be
        self._settling = Settling(
            self._reader.number,
            self._pacer,
            self._rejects,
            dry_run=options.dry_run,
            journal=journal,
            redelivers=self._executor.redelivers,
        )

    def _make_executor(self) -> Executor:
        return executor_for(
            self._options, self._job, self._interrupts, self._progress, self._watch.warn
        )

    def _open_journal(self, function: Any, items: Any) -> Resumption | None:
        """Take the run of this name, and give the workers their permit."""
        journal, options = self._journal, self._options
        if journal is None:
            return None
        queryset = self._source.queryset
        journal.open(
            "index" if queryset is None else f"the keys of {queryset.model._meta.label}",
            {
                "function": _name(function),
                "source": _name(items if queryset is None else queryset.model),
                "options": {
                    name: value
                    for name in _RECORDED
                    if isinstance(value := getattr(options, name), str | int | float | bool)
                },
            },
            take_over=options.take_over,
        )
        self._job = replace(self._job, permit=journal.permit)
        return journal.resumption(
            by_key=queryset is not None,
            retry_failed=options.retry_failed,
            ignore_changes=options.ignore_changed_source,
        )

    def shut(self) -> None:
        """Leave nothing of the journal behind, however the run ended."""
        if self._journal is not None:
            self._journal.shut()

    def settled(self, pause: Callable[[], bool] = lambda: False) -> Iterator[Settled]:
        """Run it all; yield chunks as their fate is known. While ``pause()``, read no more."""
        self._began = time.monotonic()
        failure: BaseException | None = None
        with self._interrupts, ExitStack() as surroundings:
            if self._options.coalesce:
                surroundings.enter_context(kept())
            try:
                self._start()
                if not self._executor.alone:
                    surroundings.enter_context(databases.no_open_cursors(self._options.aliases))
                self._total = self._source.total()
                self._executor.expect(self._total)
                self._progress.start(self._total)
                yield from self._show(self._loop(pause))
            except GeneratorExit:
                self._settling.stop()
                for _ in self._settling.events(self._executor.stop()):
                    pass
                for _ in self._settling.abandon():
                    pass
                raise
            except KeyboardInterrupt as error:
                self._interrupts.pending = True
                failure = error
            except BaseException as error:
                failure = error
            finally:
                if failure is None:
                    self._close()
            if failure is not None:
                # Nothing in flight may be lost from the count, whatever went wrong.
                self._settling.stop(_reason(failure))
                try:
                    yield from self._show(self._settling.events(self._executor.stop()))
                    yield from self._show(self._settling.abandon())
                finally:
                    self._close()
        try:
            self._conclude(failure)
        finally:
            # Its traceback holds this frame. Such a cycle would keep the source open, and all that
            # is in hand, until garbage is collected, in an order that not everything bears.
            failure = None

    def _start(self) -> None:
        """Start the executor, unless the databases don't allow its workers."""
        self._warn_of_rejects()
        executor = self._executor
        known = executor.workers
        if executor.crowds and known:
            check_limits(known, self._options)
        executor.start()
        if executor.crowds and not known:
            check_limits(executor.workers, self._options)

    def _warn_of_rejects(self) -> None:
        """Warn if a new run adds to another's failed items, which a second pass would run, too."""
        rejects, journal = self._rejects, self._journal
        if rejects is not None and rejects.adds and journal is not None and journal.is_new:
            warnings.warn(
                f"rejects={str(rejects.path)!r} holds failed items already, and the journal knows "
                f"no earlier call of {journal.name!r}: what fails now is added to those of another "
                "run. Name a file for each run to keep them apart.",
                RuntimeWarning,
                stacklevel=2,
            )

    def _loop(self, pause: Callable[[], bool]) -> Iterator[Settled]:
        executor, settling, interrupts = self._executor, self._settling, self._interrupts
        while not interrupts.pending:
            interrupts.called = False
            paused = self._tend_journal()
            # What is to be run again is never held up: it may be what all the others wait for.
            may_submit = not paused and (bool(settling.again) or not pause())
            may_submit = may_submit and not self._is_kept_waiting()
            if executor.wants() > 0 and may_submit and self._submit_next():
                yield from settling.unsendable()
                events = executor.poll()
            else:
                yield from settling.unsendable()
                if not executor.in_flight:
                    if self._more() and not interrupts.pending:
                        if paused:
                            time.sleep(PAUSED)
                        continue
                    break
                events = executor.wait()
            yield from settling.events(events, executor.chunk_seconds)
        if interrupts.pending:
            raise KeyboardInterrupt

    def _tend_journal(self) -> bool:
        """Keep the journal small; return whether somebody wants the run to wait.

        Raises:
            TakenOver: another process has it.
        """
        if self._journal is None:
            return False
        self._journal.tend(self._closed_below() if self._executor.redelivers else None)
        return self._journal.paused and not self._journal.cancelled

    def _closed_below(self) -> int:
        """Return the number below which all chunks have ended."""
        going_on = itertools.chain(self._executor.sent(), self._settling.again)
        return min((chunk.number for chunk in going_on), default=self._reader.next_number)

    def _more(self) -> bool:
        return bool(self._settling.again) or not (self._reader.exhausted or self._enough())

    def _is_kept_waiting(self) -> bool:
        """Tell whether a chunk is out, or is the next, that has to be out alone."""
        again = self._settling.again
        return self._executor.in_flight > 0 and (
            self._is_one_alone or bool(again and again[0].alone)
        )

    def _submit_next(self) -> bool:
        """Submit a chunk to run again, or else the next of the source; return if there was one."""
        again = self._settling.again
        if again:
            chunk = again[0]
            self._executor.submit(chunk)  # if this raises, the chunk is still in the queue
            again.popleft()
            self._is_one_alone = chunk.alone
            return True
        if self._reader.exhausted or self._enough():
            return False
        left = None if self._total is None else self._total - self._reader.passed
        size = self._pacer.limit(left, self._executor.workers)
        taken = self._reader.take(size, local=self._executor.local)
        self._settling.refuse(taken.unsendable)
        if taken.chunk is None:
            return False
        again.append(taken.chunk)
        return self._submit_next()

    def _enough(self) -> bool:
        """Tell whether a limit on failures has been reached, or somebody wants the run to end."""
        if self._journal is not None and self._journal.cancelled:
            return True
        failures = self._settling.failed + self._settling.unknown
        if self._options.on_error == "raise":
            return failures > 0
        return self._options.max_failures is not None and failures > self._options.max_failures

    def _show(self, chunks: Iterator[Settled]) -> Iterator[Settled]:
        for settled in chunks:
            if self._showing:
                self._showing = False  # if it raises, it has raised enough
                self._progress.update(self._snapshot())
                self._showing = True
            if self._streams:
                with self._interrupts.in_user_code():
                    yield settled
            else:
                yield settled

    def _snapshot(self) -> Snapshot:
        settling = self._settling
        seconds = time.monotonic() - self._began
        return Snapshot(
            done=settling.done + self._reader.passed - self._reader.read,
            failed=settling.failed + settling.unknown - settling.not_run,
            total=self._total,
            rate=settling.done / seconds if seconds > 0 else 0.0,
            seconds=seconds,
            retries=settling.retries,
        )

    def _close(self) -> None:
        self._executor.close()
        self._progress.close()
        if self._rejects is not None:
            self._rejects.close()
        self._seconds = time.monotonic() - self._began

    def report(self) -> Report:
        settling, known = self._settling, self._reader.resumption
        already, failed_before = (0, 0) if known is None else (known.already, known.failed_before)
        return Report(
            total=settling.succeeded + settling.failed + settling.unknown + already + failed_before,
            succeeded=settling.succeeded + already,
            already=already,
            failed=settling.failed + failed_before,
            failed_before=failed_before,
            not_run=settling.not_run,
            unknown=settling.unknown,
            skipped=settling.skipped,
            retries=settling.retries,
            seconds=self._seconds,
            chunks=settling.chunks,
            executor=self._executor.label,
            workers=self._executor.workers,
            failures=tuple(settling.failures),
            rejects=None if self._rejects is None else str(self._rejects.path),
            dry_run=self._options.dry_run,
            repeated=settling.repeated,
            coalesced=settling.figures,
            spent=settling.spent,
            hint=hint_of(self._seen()),
        )

    def _seen(self) -> Seen:
        """Return what a hint is taken from."""
        executor = self._executor
        local = executor.local and executor.workers > 1
        return Seen(
            items=self._settling.done - self._settling.not_run,
            seconds=self._seconds,
            spent=self._settling.spent,
            coalesced=self._settling.figures,
            workers=executor.workers,
            where="here" if executor.workers == 1 else "threads" if local else "processes",
            processors=usable_cpus(),
            may_use_threads=self._may_use_threads(),
            failed=self._settling.failed - self._settling.not_run + self._settling.unknown,
            one_writer=databases.have_one_writer(self._options.aliases),
        )

    def _may_use_threads(self) -> bool:
        options = self._options
        return (
            options.executor in ("auto", "inline", "threads", "processes")  # not a cluster
            and options.timeout is None
            and not databases.in_atomic_block()
            and (options.coalesce or not databases.have_one_writer(options.aliases))
        )

    def _conclude(self, failure: BaseException | None) -> None:
        """Raise what the caller should see, with the report on it."""
        report = self.report()
        accounted = self._settling.done
        # A signal handler's SystemExit, or a second Ctrl-C, may have come at any moment.
        torn = failure is not None and not isinstance(failure, Exception)
        assert torn or accounted == self._reader.read, (
            f"{self._reader.read} read, {accounted} accounted for"
        )
        error = failure if failure is not None else self._reader.error
        try:
            if self._journal is not None:
                self._close_journal(self._journal, report, error)
            if isinstance(failure, KeyboardInterrupt):
                self._progress.interrupted(report)
                raise Interrupted("the run was interrupted", report) from None
            if isinstance(error, CarpoolError):
                error.report = report
                raise error
            if error is not None:
                try:
                    error.report = report  # type: ignore[attr-defined]
                except AttributeError:  # its class has __slots__
                    raise RunFailed(_in_words(error), report) from error
                raise error
            if self._journal is not None and self._journal.cancelled:
                raise RunCancelled(f"The run was cancelled.\n{report}", report)
            failures = report.failed - report.failed_before + report.unknown
            if self._options.on_error == "raise" and failures:
                raise ItemsFailed(f"Stopped at the first failure.\n{report}", report)
            if self._enough():
                limit = f"max_failures={self._options.max_failures}"
                raise TooManyFailures(f"Stopped: more than {limit} failed.\n{report}", report)
        finally:
            failure = error = None  # as in settled()

    def _close_journal(self, journal: Journal, report: Report, error: BaseException | None) -> None:
        """Write into the journal how the run ended."""
        reason = ""
        if isinstance(error, TakenOver):
            journal.shut()
            return
        if error is None and not self._enough():
            succeeded = not (report.failed or report.unknown)
            state = State.SUCCEEDED if succeeded else State.FAILED
        elif journal.cancelled:
            state = State.CANCELLED
        elif error is None:
            state, reason = State.FAILED, "too many items failed"
        elif isinstance(error, Exception):
            state, reason = State.FAILED, _in_words(error)
        else:
            state, reason = State.INTERRUPTED, _reason(error)
        try:
            journal.close(
                state,
                reason,
                rate=report.rate,
                retries=report.retries,
                **_last_error(report),
            )
        except (Error, RunFailed) as problem:
            # The items are no worse for it: their entries are there.
            warnings.warn(
                f"The journal could not be told how the run ended: {_in_words(problem)}",
                RuntimeWarning,
                stacklevel=2,
            )


def _refuse_to_feed_itself(items: Any, rejects: str | os.PathLike[str]) -> None:
    """Refuse to add failed items to the file that is being read: each would come again."""
    if isinstance(items, Files) and items.include(rejects):
        raise ConfigurationError(
            f"rejects={os.fspath(rejects)!r} is a file that is to be read: what fails would come "
            "again, and again. Name another."
        )


def _last_error(report: Report) -> dict[str, str]:
    """Return what the journal's row says of the last failure; nothing new if there is none."""
    own = [failure for failure in report.failures if failure.stage != "run"]
    if own:
        return {"last_error": str(own[-1])}
    return {} if report.failed_before else {"last_error": ""}


def _name(value: Any) -> str:
    """Return what the journal's row says of a function or a source."""
    if isinstance(value, Files):
        return repr(value)
    while isinstance(value, functools.partial):
        value = value.func
    if isinstance(value, ModelSaver):
        value = value.model
    named = value if hasattr(value, "__qualname__") else type(value)
    module = getattr(named, "__module__", type(named).__module__)
    return f"{module}.{named.__qualname__}"


def _reason(failure: BaseException) -> str:
    if isinstance(failure, KeyboardInterrupt):
        return "the run was interrupted (Ctrl-C)"
    return f"the run stopped: {_in_words(failure)}"


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {describe(error).message}"
