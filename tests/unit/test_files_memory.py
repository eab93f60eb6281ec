"""Memory does not grow with the file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.source_files import PACK
from tests.waiting import HANG

NUMBER = 200_000

LINE = "x" * 100
ROW = f'{{"n": 1234567, "text": "{LINE}"}}'

LARGE = {
    "csv": lambda: (
        f"n,text\n{f'1234567,{LINE}' + chr(10)}".encode()
        + f"1234567,{LINE}\n".encode() * (NUMBER - 1)
    ),
    "csv.gz": lambda: PACK["gz"](LARGE["csv"]()),
    "csv.zst": lambda: PACK["zst"](LARGE["csv"]()),
    "jsonl": lambda: f"{ROW}\n".encode() * NUMBER,
    "json": lambda: b"[" + f"{ROW},\n".encode() * (NUMBER - 1) + f"{ROW}]".encode(),
}

MOST = 6_000
"""Kilobytes that 20 MB of file may cost over its first thousand rows."""

PROGRAM = """
import itertools, resource, sys
import carpool

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

number = 0
for item in carpool.read(sys.argv[1]):
    number += 1
    if number == 1_000:
        before = peak()
print(number, peak() - before)
"""


def cost(path: Path) -> tuple[int, int]:
    """Read a file in a process of its own; return how many items, and kilobytes after the first."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=HANG,
    )
    number, kilobytes = done.stdout.split()
    return int(number), int(kilobytes)


@pytest.mark.parametrize("ending", LARGE)
def test_text_is_read_at_flat_memory(ending: str, tmp_path: Path) -> None:
    """200,000 rows, 20 MB, cost no more than the first thousand of them."""
    path = tmp_path / f"a.{ending}"
    path.write_bytes(LARGE[ending]())
    number, kilobytes = cost(path)
    assert number == NUMBER
    assert kilobytes < MOST


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_tables_are_read_at_flat_memory(ending: str, tmp_path: Path) -> None:
    """A Parquet file of one row group, and an Arrow file of many batches, are never whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / f"a.{ending}"
    table = pa.table({"n": range(NUMBER), "text": [f"{n:0100}" for n in range(NUMBER)]})
    if ending == "parquet":
        pq.write_table(table, path, row_group_size=NUMBER, compression="none", use_dictionary=False)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=1_000)
    assert path.stat().st_size > 100 * NUMBER
    number, kilobytes = cost(path)
    assert number == NUMBER
    assert kilobytes < MOST
