"""Counts and rates in words."""

from __future__ import annotations

import pytest

from carpool.words import a_second, counted


@pytest.mark.parametrize(("number", "text"), [(0, "0 items"), (1, "1 item"), (1200, "1,200 items")])
def test_one_is_singular(number: int, text: str) -> None:
    """And only that."""
    assert counted(number, "item") == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0.0, "0"),
        (0.033, "0.033"),
        (1.66, "1.7"),
        (9.9, "9.9"),
        (9.96, "10"),
        (12.4, "12"),
        (1234.5, "1,234"),
    ],
)
def test_slow_rates_have_decimals(rate: float, text: str) -> None:
    """An item a minute is not none."""
    assert a_second(rate) == text
