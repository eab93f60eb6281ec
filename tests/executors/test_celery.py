"""Celery's workers: real ones, a prefork pool of two, with Redis between.

The contract is unchanged. With a journal each run has one of its own name; `stream` has none.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from carpool import Report
from carpool.executors import celery
from tests.celery_workers import Crew, broker, crew
from tests.executors.contract import ExecutorContract


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with broker("redis") as url:
        yield url


class CeleryContract(ExecutorContract):
    label = "celery"
    pool = "prefork"
    settings: dict[str, Any] = {}

    @pytest.fixture(scope="class")
    @classmethod
    def crew(
        cls, redis: str, django_db_setup: None, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Crew]:
        with crew(redis, tmp_path_factory.mktemp("celery"), **cls.settings) as made:
            made.start(pool=cls.pool)
            yield made

    @pytest.fixture(autouse=True)
    def use(self, crew: Crew) -> None:
        self.options = {"executor": celery(crew.app, redelivered_chunks_may_be_unknown=True)}


class TestCelery(CeleryContract):
    """Without a journal."""


class TestCeleryWithJournal(CeleryContract):
    """With one, as it should be; a dry run can have none."""

    def run(self, function: Callable[..., Any], items: Iterable[Any], **more: Any) -> Report:
        if not more.get("dry_run"):
            more = {"journal": uuid.uuid4().hex, **more}
        return super().run(function, items, **more)
