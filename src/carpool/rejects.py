"""The rejects file: each failed item as a line of JSON, written as it happens.

A line holds ``index``, ``item``, ``error``, ``message``, ``sqlstate``, ``stage`` and
``traceback``. An item that JSON can't hold as it is (a date, a tuple's or an object's type, a key
that is no string) is written by ``repr`` and the line has ``"item_is_repr": true``.

Refused: to write over a file that holds something. It may be an earlier run's failed items, or
this very run's source. A run with a journal, which may be taken up again, adds to its file.
"""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from carpool.exceptions import ConfigurationError
from carpool.types import Failure

LONGEST_NUMBER = 2_000
"""Bits of a whole number that is written as one. Python refuses to write or read much longer ones
(``sys.set_int_max_str_digits``, at the least 640 digits)."""


class Rejects:
    """An open rejects file.

    ``more``: a run that is taken up again adds to the file that it began.

    Attributes:
        adds: the file holds items already.
    """

    def __init__(self, path: str | os.PathLike[str], *, more: bool = False) -> None:
        try:
            self.path = Path(path)
            self.adds = more and self.path.is_file() and self.path.stat().st_size > 0
            if more and self.path.is_file():
                _refuse_other_files(self.path)
            elif self.path.exists() and (not self.path.is_file() or self.path.stat().st_size):
                raise ConfigurationError(
                    f"rejects={str(self.path)!r} is there already and not an empty file. It may "
                    "hold an earlier run's failed items: move it away, or name another."
                )
            self._file: IO[str] = self.path.open("a" if more else "w", encoding="utf-8")
        except (OSError, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"rejects={path!r} can't be opened: {error}. Name a path that can be written."
            ) from error

    def write(self, failure: Failure) -> None:
        """Add a line, at once: a run that is killed must not take it along.

        Raises:
            OSError: the disk is full, for one.
        """
        self._file.write(json.dumps(line_of(failure), ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        with suppress(OSError):  # a line that could not be written: `write` has said so
            self._file.close()


def line_of(failure: Failure) -> dict[str, Any]:
    """Return what is written of a failed item."""
    line: dict[str, Any] = {"index": failure.index}
    if _fits_json(failure.item):
        line["item"] = failure.item
    else:
        line["item"] = _repr(failure.item)
        line["item_is_repr"] = True
    for name in ("error", "message", "sqlstate", "stage", "traceback"):
        line[name] = getattr(failure, name)
    return line


def _refuse_other_files(path: Path) -> None:
    """Refuse to add to what is not a rejects file. A line cut short by a kill is ended."""
    with path.open("rb+") as file:
        first = file.readline()
        if first and not first.startswith(b'{"index": '):
            raise ConfigurationError(
                f"rejects={str(path)!r} is there already and no file of rejects. Name another."
            )
        file.seek(0, os.SEEK_END)
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def _fits_json(value: Any, depth: int = 100) -> bool:
    """Tell whether JSON gives back exactly this value."""
    if depth == 0:
        return False
    if isinstance(value, str):
        return type(value) is str and not any("\ud800" <= c <= "\udfff" for c in value)
    if value is None or type(value) is bool:
        return True
    if type(value) is int:
        return value.bit_length() <= LONGEST_NUMBER
    if type(value) is float:
        return math.isfinite(value)
    if type(value) is list:
        return all(_fits_json(part, depth - 1) for part in value)
    if type(value) is dict:
        return all(
            type(key) is str and _fits_json(key) and _fits_json(part, depth - 1)
            for key, part in value.items()
        )
    return False


def _repr(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__qualname__} whose __repr__ raises {type(error).__name__}>"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
