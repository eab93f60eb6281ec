"""The options of a run, checked: whatever can't work is refused here, before the first item."""

from __future__ import annotations

import concurrent.futures
import functools
import inspect
import multiprocessing
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from django.apps import apps
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from carpool.engine import NAMES, Engine, is_engine
from carpool.exceptions import ConfigurationError
from carpool.progress import Progress

ExecutorOption = (
    Literal["auto", "inline", "threads", "processes", "celery"]
    | concurrent.futures.Executor
    | Engine
    | Any  # a distributed.Client
)
StartMethod = Literal["fork", "forkserver", "spawn"]

_EXECUTORS = ("auto", "inline", "threads", "processes")
_OF_JOURNAL = ("retry_failed", "take_over", "ignore_changed_source")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `run` and `stream` take besides the function and the items; see `run`."""

    executor: ExecutorOption
    workers: int | None
    start_method: StartMethod | None
    setup: Callable[[], Any] | None
    using: str | Iterable[str]
    chunk_size: int | None
    retries: int
    timeout: float | None
    on_error: Literal["collect", "raise"]
    max_failures: int | None
    rejects: str | os.PathLike[str] | None
    progress: Any
    dry_run: bool
    coalesce: bool = True
    lock: bool = False
    before_chunk: Callable[[list[Any]], Any] | None = None
    journal: str | None = None
    retry_failed: bool = False
    take_over: bool = False
    ignore_changed_source: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.using, Iterable) and not isinstance(self.using, str):
            # An iterator is taken once, however often its aliases are asked for.
            object.__setattr__(self, "using", tuple(self.using))

    @property
    def aliases(self) -> tuple[str, ...]:
        """Return ``using`` as a tuple, each alias once."""
        using = (self.using,) if isinstance(self.using, str) else self.using
        return tuple(dict.fromkeys(using))

    def check(self, function: Any) -> None:
        """Refuse what can't work.

        Raises:
            ConfigurationError: naming the option, the cause and the remedy.
        """
        if not apps.ready:
            raise ConfigurationError(
                "Django is not set up. Call django.setup() first (manage.py commands and shell "
                "do), with DJANGO_SETTINGS_MODULE set."
            )
        if not callable(function):
            raise ConfigurationError(
                f"The function is a {type(function).__name__!r}, which can't be called. Pass a "
                "callable that takes one item."
            )
        refuse_what_only_begins(function)
        if self.before_chunk is not None:
            check_before_chunk(self.before_chunk)
        self._check_values()
        self._check_aliases()
        self._check_combinations()

    def _check_values(self) -> None:
        if not isinstance(self.executor, concurrent.futures.Executor) and not is_engine(
            self.executor
        ):
            others = " or a concurrent.futures.Executor, or a cluster: a distributed.Client, or "
            others += "what carpool.executors.celery() returns"
            _one_of("executor", self.executor, (*_EXECUTORS, *NAMES), others)
        if self.start_method is not None:
            _one_of("start_method", self.start_method, multiprocessing.get_all_start_methods())
        _one_of("on_error", self.on_error, ("collect", "raise"))
        _whole_number("workers", self.workers, 1)
        _whole_number("chunk_size", self.chunk_size, 1)
        _whole_number("max_failures", self.max_failures, 0)
        _whole_number("retries", self.retries, 0, none=False)
        if self.timeout is not None and not (
            isinstance(self.timeout, int | float)
            and not isinstance(self.timeout, bool)
            and 0 < self.timeout < float("inf")
        ):
            raise ConfigurationError(
                f"timeout={self.timeout!r} must be a positive number of seconds, or None."
            )
        for name in ("coalesce", "lock", *_OF_JOURNAL):
            if not isinstance(value := getattr(self, name), bool):
                raise ConfigurationError(f"{name}={value!r} must be True or False.")
        if self.setup is not None and not callable(self.setup):
            raise ConfigurationError("setup must be a callable without arguments, or None.")
        if not (
            self.progress is None
            or isinstance(self.progress, bool | Progress)
            or callable(self.progress)
        ):
            raise ConfigurationError(
                f"progress={self.progress!r} must be None, True, False or a callable that takes "
                "a Snapshot."
            )

    def _check_aliases(self) -> None:
        try:
            aliases = self.aliases
        except TypeError as error:
            raise ConfigurationError(
                f"using={self.using!r} must be a database alias or several of them."
            ) from error
        if not aliases:
            raise ConfigurationError('using is empty. Name a database alias, such as "default".')
        for alias in aliases:
            if alias not in connections.settings:
                raise ConfigurationError(
                    f"using names the database {alias!r}, which is not in settings.DATABASES. "
                    f"There are: {', '.join(sorted(connections.settings))}."
                )
            if not _commits_by_itself(connections[alias]):
                raise ConfigurationError(
                    f"Autocommit is off for the database {alias!r} (AUTOCOMMIT in DATABASES, or "
                    "set_autocommit(False)), so transaction.atomic() does not commit there. Turn "
                    "it on."
                )

    def _check_combinations(self) -> None:
        own_processes = self.executor in ("auto", "processes")
        if self.start_method is not None and not own_processes:
            raise ConfigurationError(
                f"start_method is for carpool's own processes, not for {self.executor!r}. Leave "
                'it out, or use executor="processes".'
            )
        if self.timeout is not None and not own_processes:
            raise ConfigurationError(
                f"timeout can't be kept with executor={self.executor!r}: only a process of "
                'carpool\'s own can be ended. Use executor="processes".'
            )
        if self.executor == "inline" and (self.workers or 1) > 1:
            raise ConfigurationError(
                f'executor="inline" is one worker, the caller itself; workers={self.workers} '
                'needs executor="threads" or "processes".'
            )
        if self.on_error == "raise" and self.max_failures is not None:
            raise ConfigurationError(
                'on_error="raise" stops at the first failure, max_failures later. Give one of them.'
            )
        self._check_journal()

    def _check_journal(self) -> None:
        if self.journal is None:
            for name in _OF_JOURNAL:
                if getattr(self, name):
                    raise ConfigurationError(
                        f"{name}=True is about a run that a journal knows. Name it: journal=…."
                    )
            return
        if self.dry_run:
            raise ConfigurationError(
                "dry_run=True rolls everything back, so there is nothing to keep a journal of. "
                "Leave one of them out."
            )
        if self.start_method == "fork":
            raise ConfigurationError(
                'start_method="fork" would copy the thread and the connection that write the '
                "journal into every worker. Leave it out."
            )


def _commits_by_itself(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether ``atomic()`` ends with COMMIT; asked without connecting."""
    if connection.connection is None or connection.in_atomic_block:
        return bool(connection.settings_dict["AUTOCOMMIT"])
    return connection.autocommit


def check_before_chunk(function: Any) -> None:
    """Refuse what can't be called before a chunk, or whose call only begins it."""
    if not callable(function):
        raise ConfigurationError(
            f"before_chunk is a {type(function).__name__!r}, which can't be called. Pass a "
            "callable that takes a list of items, or None."
        )
    refuse_what_only_begins(function, "before_chunk")


def refuse_what_only_begins(function: Any, name: str = "The function") -> None:
    """Refuse functions whose call returns at once, with everything still to be done."""
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    if not inspect.isroutine(inner):
        inner = type(inner).__call__
    if inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner):
        raise ConfigurationError(
            f"{name} is a coroutine function: calling it only begins it. Pass "
            "asgiref.sync.async_to_sync(function)."
        )
    if inspect.isgeneratorfunction(inner):
        raise ConfigurationError(
            f"{name} is a generator function: calling it runs nothing of it. Pass a function "
            "that does its work and returns."
        )


def _one_of(name: str, value: Any, allowed: Iterable[str], more: str = "") -> None:
    if value not in tuple(allowed):
        choices = ", ".join(map(repr, allowed))
        raise ConfigurationError(f"{name}={value!r} must be one of {choices}{more}.")


def _whole_number(name: str, value: Any, least: int, *, none: bool = True) -> None:
    if value is None and none:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigurationError(
            f"{name}={value!r} must be a whole number, {least} or more"
            f"{', or None' if none else ''}."
        )
