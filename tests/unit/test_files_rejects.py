"""A rejects file gives the failed items back."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import carpool
from carpool.exceptions import SourceError
from carpool.rejects import Rejects
from carpool.types import Failure


def reject_file(path: Path, *items: Any) -> Path:
    """Write a rejects file as a run does."""
    rejects = Rejects(path)
    for number, item in enumerate(items, 10):
        rejects.write(
            Failure(number, item, error="builtins.ValueError", message="no", traceback="t\n")
        )
    rejects.close()
    return path


def test_the_items_come_back_as_they_were(tmp_path: Path) -> None:
    """What a run wrote is read as the items that failed, ready for another run."""
    items = [{"a": "ä"}, [1, None], "text", 5, {"index": 1, "item": 2}]
    assert list(carpool.read(reject_file(tmp_path / "failed.jsonl", *items))) == items


def test_an_item_of_which_only_the_repr_was_kept_is_an_error(tmp_path: Path) -> None:
    """Its text is not the item: the error says which one it was, where, and what to do."""
    path = reject_file(tmp_path / "failed.jsonl", "whole", date(2026, 1, 2), "later")
    items = iter(carpool.read(path))
    assert next(items) == "whole"
    with pytest.raises(SourceError) as caught:
        next(items)
    assert (caught.value.file, caught.value.line) == (str(path), 2)
    assert "datetime.date(2026, 1, 2)" in caught.value.message
    assert "run that item again" in caught.value.message
    assert "number 11 there" in caught.value.message


def test_the_lines_themselves_can_be_had(tmp_path: Path) -> None:
    """unwrap_rejects=False is for whoever wants the messages."""
    path = reject_file(tmp_path / "failed.jsonl", {"a": 1})
    (line,) = carpool.read(path, unwrap_rejects=False)
    assert line["message"] == "no"
    assert line["item"] == {"a": 1}


LINE: dict[str, Any] = {
    "index": 1,
    "item": "x",
    "error": "builtins.ValueError",
    "message": "no",
    "sqlstate": None,
    "stage": "item",
    "traceback": "",
}


@pytest.mark.parametrize(
    "line",
    [
        {**LINE, "more": 1},
        {name: value for name, value in LINE.items() if name != "stage"},
        {**LINE, "index": "1"},
        {**LINE, "traceback": None},
        list(LINE),
    ],
    ids=["more", "less", "text for a number", "none for text", "a list"],
)
def test_what_is_nearly_a_rejects_file_is_none(line: Any, tmp_path: Path) -> None:
    """Only the exact shape counts: a log of errors is not to be mistaken for failed items."""
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(line) + "\n" + json.dumps(LINE) + "\n")
    assert list(carpool.read(path)) == [line, LINE]


def test_the_first_line_decides(tmp_path: Path) -> None:
    """A line of another shape in a rejects file is an error: it can't be a failed item."""
    path = tmp_path / "a.jsonl"
    path.write_text(f'\n{json.dumps(LINE)}\n{{"a": 1}}\n')
    items = iter(carpool.read(path))
    assert next(items) == "x"
    with pytest.raises(SourceError, match=r"line 3: this isn't a failed item"):
        next(items)


def test_each_file_is_judged_for_itself(tmp_path: Path) -> None:
    """Failed items and fresh ones may be read together."""
    reject_file(tmp_path / "a.jsonl", {"n": 1})
    (tmp_path / "b.jsonl").write_text('{"n": 2}\n')
    assert list(carpool.read(tmp_path / "*.jsonl")) == [{"n": 1}, {"n": 2}]
