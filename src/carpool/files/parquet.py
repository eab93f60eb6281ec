"""Parquet, read by pyarrow, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from carpool.files.batches import ROWS, check, rows_of, unreadable
from carpool.files.extras import require
from carpool.files.file import File
from carpool.files.inputs import seekable
from carpool.files.options import Options

__all__ = ["check", "rows"]

BUFFER = 1 << 18
"""Bytes read at a time, of each column. Without it pyarrow reads each row group whole."""


def rows(file: File, options: Options) -> Iterator[dict[str, Any]]:
    """Yield the rows.

    Raises:
        SourceError: with the row as line.
    """
    parquet = require("pyarrow.parquet", extra="parquet", for_what=".parquet")
    with seekable(file) as stream:
        try:
            reader = parquet.ParquetFile(stream, buffer_size=BUFFER, pre_buffer=False)
        except Exception as error:
            raise unreadable(error, file) from error
        with reader:
            # Without threads: the process may be about to fork.
            yield from rows_of(reader.iter_batches(batch_size=ROWS, use_threads=False), file)
