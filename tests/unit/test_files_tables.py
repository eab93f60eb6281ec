"""Parquet, Arrow and Excel: rows as dicts of Python values."""

from __future__ import annotations

import datetime
import io
import tempfile
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import carpool
from carpool.exceptions import ConfigurationError, SourceError
from carpool.files import batches
from tests.unit.source_files import written

ROW: dict[str, Any] = {
    "text": "é",
    "number": 2**40,
    "float": 0.5,
    "flag": True,
    "none": None,
    "day": datetime.date(2026, 1, 2),
    "moment": datetime.datetime(2026, 1, 2, 3, 4, 5, 678),
    "price": Decimal("1.10"),
    "bytes": b"\x00\xff",
    "list": [1, 2],
    "struct": {"a": 1, "b": "x"},
}


def write_arrow(path: Path, table: pa.Table, **options: Any) -> Path:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, **options)
    return path


def write_stream(path: Path, table: pa.Table) -> Path:
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table)
    return path


def write_parquet(path: Path, table: pa.Table) -> Path:
    pq.write_table(table, path)
    return path


WRITERS = {"a.parquet": write_parquet, "a.arrow": write_arrow, "stream.arrow": write_stream}


def failure(path: Path, **options: Any) -> SourceError:
    with pytest.raises(SourceError) as caught:
        list(carpool.read(path, **options))
    assert caught.value.file == str(path)
    return caught.value


@pytest.mark.parametrize("name", WRITERS)
def test_values_are_pythons(name: str, tmp_path: Path) -> None:
    """Numbers, dates, decimals, lists and structs arrive as what Python has for them."""
    table = pa.Table.from_pylist([ROW, dict.fromkeys(ROW)])
    path = WRITERS[name](tmp_path / name, table)
    assert list(carpool.read(path)) == [ROW, dict.fromkeys(ROW)]


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("number", [0, 1, batches.ROWS, batches.ROWS * 2 + 1])
def test_all_rows_in_order(name: str, number: int, tmp_path: Path) -> None:
    """However many there are: none, a batch, some batches and a row."""
    table = pa.table({"n": pa.array(range(number), pa.int64())})
    rows = list(carpool.read(WRITERS[name](tmp_path / name, table)))
    assert [row["n"] for row in rows] == list(range(number))


@pytest.mark.parametrize("name", WRITERS)
def test_a_value_that_python_has_no_like_of_is_found(name: str, tmp_path: Path) -> None:
    """The rows before it are yielded; the error has its row and its column's name."""
    number = batches.ROWS + 5
    nanoseconds = [1_000] * (number - 1) + [1]
    table = pa.table({"n": range(number), "at": pa.array(nanoseconds, pa.timestamp("ns"))})
    path = WRITERS[name](tmp_path / name, table)
    error = failure(path)
    assert (error.line, error.column) == (number, "at")
    assert "timestamp[ns]" in error.message
    rows = iter(carpool.read(path))
    assert [next(rows)["n"] for _ in range(number - 1)] == list(range(number - 1))


@pytest.mark.parametrize("name", WRITERS)
def test_columns_of_the_same_name_are_refused(name: str, tmp_path: Path) -> None:
    """A dict would keep one of them."""
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    assert "the name 'a'" in failure(WRITERS[name](tmp_path / name, table)).message


@pytest.mark.parametrize("name", WRITERS)
def test_a_damaged_file_is_an_error(name: str, tmp_path: Path) -> None:
    """Cut short, something else, or empty: the error has the file."""
    path = WRITERS[name](tmp_path / name, pa.table({"a": [str(n) * 9 for n in range(9_999)]}))
    data = path.read_bytes()
    for wrong in (data[: len(data) // 2], b"name\nx\n", b""):
        path.write_bytes(wrong)
        assert "pyarrow can't read it" in failure(path).message


def test_a_disk_that_is_full_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has to be unpacked to a temporary file, and can't be, says so."""
    path = written(tmp_path, "parquet.gz", [{"a": 1}])
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: open("/dev/full", "w+b"))  # noqa: PTH123
    error = failure(path)
    assert "No space left" in error.message
    assert "TMPDIR" in error.message


# --- Excel


def sheet_file(path: Path, *rows: list[Any], title: str = "first") -> Path:
    """Write a workbook, of which the first sheet has these rows, and the second others."""
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = title
    for row in rows:
        sheet.append(row)
    other = book.create_sheet("second")
    other.append(["b"])
    other.append([2])
    book.save(path)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.xlsx"


def test_cells_are_pythons(path: Path) -> None:
    """Text, numbers, truth, dates and nothing."""
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5)
    sheet_file(path, ["a", "b", "c", "d", "e"], ["é", 1, 0.5, True, moment], ["x", None, None])
    assert list(carpool.read(path)) == [
        {"a": "é", "b": 1, "c": 0.5, "d": True, "e": moment},
        {"a": "x", "b": None, "c": None, "d": None, "e": None},
    ]


def test_empty_rows_are_skipped(path: Path) -> None:
    """Before the header, between rows, at the end; lines are counted all the same."""
    sheet_file(path, [], ["a"], [], [1], [None, None], [2], [], [3, 4])
    rows = iter(carpool.read(path))
    assert [next(rows), next(rows)] == [{"a": 1}, {"a": 2}]
    with pytest.raises(SourceError) as caught:
        next(rows)
    assert (caught.value.line, caught.value.column) == (8, 2)
    assert "Give the column one" in caught.value.message


def test_a_sheet_is_chosen_by_name(path: Path) -> None:
    """Without sheet=, it's the first; one that isn't there is refused with the names that are."""
    sheet_file(path, ["a"], [1])
    assert list(carpool.read(path)) == [{"a": 1}]
    assert list(carpool.read(path, sheet="second")) == [{"b": 2}]
    assert "no sheet 'third'; there are: 'first', 'second'." in str(failure(path, sheet="third"))
    with pytest.raises(ConfigurationError, match="must be the name of a sheet"):
        carpool.read(path, sheet=1)  # type: ignore[arg-type]


def test_the_names_of_excels_columns(path: Path) -> None:
    """A header's numbers become text; names may come from the call; none may be there twice."""
    sheet_file(path, ["year", 2026], ["x", 1])
    assert list(carpool.read(path)) == [{"year": "x", "2026": 1}]
    assert list(carpool.read(path, columns=["a", "b"])) == [
        {"a": "year", "b": 2026},
        {"a": "x", "b": 1},
    ]
    assert "says the same" in failure(sheet_file(path, ["a", "b"]), columns=["a", "b"]).message
    assert "the name 'a'" in failure(sheet_file(path, ["a", "a"])).message
    assert "no name" in failure(sheet_file(path, ["a", None, None, "b"])).message


def test_no_rows_are_no_items(path: Path) -> None:
    """An empty sheet, and one with nothing but its header, is a source without items."""
    assert list(carpool.read(sheet_file(path))) == []
    assert list(carpool.read(sheet_file(path, ["a", "b"]))) == []


def test_a_size_that_the_file_has_wrong_hides_nothing(path: Path) -> None:
    """Some programs write that the sheet is A1 only; all the same its rows are there."""
    sheet_file(path, ["a", "b"], [1, 2], [3, 4])
    data = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(data) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            if name == "xl/worksheets/sheet1.xml":
                assert b'<dimension ref="A1:B3"' in text
                text = text.replace(b'ref="A1:B3"', b'ref="A1"')
            new.writestr(name, text)
    assert list(carpool.read(path)) == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]


def test_a_damaged_workbook_is_an_error(path: Path) -> None:
    """Cut short, something else, damaged within: the error has the file."""
    sheet_file(path, ["a"], *([n] for n in range(999)))
    data = path.read_bytes()
    for wrong in (data[: len(data) // 2], b"a,b\n1,2\n", b""):
        path.write_bytes(wrong)
        assert "openpyxl can't read it" in failure(path).message
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            new.writestr(name, text[: len(text) // 2] if "sheet1" in name else text)
    error = failure(path)
    assert "ParseError" in error.message
    assert error.line is not None
