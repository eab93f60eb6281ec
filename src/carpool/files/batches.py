"""Rows of Arrow's record batches as dicts of Python values, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from carpool.exceptions import SourceError
from carpool.files.extras import require
from carpool.files.file import File
from carpool.files.headers import check_header
from carpool.files.options import Options

ROWS = 1_000
"""Made into Python values at a time. More is hardly faster, and is memory."""


def check(options: Options, file: File) -> None:
    """Refuse to go on without pyarrow.

    Raises:
        ConfigurationError: naming the extra.
    """
    require("pyarrow", extra="parquet", for_what=f".{file.format}")


def rows_of(batches: Iterator[Any], file: File) -> Iterator[dict[str, Any]]:
    """Yield the rows of all batches.

    Raises:
        SourceError: with the row as line, counted from 1, and the name of the column, if a value
            has no like in Python; or a batch can't be read.
    """
    before = 0
    while True:
        try:
            batch = next(batches, None)
        except Exception as error:
            raise unreadable(error, file, line=before + 1) from error
        if batch is None:
            return
        if not before:
            check_header(batch.schema.names, file, 1)
        for begin in range(0, batch.num_rows, ROWS):
            part = batch.slice(begin, ROWS)
            try:
                rows = part.to_pylist()
            except Exception:
                yield from _one_by_one(part, file, before + begin)
            else:
                yield from rows
        before += batch.num_rows


def unreadable(error: Exception, file: File, line: int | None = None) -> SourceError:
    """Return the error for what pyarrow can't read."""
    text = str(error).rstrip(".")
    return SourceError(f"pyarrow can't read it: {text}.", file=str(file), line=line)


def _one_by_one(batch: Any, file: File, before: int) -> Iterator[dict[str, Any]]:
    for index in range(batch.num_rows):
        row = {}
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            try:
                row[name] = column[index].as_py()
            except Exception as error:
                raise SourceError(
                    f"the value, of type {column.type}, has no like in Python: {error}. Cast the "
                    "column when the file is written.",
                    file=str(file),
                    line=before + index + 1,
                    column=name,
                ) from error
        yield row
