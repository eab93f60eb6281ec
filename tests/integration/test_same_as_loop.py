"""The contract: the same rows, the same signals and the same errors as a plain loop."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest

import carpool
from tests.app.receivers import Recorded
from tests.integration.cases import (
    CASES,
    Case,
    all_items,
    recorded_run_named,
    run_named,
    start_afresh,
    wrong,
)
from tests.integration.plain_loop import Result, carpooled, loop

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

EXECUTORS = [
    pytest.param({"executor": "inline"}, id="inline"),
    pytest.param({"executor": "threads", "workers": 3}, id="threads"),
    pytest.param(
        {"executor": "processes", "start_method": "forkserver", "workers": 2}, id="forkserver"
    ),
    pytest.param({"executor": "processes", "start_method": "fork", "workers": 2}, id="fork"),
    pytest.param({"executor": "processes", "start_method": "spawn", "workers": 2}, id="spawn"),
    pytest.param({"executor": "auto"}, id="auto"),
]


def assert_same(expected: Result, actual: Result) -> None:
    assert actual.errors == expected.errors
    assert actual.rows == expected.rows
    assert actual.signals == expected.signals


@functools.cache
def what_the_loop_does() -> Result:
    """Run the loop over all cases once for all executors."""
    start_afresh()
    result = loop(recorded_run_named, all_items())
    assert set(result.errors) == wrong(all_items())
    return result


@pytest.mark.parametrize("coalesce", [True, False], ids=["coalesced", "at once"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_function_does_what_a_loop_does(case: Case, coalesce: bool) -> None:
    """Each function alone leaves the rows, signals and errors of a loop, chunk by chunk."""
    if not case.is_possible():
        pytest.skip(f"this database lacks {', '.join(case.features)}")
    function = Recorded(case.function)
    start_afresh()
    expected = loop(function, case.items("k"))
    start_afresh()
    actual = carpooled(
        function, case.items("k"), executor="inline", chunk_size=4, coalesce=coalesce
    )
    if coalesce and case.late:
        actual.signals = expected.signals

    assert expected.rows, "the function wrote nothing: the comparison would say nothing"
    assert set(expected.errors) == wrong(case.items("k"))
    assert_same(expected, actual)


@pytest.mark.parametrize("options", EXECUTORS)
def test_every_executor_does_what_a_loop_does(options: dict[str, Any]) -> None:
    """All functions mixed leave the rows, signals and errors of a loop, by each executor."""
    expected = what_the_loop_does()
    start_afresh()

    actual = carpooled(recorded_run_named, all_items(), chunk_size=20, **options)

    assert_same(expected, actual)


@pytest.mark.parametrize("chunk_size", [1, 1000, None])
def test_the_size_of_a_chunk_changes_nothing(chunk_size: int | None) -> None:
    """One item a chunk, all items in one chunk, and paced chunks leave the same."""
    expected = what_the_loop_does()
    start_afresh()

    actual = carpooled(recorded_run_named, all_items(), executor="inline", chunk_size=chunk_size)

    assert_same(expected, actual)


def test_two_databases_in_one_run_do_what_a_loop_does() -> None:
    """Items that write to two databases, and fail, leave in both what a loop leaves."""
    cases = [case for case in CASES if case.function.__module__.endswith("crossing")]
    items = [
        item | {"case": case.name, "bad": {1: "raise", 3: "unique"}.get(item["n"])}
        for number, case in enumerate(cases)
        for item in case.items(f"k{number}-")
    ]
    start_afresh()
    expected = loop(recorded_run_named, copy.deepcopy(items), using=("default", "other"))
    start_afresh()

    actual = carpooled(
        recorded_run_named,
        items,
        executor="threads",
        workers=2,
        chunk_size=7,
        using=("default", "other"),
    )

    assert set(expected.errors) == wrong(items)
    assert any(table.startswith("other.") for table in expected.rows)
    assert_same(expected, actual)


@pytest.mark.parametrize("options", EXECUTORS[:3])
def test_stream_gives_the_values_of_a_loop_in_its_order(options: dict[str, Any]) -> None:
    """`stream` yields one outcome an item, in input order, with what a loop returns or raises."""
    items = all_items()
    expected = what_the_loop_does()
    start_afresh()

    outcomes = list(carpool.stream(run_named, all_items(), chunk_size=20, **options))

    assert [outcome.index for outcome in outcomes] == list(range(len(items)))
    for outcome, item in zip(outcomes, items, strict=True):
        assert outcome.item == item or item["case"] == "pop_everything"
    assert {o.index: o.value for o in outcomes if o.ok} == expected.values
    assert {o.index for o in outcomes if not o.ok} == set(expected.errors)
    for outcome in outcomes:
        assert outcome.ok == (outcome.failure is None)
        if outcome.failure is not None:
            assert outcome.failure.index == outcome.index
            assert outcome.failure.error == expected.errors[outcome.index].type
