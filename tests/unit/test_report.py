"""The report: adds up, reads well, tells by an exception if asked to."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpool.exceptions import ItemsFailed
from carpool.report import Report
from carpool.types import Failure


def report(**changes: Any) -> Report:
    """Return the report of a clean run, with these changes."""
    values: dict[str, Any] = {
        "total": 1000,
        "succeeded": 1000,
        "failed": 0,
        "unknown": 0,
        "skipped": 0,
        "retries": 0,
        "seconds": 2.0,
        "chunks": 4,
        "executor": "threads",
        "workers": 2,
    }
    return Report(**values | changes)


def failure(index: int, error: str = "builtins.ValueError", message: str = "no") -> Failure:
    return Failure(index, {"n": index}, error, message)


def test_a_clean_run_prints_as_two_lines() -> None:
    """Only what there is to say is said."""
    assert str(report()) == (
        "1,000 items in 2.0 s (500/s): 1,000 succeeded\n4 chunks by 2 workers, threads"
    )


SHAPES: list[tuple[dict[str, Any], list[str], list[str]]] = [
    ({"failed": 2, "succeeded": 998}, ["998 succeeded, 2 failed"], ["unknown", "skipped"]),
    ({"unknown": 3}, ["3 unknown"], ["failed", "skipped"]),
    ({"skipped": 4}, ["4 skipped"], ["failed", "unknown"]),
    ({"retries": 1}, ["1 retry"], ["retries"]),
    ({"retries": 2}, ["2 retries"], ["retry,"]),
    ({"workers": 1}, ["by 1 worker,"], ["workers"]),
    ({"dry_run": True}, ["(dry run: all rolled back)"], []),
    ({"seconds": 0.0}, ["(0/s)"], []),
    ({"seconds": 2000.0}, ["(0.5/s)"], []),
    (
        {"total": 1, "chunks": 1, "repeated": 1},
        ["1 item in", "1 chunk by", "again 1 time"],
        ["1 times"],
    ),
    ({"total": 0, "succeeded": 0, "chunks": 0}, ["0 items"], []),
    ({"already": 1}, ["1 of them was done before"], []),
    ({"already": 2, "failed_before": 1}, ["2 of them were done before, 1 had failed"], []),
    (
        {"failed": 1, "failures": (failure(5),), "rejects": "bad.jsonl"},
        ["  ValueError, first at item 5: no", "failed items are in bad.jsonl"],
        ["×"],
    ),
    (
        {"failed": 3, "failures": (failure(5), failure(9), failure(11, "a.b.Other"))},
        ["  2 × ValueError, first at item 5: no", "  Other, first at item 11: no"],
        ["rejects", "item 9"],
    ),
    (
        {"failed": 300, "failures": tuple(failure(n) for n in range(100))},
        ["100 × ValueError", "of the first 100"],
        [],
    ),
    (
        {"failed": 1, "failures": (failure(5, message="line\n  one " + "x" * 500),)},
        ["line one xxx", "…"],
        ["x" * 120, "line\n  one"],
    ),
    ({"rejects": "bad.jsonl"}, [], ["bad.jsonl"]),
]


@pytest.mark.parametrize(("changes", "there", "not_there"), SHAPES, ids=range(len(SHAPES)))
def test_a_report_says_what_happened_and_no_more(
    changes: dict[str, Any], there: list[str], not_there: list[str]
) -> None:
    """Each count, failure and circumstance shows if there is one, and else does not."""
    text = str(report(**changes))
    for part in there:
        assert part in text
    for part in not_there:
        assert part not in text


@given(st.lists(st.tuples(st.sampled_from("ABCDEFGH"), st.text(max_size=300)), max_size=100))
def test_the_summary_stays_short(errors: list[tuple[str, str]]) -> None:
    """However many failures, of however many kinds, with whatever messages: a few short lines."""
    failures = tuple(failure(n, f"m.{kind}", text) for n, (kind, text) in enumerate(errors))
    lines = str(report(failed=len(failures), failures=failures)).split("\n")
    assert len(lines) <= 8
    assert all(len(line) < 200 for line in lines)


def test_a_report_cannot_be_changed() -> None:
    """A report is frozen, and equal to itself after a journey."""
    one = report(failed=1, failures=(failure(5),))
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.failed = 0  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(one)) == one


def test_raise_for_failures_is_silent_about_a_clean_run() -> None:
    """Skipped rows and retries are no failures."""
    report(skipped=3, retries=2).raise_for_failures()


@pytest.mark.parametrize("changes", [{"failed": 1}, {"unknown": 1}], ids=str)
def test_raise_for_failures_raises_with_the_report(changes: dict[str, int]) -> None:
    """One item that failed, or may have, is enough; the exception has the report on it."""
    one = report(**changes, failures=(failure(5, message="the reason"),))
    with pytest.raises(ItemsFailed, match=r"1 of 1,000 items.*[\s\S]*the reason") as caught:
        one.raise_for_failures()
    assert caught.value.report is one
    with pytest.raises(ItemsFailed, match=r"1 of 1 item: "):
        report(**changes, total=1).raise_for_failures()
