"""What unpacks a file, by its ending; each module is imported when a file needs it.

All of them read files of several parts (``cat a.gz b.gz``), and raise EOFError where one ends too
soon.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from carpool.files.extras import require


@dataclass(frozen=True, slots=True)
class Unpacker:
    """``open(stream)`` gives the unpacked bytes; ``errors`` are what damaged ones raise."""

    open: Callable[[IO[bytes]], Any]
    errors: tuple[type[Exception], ...] = ()


def _gz() -> Unpacker:
    import gzip
    import zlib

    return Unpacker(lambda stream: gzip.GzipFile(fileobj=stream), (zlib.error,))


def _bz2() -> Unpacker:
    import bz2

    return Unpacker(bz2.BZ2File)


def _xz() -> Unpacker:
    import lzma

    return Unpacker(lzma.LZMAFile, (lzma.LZMAError,))


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
