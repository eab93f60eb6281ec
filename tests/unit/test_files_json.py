"""JSON: lines and arrays, by the standard library's decoder, with the place of every error."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import carpool
from carpool.exceptions import SourceError
from carpool.files import array
from tests.unit.source_files import until_error
from tests.unit.strategies import json_values


def values(path: Path, data: str | bytes, **options: Any) -> list[Any]:
    """Write a file and read its values."""
    path.write_bytes(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)
    return list(carpool.read(path, **options))


def failure(path: Path, data: str | bytes, **options: Any) -> SourceError:
    """Write a file, read it up to its error, and return that."""
    with pytest.raises(SourceError) as caught:
        values(path, data, **options)
    assert caught.value.file == str(path)
    return caught.value


def seen_before(path: Path, data: bytes) -> list[Any]:
    """Write a file that is wrong somewhere, and return what comes before that."""
    path.write_bytes(data)
    return until_error(carpool.read(path))[0]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    return tmp_path / "a.jsonl"


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return tmp_path / "a.json"


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are equal, type by type (1 is not True, -0.0 is not 0.0)."""
    return type(one) is type(other) and repr(one) == repr(other)


# --- lines


@given(items=st.lists(json_values, max_size=5), ascii_only=st.booleans())
def test_lines_come_back(
    items: list[Any], ascii_only: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any JSON value, one a line, comes back as it was, U+2028 and the like included."""
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    text = "".join(json.dumps(item, ensure_ascii=ascii_only) + "\n" for item in items)
    assert same(values(path, text), items)


@pytest.mark.parametrize(
    "data", ["1\n2\n", "1\n2", "1\r\n2\r\n", "\n\n1\n \t\r\n2\n\n", "\ufeff1\n2\n"]
)
def test_blank_lines_and_line_ends(data: str, lines: Path) -> None:
    """Blank lines are skipped; a line may end as on Windows, the last one not at all."""
    assert values(lines, data) == [1, 2]


@pytest.mark.parametrize("data", ["", "\ufeff", "\n \n"])
def test_no_lines_are_no_items(data: str, lines: Path) -> None:
    """An empty file is a source without items."""
    assert values(lines, data) == []


@pytest.mark.parametrize(
    ("data", "line", "column", "message"),
    [
        ('1\n\n{"a": 1,, "b": 2}\n', 3, 9, "Expecting property name"),
        ("1\n2 3\n", 2, 3, "Extra data"),
        ('{"a": 1}\n{"a": "x', 2, 7, "was it cut short?"),
        ('{\n "a": 1\n}\n', 1, 2, 'pass format="json"'),
        ("'a'\n", 1, 1, "Expecting value"),
        ("1" * 5000 + "\n", 1, 1, "4300 digits"),
        ("[" * 200_000 + "\n", 1, 1, "nested too deeply"),
        ('{"NaN": "a NaN \\" NaN", "b": [NaN]}\n', 1, 31, "NaN is not JSON. Pass allow_nan=True"),
        ("-Infinity\n", 1, 1, "-Infinity is not JSON"),
    ],
    ids=["comma", "two", "cut", "pretty", "quotes", "long", "deep", "NaN", "infinity"],
)
def test_a_line_that_is_no_json_is_found(
    data: str, line: int, column: int, message: str, lines: Path
) -> None:
    """The error has line and column, and what may be the matter."""
    error = failure(lines, data)
    assert (error.line, error.column) == (line, column)
    assert message in str(error)


@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_nan_is_taken_if_asked_for(ending: str, tmp_path: Path) -> None:
    """allow_nan=True gives floats."""
    text = "[NaN, Infinity, -Infinity]"
    got = values(tmp_path / f"a.{ending}", text, allow_nan=True)
    nan, *infinities = got[0] if ending == "jsonl" else got
    assert math.isnan(nan)
    assert infinities == [math.inf, -math.inf]


def test_a_wrong_byte_in_a_line_is_found(lines: Path) -> None:
    """Line, column and byte; the lines before it are yielded."""
    data = '1\n{"ä": "'.encode() + b'\xe4"}\n'
    error = failure(lines, data)
    assert (error.line, error.column) == (2, 8)
    assert "0xe4" in error.message
    assert seen_before(lines, data) == [1]


# --- arrays


@given(
    items=st.lists(json_values, max_size=6),
    block=st.integers(1, 40),
    indent=st.sampled_from([None, 0, 3]),
    ascii_only=st.booleans(),
)
@example(items=[1.5e300, -12, 0.25, 10**30], block=1, indent=None, ascii_only=True)
@example(items=['\U0001f600\\"', "é"], block=1, indent=1, ascii_only=True)
@settings(max_examples=200)
def test_an_array_comes_back(
    items: list[Any],
    block: int,
    indent: int | None,
    ascii_only: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Any array's values come back as they were, wherever its blocks are cut."""
    path = tmp_path_factory.getbasetemp() / "any.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(array, "BLOCK", block)
        text = json.dumps(items, indent=indent, ensure_ascii=ascii_only)
        assert same(values(path, text), items)


@given(
    items=st.lists(json_values, min_size=1, max_size=4),
    block=st.integers(1, 40),
    where=st.floats(0, 1),
    put=st.sampled_from(["", ",", '"', "]", "}", "[", "x", "\\", "\n", "-", "1", "NaN", "\ud800"]),
    data=st.data(),
)
@settings(max_examples=300)
def test_a_broken_array_is_an_error_wherever_its_blocks_are_cut(
    items: list[Any],
    block: int,
    where: float,
    put: str,
    data: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A character put in place of another is an error where json.loads finds one, the same one
    with any size of block; and what is no error is no error."""
    path = tmp_path_factory.getbasetemp() / "any.json"
    text = json.dumps(items, indent=data.draw(st.sampled_from([None, 1])), ensure_ascii=False)
    at = min(int(where * len(text)), len(text) - 1)
    text = text[:at] + put + text[at + data.draw(st.integers(0, 1)) :]
    outcomes = []
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    for size in (block, 1 << 16):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(array, "BLOCK", size)
            try:
                outcomes.append(repr(list(carpool.read(path))))
            except SourceError as error:
                outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]
    try:
        expected = json.loads(text.encode("utf-8", "surrogatepass").decode(), parse_constant=int)
    except ValueError:
        expected = None
    if isinstance(expected, list):
        assert outcomes[0] == repr(expected)
    else:
        assert outcomes[0].startswith(f"{path}, line ")


def test_values_of_any_size(whole: Path) -> None:
    """A value much longer than a block is decoded once it is there."""
    items = ["x" * 300_000, list(range(100_000)), {"a": ["é" * 100_000]}, 1]
    assert values(whole, json.dumps(items, indent=1)) == items


@pytest.mark.parametrize("data", ["[]", " [ ]\n", "\ufeff[\n]\r\n"])
def test_an_array_of_nothing_is_no_items(data: str, whole: Path) -> None:
    """With spaces where JSON allows them, and a byte order mark where it doesn't."""
    assert values(whole, data) == []


@pytest.mark.parametrize(
    ("data", "line", "column", "message"),
    [
        ("", 1, 1, "the file is empty"),
        ('\n{"a": 1}\n{"a": 2}\n', 2, 1, "begins with '{'. If each line has a value of its own"),
        ("[1,\n 2\n", 3, 1, "the file ends within the array. Was it cut short?"),
        ('[1,\n "abc', 2, 2, "Was the file cut short?"),
        ("[1,\n 2,", 2, 4, "Expecting value"),
        ("[1,\n 2 3]", 2, 4, "expecting ',' or ']'"),
        ("[1]\n[2]", 2, 1, 'pass format="jsonl"'),
        ("[1,\n 'a', " + "2," * 100_000, 2, 2, "Expecting value"),
        ('[1, {"a":\n [NaN]}]', 2, 3, "NaN is not JSON"),
        ("[" * 200_000, 1, 2, "nested too deeply"),
        ('["a\nb"]', 1, 4, "Invalid control character"),
    ],
    ids=range(11),
)
def test_an_array_that_is_none_is_an_error(
    data: str, line: int, column: int, message: str, whole: Path
) -> None:
    """The error has line and column, and what may be the matter."""
    error = failure(whole, data)
    assert (error.line, error.column) == (line, column)
    assert message in error.message


@pytest.mark.parametrize("far", [0, 100_000])
def test_a_wrong_byte_in_an_array_is_found(far: int, whole: Path) -> None:
    """Line, column and byte, in any block; the values before it are yielded."""
    many = ", ".join(str(n) for n in range(far))
    data = f'[{many}{"," if far else ""}\n"é", "'.encode() + b'\xe4", 3]'
    error = failure(whole, data)
    assert (error.line, error.column) == (2, 7)
    assert "0xe4" in error.message
    assert seen_before(whole, data) == [*range(far), "é"]


def test_utf_16_is_an_encoding_of_arrays(whole: Path) -> None:
    """Other encodings work as they do for lines; what they can't decode has a place."""
    assert values(whole, '["é", 1]'.encode("utf-16"), encoding="utf-16") == ["é", 1]
    error = failure(whole, "[1,\n 2,".encode("utf-16") + b"\x00\xd8\x41\x00", encoding="utf-16")
    assert (error.line, error.column) == (2, 4)
    assert failure(whole, b"[\0]\0", encoding="utf-16").line == 1
