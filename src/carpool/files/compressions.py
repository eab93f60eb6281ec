"""What unpacks a file, by its ending; each module is imported when a file needs it.

All of them read files of several parts (``cat a.gz b.gz``), raise EOFError where one ends too soon,
and an error of their own where something else follows.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from carpool.files.extras import require

BLOCK = 1 << 16
"""Compressed bytes read at a time."""


@dataclass(frozen=True, slots=True)
class Unpacker:
    """``open(stream)`` gives the unpacked bytes; ``errors`` are what damaged ones raise."""

    open: Callable[[IO[bytes]], Any]
    errors: tuple[type[Exception], ...] = ()


class Parts:
    """What decompressors of one part make of all parts of a stream.

    BZ2File and LZMAFile do so, too, but take whatever is no part for the end of the file: where a
    part's beginning is damaged, they leave it and all that follows out, without a word.
    """

    def __init__(self, stream: Any, part: Callable[[], Any], padding: bytes = b"") -> None:
        self._stream = stream
        self._new = part
        self._padding = padding
        self._part = part()

    def read1(self, size: int) -> bytes:
        """Return at most ``size`` bytes, as soon as there are some; none at the end."""
        while True:
            data = b""
            if self._part.eof:
                data = self._part.unused_data.lstrip(self._padding)
                while not data:
                    data = self._stream.read1(BLOCK)
                    if not data:
                        return b""
                    data = data.lstrip(self._padding)
                self._part = self._new()
            elif self._part.needs_input:
                data = self._stream.read1(BLOCK)
                if not data:
                    raise EOFError
            unpacked: bytes = self._part.decompress(data, size)
            if unpacked:
                return unpacked


def _gz() -> Unpacker:
    import gzip
    import zlib

    return Unpacker(lambda stream: gzip.GzipFile(fileobj=stream), (zlib.error,))


def _bz2() -> Unpacker:
    import bz2

    return Unpacker(lambda stream: Parts(stream, bz2.BZ2Decompressor))


def _xz() -> Unpacker:
    import lzma

    # Between its parts a file may be padded with zeros (its specification, "Stream Padding").
    part = functools.partial(lzma.LZMADecompressor, lzma.FORMAT_XZ)
    return Unpacker(lambda stream: Parts(stream, part, b"\0"), (lzma.LZMAError,))


def _zst() -> Unpacker:
    module = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    zstd = require(module, extra="zstd", for_what=".zst")
    return Unpacker(zstd.ZstdFile, (zstd.ZstdError,))


COMPRESSIONS: dict[str, Callable[[], Unpacker]] = {
    "gz": _gz,
    "bz2": _bz2,
    "xz": _xz,
    "zst": _zst,
}
"""By ending; calling one imports what it needs, or raises ConfigurationError."""
