"""`coalesce()` leaves the rows, the signals and the values of a plain loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from django.db import transaction

from carpool.coalescing import coalesce, making, plans
from tests.app.functions import committing
from tests.app.receivers import Recorded
from tests.integration.cases import CASES, Case, start_afresh
from tests.integration.plain_loop import Result, error_of, loop

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

BOTH = ("default", "other")

HERE = [
    case
    for case in CASES
    # A callback of on_commit() runs after the block, when its item's notes are long taken.
    if case.function.__module__ != committing.__name__
    # Checked at COMMIT, which is not the item's own here.
    and case.name != "swap_slots"
]


def in_one_block(function: Callable[[Any], Any], items: Iterable[Any]) -> Result:
    """Run the function once per item, all in one block."""
    result = Result()
    with coalesce(BOTH):
        for index, item in enumerate(items):
            result.values[index] = function(item)
    return result.look()


def in_savepoints(function: Callable[[Any], Any], items: Iterable[Any]) -> Result:
    """Likewise, each item under a savepoint, so that bad ones are undone alone."""
    result = Result()
    with coalesce(BOTH):
        for index, item in enumerate(items):
            try:
                with transaction.atomic("default"), transaction.atomic("other"):
                    result.values[index] = function(item)
            except Exception as error:
                result.errors[index] = error_of(error)
    return result.look()


def good(case: Case) -> list[dict[str, Any]]:
    return [item for item in case.items("k", bad={}) if not item.get("objection")]


def possible(case: Case) -> Case:
    if not case.is_possible():
        pytest.skip(f"this database lacks {', '.join(case.features)}")
    return case


@pytest.mark.parametrize("short", [True, False], ids=["", "long way"])
@pytest.mark.parametrize("case", HERE, ids=lambda case: case.name)
def test_good_items_in_one_block(case: Case, short: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All items queue side by side and are written as a loop would write them."""
    if not short:  # as for a class with methods of its own in place of Model's
        monkeypatch.setattr(plans.Plan, "of", lambda *_: None)
        monkeypatch.setattr(making.Maker, "of", lambda *_: None)
    function = Recorded(possible(case).function)
    start_afresh()
    expected = loop(function, good(case), using=BOTH)
    start_afresh()
    actual = in_one_block(function, good(case))

    assert not expected.errors
    assert expected.rows
    assert actual.rows == expected.rows
    if not case.late:
        assert actual.signals == expected.signals


@pytest.mark.parametrize("case", HERE, ids=lambda case: case.name)
def test_bad_items_under_savepoints(case: Case) -> None:
    """An item's error is met by the atomic() block around it."""
    bad = {1: "raise", 2: "unique", 3: "early raise"}
    function = Recorded(possible(case).function)
    start_afresh()
    expected = loop(function, case.items("k", bad), using=BOTH)
    start_afresh()
    actual = in_savepoints(function, case.items("k", bad))

    assert expected.rows
    assert actual.errors == expected.errors
    assert actual.rows == expected.rows
    if not case.late:
        assert actual.signals == expected.signals
