"""Count signals and statements in every process of a round, however the process was started.

Both counters are files named by the environment, so a spawned worker finds them as a forked one
does, from ``AppConfig.ready()``.

Note [Signals]
    Signals are counted while the clock runs, so it must cost next to nothing: a shared map of
    two bytes an item, one for each signal, at the place that the item's number gives. Only one
    worker has an item at a time, so nothing is locked, and an increment is some 150 ns. An item
    that a worker tried twice shows as more signals than two an item.

Note [Statements]
    Statements are counted in a pass of their own, never while the clock runs. What is counted is
    what Django's cursors are told to execute, once for each set of parameters, and each COPY.
    Savepoints (made, released, rolled back to) are counted apart. BEGIN and COMMIT are not
    counted: one driver sends them as statements, another by a call, a third on its own. Nor is
    what sets a new connection up.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIGNALS = "CARPOOL_BENCHMARKS_SIGNALS"
STATEMENTS = "CARPOOL_BENCHMARKS_STATEMENTS"

STATEMENT, SAVEPOINT = b"s", b"p"
_SAVEPOINT_WORDS = ("SAVEPOINT", "RELEASE", "ROLLBACK TO")
_TRANSACTION_WORDS = ("BEGIN", "START TRANSACTION", "COMMIT", "ROLLBACK")


def prepare(folder: Path, rows: int, *, statements: bool) -> dict[str, str]:
    """Make the counters' files for one round, and return the variables that name them."""
    signals = folder / "signals"
    signals.write_bytes(bytes(2 * rows))
    environment = {SIGNALS: str(signals)}
    if statements:
        environment[STATEMENTS] = str(folder / "statements")
        (folder / "statements").write_bytes(b"")
    return environment


def read_signals() -> int:
    """Return how many signals have been received in this round, by all processes."""
    return sum(Path(os.environ[SIGNALS]).read_bytes())


def read_statements() -> tuple[int, int] | None:
    """Return the statements and the savepoints of this round, or None if it did not count them."""
    if STATEMENTS not in os.environ:
        return None
    marks = Path(os.environ[STATEMENTS]).read_bytes()
    return marks.count(STATEMENT), marks.count(SAVEPOINT)


def reset_statements() -> None:
    """Forget what was counted so far, such as the emptying of the tables."""
    if STATEMENTS in os.environ:
        os.truncate(os.environ[STATEMENTS], 0)


def connect() -> None:
    """Connect the counters that the environment names. Called in every process."""
    if SIGNALS in os.environ:
        connect_signals(Path(os.environ[SIGNALS]))
    if STATEMENTS in os.environ:
        connect_statements(Path(os.environ[STATEMENTS]))


def connect_signals(path: Path) -> None:
    """Receive User's two signals, and mark each in the map. See Note [Signals]."""
    from django.contrib.auth.models import User
    from django.db.models.signals import post_save, pre_save

    with path.open("r+b") as file:
        marks = mmap.mmap(file.fileno(), 0)

    def count_pre_save(instance: User, **kwargs: Any) -> None:
        marks[2 * int(instance.username)] += 1

    def count_post_save(instance: User, **kwargs: Any) -> None:
        marks[2 * int(instance.username) + 1] += 1

    pre_save.connect(count_pre_save, sender=User, weak=False)
    post_save.connect(count_post_save, sender=User, weak=False)


def connect_statements(path: Path) -> None:
    """Mark every statement of every connection made from now on. See Note [Statements]."""
    from django.db.backends.signals import connection_created

    # A write of a few bytes in append mode is not torn by another process' write.
    file = os.open(path, os.O_WRONLY | os.O_APPEND)

    def mark(kind: bytes, times: int = 1) -> None:
        os.write(file, kind * times)

    def count(
        execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]
    ) -> Any:
        connection = context["connection"]
        if getattr(connection, "carpool_counted", None) is not connection.connection:
            return execute(sql, params, many, context)
        if many:
            params = list(params)
        words = str(sql).lstrip().upper()
        if words.startswith(_SAVEPOINT_WORDS):
            mark(SAVEPOINT)
        elif not words.startswith(_TRANSACTION_WORDS):
            mark(STATEMENT, len(params) if many else 1)
        return execute(sql, params, many, context)

    def install(connection: Any, **kwargs: Any) -> None:
        if count not in connection.execute_wrappers:
            connection.execute_wrappers.append(count)
        # By the driver's connection, so that what Django sends to set up a new one, after a fork
        # for instance, is never counted: the signal comes after it.
        connection.carpool_counted = connection.connection
        if connection.vendor == "postgresql":
            count_copy(connection.connection, mark)

    connection_created.connect(install, weak=False)


def count_copy(connection: Any, mark: Callable[[bytes], None]) -> None:
    """Mark each COPY of a psycopg 3 connection, which no execute_wrapper sees."""
    factory = getattr(connection, "cursor_factory", None)
    if factory is None or not hasattr(factory, "copy"):
        return

    class CountingCursor(factory):  # type: ignore[misc, valid-type]
        def copy(self, *args: Any, **kwargs: Any) -> Any:
            mark(STATEMENT)
            return super().copy(*args, **kwargs)

    connection.cursor_factory = CountingCursor
