"""What is sent to MariaDB and MySQL is byte for byte what mysqlclient would write."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import DataError, ProgrammingError, connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import carpool
from carpool.coalescing.literals import Literals, can_write_literals, written_by

pytestmark = [
    pytest.mark.only_on("mysql"),
    pytest.mark.django_db(transaction=True),
]


class Colour(enum.IntEnum):
    RED = 1


class Word(str):
    """A class of text that the driver has no converter for."""

    __slots__ = ()


NOW = datetime.datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=datetime.UTC)
VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**70,
    0.0,
    -0.0,
    1.5,
    1e300,
    "",
    "a",
    "100% of %s %(it)s %%",
    "quote ' \" back\\slash \0 \n \r \x1a",
    "é 漢 🚗",
    str(uuid.UUID(int=7)),
    uuid.UUID(int=7),
    b"",
    b"\xff'\\\0%s",
    bytearray(b"\xfe"),
    decimal.Decimal("1.10"),
    decimal.Decimal("1E+3"),
    datetime.timedelta(days=-1, seconds=3, microseconds=4),
    datetime.timedelta(days=400),
    NOW,
    NOW.replace(tzinfo=None),
    NOW.date(),
    NOW.time(),
    Colour.RED,
    Word("it's"),
    ("a", 1),
    ["b", None],
    frozenset({"c"}),
]
REFUSED: list[Any] = ["\ud800", float("nan"), float("inf"), 10**5000, frozenset({1})]


@pytest.fixture
def driver() -> Iterator[Any]:
    """Django's own connection of mysqlclient; what a test sets on it is gone after the test."""
    connection.ensure_connection()
    yield connection.connection
    connection.close()


def by_the_driver(driver: Any, rows: list[list[Any]]) -> bytes:
    row = "(" + ", ".join(["%s"] * len(rows[0])) + ")"
    values = [value for values in rows for value in values]
    sent: bytes = driver.cursor()._mogrify(", ".join([row] * len(rows)), values)
    return sent


def by_us(driver: Any, rows: list[list[Any]]) -> bytes:
    with written_by(driver):
        sent: bytes = driver.cursor()._mogrify("%s", [Literals(driver, rows)])
    assert Literals not in driver.encoders
    return sent


def no_fallback(driver: Any, rows: list[list[Any]]) -> bytes:
    return Literals(driver, rows)._by_column()


def error_of(write: Callable[[Any, list[list[Any]]], bytes], *args: Any) -> tuple[type, str]:
    with pytest.raises(Exception) as caught:  # noqa: PT011 (any, as long as it is the same)
        write(*args)
    return caught.type, str(caught.value)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_alone_in_its_column_and_beside_others(driver: Any, value: Any) -> None:
    for others in ([], [value], [None], ["it's 5%"], [7, True], [b"\xff"], [1.0, 1, True]):
        rows = [[value, 1, "x"], *([other, 2, "y"] for other in others)]
        for some in (rows, rows[::-1], [row[:1] for row in rows]):
            assert by_us(driver, some) == by_the_driver(driver, some)
            assert no_fallback(driver, some) == by_the_driver(driver, some)


@pytest.mark.parametrize("value", REFUSED, ids=["surrogate", "nan", "inf", "huge", "set"])
def test_what_the_driver_refuses_is_refused_with_its_error(driver: Any, value: Any) -> None:
    for other in (1, "x", None, value):
        rows = [[1, other], [other, value], [value, 2]]
        assert error_of(by_us, driver, rows) == error_of(by_the_driver, driver, rows)


def test_the_error_is_that_of_the_value_which_the_driver_meets_first(driver: Any) -> None:
    rows = [[None, "\ud801"], ["\ud802", "x"]]
    assert error_of(by_us, driver, rows) == error_of(by_the_driver, driver, rows)


def test_values_that_are_equal_and_written_differently(driver: Any) -> None:
    ones = [decimal.Decimal("1.0"), decimal.Decimal("1.00")]
    rows: list[list[Any]] = [[0.0, ones[0], 1, True], [-0.0, ones[1], True, 1]]
    assert no_fallback(driver, rows) == by_the_driver(driver, rows)


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.datetimes(),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.uuids().map(str),
)
column = st.one_of(
    st.just(anything), st.sampled_from([st.text(st.characters(exclude_categories=["Cs"]))])
)


@st.composite
def tables(draw: Any) -> list[list[Any]]:
    """Draw rows, each of as many values; some columns hold equal values only."""
    number = draw(st.integers(1, 6))
    columns = []
    for _ in range(draw(st.integers(1, 4))):
        values = draw(column)
        if draw(st.booleans()):
            columns.append([draw(values)] * number)
        else:
            columns.append(draw(st.lists(values, min_size=number, max_size=number)))
    return [list(row) for row in zip(*columns, strict=True)]


@settings(
    deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=tables())
def test_any_rows(driver: Any, rows: list[list[Any]]) -> None:
    assert no_fallback(driver, rows) == by_the_driver(driver, rows)


@pytest.mark.parametrize("charset", ["utf8mb4", "latin1", "koi8r", "sjis"])
def test_the_connections_charset(driver: Any, charset: str) -> None:
    driver.set_character_set(charset)
    rows = [["a\\'", "ы" if charset == "koi8r" else "ソ" if charset == "sjis" else "é"], ["b", "c"]]
    assert no_fallback(driver, rows) == by_the_driver(driver, rows)
    assert error_of(by_us, driver, [["\ud800"]]) == error_of(by_the_driver, driver, [["\ud800"]])


@pytest.mark.parametrize(("charset", "encoding"), [("utf8mb4", "latin1"), ("latin1", "utf8")])
def test_an_encoding_that_is_not_the_charsets(driver: Any, charset: str, encoding: str) -> None:
    driver.set_character_set(charset)
    driver.encoding = encoding
    rows = [["é"], ["è"]]
    assert no_fallback(driver, rows) == by_the_driver(driver, rows)


def test_without_backslash_escapes(driver: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_mode = 'NO_BACKSLASH_ESCAPES'")
    rows = [["it's a \\ and a \0"], ["\n"]]
    assert no_fallback(driver, rows) == by_the_driver(driver, rows)
    assert b"it''s a \\ and" in by_us(driver, rows)


def test_the_prefix_of_bytes(driver: Any) -> None:
    driver._binary_prefix = True
    rows = [[b"a", 1], [bytearray(b"b"), 2]]
    assert no_fallback(driver, rows) == by_the_driver(driver, rows)
    assert b"_binary'a'" in by_us(driver, rows)


def test_converters_of_ones_own(driver: Any) -> None:
    """``OPTIONS = {"conv": {…}}``: the driver's own writing of a class may be another."""
    driver.encoders[int] = lambda number, _: f"{number}+0"
    driver.encoders[bool] = lambda flag, _: b"TRUE" if flag else b"FALSE"
    driver.encoders[type(None)] = lambda *_: b"DEFAULT"
    driver.encoders[datetime.date] = lambda *_: b"CURDATE()"
    rows: list[list[Any]] = [
        [1, True, None, NOW.date()],
        [2, False, None, NOW.date()],
        [1, 1, 1, 1],
    ]
    assert no_fallback(driver, rows) == by_the_driver(driver, rows)
    assert b"(1+0, TRUE, DEFAULT, CURDATE())" in by_us(driver, rows)


# Through Django.


def test_an_execute_wrapper_and_the_log_see_the_statement(driver: Any) -> None:
    """No value is in the SQL, all are in the parameters; the log has what was sent."""
    seen: list[tuple[str, Any]] = []

    def look(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        seen.append((sql, params))
        return execute(sql, params, many, context)

    before = connection.force_debug_cursor
    connection.force_debug_cursor = True
    try:
        with connection.execute_wrapper(look), carpool.coalesce():
            for n in range(20):
                Group.objects.create(name=f"100% of 'g{n}'")
    finally:
        connection.force_debug_cursor = before

    [(sql, params)] = [(sql, params) for sql, params in seen if sql.startswith("INSERT")]
    assert "of" not in sql
    assert "100% of 'g7'" in repr(params)
    [logged] = [q["sql"] for q in connection.queries_log if q["sql"].startswith("INSERT")]
    assert r"('100% of \'g7\'')" in logged
    assert Group.objects.filter(name="100% of 'g19'").count() == 1


@pytest.mark.parametrize(("rows", "is_one"), [(1, False), (2, False), (3, True), (50, True)])
def test_what_few_rows_are_sent_as(rows: int, is_one: bool) -> None:
    """A row or two are not worth it: each value is a parameter."""
    seen: list[Any] = []

    def look(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("INSERT"):
            seen.append(params)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(look), carpool.coalesce():
        for n in range(rows):
            Group.objects.create(name=f"g{n}")
    [params] = seen
    assert (type(params[0]) is Literals) is is_one
    assert Group.objects.filter(name=f"g{rows - 1}").exists()


@pytest.mark.parametrize(
    ("name", "error"), [("\ud800", UnicodeEncodeError), ("x" * 200, DataError)], ids=["bad", "long"]
)
def test_errors_are_djangos(name: str, error: type[Exception]) -> None:
    with pytest.raises(error), carpool.coalesce():
        for n in range(5):
            Group.objects.create(name=f"g{n}")
        Group.objects.create(name=name)
    assert not Group.objects.exists()


def test_a_number_that_mysql_has_not_is_djangos_programming_error(driver: Any) -> None:
    with (
        connection.cursor() as cursor,
        written_by(driver),
        pytest.raises(ProgrammingError, match="nan"),
    ):
        params: list[Any] = [Literals(driver, [[float("nan")]])]
        cursor.execute("SELECT %s", params)


def test_another_driver_gets_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyMySQL, say, or what wraps a connection to trace it: all values are parameters."""
    monkeypatch.setattr("carpool.coalescing.writers.can_write_literals", lambda driver: False)
    seen: list[Any] = []

    def look(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        seen.append(params)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(look), carpool.coalesce():
        users = [User.objects.create(username=f"u{n}") for n in range(5)]
    assert any("u3" in params for params in seen if params)
    assert [user.pk for user in users] == list(
        User.objects.order_by("username").values_list("pk", flat=True)
    )


def test_only_mysqlclients_own_connection_counts(driver: Any) -> None:
    class Traced(type(driver)):  # type: ignore[misc]
        pass

    assert can_write_literals(driver)
    assert not can_write_literals(Traced.__new__(Traced))
    assert not can_write_literals(object())


def test_text_of_all_kinds_comes_back_as_it_was() -> None:
    names = [value for value in VALUES if type(value) is str]
    with carpool.coalesce():
        groups = [Group.objects.create(name=name) for name in names]
    for group, name in zip(groups, names, strict=True):
        assert Group.objects.get(pk=group.pk).name == name
