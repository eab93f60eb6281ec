"""Exceptions as plain data, and database errors sorted by what can be done about them."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.db import connections, utils
from hypothesis import given
from hypothesis import strategies as st

from carpool.errors import (
    LONGEST_MESSAGE,
    LONGEST_TRACEBACK,
    Trouble,
    describe,
    fault_of,
    sqlstate_of,
    trouble_of,
)
from carpool.exceptions import WorkerDied
from carpool.types import Fault
from tests.unit.driver_errors import busy, deadlock, mysql_error, psycopg_error, through_django


def wrapped(call: Callable[[], Any]) -> Exception:
    """Return what a real call of sqlite3 raises, through Django's real wrapper."""
    with pytest.raises(utils.Error) as caught, connections["default"].wrap_database_errors:
        call()
    return caught.value


POSTGRESQL = [
    ("40001", Trouble.RETRY),
    ("40P01", Trouble.RETRY),
    ("55P03", Trouble.RETRY),
    ("53300", Trouble.LOST),
    ("57P01", Trouble.LOST),
    ("57P02", Trouble.LOST),
    ("57P03", Trouble.LOST),
    ("25P03", Trouble.LOST),
    ("08000", Trouble.LOST),
    ("08006", Trouble.LOST),
    ("23505", None),
    ("23503", None),
    ("25P02", None),
    ("42P01", None),
    ("57014", None),
]


@pytest.mark.parametrize(("state", "trouble"), POSTGRESQL)
def test_postgresql_errors_are_sorted_by_sqlstate(state: str, trouble: Trouble | None) -> None:
    """Conflicts are tried again, lost connections made anew, all else is the item's own fault."""
    error = through_django(psycopg_error("SomeError", state))
    assert trouble_of(error) is trouble
    assert sqlstate_of(error) == state


@pytest.mark.parametrize(("state", "trouble"), POSTGRESQL)
def test_psycopg2_calls_it_pgcode(state: str, trouble: Trouble | None) -> None:
    """The older driver, which Django supports as well, has the same codes by another name."""
    kind = type("SomeError", (Exception,), {"__module__": "psycopg2.errors", "pgcode": state})
    error = through_django(kind("…"))
    assert trouble_of(error) is trouble
    assert sqlstate_of(error) == state


@pytest.mark.parametrize(
    ("name", "trouble"),
    [
        ("OperationalError", Trouble.LOST),
        ("InterfaceError", Trouble.LOST),
        ("ConnectionTimeout", Trouble.LOST),
        ("PoolTimeout", Trouble.LOST),
        ("ProgrammingError", None),
        ("DataError", None),
    ],
)
def test_psycopgs_own_errors_of_the_connection_mean_lost(
    name: str, trouble: Trouble | None
) -> None:
    """psycopg says without an SQLSTATE that the connection is gone; its other errors don't."""
    error = through_django(psycopg_error(name, None))
    assert trouble_of(error) is trouble
    assert sqlstate_of(error) is None


MYSQL: list[tuple[Any, Trouble | None]] = [
    (1205, Trouble.RETRY),
    (1213, Trouble.ROLLED_BACK),
    (1020, Trouble.RETRY),
    (1040, Trouble.LOST),
    (1053, Trouble.LOST),
    (1927, Trouble.LOST),
    (2002, Trouble.LOST),
    (2003, Trouble.LOST),
    (2006, Trouble.LOST),
    (2013, Trouble.LOST),
    (2055, Trouble.LOST),
    (4031, Trouble.LOST),
    (0, Trouble.LOST),
    (1062, None),
    (1452, None),
    ("1205", None),
]


@pytest.mark.parametrize(("number", "trouble"), MYSQL)
def test_mysql_errors_are_sorted_by_number(number: Any, trouble: Trouble | None) -> None:
    """A deadlock undoes the transaction, a lock timeout the statement, 2006 is a lost one."""
    error = through_django(mysql_error(number))
    assert trouble_of(error) is trouble
    assert sqlstate_of(error) is None


def test_an_error_without_arguments_is_nobodys_trouble() -> None:
    """An exception of the driver's without a number is taken for the item's."""
    kind = type("OperationalError", (Exception,), {"__module__": "MySQLdb"})
    assert trouble_of(through_django(kind())) is None


def test_a_busy_sqlite_is_tried_again(tmp_path: Path) -> None:
    """SQLITE_BUSY, as sqlite3 raises it, is a conflict with another transaction."""
    path = tmp_path / "busy.sqlite3"
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as one,
        closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other,
    ):
        one.execute("BEGIN IMMEDIATE")
        error = wrapped(lambda: other.execute("BEGIN IMMEDIATE"))
    assert "locked" in str(error)
    assert trouble_of(error) is Trouble.RETRY


def test_a_read_that_cannot_become_a_write_is_tried_again(tmp_path: Path) -> None:
    """SQLITE_BUSY_SNAPSHOT, an extended code, counts as its primary one."""
    path = tmp_path / "wal.sqlite3"
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as one,
        closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other,
    ):
        one.execute("PRAGMA journal_mode = WAL")
        one.execute("CREATE TABLE t (n)")
        other.execute("BEGIN")
        other.execute("SELECT * FROM t").fetchall()
        one.execute("INSERT INTO t VALUES (1)")
        error = wrapped(lambda: other.execute("INSERT INTO t VALUES (2)"))
    cause: Any = error.__cause__
    assert cause.sqlite_errorcode == sqlite3.SQLITE_BUSY_SNAPSHOT
    assert trouble_of(error) is Trouble.RETRY


def test_the_made_up_busy_error_is_as_the_real_one() -> None:
    """What other tests raise in the place of a busy SQLite is sorted as such."""
    assert trouble_of(busy()) is Trouble.RETRY


@pytest.mark.parametrize(
    "statement",
    ["SELECT * FROM nothing", "INSERT INTO t VALUES (1)", "SELEC"],
    ids=["no table", "unique", "syntax"],
)
def test_sqlites_other_errors_are_the_items_own(statement: str) -> None:
    """A duplicate or a typing error would fail again: nothing to retry."""
    with closing(sqlite3.connect(":memory:")) as one:
        one.execute("CREATE TABLE t (n UNIQUE)")
        one.execute("INSERT INTO t VALUES (1)")
        error = wrapped(lambda: one.execute(statement))
    assert trouble_of(error) is None


def test_an_error_raised_from_a_database_error_is_sorted_by_it() -> None:
    """`raise Mine from error` keeps the cause, so a deadlock is still one."""
    with pytest.raises(RuntimeError) as caught:
        raise RuntimeError("mine") from deadlock()
    assert trouble_of(caught.value) is Trouble.RETRY
    assert sqlstate_of(caught.value) == "40P01"


def test_an_error_raised_while_handling_one_is_the_functions_own() -> None:
    """Only explicit causes count: what a function makes of an error it caught is its decision."""
    with pytest.raises(RuntimeError) as caught:  # noqa: PT012
        try:
            raise deadlock()
        except utils.Error:
            raise RuntimeError("mine")  # noqa: B904
    assert trouble_of(caught.value) is None


def test_a_number_that_is_not_the_drivers_means_nothing() -> None:
    """An error of the function's own whose first argument is 1213 is no deadlock."""
    assert trouble_of(ValueError(1213)) is None
    assert trouble_of(through_django(ValueError(1213))) is None
    assert trouble_of(utils.OperationalError(1213)) is None


def test_causes_that_go_round_in_circles_are_followed_once() -> None:
    """A chain of causes that closes on itself does not hang the worker."""
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert trouble_of(one) is None
    assert describe(one).message == "one"


def test_an_error_is_described_by_type_message_and_traceback() -> None:
    """A fault says what a traceback would, as text, with the SQLSTATE."""
    with pytest.raises(RuntimeError) as caught:
        raise RuntimeError("mine") from deadlock()
    fault = describe(caught.value, "commit")
    assert fault.error == "builtins.RuntimeError"
    assert fault.message == "mine"
    assert fault.sqlstate == "40P01"
    assert fault.stage == "commit"
    assert "test_errors.py" in fault.traceback
    assert "direct cause" in fault.traceback
    assert fault.traceback.endswith("RuntimeError: mine\n")


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no comment")


class Odd(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


@pytest.mark.parametrize("error", [Mute(), Odd()], ids=["raises", "is no text"])
def test_a_broken_str_does_not_cost_the_item_its_report(error: Exception) -> None:
    """An exception that can't say what it is is named all the same."""
    fault = describe(error)
    assert fault.error.endswith(type(error).__qualname__)
    assert type(error).__name__ in fault.message


@given(st.text(st.characters(), max_size=200))
def test_any_message_can_be_written_to_a_file(text: str) -> None:
    """Messages and tracebacks encode, lone surrogates and all, and travel."""
    try:
        raise ValueError(text)
    except ValueError as error:
        fault = describe(error)
    fault.message.encode()
    fault.traceback.encode()
    assert pickle.loads(pickle.dumps(fault)) == fault


def test_a_lone_surrogate_is_shown_by_its_number() -> None:
    """What no file takes is replaced by its escape, the rest is kept."""
    assert describe(ValueError("a\ud800ö")).message == "a\\ud800ö"


def test_long_messages_and_tracebacks_are_cut() -> None:
    """A message keeps its beginning, a traceback its end, where the cause is."""
    with pytest.raises(ValueError, match="first") as caught:
        raise ValueError("first" + "x" * 50_000)
    fault = describe(caught.value)
    assert len(fault.message) == LONGEST_MESSAGE
    assert fault.message.startswith("first")
    assert len(fault.traceback) == LONGEST_TRACEBACK
    assert fault.traceback.endswith("x\n")


def test_a_local_class_is_named_by_its_whole_path() -> None:
    """A class inside a function has a dotted path too."""

    class Local(Exception):
        pass

    assert describe(Local()).error.endswith("whole_path.<locals>.Local")


def test_what_nobody_has_raised_is_a_fault_too() -> None:
    """It has the error's path, its message and stage, and no traceback."""
    fault = fault_of(WorkerDied, "it died", "worker")
    assert fault == Fault("carpool.exceptions.WorkerDied", "it died", stage="worker")
