"""Count signals and statements in every process of a round, however the process was started.

Both counters are files named by the environment, so a spawned worker finds them as a forked one
does, from ``AppConfig.ready()``.

Note [Signals]
    Signals are counted while the clock runs, so it must cost next to nothing: a shared map of
    two bytes an item, one for each signal, at the place that the item's number gives, which each
    counted model has in a field (`NUMBERS`). SQLAlchemy's listeners mark the same map. Only one
    worker has an item at a time, so nothing is locked, and an increment is some 150 ns. An item
    that a worker tried twice shows as more signals than two an item. The atlas' models have no
    such number and aren't counted; that its receiver was called shows in the rows that it writes.

Note [Statements]
    Statements are counted in a pass of their own, never while the clock runs. What is counted is
    what Django's cursors (SQLAlchemy's, in its row) are told to execute, and each COPY. As in
    ``connection.queries``, an ``executemany()`` is one, however many rows it is given.
    Savepoints (made, released, rolled back to) are counted apart. BEGIN and COMMIT are not
    counted: one driver sends them as statements, another by a call, a third on its own. Nor is
    what sets a new connection up.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django.db.models import Model

Mark = Callable[[bytes], None]

SIGNALS = "CARPOOL_BENCHMARKS_SIGNALS"
STATEMENTS = "CARPOOL_BENCHMARKS_STATEMENTS"

STATEMENT, SAVEPOINT = b"s", b"p"
#: The models whose signals are counted, with the field that holds the item's number.
NUMBERS = {
    "auth.User": "username",
    "benchmarks.Restaurant": "name",
    "benchmarks.Book": "title",
    "benchmarks.Account": "name",
    "benchmarks.Ticket": "title",
    "benchmarks.Order": "number",
}

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


def read_signals(models: Iterable[str]) -> int | None:
    """Return how many signals have been received in this round, by all processes.

    None if those of none of the models are counted.
    """
    if NUMBERS.keys().isdisjoint(models):
        return None
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


def open_marks(path: Path) -> mmap.mmap:
    """Return the map of the signals."""
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)


def connect_signals(path: Path) -> None:
    """Receive the two signals of each counted model, and mark each. See Note [Signals]."""
    from django.apps import apps

    marks = open_marks(path)
    for label, field in NUMBERS.items():
        connect_model(apps.get_model(label), field, marks)


def connect_model(model: type[Model], field: str, marks: mmap.mmap) -> None:
    """Receive one model's two signals."""
    from django.db.models.signals import post_save, pre_save

    number = attrgetter(field)

    def count_pre_save(instance: Model, **kwargs: Any) -> None:
        marks[2 * int(number(instance))] += 1

    def count_post_save(instance: Model, **kwargs: Any) -> None:
        marks[2 * int(number(instance)) + 1] += 1

    pre_save.connect(count_pre_save, sender=model, weak=False)
    post_save.connect(count_post_save, sender=model, weak=False)


def statement_marker(path: Path) -> Mark:
    """Return what marks a statement, of all processes in the same file."""
    # A write of a few bytes in append mode is not torn by another process' write.
    file = os.open(path, os.O_WRONLY | os.O_APPEND)

    def mark(kind: bytes) -> None:
        os.write(file, kind)

    return mark


def connect_session(mapped: type[Any], engine: Any) -> None:
    """Count for SQLAlchemy what is counted for Django, by its own events."""
    from sqlalchemy import event

    marks = open_marks(Path(os.environ[SIGNALS]))

    def count_before_insert(mapper: Any, connection: Any, target: Any) -> None:
        marks[2 * int(target.username)] += 1

    def count_after_insert(mapper: Any, connection: Any, target: Any) -> None:
        marks[2 * int(target.username) + 1] += 1

    event.listen(mapped, "before_insert", count_before_insert)
    event.listen(mapped, "after_insert", count_after_insert)
    if STATEMENTS not in os.environ:
        return
    mark = statement_marker(Path(os.environ[STATEMENTS]))

    def count(
        connection: Any, cursor: Any, statement: str, params: Any, context: Any, many: bool
    ) -> None:
        mark(STATEMENT)

    event.listen(engine, "before_cursor_execute", count)


def connect_statements(path: Path) -> None:
    """Mark every statement of every connection made from now on. See Note [Statements]."""
    from django.db.backends.signals import connection_created

    mark = statement_marker(path)

    def count(
        execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]
    ) -> Any:
        connection = context["connection"]
        if getattr(connection, "carpool_counted", None) is not connection.connection:
            return execute(sql, params, many, context)
        words = str(sql).lstrip().upper()
        if words.startswith(_SAVEPOINT_WORDS):
            mark(SAVEPOINT)
        elif not words.startswith(_TRANSACTION_WORDS):
            mark(STATEMENT)
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


def count_copy(connection: Any, mark: Mark) -> None:
    """Mark each COPY of a psycopg 3 connection, which no execute_wrapper sees."""
    factory = getattr(connection, "cursor_factory", None)
    if factory is None or not hasattr(factory, "copy"):
        return

    class CountingCursor(factory):  # type: ignore[misc, valid-type]
        def copy(self, *args: Any, **kwargs: Any) -> Any:
            mark(STATEMENT)
            return super().copy(*args, **kwargs)

    connection.cursor_factory = CountingCursor
