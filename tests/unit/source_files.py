"""Files of every format, written by other means than ours, and reading one up to its error."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pyarrow.parquet

from carpool.exceptions import SourceError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Rows = Sequence[dict[str, Any]]

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda data: gzip.compress(data, 1),
    "bz2": lambda data: bz2.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
    # As the zstd program does it; without a checksum, damage may go unseen.
    "zst": lambda data: zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}),
}


def delimited(rows: Rows, delimiter: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def json_lines(rows: Rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def parquet(rows: Rows) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


def arrow(rows: Rows) -> bytes:
    sink = io.BytesIO()
    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=1_500)
    return sink.getvalue()


def xlsx(rows: Rows) -> bytes:
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("rows")
    sheet.append(list(rows[0]))
    for row in rows:
        sheet.append(list(row.values()))
    sink = io.BytesIO()
    book.save(sink)
    return sink.getvalue()


WRITE: dict[str, Callable[[Rows], bytes]] = {
    "csv": lambda rows: delimited(rows, ","),
    "tsv": lambda rows: delimited(rows, "\t"),
    "jsonl": json_lines,
    "ndjson": json_lines,
    "json": lambda rows: json.dumps(rows, indent=1).encode(),
    "parquet": parquet,
    "arrow": arrow,
    "xlsx": xlsx,
}


def written(folder: Path, ending: str, rows: Rows) -> Path:
    """Write a file of that ending, such as ``csv.gz``, and return its path."""
    kind, _, packing = ending.lower().partition(".")
    data = WRITE[kind](rows)
    path = folder / f"written.{ending}"
    path.write_bytes(PACK[packing](data) if packing else data)
    return path


def until_error(items: Iterable[Any]) -> tuple[list[Any], SourceError]:
    """Return the items that come before the error, and the error."""
    seen: list[Any] = []
    try:
        seen.extend(items)
    except SourceError as error:
        return seen, error
    raise AssertionError(f"no error, but {len(seen)} items")
