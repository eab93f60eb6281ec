"""The rejects file: every failed item, as it was, on a line of its own."""

from __future__ import annotations

import json
import math
import os
from collections import OrderedDict
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carpool.exceptions import ConfigurationError
from carpool.rejects import Rejects
from carpool.types import Failure
from tests.unit.strategies import json_values


def failure(item: Any, **changes: Any) -> Failure:
    values: dict[str, Any] = {"error": "builtins.ValueError", "message": "no", "traceback": "t\n"}
    return Failure(3, item, **values | changes)


def written(path: Path, *failures: Failure) -> list[dict[str, Any]]:
    """Write failures to a new file, and read its lines back."""
    path.unlink(missing_ok=True)
    rejects = Rejects(path)
    for one in failures:
        rejects.write(one)
    rejects.close()
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are equal, type by type (1 is not True, -0.0 is not 0.0)."""
    return type(one) is type(other) and repr(one) == repr(other)


@given(items=st.lists(json_values, max_size=4))
@settings(max_examples=200)
def test_any_json_value_comes_back_as_it_was(
    items: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What JSON can hold is written as it is, one item a line, and read back the same."""
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    lines = written(path, *map(failure, items))
    assert len(lines) == len(items)
    for line, item in zip(lines, items, strict=True):
        assert "item_is_repr" not in line
        assert same(line["item"], item)


class Word(str):
    pass


class Silent:
    def __repr__(self) -> str:
        raise RuntimeError("no comment")


nested: list[Any] = []
for _ in range(500):
    nested = [nested]
circle: list[Any] = []
circle.append(circle)

NOT_JSON = {
    "a date": date(2020, 1, 2),
    "a decimal": Decimal("1.10"),
    "bytes": b"ab",
    "a tuple": (1, 2),
    "a set": {1},
    "a tuple within": {"a": [(1, 2)]},
    "a key that is no string": {1: "a"},
    "not a number": math.nan,
    "infinity": [math.inf],
    "text of another class": Word("a"),
    "a dictionary of another class": OrderedDict(a=1),
    "a lone surrogate": "a\ud800",
    "a lone surrogate in a key": {"\udfff": 1},
    "an object": object(),
    "an object without a repr": Silent(),
    "very deep": nested,
    "a circle": circle,
    "a huge number": 10**5000,
    "a huge number within": {"n": [-(10**5000)]},
}


@pytest.mark.parametrize("item", NOT_JSON.values(), ids=NOT_JSON)
def test_what_json_cannot_hold_is_written_by_repr_and_marked(item: Any, tmp_path: Path) -> None:
    """An item that would come back different is text instead, and its line says so."""
    (line,) = written(tmp_path / "r.jsonl", failure(item))
    assert line["item_is_repr"] is True
    assert isinstance(line["item"], str)
    assert line["item"]


def test_a_line_tells_all_that_is_known(tmp_path: Path) -> None:
    """A line has the index, the item and every word about its error."""
    one = failure({"a": "ä"}, sqlstate="23505", stage="commit", message="two\nlines")
    (line,) = written(tmp_path / "r.jsonl", one)
    assert line == {
        "index": 3,
        "item": {"a": "ä"},
        "error": "builtins.ValueError",
        "message": "two\nlines",
        "sqlstate": "23505",
        "stage": "commit",
        "traceback": "t\n",
    }


def test_a_line_is_there_at_once(tmp_path: Path) -> None:
    """Each line is in the file before the next item, since the run may be killed."""
    rejects = Rejects(tmp_path / "r.jsonl")
    for number in (1, 2):
        rejects.write(failure(number))
        assert len((tmp_path / "r.jsonl").read_text().splitlines()) == number
    rejects.close()


def test_a_file_that_holds_something_is_refused(tmp_path: Path) -> None:
    """An earlier run's failed items, or this run's source, are not written over."""
    path = tmp_path / "r.jsonl"
    path.write_text("precious\n")
    with pytest.raises(ConfigurationError, match="move it away"):
        Rejects(path)
    assert path.read_text() == "precious\n"


def test_an_empty_file_is_taken(tmp_path: Path) -> None:
    """The path that mkstemp has made is fine."""
    path = tmp_path / "r.jsonl"
    path.touch()
    assert len(written(path, failure(1))) == 1


@pytest.mark.parametrize(
    "path",
    ["", "/dev/full", "/nowhere/r.jsonl", "a\0b", b"bytes", 5],
    ids=["a folder", "a device", "no folder", "a null", "bytes", "a number"],
)
def test_a_path_that_cannot_be_written_is_refused(path: Any) -> None:
    """Whatever is wrong with the path, it is said before the first item."""
    with pytest.raises(ConfigurationError, match="rejects"):
        Rejects(path)


def test_a_full_disk_is_an_oserror_and_closing_is_none(tmp_path: Path) -> None:
    """A line that can't be written is an error at once, and not once more when closing."""
    rejects = Rejects(tmp_path / "r.jsonl")
    rejects._file.close()
    rejects._file = Path("/dev/full").open("w", encoding="utf-8")
    with pytest.raises(OSError, match="No space left"):
        rejects.write(failure("x"))
    rejects.close()


def test_a_path_may_be_any_path_like(tmp_path: Path) -> None:
    """A str and a Path name the same file."""
    Rejects(os.fspath(tmp_path / "r.jsonl")).close()
    assert (tmp_path / "r.jsonl").exists()
