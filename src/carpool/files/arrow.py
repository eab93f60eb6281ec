"""Arrow's IPC formats, the file (Feather 2) and the stream, read by pyarrow batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from carpool.files.batches import check, rows_of, unreadable
from carpool.files.extras import require
from carpool.files.file import File
from carpool.files.inputs import seekable
from carpool.files.options import Options

__all__ = ["check", "rows"]

MAGIC = b"ARROW1"
"""The first bytes of the file format; the stream format has none."""


def rows(file: File, options: Options) -> Iterator[dict[str, Any]]:
    """Yield the rows.

    Raises:
        SourceError: with the row as line.
    """
    with seekable(file) as stream:
        yield from rows_of(_batches(stream, file), file)


def _batches(stream: IO[bytes], file: File) -> Iterator[Any]:
    ipc = require("pyarrow.ipc", extra="parquet", for_what=".arrow")
    is_file = stream.read(len(MAGIC)) == MAGIC
    stream.seek(0)
    try:
        # Without threads: the process may be about to fork.
        options = ipc.IpcReadOptions(use_threads=False)
        reader = (ipc.open_file if is_file else ipc.open_stream)(stream, options=options)
    except Exception as error:
        raise unreadable(error, file) from error
    with reader:
        if is_file:
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)
        else:
            yield from reader
