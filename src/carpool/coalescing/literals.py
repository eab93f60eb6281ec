"""Rows as the text of a list of VALUES, for mysqlclient.

mysqlclient binds no values: it writes each into the statement, by two or three calls in Python a
value. `Literals` is one parameter that stands for all rows, and writes them column by column: a
column of one class in one go in C, and one that has the same value in every row once. The bytes are
those that the driver would send.

The driver calls it where it would write the values themselves, so errors come where they always
came; and whoever looks at a statement (an execute wrapper, a log) finds the values in the
parameters as ever, not in the SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

Literal = Callable[[Any], bytes]
"""Writes one value."""

_NONE = type(None)


class Literals:
    """A statement's one parameter: ``(1, 'a'), (2, 'b')``.

    Args:
        driver: the connection it is for, one that `can_write_literals`.
        rows: their values, as many in each.
    """

    __slots__ = ("_driver", "rows")

    def __init__(self, driver: Any, rows: Sequence[Sequence[Any]]) -> None:
        self._driver = driver
        self.rows = rows

    def __repr__(self) -> str:
        return f"Literals({self.rows!r})"

    def text(self, encoders: Any = None) -> bytes:
        """Return the rows as the driver would write them."""
        try:
            return self._by_column()
        except Exception:  # the driver meets the values in another order, and the error is its own
            literal: Literal = self._driver.literal
            return b", ".join(b"(" + b", ".join(map(literal, row)) + b")" for row in self.rows)

    def _by_column(self) -> bytes:
        quick = _quick(self._driver)
        literal: Literal = self._driver.literal
        template: list[bytes] = []
        columns: list[Iterable[Any]] = []  # those that the template has a place for
        for column in zip(*self.rows, strict=True):
            by_class = {kind: quick.get(kind, literal) for kind in set(map(type, column))}
            if len(by_class) > 1:
                template.append(b"%b")
                columns.append([by_class[type(value)](value) for value in column])
                continue
            (write,) = by_class.values()
            if write is not literal and column.count(column[0]) == len(column):
                template.append(write(column[0]).replace(b"%", b"%%"))
            elif write is _whole:
                template.append(b"%d")
                columns.append(column)
            else:
                template.append(b"%b")
                columns.append(map(write, column))
        row = b"(" + b", ".join(template) + b")"
        if not columns:
            return b", ".join([row % ()] * len(self.rows))
        return b", ".join(map(row.__mod__, zip(*columns, strict=True)))


@contextmanager
def written_by(driver: Any) -> Iterator[None]:
    """Let a connection write `Literals` for the block."""
    # mysqlclient finds by class what writes a value. The dict is this connection's own.
    driver.encoders[Literals] = Literals.text
    try:
        yield
    finally:
        del driver.encoders[Literals]


def can_write_literals(driver: Any) -> bool:
    """Tell whether it is a connection of mysqlclient's own class; not one that pretends to be."""
    kind = type(driver)
    return (kind.__module__, kind.__qualname__) == ("MySQLdb.connections", "Connection")


def _quick(driver: Any) -> dict[type, Literal]:
    """Return what writes the values of a class quickly, and as the driver's ``literal()`` would.

    Only values of which those that are equal are written alike.
    """
    own: dict[type, Any] = driver.encoders
    given = import_module("MySQLdb.converters")
    found: dict[type, Literal] = {str: _text(driver)}
    # OPTIONS = {"conv": …} may name others.
    if own.get(int) is given.Thing2Str:
        found[int] = _whole
    if own.get(bool) is given.Bool2Str:
        found[bool] = _whole
    if own.get(_NONE) is given.None2NULL:
        found[_NONE] = _null
    return found


def _text(driver: Any) -> Literal:
    quote: Literal = driver.string_literal
    encoding = driver.encoding
    if encoding == "utf8" and driver.character_set_name().startswith("utf8"):
        return quote  # it encodes by itself, without a copy
    return lambda text: quote(text.encode(encoding))


def _whole(number: int) -> bytes:
    return b"%d" % number  # 1 and 0 for True and False


def _null(value: None) -> bytes:
    return b"NULL"
