"""Changing rows that are there: every usual way, from slow and full to fast and bare.

What is changed, and how, is in `changes`. Every row loads what it changes while the clock runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from django.db import connection, transaction

from benchmarks import create
from benchmarks.changes import CHANGES, Change, batches
from benchmarks.create import BATCH_SIZE
from benchmarks.suite import Suite, Task
from benchmarks.workload import cores

suite = Suite("update")

suite.row("the loop with save()", group="reference")(create.plain_loop)
suite.row("the loop in one transaction", group="reference")(create.one_transaction)
suite.row("carpool.run, inline", group="carpool", needs=["carpool"])(create.carpool_inline)


@suite.row(
    "carpool.run, default executor, two workers", group="carpool", workers=2, needs=["carpool"]
)
def carpool_default(task: Task) -> None:
    """Begin in this process, and go on in two as soon as they have started."""
    create.run_carpool(task, "auto")


@suite.row("carpool.run, two processes", group="carpool", workers=2, needs=["carpool"])
def carpool_two_processes(task: Task) -> None:
    """Run the chunks in two processes, which load the rows of the keys that they are sent."""
    create.run_carpool(task, "processes")


if cores() != 2:  # else it is the row above
    suite.row(
        "carpool.run, a process a core", group="carpool", workers="processes", needs=["carpool"]
    )(create.carpool_processes)

suite.row("coalesce(), one process", group="carpool", needs=["carpool"])(create.carpool_coalesce)


def changed(task: Task, change: Change) -> Iterator[Any]:
    """Yield the objects, changed and not saved."""
    for item in task.items():
        change.change(item)
        yield item


@suite.row("bulk_update, no signals", group="no signals")
def bulk_update(task: Task) -> None:
    """Use what Django offers for many rows: no save(), no signals, `auto_now` by hand."""
    change = CHANGES[task.function]
    change.model._base_manager.bulk_update(
        changed(task, change), change.fields, batch_size=BATCH_SIZE
    )


@suite.row("pgbulk.update, no signals", group="no signals", needs=["pgbulk"], vendor="postgresql")
def pgbulk_update(task: Task) -> None:
    """Use UPDATE … FROM (VALUES …) by a package. It makes one statement of what it is given."""
    import pgbulk

    change = CHANGES[task.function]
    with transaction.atomic():
        for batch in batches(changed(task, change), BATCH_SIZE):
            pgbulk.update(change.model, batch, list(change.fields))


def prepare_fast_update() -> None:
    """Import what the package's name alone doesn't. Only for rounds of this row."""
    import fast_update.query  # noqa: F401


@suite.row(
    "fast_update, no signals",
    group="no signals",
    needs=["fast_update"],
    prepare=prepare_fast_update,
)
def fast_update(task: Task) -> None:
    """Use the same by a package for all three databases: a queryset with the method."""
    from fast_update.query import FastUpdateQuerySet

    change = CHANGES[task.function]
    FastUpdateQuerySet(change.model).fast_update(
        changed(task, change), change.fields, batch_size=BATCH_SIZE
    )


@suite.row("raw UPDATE … FROM (VALUES …), no signals", group="no signals")
def raw_update(task: Task) -> None:
    """Read tuples from a cursor and write others: no objects."""
    change = CHANGES[task.function]
    quote = connection.ops.quote_name
    names = ", ".join(map(quote, change.reads))
    size = BATCH_SIZE
    if limit := connection.features.max_query_params:
        size = min(size, limit // (1 + len(change.fields)))
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SELECT {names} FROM {quote(change.model._meta.db_table)}")
        for batch in batches(map(change.values, cursor.fetchall()), size):
            cursor.execute(update_sql(change, len(batch)), list(chain.from_iterable(batch)))


def update_sql(change: Change, rows: int) -> str:
    """Return the statement that updates so many rows.

    The columns of VALUES are column1, column2, … on PostgreSQL and SQLite. PostgreSQL wants their
    types, which a NULL doesn't tell. MariaDB and MySQL have the join instead, and take the columns'
    names from a SELECT before VALUES.
    """
    quote = connection.ops.quote_name
    meta = change.model._meta
    table = quote(meta.db_table)
    names = [f"column{number}" for number in range(1, len(change.fields) + 2)]
    row = f"({', '.join(['%s'] * len(names))})"
    values = names[1:]
    if connection.vendor == "postgresql":
        types = [meta.get_field(name).db_type(connection) for name in change.fields]
        values = [f"{value}::{type_}" for value, type_ in zip(values, types, strict=True)]
    pairs = zip(map(quote, change.fields), values, strict=True)
    assignments = ", ".join(f"{column} = {value}" for column, value in pairs)
    matches = f"{table}.{quote('id')} = column1"
    if connection.vendor == "mysql":
        new_rows = "SELECT " + ", ".join(f"%s AS {name}" for name in names)
        if rows > 1:
            word = "" if connection.mysql_is_mariadb else "ROW"
            new_rows += f" UNION ALL VALUES {', '.join([word + row] * (rows - 1))}"
        return f"UPDATE {table} JOIN ({new_rows}) AS new_rows ON {matches} SET {assignments}"
    new_rows = f"VALUES {', '.join([row] * rows)}"
    return f"UPDATE {table} SET {assignments} FROM ({new_rows}) AS new_rows WHERE {matches}"
