"""Errors as database drivers raise them, for tests that have no such database."""

from __future__ import annotations

import sqlite3
from typing import Any

from django.db import utils


def through_django(driver_error: Exception, kind: str = "OperationalError") -> Exception:
    """Return the error as Django's wrapper raises it: its own class, `from` the driver's."""
    try:
        raise getattr(utils, kind)(*driver_error.args) from driver_error
    except utils.Error as error:
        return error


def psycopg_error(name: str, sqlstate: str | None, message: str = "…") -> Exception:
    """Return an exception as psycopg's: its module, its class name, and `sqlstate`."""
    module = "psycopg" if sqlstate is None else "psycopg.errors"
    kind = type(name, (Exception,), {"__module__": module, "sqlstate": sqlstate})
    return kind(message)  # type: ignore[no-any-return]


def mysql_error(number: Any, message: str = "…") -> Exception:
    """Return an exception as mysqlclient's: its module, and the number as first argument."""
    kind = type("OperationalError", (Exception,), {"__module__": "MySQLdb"})
    return kind(number, message)  # type: ignore[no-any-return]


def busy() -> Exception:
    """Return SQLite's "database is locked"."""
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return through_django(error)


def deadlock() -> Exception:
    """Return PostgreSQL's deadlock: try the transaction again."""
    return through_django(psycopg_error("DeadlockDetected", "40P01", "deadlock"))


def rolled_back() -> Exception:
    """Return MySQL's deadlock: the server has undone the transaction already."""
    return through_django(mysql_error(1213, "Deadlock found"))


def lost() -> Exception:
    """Return psycopg's word for a connection that is gone."""
    return through_django(psycopg_error("OperationalError", None, "the connection is lost"))
