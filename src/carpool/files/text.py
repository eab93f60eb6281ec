"""Text from bytes, in which a byte that isn't text is found by its line and column.

Decoding gives such a byte a character that no valid text has, U+DC00 to U+DCFF, so that it can be
looked for line by line; a decoding error would only know its place in a block of bytes. (Python's
``surrogateescape`` does so, but for no byte below 0x80, which may be wrong in UTF-16.)
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from typing import IO

from carpool.exceptions import ConfigurationError, SourceError
from carpool.files.file import File

ESCAPE = "carpool.escape"
WRONG = re.compile("[\udc00-\udcff]")

_KINDS = {
    b"\xff\xfe": 'UTF-16 begins so: encoding="utf-16"',
    b"\xfe\xff": 'UTF-16 begins so: encoding="utf-16"',
    b"\x1f\x8b": "gzip begins so: the name should end in .gz",
    b"\x28\xb5\x2f\xfd": "zstd begins so: the name should end in .zst",
    b"\xfd7zXZ": "xz begins so: the name should end in .xz",
    b"BZh": "bzip2 begins so: the name should end in .bz2",
    b"PK\x03\x04": "zip begins so: if it's an Excel file, the name should end in .xlsx",
    b"PAR1": "Parquet begins so: the name should end in .parquet",
}
"""What else a file may be, by its first bytes."""


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Escape what can't be decoded: a handler of errors, as ``codecs`` has them."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    wrong = error.object[error.start : error.end]
    return "".join(chr(0xDC00 + byte) for byte in wrong), error.end


codecs.register_error(ESCAPE, _escape)


def codec(encoding: str) -> str:
    """Return the codec to decode with: of UTF-8 the one that drops a byte order mark.

    Raises:
        ConfigurationError: there is no such encoding of text.
    """
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        name = codecs.lookup(encoding).name
    except (LookupError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"encoding={encoding!r} is not one that Python can decode text with ({error}). Usual "
            'ones: "utf-8", "cp1252" (Western Europe, Windows), "latin-1", "utf-16".'
        ) from error
    return "utf-8-sig" if name == "utf-8" else name


def lines(
    stream: IO[bytes], file: File, encoding: str, *, newline: str | None = None
) -> Iterator[str]:
    """Yield the lines, ends included; ``newline`` is that of ``open()``.

    Raises:
        SourceError: with the line, and with the column if it's of a wrong byte.
    """
    number = 0
    wrapper = io.TextIOWrapper(stream, codec(encoding), errors=ESCAPE, newline=newline)
    try:
        for line in wrapper:
            number += 1
            if not line.isascii() and (found := WRONG.search(line)):
                raise wrong_byte(file, encoding, line, found.start(), number, found.start() + 1)
            yield line
    except SourceError as error:
        error.line = error.line or number + 1
        raise
    except UnicodeError as error:  # such as UTF-16 without its mark
        raise not_text(file, encoding, error, number + 1) from error


def wrong_byte(
    file: File, encoding: str, text: str, at: int, line: int, column: int
) -> SourceError:
    """Return the error for the escaped byte at ``text[at]``."""
    byte = ord(text[at]) - 0xDC00
    remedy = f'Pass the encoding it has, such as encoding="cp1252", if {encoding} is not it.'
    if line == 1 and codec(encoding) == "utf-8-sig":
        first = text[:8].encode("utf-8", "surrogateescape")
        for start, kind in _KINDS.items():
            if first.startswith(start):
                remedy = f"{kind}."
    return SourceError(
        f"the byte 0x{byte:02x} is not {encoding}. {remedy}",
        file=str(file),
        line=line,
        column=column,
    )


def not_text(
    file: File, encoding: str, error: UnicodeError, line: int, column: int | None = None
) -> SourceError:
    """Return the error for text that can't be decoded from here on."""
    return SourceError(
        f"what follows is not {encoding} ({error}). Pass the encoding it has.",
        file=str(file),
        line=line,
        column=column,
    )
