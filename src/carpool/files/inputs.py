"""A file's bytes, unpacked; whatever goes wrong with them is a SourceError that names the file."""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from carpool.exceptions import SourceError
from carpool.files.compressions import COMPRESSIONS, Unpacker
from carpool.files.file import STDIN, File


class Input(io.RawIOBase):
    """The unpacked bytes of a file. Closing it leaves what it reads from open: that may be stdin.

    `readinto` raises SourceError instead of what the operating system or a decompressor says.
    """

    def __init__(self, stream: Any, file: File, errors: tuple[type[Exception], ...]) -> None:
        self._stream = stream
        self._file = file
        self._errors: tuple[type[Exception], ...] = (OSError, EOFError, *errors)
        self._bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            # What is there, without waiting for more; and nothing is lost that came before a cut.
            data = self._stream.read1(len(buffer))
        except self._errors as error:
            raise self._damaged(error) from error
        buffer[: len(data)] = data
        self._bytes += len(data)
        return len(data)

    def _damaged(self, error: Exception) -> SourceError:
        so_far = f"{self._bytes:,} byte{'' if self._bytes == 1 else 's'} could be read before that"
        packed = self._file.compression
        if packed is None:
            return SourceError(f"can't be read on: {error}; {so_far}.", file=str(self._file))
        if isinstance(error, EOFError):
            return SourceError(
                f"its {packed} data end too soon; unpacked, {so_far}. Was a copy or a download cut "
                "short, or is the file still being written?",
                file=str(self._file),
            )
        return SourceError(
            f"its {packed} data are damaged, or are none ({error}); unpacked, {so_far}. Fetch the "
            "file again, or name it by what is in it.",
            file=str(self._file),
        )


@contextmanager
def opened(file: File) -> Iterator[IO[bytes]]:
    """Open a file, or take stdin, and unpack it; close what was opened.

    Raises:
        SourceError: it has gone, or is empty where compressed data should be.
    """
    with ExitStack() as stack:
        unpacker = COMPRESSIONS[file.compression]() if file.compression else None
        stream = stack.enter_context(_raw(file))
        if unpacker is not None:
            stream = _unpacked(stream, unpacker, file)
        errors = unpacker.errors if unpacker is not None else ()
        yield stack.enter_context(io.BufferedReader(Input(stream, file, errors)))


@contextmanager
def seekable(file: File) -> Iterator[IO[bytes]]:
    """Open a file for a library that jumps about in it.

    What is compressed, or comes through a pipe, is first written to a temporary file: on disk, so
    that it may be larger than memory.

    Raises:
        SourceError: it has gone, or can't be unpacked.
    """
    if file.compression is None and not file.once:
        with _raw(file) as stream:
            yield stream
        return
    copy = tempfile.TemporaryFile()
    try:
        with opened(file) as stream:
            _spool(stream, copy, file)
        yield copy
    finally:
        with suppress(OSError):  # a full disk, which `_spool` has told of
            copy.close()


def _spool(stream: IO[bytes], copy: IO[bytes], file: File) -> None:
    try:
        shutil.copyfileobj(stream, copy, 1 << 20)
        copy.seek(0)
    except OSError as error:
        raise SourceError(
            f"can't be written to a temporary file in {tempfile.gettempdir()!r} first: {error}. "
            "Make room there, or name another folder in TMPDIR.",
            file=str(file),
        ) from error


@contextmanager
def _raw(file: File) -> Iterator[IO[bytes]]:
    if file.name == STDIN:
        yield sys.stdin.buffer  # not ours to close
        return
    try:
        stream = Path(file.name).open("rb")
    except OSError as error:
        raise SourceError(f"can't be opened: {error.strerror}.", file=file.name) from error
    with stream:
        yield stream


def _unpacked(stream: Any, unpacker: Unpacker, file: File) -> Any:
    """Return the unpacked stream. Of an empty file gzip says that all is well, the others don't."""
    try:
        empty = not stream.peek(1)
    except OSError as error:
        raise SourceError(f"can't be read: {error}.", file=str(file)) from error
    if empty:
        raise SourceError(
            f"is empty; {file.compression} data of nothing would have some bytes. Did what was to "
            "write it fail?",
            file=str(file),
        )
    return unpacker.open(stream)
