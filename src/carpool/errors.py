"""Exceptions turned into plain data, and database errors sorted by what can be done about them.

Both must happen in the worker: neither SQLSTATE nor many an exception survives pickling.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from enum import Enum

from django.db import Error as DjangoDatabaseError
from django.db import InterfaceError, OperationalError

from carpool.types import Fault, Stage

LONGEST_MESSAGE = 10_000
"""Characters of a message kept. Some drivers put the whole statement in; a million failed items
of that size would fill the rejects file with one INSERT's text over and over."""

LONGEST_TRACEBACK = 20_000
"""Characters of a traceback kept, from its end, where the cause is (recursion makes them huge)."""


class Trouble(Enum):
    """A database error that is no fault of the item."""

    RETRY = "conflict with another transaction, or no room: the same work may succeed in a while"
    ROLLED_BACK = "the same, and the server has already rolled the whole transaction back"
    LOST = "the connection is gone"


# SQLSTATE, by https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRESQL = {
    "40001": Trouble.RETRY,  # serialization_failure
    "40P01": Trouble.RETRY,  # deadlock_detected
    "55P03": Trouble.RETRY,  # lock_not_available
    "53300": Trouble.LOST,  # too_many_connections
    "57P01": Trouble.LOST,  # admin_shutdown
    "57P02": Trouble.LOST,  # crash_shutdown
    "57P03": Trouble.LOST,  # cannot_connect_now
    "25P03": Trouble.LOST,  # idle_in_transaction_session_timeout
}
# https://mariadb.com/docs/server/reference/error-codes/mariadb-error-code-reference and
# https://dev.mysql.com/doc/mysql-errors/8.4/en/ (2xxx are the client library's)
_MYSQL = {
    1205: Trouble.RETRY,  # ER_LOCK_WAIT_TIMEOUT; rolls back the statement only
    1213: Trouble.ROLLED_BACK,  # ER_LOCK_DEADLOCK; rolls back the transaction, savepoints gone
    1020: Trouble.RETRY,  # ER_CHECKREAD: changed since last read (MariaDB 11.6.2 and later)
    1040: Trouble.LOST,  # ER_CON_COUNT_ERROR
    1053: Trouble.LOST,  # ER_SERVER_SHUTDOWN
    1927: Trouble.LOST,  # ER_CONNECTION_KILLED
    2002: Trouble.LOST,  # CR_CONNECTION_ERROR
    2003: Trouble.LOST,  # CR_CONN_HOST_ERROR
    2006: Trouble.LOST,  # CR_SERVER_GONE_ERROR
    2013: Trouble.LOST,  # CR_SERVER_LOST
    2055: Trouble.LOST,  # CR_SERVER_LOST_EXTENDED
    4031: Trouble.LOST,  # ER_CLIENT_INTERACTION_TIMEOUT
}
# https://www.sqlite.org/rescode.html; the low byte of an extended code is the primary one
_SQLITE = {5: Trouble.RETRY, 6: Trouble.RETRY}  # SQLITE_BUSY, SQLITE_LOCKED


def _driver_errors(error: BaseException) -> Iterator[BaseException]:
    """Yield the driver's exceptions under Django's in the chain of causes of ``error``."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, DjangoDatabaseError) and current.__cause__ is not None:
            yield current.__cause__
        current = current.__cause__


def sqlstate_of(error: BaseException) -> str | None:
    """Return the SQLSTATE that the driver gives with the error, or None."""
    for cause in _driver_errors(error):
        state = _state_of(cause)
        if state is not None:
            return state
    return None


def _state_of(driver_error: BaseException) -> str | None:
    for name in ("sqlstate", "pgcode"):  # psycopg's and psycopg2's
        state = getattr(driver_error, name, None)
        if isinstance(state, str):
            return state
    return None


def trouble_of(error: BaseException) -> Trouble | None:
    """Sort a database error: retry, rolled back, lost; or None, which means the item's own.

    Only ``error`` itself and its explicit causes (``raise … from error``) count.
    """
    for cause in _driver_errors(error):
        state = _state_of(cause)
        if state is not None:
            if state.startswith("08"):  # the class of connection exceptions
                return Trouble.LOST
            return _POSTGRESQL.get(state)
        code = getattr(cause, "sqlite_errorcode", None)
        if isinstance(code, int):
            return _SQLITE.get(code & 0xFF)
        number = cause.args[0] if cause.args else None
        if isinstance(number, int) and type(cause).__module__.startswith("MySQLdb"):
            if number == 0:  # (0, ''): mysqlclient's word for a connection already closed
                return Trouble.LOST
            return _MYSQL.get(number)
        if _no_code_and_closed(cause):
            return Trouble.LOST
    return None


def _no_code_and_closed(cause: BaseException) -> bool:
    """Tell psycopg's errors about a broken connection: operational, without an SQLSTATE.

    psycopg raises these itself (connection refused, "consuming input failed", "the connection is
    closed"), so there is no code to go by.
    """
    module = type(cause).__module__
    return module.startswith("psycopg") and type(cause).__name__ in {
        OperationalError.__name__,
        InterfaceError.__name__,
        "ConnectionTimeout",
        "PoolTimeout",
    }


def describe(
    error: BaseException, stage: Stage = "function", *, frames: int | None = None
) -> Fault:
    """Return the error as plain data: dotted type path, message, traceback text, SQLSTATE.

    Args:
        frames: how many of the innermost calls the traceback has, of each error; all if None.
    """
    try:
        message = str(error)
    except Exception:  # a broken __str__ must not cost the item its report
        message = f"<{type(error).__name__} whose __str__ raises>"
    limit = None if frames is None else -frames
    try:
        text = "".join(traceback.format_exception(error, limit=limit))
    except Exception:
        text = ""
    return Fault(
        error=error_name(type(error)),
        message=_printable(message)[:LONGEST_MESSAGE],
        traceback=_printable(text)[-LONGEST_TRACEBACK:],
        sqlstate=sqlstate_of(error),
        stage=stage,
    )


def fault_of(kind: type[Exception], message: str, stage: Stage) -> Fault:
    """Return the fault of what nobody has raised: found by the run itself, so without traceback."""
    return Fault(error_name(kind), message, stage=stage)


def error_name(kind: type[BaseException]) -> str:
    """Return the dotted path by which faults and reports name an error."""
    return f"{kind.__module__}.{kind.__qualname__}"


def _printable(text: str) -> str:
    """Replace lone surrogates, which no file or terminal takes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
