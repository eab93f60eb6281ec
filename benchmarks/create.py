"""Creating users: every usual way, from slow and full to fast and bare."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, Literal

import django
from django.contrib.auth.models import User
from django.db import connection, connections, transaction

from benchmarks.suite import Suite, Task

#: Rows in one INSERT of bulk_create. SQLite takes fewer by itself; more gains little elsewhere.
BATCH_SIZE = 1000

suite = Suite("create")


@suite.row("plain create() loop", group="reference")
def plain_loop(task: Task) -> None:
    """Call the function for each item: each row is a transaction of its own."""
    for item in task.items():
        task.function(item)


@suite.row("recipe: processes, a future a row", group="pool", workers=4)
def recipe(task: Task) -> None:
    """Do it as the recipe that this project grew from does, with its four workers.

    `django.setup` does nothing in a forked worker, and is needed where Python starts workers in
    another way by default (3.14).
    """
    connections.close_all()
    with ProcessPoolExecutor(task.workers, initializer=django.setup) as executor:
        futures = [executor.submit(task.function, item) for item in task.items()]
        for future in futures:
            future.result()


@suite.row("the loop in one transaction", group="reference")
def one_transaction(task: Task) -> None:
    """Commit once for all; one bad row loses all."""
    with transaction.atomic():
        plain_loop(task)


@suite.row("threads, a future a row", group="pool", workers="threads")
def threads(task: Task) -> None:
    """Do it by the recipe with threads. Each closes its own connection, since nobody else can."""
    all_done = threading.Barrier(task.workers)

    def close() -> None:
        all_done.wait()
        connection.close()

    with ThreadPoolExecutor(task.workers) as executor:
        futures = [executor.submit(task.function, item) for item in task.items()]
        for future in futures:
            future.result()
        for future in [executor.submit(close) for _ in range(task.workers)]:
            future.result()


@suite.row("mpire, the same function", group="pool", workers="processes", needs=["mpire"])
def mpire_pool(task: Task) -> None:
    """Use a pool library that has chunks of its own. A bare dict would become keyword arguments."""
    from mpire.pool import WorkerPool

    connections.close_all()
    with WorkerPool(task.workers) as pool:
        arguments = ((item,) for item in task.items())
        pool.map_unordered(task.function, arguments, iterable_len=task.rows)


def run_carpool(
    task: Task, executor: Literal["auto", "inline", "threads", "processes"], **options: Any
) -> None:
    """Run the task in the engine; an item that failed is an error here."""
    import carpool

    report = carpool.run(
        task.function,
        task.items(),
        executor=executor,
        workers=None if executor == "inline" else task.workers,
        progress=False,
        **options,
    )
    report.raise_for_failures()


@suite.row("carpool.run, inline", group="carpool", needs=["carpool"])
def carpool_inline(task: Task) -> None:
    """Run in chunks, each a transaction whose writes are coalesced, in this process."""
    run_carpool(task, "inline")


@suite.row("carpool.run, threads", group="carpool", workers="threads", needs=["carpool"])
def carpool_threads(task: Task) -> None:
    """Run the chunks in threads."""
    run_carpool(task, "threads")


@suite.row("carpool.run, default executor", group="carpool", workers="processes", needs=["carpool"])
def carpool_default(task: Task) -> None:
    """Begin in this process, and go on in processes as soon as they have started."""
    run_carpool(task, "auto")


@suite.row("carpool.run, processes", group="carpool", workers="processes", needs=["carpool"])
def carpool_processes(task: Task) -> None:
    """Run the chunks in processes."""
    run_carpool(task, "processes")


@suite.row(
    "carpool.run, processes, not coalesced", group="carpool", workers="processes", needs=["carpool"]
)
def carpool_processes_not_coalesced(task: Task) -> None:
    """Run the chunks in processes, each write a statement: what the pool alone gives."""
    run_carpool(task, "processes", coalesce=False)


@suite.row("coalesce(), one process", group="carpool", needs=["carpool"])
def carpool_coalesce(task: Task) -> None:
    """Share round trips in one transaction, without the engine."""
    import carpool

    with carpool.coalesce():
        plain_loop(task)


def prepare_session() -> None:
    """Import what is large, and connect. Only for rounds of this row: it may not be installed."""
    from benchmarks import session

    session.prepare()


@suite.row(
    "SQLAlchemy 2's session", group="other ORM", needs=["sqlalchemy"], prepare=prepare_session
)
def sqlalchemy_session(task: Task) -> None:
    """Use the unit of work of another ORM: its objects, its listeners, one commit."""
    from benchmarks import session

    session.insert(task)


def users(task: Task) -> Iterator[User]:
    """Yield users not yet saved, each after the workload's setup."""
    for item in task.items():
        task.setup()
        yield User(username=item["username"], email=item["email"])


@suite.row("bulk_create, no signals", group="no signals")
def bulk_create(task: Task) -> None:
    """Use what Django offers for many rows: no save(), no signals."""
    User.objects.bulk_create(users(task), batch_size=BATCH_SIZE)


@suite.row("pgbulk.copy, no signals", group="no signals", needs=["pgbulk"], vendor="postgresql")
def pgbulk_copy(task: Task) -> None:
    """Use COPY. It goes through its objects twice, so they have to be a list."""
    import pgbulk

    pgbulk.copy(User, list(users(task)))
