"""Excel's .xlsx, read by openpyxl row by row: each a dict of str, int, float, bool, dates, None.

Cells have the values that Excel shows; formulas have what they came to when the file was saved. A
row of empty cells is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO, Any

from carpool.exceptions import ConfigurationError, SourceError
from carpool.files.extras import require
from carpool.files.file import File
from carpool.files.headers import check_columns, check_header, refuse_header
from carpool.files.inputs import seekable
from carpool.files.options import Options


def check(options: Options, file: File) -> None:
    """Refuse to go on without openpyxl, or with names that are none.

    Raises:
        ConfigurationError: naming the extra, or the option.
    """
    require("openpyxl", extra="xlsx", for_what=".xlsx")
    check_columns(options.columns)
    if options.sheet is not None and not isinstance(options.sheet, str):
        raise ConfigurationError(f"sheet={options.sheet!r} must be the name of a sheet, or None.")


def rows(file: File, options: Options) -> Iterator[dict[str, Any]]:
    """Yield the rows of one sheet.

    Raises:
        SourceError: with the row as line.
    """
    with seekable(file) as stream:
        names = options.columns
        for line, cells in enumerate(_cells(stream, file, options.sheet), 1):
            row = _trimmed(cells)
            if not row:
                continue
            if names is None:
                names = ["" if cell is None else str(cell) for cell in row]
                check_header(names, file, line)
                continue
            if line == 1:
                refuse_header(row, options.columns, file, line)
            if len(row) > len(names):
                raise SourceError(
                    f"{row[-1]!r} is in column {len(row)}, and only {len(names)} have a name. "
                    "Give the column one, or pass columns=[…].",
                    file=str(file),
                    line=line,
                    column=len(row),
                )
            row += [None] * (len(names) - len(row))
            yield dict(zip(names, row, strict=True))


def _cells(stream: IO[bytes], file: File, name: str | None) -> Iterator[Sequence[Any]]:
    openpyxl = require("openpyxl", extra="xlsx", for_what=".xlsx")
    try:
        book = openpyxl.load_workbook(stream, read_only=True, data_only=True, keep_links=False)
    except Exception as error:
        raise _unreadable(error, file) from error
    try:
        sheet = _sheet(book.worksheets, name, file)
        # Some programs write a wrong size of the sheet, and openpyxl would read no further.
        sheet.reset_dimensions()
        rows = sheet.iter_rows(values_only=True)
        line = 0
        while True:
            try:
                row = next(rows, None)
            except Exception as error:
                raise _unreadable(error, file, line + 1) from error
            if row is None:
                return
            line += 1
            yield row
    finally:
        book.close()


def _sheet(sheets: Sequence[Any], name: str | None, file: File) -> Any:
    for sheet in sheets:
        if name is None or sheet.title == name:
            return sheet
    there = ", ".join(repr(sheet.title) for sheet in sheets)
    raise SourceError(
        f"there is no sheet {name!r}; there are: {there}." if name else "there is no sheet in it.",
        file=str(file),
    )


def _trimmed(cells: Sequence[Any]) -> list[Any]:
    """Return the cells up to the last one that isn't empty."""
    row = list(cells)
    while row and row[-1] is None:
        row.pop()
    return row


def _unreadable(error: Exception, file: File, line: int | None = None) -> SourceError:
    text = f"{type(error).__name__}: {error}".rstrip(".")
    return SourceError(
        f"openpyxl can't read it ({text}). Is it an .xlsx file, and whole?",
        file=str(file),
        line=line,
    )
