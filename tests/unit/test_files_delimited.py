"""CSV and TSV: rows as dicts of strings, and every row that isn't one is named."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import carpool
from carpool.exceptions import SourceError
from tests.unit.source_files import until_error

fields = st.text(st.characters(codec="utf-8"), max_size=8)


def rows(path: Path, data: str | bytes, **options: Any) -> list[dict[str, str]]:
    """Write a file and read its rows."""
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return list(carpool.read(path, **options))


def failure(path: Path, data: str | bytes, **options: Any) -> SourceError:
    """Write a file, read it up to its error, and return that."""
    with pytest.raises(SourceError) as caught:
        rows(path, data, **options)
    assert caught.value.file == str(path)
    return caught.value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.csv"


@given(
    table=st.integers(1, 4).flatmap(
        lambda width: st.lists(st.lists(fields, min_size=width, max_size=width), max_size=5)
    )
)
@settings(max_examples=200)
@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_what_csv_writes_comes_back(
    ending: str, table: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any text in any field comes back as it was: quotes, delimiters, line breaks and all."""
    path = tmp_path_factory.getbasetemp() / f"any.{ending}"
    names = [f"column {number}" for number in range(len(table[0]) if table else 1)]
    with path.open("w", encoding="utf-8", newline="") as file:
        dialect = "excel" if ending == "csv" else "excel-tab"
        csv.writer(file, dialect).writerows([names, *table])
    assert list(carpool.read(path)) == [dict(zip(names, row, strict=True)) for row in table]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_line_end_will_do(end: str, path: Path) -> None:
    """Lines end as on Unix, Windows, or old Macs; the last one may lack its end."""
    assert rows(path, f"a,b{end}1,2{end}3,4") == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_line_breaks_in_quotes_belong_to_the_field(path: Path) -> None:
    """A quoted field keeps its line breaks, of whichever kind."""
    assert rows(path, 'a,b\n"1\n2\r\n3",x\n') == [{"a": "1\n2\r\n3", "b": "x"}]


def test_other_separators_end_no_line(path: Path) -> None:
    """What str.splitlines() would split at is text."""
    assert rows(path, "a\n1\u20282\x0b3\x854\x1c5\n") == [{"a": "1\u20282\x0b3\x854\x1c5"}]


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "utf-8-sig"])
def test_a_byte_order_mark_is_dropped(encoding: str, path: Path) -> None:
    """It is no part of the first column's name, whichever name of UTF-8 was given."""
    assert rows(path, b"\xef\xbb\xbf" + '"ä",b\n1,2\n'.encode(), encoding=encoding) == [
        {"ä": "1", "b": "2"}
    ]


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16", "utf-16-le", "gb18030"])
def test_other_encodings(encoding: str, path: Path) -> None:
    """Whatever Python can decode."""
    assert rows(path, "é\n1\nü\n".encode(encoding), encoding=encoding) == [{"é": "1"}, {"é": "ü"}]


@pytest.mark.parametrize("data", ["", "\ufeff", "\n\n", "a,b\n", "a,b", "a,b\n\n\n"])
def test_no_rows_are_no_items(data: str, path: Path) -> None:
    """An empty file, and one with nothing but its header, is a source without items."""
    assert rows(path, data) == []


def test_blank_lines_are_skipped(path: Path) -> None:
    """Before the header, between rows, at the end."""
    assert rows(path, "\n\na\n\n1\n\n\n2\n\n") == [{"a": "1"}, {"a": "2"}]


def test_names_may_come_from_the_call(path: Path) -> None:
    """With columns= the first row is one like the others."""
    assert rows(path, "1,2\n3,4\n", columns=("a", "b")) == [
        {"a": "1", "b": "2"},
        {"a": "3", "b": "4"},
    ]


def test_a_header_that_columns_repeats_is_no_item(path: Path) -> None:
    """Who gives the names of a file that has them would import its header."""
    error = failure(path, "a,b\n1,2\n", columns=["a", "b"])
    assert error.line == 1
    assert "Leave columns out" in error.message


def test_dialects(path: Path) -> None:
    """A delimiter, a quote, no quotes, or a dialect of one's own."""
    expected = [{"a": "1;2", "b": '"3'}]
    assert rows(path, "a;b\n'1;2';\"3\n", delimiter=";", quotechar="'") == expected
    assert rows(path, 'a\tb\n1;2\t"3\n', delimiter="\t", quotechar="") == expected

    class Odd(csv.excel):
        delimiter = "|"
        quotechar = "%"

    assert rows(path, 'a|b\n%1;2%|"3\n', dialect=Odd) == expected
    assert rows(path, 'a,b\n1;2,"3\n', dialect="unix", quotechar="'") == expected


def test_a_dialect_that_makes_numbers_of_fields(path: Path) -> None:
    """QUOTE_NONNUMERIC converts; what it can't is named by its line."""

    class Numbers(csv.excel):
        quoting = csv.QUOTE_NONNUMERIC

    assert repr(rows(path, '"a"\n1.5\n', dialect=Numbers)) == "[{'a': 1.5}]"
    assert failure(path, '"a"\n1.5\nx\n', dialect=Numbers).line == 3


@pytest.mark.parametrize(
    ("data", "line", "message"),
    [
        ("a,b\n1,2\n3\n", 3, "1 field where the header has 2. Was the line cut short"),
        ("a,b\n1,2\n\n3,4,5\n", 4, "3 fields where the header has 2. Is there a delimiter in a"),
        ('a,b\n"1\n\n2",2\n"3\n",4,5\n', 5, "begins '3\\n', '4', '5'"),
        ("a b\n1 2,5\n", 2, "Is delimiter= right"),
        ("a,b\n1,2\n3", 3, "1 field where"),
    ],
    ids=["too few", "too many", "after line breaks", "delimiter", "cut short"],
)
def test_a_ragged_row_is_an_error(data: str, line: int, message: str, path: Path) -> None:
    """Too few fields or too many: the line on which the row begins, both numbers, its beginning."""
    error = failure(path, data)
    assert error.line == line
    assert message in error.message


def test_a_ragged_row_is_held_against_columns(path: Path) -> None:
    """The error says where the right number comes from."""
    assert "1 field where columns= has 2" in failure(path, "1\n", columns=["a", "b"]).message


def test_rows_before_the_error_are_yielded(path: Path) -> None:
    """What is right is there before what is wrong."""
    path.write_text("a,b\n1,2\n3\n")
    iterator = iter(carpool.read(path))
    assert next(iterator) == {"a": "1", "b": "2"}
    with pytest.raises(SourceError):
        next(iterator)


@pytest.mark.parametrize(
    ("header", "message"), [("a,b,a", "the name 'a'"), ("a,,", "no name")], ids=["same", "none"]
)
def test_columns_that_would_hide_each_other_are_refused(
    header: str, message: str, path: Path
) -> None:
    """A dict would keep one of them."""
    error = failure(path, f"\n{header}\n1,2,3\n")
    assert error.line == 2
    assert message in error.message


def test_one_column_may_lack_a_name(path: Path) -> None:
    """Such is the index that pandas writes."""
    assert rows(path, ",a\n0,x\n") == [{"": "0", "a": "x"}]


def test_a_header_with_another_delimiter_is_an_error(path: Path) -> None:
    """Excel's semicolons would make one column of all, and every row fit it."""
    error = failure(path, "a;b\n1;2\n")
    assert error.line == 1
    assert "Pass delimiter=';', or, if" in error.message
    assert "Pass delimiter='\\t'" in failure(path, "a\tb\n1\t2\n").message
    assert rows(path, "a;b\n1;2\n", delimiter=",") == [{"a;b": "1;2"}]
    assert rows(path, "a;b\n1;2\n", delimiter=";") == [{"a": "1", "b": "2"}]
    assert rows(path, "a;b,c\n1;2,3\n") == [{"a;b": "1;2", "c": "3"}]


def test_a_quote_that_is_never_closed_is_an_error(path: Path) -> None:
    """It would make one field of the rest of the file; the error says where it begins."""
    error = failure(path, 'a,b\n1,2\n3,"4\n5,6\n7,8\n')
    assert (error.line, error.column) == (3, None)
    assert "never closed" in error.message
    assert "goes on to line 5" in error.message


def test_a_field_of_any_length_is_not_swallowed(path: Path) -> None:
    """The csv module's limit keeps a lost quote from filling memory, and is explained."""
    error = failure(path, 'a,b\n1,"' + "x,y\n" * 40_000)
    assert error.line == 2
    assert "csv.field_size_limit" in error.message


def test_a_quote_within_quotes_is_explained(path: Path) -> None:
    """Read leniently, the field would lose its quotes."""
    error = failure(path, 'a,b\n1,"5" pipe"\n')
    assert error.line == 2
    assert 'quotechar=""' in error.message
    assert rows(path, 'a,b\n1,"5" pipe"\n', quotechar="") == [{"a": "1", "b": '"5" pipe"'}]


@pytest.mark.parametrize(
    ("data", "encoding", "line", "column", "message"),
    [
        ("a,b\n1,2\nü,caf\xe9\n".encode("latin-1"), "utf-8", 3, 1, "0xfc is not utf-8"),
        (b"a,b\n\xc3\xa4,caf\xe9,x\n", "utf-8", 2, 6, "0xe9 is not utf-8. Pass the encoding it"),
        (b"a,b\n1,\x81\n", "cp1252", 2, 3, "0x81 is not cp1252"),
        (b"a\n1\nx\xc3", "utf-8", 3, 2, "0xc3"),
        ("a\n1\n".encode("utf-16"), "utf-8", 1, 1, 'encoding="utf-16"'),
        (b"\x1f\x8b\x08\0\n", "utf-8", 1, 2, "gzip begins so"),
        (b"\xfd7zXZ\0\n", "utf-8", 1, 1, "xz begins so"),
        (b"(\xb5/\xfd\n", "utf-8", 1, 2, "zstd begins so"),
        (b"BZh91AY\xff\n", "utf-8", 1, 8, "bzip2 begins so"),
        (b"PK\x03\x04\x14\xff\n", "utf-8", 1, 6, "the name should end in .xlsx"),
        (b"PAR1\x15\xff\n", "utf-8", 1, 6, "Parquet begins so"),
    ],
    ids=[
        "latin",
        "later",
        "cp1252",
        "cut",
        "utf-16",
        "gzip",
        "xz",
        "zstd",
        "bz2",
        "zip",
        "parquet",
    ],
)
def test_a_byte_of_another_encoding_is_found(
    data: bytes, encoding: str, line: int, column: int, message: str, path: Path
) -> None:
    """The error has line, column and byte, and what the file may be instead."""
    error = failure(path, data, encoding=encoding)
    assert (error.line, error.column) == (line, column)
    assert message in error.message


def test_utf_16_that_is_none_is_an_error(path: Path) -> None:
    """Half a surrogate, half a character, or no mark at the beginning: the place is said."""
    data = "a\n1\n".encode("utf-16-le") + b"x\0\x00\xd8\x41\x00\n\x00"
    for wrong in (data, data[:-4], data[:-5]):
        error = failure(path, wrong, encoding="utf-16-le")
        assert (error.line, error.column) == (3, 2)
    error = failure(path, data, encoding="utf-16")
    assert error.line == 1
    assert "BOM" in error.message


def test_rows_before_a_wrong_byte_are_yielded(path: Path) -> None:
    """Even if it's in the same block."""
    path.write_bytes(b"a\n1\n2\n\xff\n")
    assert until_error(carpool.read(path))[0] == [{"a": "1"}, {"a": "2"}]


def test_a_file_that_cannot_be_read_on_is_an_error() -> None:
    """What the operating system says comes with the file's name, and how far it went."""
    with pytest.raises(SourceError, match=r"^/proc/self/mem, line 1: can't be read on: .*0 bytes"):
        list(carpool.read("/proc/self/mem", format="csv"))
    with pytest.raises(SourceError, match=r"^/proc/self/mem: can't be read: .*error"):
        list(carpool.read("/proc/self/mem", format="csv.gz"))
