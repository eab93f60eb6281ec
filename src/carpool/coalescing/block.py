"""`coalesce()`, what users open: a context manager and a decorator."""

from __future__ import annotations

import asyncio
import inspect
import threading
import warnings
from collections.abc import Callable, Iterable
from contextlib import ContextDecorator, ExitStack
from types import TracebackType
from typing import Any, Self, overload

from django.db import connections, transaction

from carpool.coalescing.figures import Figures
from carpool.coalescing.registry import unit_of
from carpool.coalescing.unit import Unit
from carpool.exceptions import ConfigurationError

_warned: set[str] = set()


class Coalesce(ContextDecorator):
    """A block whose INSERTs are queued and sent together; see `coalesce`."""

    def __init__(self, using: str | Iterable[str], strict: bool) -> None:
        self.using = (using,) if isinstance(using, str) else tuple(using)
        self.strict = strict
        # By thread, as the connections are: several may be inside of one object.
        self._open_blocks: dict[int, list[tuple[ExitStack, list[tuple[Unit, bool]]]]] = {}

    def _recreate_cm(self) -> Self:
        # contextlib's hook for a decorator that wants a fresh context manager a call.
        return type(self)(self.using, self.strict)

    def __call__(self, function: Callable[..., Any]) -> Any:
        if (
            inspect.iscoroutinefunction(function)
            or inspect.isasyncgenfunction(function)
            or inspect.isgeneratorfunction(function)
        ):
            raise ConfigurationError(
                f"coalesce() can't decorate {function.__qualname__}: the block would end before "
                "the body of a coroutine or generator runs. Open `with carpool.coalesce():` in "
                "the synchronous function that drives it."
            )
        return super().__call__(function)

    def __enter__(self) -> Figures:
        _refuse_async()
        figures = Figures()
        units: list[tuple[Unit, bool]] = []
        with ExitStack() as stack:
            units += [self._open(alias, figures, stack) for alias in self.using]
            mine = self._open_blocks.setdefault(threading.get_ident(), [])
            mine.append((stack.pop_all(), units))
        return figures

    def _open(self, alias: str, figures: Figures, stack: ExitStack) -> tuple[Unit, bool]:
        """Open one alias' block; return its unit, and whether it is this block's own."""
        if alias not in connections:
            raise ConfigurationError(
                f"coalesce(using={alias!r}): there is no such database; "
                f"settings.DATABASES has {', '.join(connections)}."
            )
        connection = connections[alias]
        outer = unit_of(connection)
        unit = outer or Unit(connection)
        if outer is None:
            if not unit.has_strategy:
                _say_there_is_no_strategy(alias, connection.vendor, self.strict)
            stack.enter_context(unit.installed())
        stack.enter_context(unit.counting(figures))
        stack.enter_context(transaction.atomic(using=alias))
        return unit, outer is None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        thread = threading.get_ident()
        stack, units = self._open_blocks[thread].pop()
        if not self._open_blocks[thread]:
            del self._open_blocks[thread]
        if kind is not None:
            return stack.__exit__(kind, error, traceback)
        try:
            for unit, own in units:
                if own:
                    unit.end()
                else:
                    unit.write()
        except BaseException as refused:
            if not stack.__exit__(type(refused), refused, refused.__traceback__):
                raise
            return None
        stack.close()
        return None


def _refuse_async() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ConfigurationError(
        "coalesce() can't be opened in async code: Django's connections belong to a thread, and "
        "other tasks would run inside the block. Move the block into a synchronous function and "
        "call it with sync_to_async(); or open it around async_to_sync(), and asave() and "
        "acreate() inside it are queued."
    )


def _say_there_is_no_strategy(alias: str, vendor: str, strict: bool) -> None:
    message = (
        f"coalesce() has no strategy for {alias!r} ({vendor}): every statement is executed at "
        "once, as without it."
    )
    if strict:
        raise ConfigurationError(
            f"{message} Leave strict=True out, or use SQLite, PostgreSQL, MariaDB or MySQL."
        )
    if alias not in _warned:
        _warned.add(alias)
        warnings.warn(message, RuntimeWarning, stacklevel=5)


_Function = Callable[..., Any]


@overload
def coalesce(using: _Function) -> _Function: ...
@overload
def coalesce(using: str | Iterable[str] = "default", *, strict: bool = False) -> Coalesce: ...
def coalesce(
    using: str | Iterable[str] | _Function = "default", *, strict: bool = False
) -> Coalesce | _Function:
    """Open a transaction in which ``save()``, ``create()`` and ``add()`` share their round trips.

    ::

        with carpool.coalesce() as figures:
            for row in rows:
                create_user(row)

        @carpool.coalesce
        def import_all(): ...

    It is ``transaction.atomic()``; an inner block is a savepoint. Left normally, it writes what is
    queued and commits; left with an exception, it drops what is queued and rolls back. Signals
    fire at their usual moment, in their usual order; ``on_commit`` callbacks run after the commit.

    Args:
        using: the database's alias, or several.
        strict: refuse a database that there is no strategy for, instead of executing everything
            at once with a warning.

    Returns:
        A context manager, which gives `Figures`; or the decorated function. (The figures are true
        once the block has ended.)

    Raises:
        ConfigurationError: on opening it: no such database; in async code; strict.
        DatabaseError: a row was refused. At the flush, which is at the latest where the next
            savepoint, query on the table, or the end of the block is.
    """
    if callable(using):
        return Coalesce("default", strict)(using)  # type: ignore[no-any-return]
    return Coalesce(using, strict)
