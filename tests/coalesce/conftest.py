"""Blocks that queue from the first row on."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _from_the_first_row_on(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queue a table's first rows, too, unless the test is about them."""
    if "first_rows" not in request.keywords:
        monkeypatch.setattr("carpool.coalescing.unit.FIRST_SAVES", 0)
        monkeypatch.setattr("carpool.coalescing.unit.FIRST_BULKS", 0)
