"""Compressed files: of several parts, cut short, damaged, empty."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import carpool
from carpool.exceptions import SourceError
from tests.unit.source_files import PACK, delimited, until_error

ROWS = [{"n": str(n), "hex": random.Random(n).randbytes(40).hex()} for n in range(20_000)]
TEXT = delimited(ROWS, ",")

packings = pytest.mark.parametrize("packing", PACK)


def failure(path: Path) -> tuple[SourceError, int]:
    """Return the error, and how many rows came before it."""
    seen, error = until_error(carpool.read(path))
    assert seen == ROWS[: len(seen)]
    assert error.file == str(path)
    return error, len(seen)


@packings
def test_parts_follow_each_other(packing: str, tmp_path: Path) -> None:
    """``cat a.gz b.gz`` is both, as for the tools themselves."""
    half = len(TEXT) // 2
    path = tmp_path / f"a.csv.{packing}"
    path.write_bytes(PACK[packing](TEXT[:half]) + PACK[packing](TEXT[half:]))
    assert list(carpool.read(path)) == ROWS


@packings
def test_what_follows_must_be_a_part_too(packing: str, tmp_path: Path) -> None:
    """A part whose beginning is damaged is not taken for the end of the file, nor is anything."""
    path = tmp_path / f"a.csv.{packing}"
    part = PACK[packing](TEXT)
    for after in (b"\xff" + part[1:], b"something else"):
        path.write_bytes(part + after)
        error, seen = failure(path)
        assert seen == len(ROWS)
        assert "are damaged" in error.message


def test_parts_of_xz_may_be_padded(tmp_path: Path) -> None:
    """Zeros between parts, and at the end, are allowed by the format; by that of gzip, too."""
    path = tmp_path / "a.csv.xz"
    half = len(TEXT) // 2
    path.write_bytes(PACK["xz"](TEXT[:half]) + bytes(8) + PACK["xz"](TEXT[half:]) + bytes(200_000))
    assert list(carpool.read(path)) == ROWS


@packings
def test_a_file_cut_short_is_an_error_after_what_is_whole(packing: str, tmp_path: Path) -> None:
    """All whole rows come first, then an error with the line, and how many bytes there were."""
    path = tmp_path / f"a.csv.{packing}"
    data = PACK[packing](TEXT)
    path.write_bytes(data[: len(data) * 2 // 3])
    error, seen = failure(path)
    assert seen > len(ROWS) // 4
    assert error.line == seen + 2  # the header, the rows, the line that is cut
    assert f"its {packing} data end too soon; unpacked" in error.message
    read = int(error.message.split("unpacked, ")[1].split(" ")[0].replace(",", ""))
    assert TEXT[:read].count(b"\n") == seen + 1


@packings
def test_a_file_cut_at_its_very_end_is_an_error(packing: str, tmp_path: Path) -> None:
    """All rows are there, and still it can't be known that they are all."""
    path = tmp_path / f"a.csv.{packing}"
    path.write_bytes(PACK[packing](TEXT)[:-1])
    error, _ = failure(path)
    assert "end too soon" in error.message


@packings
def test_a_damaged_file_is_an_error(packing: str, tmp_path: Path) -> None:
    """A part overwritten is found, by the decompressor or by its checksum."""
    path = tmp_path / f"a.csv.{packing}"
    data = bytearray(PACK[packing](TEXT))
    middle = len(data) // 2
    data[middle : middle + 50] = random.Random(1).randbytes(50)
    path.write_bytes(data)
    _, error = until_error(carpool.read(path))
    assert error.line is not None


@packings
def test_a_file_that_is_not_compressed_is_an_error(packing: str, tmp_path: Path) -> None:
    """A name that promises too much is told so."""
    path = tmp_path / f"a.csv.{packing}"
    path.write_bytes(TEXT)
    error, seen = failure(path)
    assert (seen, error.line) == (0, 1)
    assert "are damaged, or are none" in error.message


@packings
def test_an_empty_file_is_no_compressed_one(packing: str, tmp_path: Path) -> None:
    """Compressed nothing is not nothing: an empty file is what a failed job leaves."""
    path = tmp_path / f"a.csv.{packing}"
    path.touch()
    assert "is empty" in failure(path)[0].message
    path.write_bytes(PACK[packing](b""))
    assert list(carpool.read(path)) == []


@packings
@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_other_formats_say_so_too(packing: str, kind: str, tmp_path: Path) -> None:
    """An array knows its line, what is spooled first has none; both name the file."""
    path = tmp_path / f"a.{kind}.{packing}"
    data = PACK[packing](b"[" + b'"abcdefgh",\n' * 300_000 + b"1]")
    path.write_bytes(data[: len(data) // 2])
    seen, error = until_error(carpool.read(path))
    assert {*seen} == ({"abcdefgh"} if kind == "json" else set())
    assert "end too soon" in error.message
    assert (error.line is not None) == (kind == "json")
