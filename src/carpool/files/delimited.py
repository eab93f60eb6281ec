"""CSV and TSV, read by the standard library: each row a dict of strings.

A row with too few or too many fields is an error, and so is a quote that is never closed: what
`csv` does by itself (None for what is missing, the rest of the file as one field) would end up in
the database.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any

from carpool.exceptions import ConfigurationError, SourceError
from carpool.files.file import File
from carpool.files.headers import check_columns, check_header, refuse_header
from carpool.files.inputs import opened
from carpool.files.options import Options
from carpool.files.text import codec, lines


def check(options: Options, file: File) -> None:
    """Refuse what ``csv`` can't work with.

    Raises:
        ConfigurationError: naming the option.
    """
    codec(options.encoding)
    check_columns(options.columns)
    # For the csv module, any object at all is a dialect that says nothing.
    named = options.dialect is None or isinstance(options.dialect, str)
    if not named and not hasattr(options.dialect, "delimiter"):
        raise ConfigurationError(
            f"dialect={options.dialect!r} is no dialect. Name one "
            f"({', '.join(csv.list_dialects())}), or pass a subclass of csv.Dialect."
        )
    try:
        csv.reader([], **_parameters(options, file))
    except (csv.Error, TypeError, ValueError) as error:
        given = ", ".join(
            f"{name}={value!r}"
            for name, value in options.given().items()
            if name in ("dialect", "delimiter", "quotechar")
        )
        raise ConfigurationError(
            f"The csv module refuses {given}: {error}. A delimiter and a quotechar are one "
            f"character each; dialects are {', '.join(csv.list_dialects())}, or a class of yours."
        ) from error


def rows(file: File, options: Options) -> Iterator[dict[str, str]]:
    """Yield the rows.

    Raises:
        SourceError: with the line on which the row begins.
    """
    with opened(file) as stream:
        reader = csv.reader(
            lines(stream, file, options.encoding, newline=""), **_parameters(options, file)
        )
        names = options.columns
        line = 1
        try:
            for row in reader:
                if not row:  # a blank line
                    pass
                elif names is None:
                    check_header(row, file, line)
                    _refuse_other_delimiter(row, options, file, line)
                    names = row
                elif len(row) == len(names):
                    if line == 1:
                        refuse_header(row, options.columns, file, line)
                    yield dict(zip(names, row, strict=True))
                else:
                    raise _ragged(row, names, options, file, line)
                line = reader.line_num + 1
        except csv.Error as error:
            raise _explained(error, file, line, reader.line_num) from error
        except ValueError as error:  # QUOTE_NONNUMERIC, of a dialect of the caller's
            raise SourceError(f"{error}.", file=str(file), line=line) from error


def _parameters(options: Options, file: File) -> dict[str, Any]:
    dialect = options.dialect or ("excel-tab" if file.format == "tsv" else "excel")
    parameters: dict[str, Any] = {"dialect": dialect, "strict": True}
    if options.delimiter is not None:
        parameters["delimiter"] = options.delimiter
    if options.quotechar == "":
        parameters.update(quoting=csv.QUOTE_NONE, quotechar=None)
    elif options.quotechar is not None:
        parameters["quotechar"] = options.quotechar
    return parameters


def _refuse_other_delimiter(header: list[str], options: Options, file: File, line: int) -> None:
    """Refuse a header that is one field, and would be several with another delimiter.

    If its rows have no comma they would pass, each as one field: Excel writes semicolons where the
    comma is the decimal point.
    """
    if len(header) > 1 or options.delimiter or options.dialect or file.format != "csv":
        return
    for other in ";\t|":
        if other in header[0]:
            raise SourceError(
                f"the header is one field, {header[0][:60]!r}. Pass delimiter={other!r}, or, if "
                'that is the one column\'s name, delimiter=",".',
                file=str(file),
                line=line,
            )


def _ragged(row: list[str], names: Any, options: Options, file: File, line: int) -> SourceError:
    where = "the header" if options.columns is None else "columns="
    if len(row) > len(names):
        cause = "Is there a delimiter in a field that isn't quoted"
    else:
        cause = "Was the line cut short, or a line break in a field not quoted"
    if len(names) == 1:
        cause = "Is delimiter= right"
    fields = "1 field" if len(row) == 1 else f"{len(row)} fields"
    return SourceError(
        f"{fields} where {where} has {len(names)}. {cause}? The row begins {_begin(row)}",
        file=str(file),
        line=line,
    )


def _explained(error: csv.Error, file: File, line: int, last: int) -> SourceError:
    text = str(error)
    if "field limit" in text:
        text += (
            ". Either a quote that begins a field is never closed, or the field is really that "
            "long: then call csv.field_size_limit(…) first"
        )
    elif "unexpected end" in text:
        text = "a quote that begins a field of this row is never closed, up to the end of the file"
    elif "expected after" in text:
        text += (
            ": a quote inside of a quoted field has to be doubled. If quotes mean nothing in this "
            'file, pass quotechar=""'
        )
    if last > line:
        text += f" (the row goes on to line {last})"
    return SourceError(f"{text}.", file=str(file), line=line)


def _begin(row: list[str]) -> str:
    text = repr(row[:3])[1:-1]
    return f"{text[:60]}…" if len(text) > 60 or len(row) > 3 else text
