"""From the options to an executor, or to the reason why there can be none."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from carpool import databases, limits
from carpool.engine import is_engine
from carpool.environment import Environment
from carpool.exceptions import ConfigurationError
from carpool.executors import engine_of
from carpool.executors.auto import AutoExecutor
from carpool.executors.base import Executor
from carpool.executors.child import ShippedJob
from carpool.executors.cpus import usable_cpus
from carpool.executors.futures import FuturesExecutor
from carpool.executors.inline import InlineExecutor
from carpool.executors.processes import ProcessesExecutor
from carpool.executors.remote import parcel_of
from carpool.executors.threads import ThreadsExecutor
from carpool.functions import dumps, ship
from carpool.interrupts import Interrupts
from carpool.options import ExecutorOption, Options
from carpool.pacing import IMPATIENT
from carpool.progress import Progress
from carpool.types import Job
from carpool.words import needed


def executor_for(
    options: Options,
    job: Job,
    interrupts: Interrupts,
    progress: Progress,
    with_workers: Callable[[], None] = lambda: None,
) -> Executor:
    """Return the executor that was asked for, not yet started.

    ``with_workers`` is called when it is certain that there will be workers besides the caller:
    by "auto" only when the run turns out long.

    Raises:
        ConfigurationError: it can't work here (inside ``atomic()``, in-memory SQLite, a daemonic
            process), or the function can't be sent to it.
    """
    workers = options.workers or usable_cpus()
    wanted: ExecutorOption = options.executor
    if wanted == "auto":
        wanted = _auto(options, workers)
    if wanted == "inline":
        return InlineExecutor(job, interrupts)
    engine = engine_of(wanted) if is_engine(wanted) else None
    if engine is not None:
        # What a dry run does twice is rolled back twice.
        engine.check(journal=options.journal is not None or options.dry_run)
    reason = _why_no_pool(options, processes=wanted in ("auto", "processes"))
    if reason is not None:
        raise ConfigurationError(reason)
    if wanted == "threads":
        _refuse_small_pools(options, workers)
        with_workers()
        return ThreadsExecutor(job, workers, interrupts)
    environment = _environment()
    shipped = _ship(job)
    if engine is not None:
        with_workers()
        parcel = parcel_of(uuid.uuid4().hex, shipped, environment)
        return engine.executor(parcel, options.workers, interrupts)
    if isinstance(wanted, concurrent.futures.Executor):
        if options.workers is None:
            # Executor._max_workers of both of the standard library's; others may tell or not.
            workers = getattr(wanted, "_max_workers", workers)
        with_workers()
        return FuturesExecutor(wanted, environment, shipped, workers, interrupts)

    def make_pool() -> ProcessesExecutor:
        with_workers()
        return ProcessesExecutor(
            environment,
            shipped,
            workers,
            interrupts,
            progress,
            start_method=options.start_method,
            timeout=options.timeout,
        )

    if wanted == "processes":
        return make_pool()
    inline = InlineExecutor(job, interrupts, chunk_seconds=IMPATIENT)

    def make_pool_if_allowed() -> ProcessesExecutor:
        check_limits(workers, options)
        return make_pool()

    return AutoExecutor(inline, make_pool_if_allowed)


def check_limits(workers: int, options: Options) -> None:
    """Refuse more workers than the databases allow connections.

    Raises:
        ConfigurationError: with the numbers and the remedy.
    """
    journal = 0 if options.journal is None else 1  # it has a thread, with connections of its own
    reason = limits.refusal(workers, options.aliases, more=journal)
    if reason is not None:
        raise ConfigurationError(reason)


def _auto(options: Options, workers: int) -> Literal["auto", "inline", "processes"]:
    """Return what "auto" means here."""
    if options.timeout is not None:
        return "processes"  # an item must not run where it can't be ended
    if _why_no_pool(options, processes=True) is not None:
        return "inline"
    if options.start_method == "fork":
        return "processes"  # forked before the source, or an item, can open a connection
    if workers == 1:
        return "inline"
    return "auto"


def _why_no_pool(options: Options, *, processes: bool) -> str | None:
    """Return why workers can't be used here, with the remedy, or None."""
    atomic = databases.in_atomic_block()
    if atomic:
        return (
            f"Workers can't be used inside transaction.atomic() (open on {', '.join(atomic)}): "
            "they would not see its rows, and could wait for its locks for ever. Call run() "
            "outside of it (in tests: TransactionTestCase; in a view: non_atomic_requests), or "
            'use executor="inline" without a timeout.'
        )
    for alias in options.aliases:
        if databases.is_in_memory(alias):
            return (
                f"The database {alias!r} is SQLite in memory, which other connections can't "
                "share. Use a file (in tests: DATABASES[…]['TEST']['NAME']), or "
                'executor="inline".'
            )
    if processes and multiprocessing.current_process().daemon:
        return (
            "This process is daemonic (a Celery prefork worker, say) and may not have children. "
            'Use executor="threads" or "inline", or start Celery with --pool=threads or solo.'
        )
    return None


def _refuse_small_pools(options: Options, workers: int) -> None:
    """Refuse threads that would wait for each other's connections until they time out."""
    others = 1 if options.journal is None else 2  # the caller's, and the journal's
    for alias in options.aliases:
        size = databases.pool_size(alias)
        if size is not None and size < workers + others:
            whose = "the caller's" if others == 1 else "the caller's and the journal's"
            fewer = f"Take workers={size - others}, enlarge" if size > others else "Enlarge"
            raise ConfigurationError(
                f"{needed(workers, 'thread', workers + others)} to the database "
                f'{alias!r}, with {whose}, and its pool (OPTIONS["pool"]) has {size}. {fewer} its '
                'max_size, or use executor="processes", whose workers have connections of their '
                "own."
            )


def _environment() -> Environment:
    environment = Environment.capture()
    try:
        dumps(environment)
    except Exception as error:
        raise ConfigurationError(
            f"This process' settings can't be sent to workers ({type(error).__name__}: {error}). "
            "They get DATABASES, and what settings.configure() was given: use plain values there, "
            'or executor="threads" or "inline".'
        ) from error
    return environment


def _ship(job: Job) -> ShippedJob:
    nothing = replace(
        job, function=_unshipped, setup=None, queryset=None, convert=None, before_chunk=None
    )
    try:
        queryset = dumps(job.queryset)
    except Exception as error:
        raise ConfigurationError(
            f"The queryset can't be sent to workers ({type(error).__name__}: {error}). Build it "
            'from plain values, or use executor="threads" or "inline".'
        ) from error
    return ShippedJob(
        function=ship("function", job.function),
        setup=ship("setup", job.setup),
        queryset=queryset,
        rest=nothing,
        convert=None if job.convert is None else ship("items' class", job.convert),
        before_chunk=(None if job.before_chunk is None else ship("before_chunk", job.before_chunk)),
    )


def _unshipped(item: object) -> None:
    raise AssertionError("the function is opened from ShippedJob.function")
