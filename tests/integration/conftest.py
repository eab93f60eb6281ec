"""Databases that are emptied, not flushed, between the tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.test import TestCase
from pytest_django.plugin import DjangoDbBlocker

from tests.snapshot import emptied_before_and_after, empty_tables


# pytest-django's own fixture of this name flushes every table of every app after each test that
# commits, and makes all content types and permissions anew: a quarter second on two PostgreSQL
# databases, mostly longer than the test. If the name should change, its own will do; only slower.
# Checked on pytest-django 4.14.
@pytest.fixture
def _django_db_helper(
    request: pytest.FixtureRequest, django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[None]:
    """Allow the databases; empty the test app's tables before the test and after it."""
    if request.cls is not None and issubclass(request.cls, TestCase):
        yield
        return
    with django_db_blocker.unblock(), emptied_before_and_after(empty_tables):
        yield
