"""A JSON array, value by value: the standard library decodes each, out of a window of text.

::

    [ {"a": 1}, {"a": 2}, {"a": 3}, {"a
    ╰─ done ─╯  ▲ at                  ╰ the end of what has been read

If a value goes on beyond the window, more is read, at least as much again, so that a value of any
size is decoded in time proportional to it. Memory is that of the longest value.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import IO, Any

from carpool.exceptions import SourceError
from carpool.files.decoding import decoder, explained
from carpool.files.file import File
from carpool.files.inputs import opened
from carpool.files.jsonl import check
from carpool.files.options import Options
from carpool.files.text import ESCAPE, WRONG, codec, not_text, wrong_byte

__all__ = ["check", "values"]

BLOCK = 1 << 16
"""Bytes read at a time. With much less, each value costs a read; much more is only memory."""

MARGIN = 16
"""Characters within which the window's end can be what is wrong: ``-Infinit``, ``\\ud83d\\ud``.
An error that is further from it is the file's."""

_SPACE = re.compile(r"[ \t\n\r]*")


def values(file: File, options: Options) -> Iterator[Any]:
    """Yield the array's values.

    Raises:
        SourceError: with line and column.
    """
    decode = decoder(allow_nan=options.allow_nan).raw_decode
    with opened(file) as stream:
        window = Window(stream, file, options.encoding)
        first = window.next()
        if first != "[":
            raise window.error(_not_an_array(first))
        window.at += 1
        if window.next() == "]":
            window.at += 1
        else:
            while True:
                yield window.value(decode)
                mark = window.next()
                if mark not in (",", "]"):
                    raise window.error(
                        "expecting ',' or ']'"
                        if mark
                        else "the file ends within the array. Was it cut short?"
                    )
                window.at += 1
                if mark == "]":
                    break
                window.next()
        if window.next():
            raise window.error(
                "more follows the array's end. If each line has a value of its own, pass "
                'format="jsonl".'
            )


class Window:
    """The part of a file's text that has been read and not used up.

    Attributes:
        at: where in it the next value or mark begins.
    """

    def __init__(self, stream: IO[bytes], file: File, encoding: str) -> None:
        self._stream: Any = stream
        self._file = file
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(codec(encoding))(ESCAPE)
        self._text = ""
        self._ended = False
        self._error: SourceError | None = None
        self._wrong: str | None = None
        self._line = 1
        self._column = 1
        self.at = 0

    def next(self) -> str:
        """Go to the next character that is no space, and return it; "" at the end."""
        while True:
            self.at = _SPACE.match(self._text, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self._text):
                return self._text[self.at]
            if self._ended:
                return ""
            self._read()

    def value(self, decode: Any) -> Any:
        """Return the value that begins here, and go to its end."""
        while True:
            try:
                value, end = decode(self._text, self.at)
            except (ValueError, RecursionError) as error:
                message, place = explained(error, self._text, self.at)
                if not self._ended and self._may_go_on(error, place):
                    self._read()
                    continue
                cut = self._ended and isinstance(error, json.JSONDecodeError)
                if cut and place + MARGIN >= len(self._text):
                    message += ". Was the file cut short?"
                raise self.error(message, place) from error
            # A number may go on after the window's end, and no other value. ("" is in any text.)
            if self._text[end : end + 1] in "0123456789.eE+-" and not self._ended:
                self._read()
                continue
            self.at = end
            return value

    def error(self, message: str, place: int | None = None) -> SourceError:
        """Return an error at a place of the window, by default where it stands."""
        line, column = self._place(self.at if place is None else place)
        text = message if message.endswith((".", "?")) else f"{message}."
        return SourceError(text, file=str(self._file), line=line, column=column)

    def _may_go_on(self, error: Exception, place: int) -> bool:
        """Tell whether the error may be only that the window ends here."""
        return isinstance(error, json.JSONDecodeError) and (
            place + MARGIN >= len(self._text) or error.msg.startswith("Unterminated string")
        )

    def _read(self) -> None:
        """Drop what is used up; read a block, and as much as is left if that is more.

        Raises:
            SourceError: there is no more that can be read. What came before it has been given.
        """
        if self._wrong is not None:
            line, column = self._place(len(self._text))
            raise wrong_byte(
                self._file, self._encoding, self._text + self._wrong, len(self._text), line, column
            )
        if self._error is not None:
            self._error.line, self._error.column = self._place(len(self._text))
            raise self._error
        self._line, self._column = self._place(self.at)
        parts = [self._text[self.at :]]
        self.at = 0
        length = wanted = len(parts[0])
        while length <= wanted and not (self._ended or self._wrong or self._error):
            parts.append(self._block())
            length += len(parts[-1])
            wanted = 2 * len(parts[0])
        self._text = "".join(parts)

    def _block(self) -> str:
        """Return the next block's text, up to what is wrong with it, which is kept for later."""
        try:
            data = self._stream.read1(BLOCK)
            self._ended = not data
            text = self._decoder.decode(data, final=self._ended)
        except SourceError as error:
            self._error = error
            return ""
        except UnicodeError as error:
            self._error = not_text(self._file, self._encoding, error, 0)
            return ""
        found = None if text.isascii() else WRONG.search(text)
        if found is None:
            return text
        self._wrong = text[found.start() :][:MARGIN]
        self._ended = False
        return text[: found.start()]

    def _place(self, index: int) -> tuple[int, int]:
        """Return the line and the column of a place in the window."""
        breaks = self._text.count("\n", 0, index)
        if not breaks:
            return self._line, self._column + index
        return self._line + breaks, index - self._text.rfind("\n", 0, index)


def _not_an_array(first: str) -> str:
    if not first:
        return "the file is empty; an array of nothing is []."
    remedy = (
        'If each line has a value of its own, pass format="jsonl"; if the items are within an '
        "object, take them out first."
    )
    return f"a JSON file must hold an array, and this one begins with {first!r}. {remedy}"
