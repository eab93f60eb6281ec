"""JSON Lines: a value a line; blank lines are skipped; a rejects file gives its failed items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from carpool.exceptions import SourceError
from carpool.files.decoding import decoder, explained
from carpool.files.file import File
from carpool.files.inputs import opened
from carpool.files.options import Options
from carpool.files.rejected import is_reject, item_of
from carpool.files.text import codec, lines


def check(options: Options, file: File) -> None:
    """Refuse an encoding that there isn't.

    Raises:
        ConfigurationError: naming it.
    """
    codec(options.encoding)


def values(file: File, options: Options) -> Iterator[Any]:
    """Yield the values.

    Raises:
        SourceError: with line and column.
    """
    decode = decoder(allow_nan=options.allow_nan).decode
    rejects: bool | None = None if options.unwrap_rejects else False
    with opened(file) as stream:
        for number, line in enumerate(lines(stream, file, options.encoding, newline="\n"), 1):
            if not line.strip(" \t\r\n"):
                continue
            try:
                value = decode(line)
            except (ValueError, RecursionError) as error:
                raise _explained(error, line, file, number) from error
            if rejects is None:
                rejects = is_reject(value)
            yield item_of(value, file, number) if rejects else value


def _explained(error: Exception, line: str, file: File, number: int) -> SourceError:
    message, place = explained(error, line)
    end = len(line.rstrip())
    place = min(place, end)
    if not line.endswith("\n"):
        hint = " The file ends with this line: was it cut short?"
    elif number == 1 and place == end:
        hint = ' Each line must be a value. For one array over many lines pass format="json".'
    else:
        hint = ""
    return SourceError(f"{message}.{hint}", file=str(file), line=number, column=place + 1)
