"""Databases that are emptied of what these tests write, the journal's tables too."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.db import connections
from pytest_django.plugin import DjangoDbBlocker

from carpool.journal.models import Entry, Lease, Run
from tests.snapshot import ALIASES, emptied_before_and_after, empty_tables


# In place of pytest-django's own, as in tests/integration/conftest.py, for the same reason.
@pytest.fixture
def _django_db_helper(
    request: pytest.FixtureRequest, django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[None]:
    """Allow the databases; empty their tables before the test and after it."""
    with django_db_blocker.unblock(), emptied_before_and_after(empty):
        yield


def empty() -> None:
    empty_tables()
    for alias in ALIASES:
        with connections[alias].cursor() as cursor:
            for model in (Entry, Lease, Run, User):
                table = connections[alias].ops.quote_name(model._meta.db_table)
                if alias == "default" or model is not User:
                    cursor.execute(f"DELETE FROM {table}")


@pytest.fixture
def no_thread_left() -> Iterator[None]:
    """Fail if a run leaves the journal's thread behind, however it ends."""
    yield
    assert "carpool journal" not in [thread.name for thread in threading.enumerate()]
