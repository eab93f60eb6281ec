"""Blocks that queue from the first row on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db.models.signals import post_save

from tests.app import reactions
from tests.app.models import Author


@pytest.fixture(autouse=True)
def _from_the_first_row_on(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queue a table's first rows, too, unless the test is about them."""
    if "first_rows" not in request.keywords:
        monkeypatch.setattr("carpool.coalescing.inserts.FIRST_SAVES", 0)
        monkeypatch.setattr("carpool.coalescing.inserts.FIRST_BULKS", 0)


@pytest.fixture
def nobody_reads_an_authors_key() -> Iterator[None]:
    """Without the test app's receiver that makes a profile for each author."""
    post_save.disconnect(reactions.make_profile, sender=Author)
    yield
    post_save.connect(reactions.make_profile, sender=Author)
