"""Databases with empty tables, scripts to torment, and the seeds of chance."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from django.db import DEFAULT_DB_ALIAS, connection
from pytest_django import DjangoDbBlocker

from tests.acceptance.conftest import start
from tests.snapshot import empty_tables

__all__ = ["start", "transactional_db"]

#: More than the one of a usual run: ``CARPOOL_TORMENT_SEEDS=20 pytest tests/torment``.
SEEDS = int(os.environ.get("CARPOOL_TORMENT_SEEDS", "1"))

pytest.register_assert_rewrite("tests.torment.oracle", "tests.torment.program")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for a ``seed`` once for each."""
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(SEEDS))


@pytest.fixture
def transactional_db(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """In place of pytest-django's, which flushes every table of every app after each test."""
    with django_db_blocker.unblock():
        forget()
        yield
        connection.close()  # the test may have killed its server, or its transaction
        forget()


def forget() -> None:
    """Empty the tables that the scripts write."""
    empty_tables([DEFAULT_DB_ALIAS])
    with connection.cursor() as cursor:
        for table in ("entry", "lease", "run"):
            cursor.execute(f"DELETE FROM carpool_journal_{table}")
