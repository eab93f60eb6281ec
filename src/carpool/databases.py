"""Django's connections, as a worker needs them: the right databases, none inherited, none left.

Also the places where databases differ and a capability has to be asked: who takes its write lock
when, who can check deferred constraints early, who aborts a transaction on the first error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

SQLITE_BUSY_TIMEOUT = 60_000
"""Milliseconds a chunk waits for SQLite's one write lock. Django's default of 5 s is made for
requests; here workers queue for the lock by design, each holding it for a whole chunk, and SQLite
hands it out in no order. A minute is far beyond any fair turn, and still ends a real deadlock."""

_leaked: list[Any] = []
"""Connections that belong to another process: kept, so that no destructor says goodbye on them."""


def capture() -> dict[str, dict[str, Any]]:
    """Return the settings of every database as this process uses them now.

    They differ from the settings module in a test run, for one: a worker that went by the module
    would write to the real database.
    """
    return {alias: dict(connections[alias].settings_dict) for alias in connections}


def adopt(databases: dict[str, dict[str, Any]]) -> None:
    """Use these databases from now on, in this process; for a worker, after ``django.setup()``.

    Without a pool (``OPTIONS["pool"]``): a worker has one thread, which keeps its connection; a
    pool would hold three more for nobody.
    """
    for alias, given in databases.items():
        config = given
        if given.get("OPTIONS", {}).get("pool"):
            config = {**given, "OPTIONS": {**given["OPTIONS"], "pool": False}}
        # ConnectionHandler.settings: what connections[alias] is made from. The documented
        # settings.DATABASES is read once, before this. Checked on 5.2, 6.0, 6.1.
        connections.settings[alias] = config
        settings.DATABASES[alias] = config
    discard_inherited()


def discard_inherited() -> None:
    """Forget this thread's connections and pools without closing them.

    For a process just forked: they are the parent's. Closing them, or letting a destructor do so,
    would say goodbye on the parent's socket; using one would mix two conversations. A pool
    (``OPTIONS["pool"]``) would hand the parent's connections out (Django ticket 36957).
    """
    for connection in connections.all(initialized_only=True):
        _leaked.append((connection, connection.connection))
        del connections[connection.alias]
    for alias in connections:
        # DatabaseWrapper._connection_pools: psycopg's pools by alias, on the class; close_pool()
        # would close the parent's sockets. Checked on 5.2, 6.0, 6.1.
        pools = getattr(connections[alias], "_connection_pools", None)
        if pools:
            _leaked.append(dict(pools))
            pools.clear()


def close_mine() -> None:
    """Close this thread's connections."""
    for connection in connections.all(initialized_only=True):
        try:
            connection.close()
        except Exception:  # a connection that is already lost may say so; it is gone either way
            connection.connection = None


def is_in_memory(alias: str) -> bool:
    """Tell whether the database lives in this process only (SQLite's ``:memory:``)."""
    ask = getattr(connections[alias], "is_in_memory_db", None)
    return bool(ask is not None and ask())


PSYCOPGS_POOL = 4
"""Connections in psycopg's pool if nothing is said of ``min_size`` and ``max_size``.
https://www.psycopg.org/psycopg3/docs/api/pool.html"""


def pool_size(alias: str) -> int | None:
    """Return how many connections this process may have at a time; None: no pool, no limit."""
    pool = connections[alias].settings_dict.get("OPTIONS", {}).get("pool")
    if not pool:
        return None
    sizes = pool if isinstance(pool, dict) else {}
    return int(sizes.get("max_size") or sizes.get("min_size", PSYCOPGS_POOL))


def in_atomic_block() -> list[str]:
    """Return the aliases on which this thread is inside ``transaction.atomic()``."""
    return [c.alias for c in connections.all(initialized_only=True) if c.in_atomic_block]


def have_one_writer(using: tuple[str, ...]) -> bool:
    """Tell whether one of them has a lock for all writers, so that chunks write by turns."""
    return any(hasattr(connections[alias], "is_in_memory_db") for alias in using)  # SQLite


def is_aborted(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether the open transaction can no longer be committed.

    Either Django knows (an error left an ``atomic()`` block), or the server does: PostgreSQL
    refuses every statement after an error, and only its driver's status says so.
    """
    if connection.needs_rollback or connection.closed_in_transaction:
        return True
    return is_aborted_by_server(connection)


def is_aborted_by_server(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether the server refuses every statement, after an error, until a rollback."""
    driver = connection.connection
    status = None
    # An attribute of libpq's, no round trip. The first is psycopg's, the second psycopg2's.
    if hasattr(driver, "pgconn"):
        status = driver.pgconn.transaction_status
    elif hasattr(driver, "get_transaction_status"):
        status = driver.get_transaction_status()
    return status == 3  # psycopg.pq.TransactionStatus.INERROR


@contextmanager
def chunk_transaction(using: tuple[str, ...]) -> Iterator[None]:
    """Open one transaction on each alias; the first of them commits last.

    On SQLite each is BEGIN IMMEDIATE: a transaction that reads first and writes later gets
    "database is locked" at once when another has written between, whatever the time-out
    (https://www.sqlite.org/lang_transaction.html).
    """
    alias, *others = using
    with _taking_write_lock(connections[alias]), transaction.atomic(using=alias):
        if others:
            with chunk_transaction(tuple(others)):
                yield
        else:
            yield


def limit_lock_wait(connection: BaseDatabaseWrapper, seconds: int) -> None:
    """Let this transaction wait no longer for a lock, where it would wait for ever: on PostgreSQL.

    The client of the transaction that holds it may be gone without a word: its host, or the net.
    https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-LOCK-TIMEOUT
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '{int(seconds)}s'")


@contextmanager
def impatient(connection: BaseDatabaseWrapper, seconds: float = 0.2) -> Iterator[None]:
    """Wait no longer than so for SQLite's write lock, in the block; elsewhere nothing changes."""
    if not hasattr(connection, "is_in_memory_db"):  # not SQLite
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout")
        patience = cursor.fetchone()[0]
        cursor.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")
    try:
        yield
    finally:
        if connection.connection is not None:
            with connection.cursor() as cursor:
                cursor.execute(f"PRAGMA busy_timeout = {patience}")


@contextmanager
def no_open_cursors(using: tuple[str, ...]) -> Iterator[None]:
    """Let ``iterator()`` on SQLite read all its rows at once, in this thread, for the block.

    An open cursor of the source's would hold a read lock, and so keep every worker from its COMMIT,
    while the source waits for the workers before it reads on. Not so with a write-ahead log
    (https://www.sqlite.org/wal.html), nor on databases with a server.
    """
    changed = [connections[alias] for alias in using if _readers_block_writers(connections[alias])]
    try:
        for connection in changed:
            # DatabaseFeatures.can_use_chunked_reads: a class attribute, asked for at each query.
            # Checked on 5.2, 6.0, 6.1.
            connection.features.can_use_chunked_reads = False
        yield
    finally:
        for connection in changed:
            vars(connection.features).pop("can_use_chunked_reads", None)


def _readers_block_writers(connection: BaseDatabaseWrapper) -> bool:
    if not hasattr(connection, "is_in_memory_db"):  # not SQLite
        return False
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode")
        return bool(cursor.fetchone()[0] != "wal")


@contextmanager
def _taking_write_lock(connection: BaseDatabaseWrapper) -> Iterator[None]:
    connection.ensure_connection()  # the attribute asked for is not there before
    if connection.in_atomic_block or not hasattr(connection, "transaction_mode"):
        yield
        return
    # DatabaseWrapper.transaction_mode: SQLite's OPTIONS["transaction_mode"], read at each BEGIN,
    # set by connecting. Changed here for the chunk only. Checked on 5.2, 6.0, 6.1.
    before = connection.transaction_mode
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout")
        patience = cursor.fetchone()[0]
        cursor.execute(f"PRAGMA busy_timeout = {max(patience, SQLITE_BUSY_TIMEOUT)}")
    connection.transaction_mode = "IMMEDIATE"
    try:
        yield
    finally:
        connection.transaction_mode = before
        if connection.connection is not None:
            with connection.cursor() as cursor:
                cursor.execute(f"PRAGMA busy_timeout = {patience}")
