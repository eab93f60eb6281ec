"""What an item does on its chunk's connections, seen as it happens."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from carpool.errors import Trouble, trouble_of
from carpool.exceptions import ConfigurationError, TransactionBroken

_ENDS = re.compile(
    r"\s*(COMMIT|END|BEGIN|START\s+TRANSACTION|ROLLBACK(?!\s+(WORK\s+)?TO\b))\b",
    re.IGNORECASE,
)
"""Statements that end the transaction, or begin another, on every database."""

_ENDS_SILENTLY = re.compile(
    r"\s*(ALTER|CREATE(?!\s+TEMPORARY)|DROP(?!\s+TEMPORARY)|RENAME|TRUNCATE|LOCK\s+TABLES)\b",
    re.IGNORECASE,
)
"""Likewise, on databases that can't roll DDL back: "Statements that cause an implicit commit" in
MariaDB's manual."""


_READS = re.compile(
    r"[\s(]*(SELECT|SHOW|EXPLAIN|DESCRIBE|PRAGMA|SET|VALUES|TABLE)\b", re.IGNORECASE
)
_WITH = re.compile(r"\s*WITH\b", re.IGNORECASE)
_SAVEPOINTS = re.compile(r"\s*(SAVEPOINT|RELEASE|ROLLBACK)\b", re.IGNORECASE)
_WRITES_WITHIN = re.compile(r"\b(INSERT|UPDATE|DELETE|MERGE|REPLACE)\b", re.IGNORECASE)


class Probe:
    """Counts the statements an item sends, and remembers the trouble it meets.

    A cursor counts as a statement: callproc(), and COPY on the driver's cursor, pass by the
    wrappers of execute().

    Trouble is remembered since a function may catch the error: if the server has undone the
    transaction, the rows of the items before it are gone, whatever the function makes of it.

    ``seconds``: how long statements took that went through ``execute()``.
    """

    def __init__(self) -> None:
        self.statements = 0
        self.seconds = 0.0
        self.undone: BaseException | None = None

    def __call__(
        self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        self.statements += 1
        refuse_to_end_the_transaction(sql, context["connection"])
        began = time.perf_counter()
        try:
            return execute(sql, params, many, context)
        except Exception as error:
            if trouble_of(error) in (Trouble.ROLLED_BACK, Trouble.LOST):
                self.undone = error
            raise
        finally:
            self.seconds += time.perf_counter() - began

    @contextmanager
    def watch(self, connection: BaseDatabaseWrapper) -> Iterator[None]:
        """See what goes over a connection, for the block."""
        # BaseDatabaseWrapper.cursor is shadowed on this one connection, since there is no hook
        # that tells of a cursor. Checked on 5.2, 6.0, 6.1.
        attributes = vars(connection)
        before, cursor = attributes.get("cursor"), connection.cursor

        def counted() -> Any:
            self.statements += 1
            return cursor()

        attributes["cursor"] = counted
        try:
            with connection.execute_wrapper(self):
                yield
        finally:
            del attributes["cursor"]
            if before is not None:
                attributes["cursor"] = before


def refuse_to_end_the_transaction(sql: Any, connection: BaseDatabaseWrapper) -> None:
    """Raise before the rows of the items so far are committed behind our back."""
    if not isinstance(sql, str):  # bytes, or an object of psycopg.sql
        return
    if _ENDS.match(sql) or (not connection.features.can_rollback_ddl and _ENDS_SILENTLY.match(sql)):
        raise TransactionBroken(
            f"the function sent {' '.join(sql.split())[:60]!r}, which would end the chunk's "
            "transaction on this database, and so was not executed. Do that before the run, or "
            "on a connection that the run doesn't use."
        )


@contextmanager
def only_reads(using: Iterable[str]) -> Iterator[None]:
    """For a dry run: refuse what writes to databases that it doesn't roll back, for the block.

    What is inside a transaction of the caller's is that one's to roll back.
    """
    rolled_back = set(using)
    with ExitStack() as stack:
        for alias in connections:
            with suppress(ImproperlyConfigured):  # without its driver nobody can write there
                if alias not in rolled_back and not connections[alias].in_atomic_block:
                    stack.enter_context(connections[alias].execute_wrapper(_refuse_to_write))
        yield


@contextmanager
def in_its_transaction(using: Iterable[str]) -> Iterator[None]:
    """Refuse what would end the transactions on these databases, for the block."""
    with ExitStack() as stack:
        for alias in using:
            stack.enter_context(connections[alias].execute_wrapper(_refuse_to_end))
        yield


def _refuse_to_end(
    execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
) -> Any:
    refuse_to_end_the_transaction(sql, context["connection"])
    return execute(sql, params, many, context)


def _refuse_to_write(
    execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
) -> Any:
    if isinstance(sql, str) and not _is_read(sql):
        alias = context["connection"].alias
        raise ConfigurationError(
            f"the function sent {' '.join(sql.split())[:60]!r} to the database {alias!r}, which a "
            f"dry run rolls back only if it is named in using (--using {alias}), and so was not "
            "executed."
        )
    return execute(sql, params, many, context)


def _is_read(sql: str) -> bool:
    if _READS.match(sql) or _SAVEPOINTS.match(sql):
        return True
    return bool(_WITH.match(sql)) and not _WRITES_WITHIN.search(sql)
