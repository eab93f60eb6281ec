"""Executors of concurrent.futures that belong to the caller, who uses them again and again."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection
from django.utils import translation
from pytest_django import DjangoDbBlocker

import carpool
from tests.executors import functions
from tests.executors.contract import ExecutorContract
from tests.executors.functions import endless_rows, names, rows, stored


class FuturesContract(ExecutorContract):
    """The contract, with one pool for all tests of a line: what a run leaves in it would show."""

    @staticmethod
    def make_pool() -> Executor:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def pool(cls) -> Iterator[Executor]:
        with cls.make_pool() as pool:
            yield pool

    @pytest.fixture(autouse=True)
    def use(self, pool: Executor) -> None:
        self.options = {"executor": pool}

    def test_pool_is_left_to_its_owner(self, pool: Executor) -> None:
        """A run doesn't shut the pool down, nor takes its settings for granted in the next run."""
        with translation.override("de"):
            self.run(functions.create, rows(3))
        with translation.override("fr"):
            values = [o.value[0] for o in self.stream(functions.surroundings, rows(9))]

        assert values == ["fr"] * 9
        assert pool.submit(len, "abc").result() == 3


class TestThreadPoolExecutor(FuturesContract):
    label = "ThreadPoolExecutor"

    @staticmethod
    def make_pool() -> Executor:
        return ThreadPoolExecutor(2)


class TestProcessPoolExecutorForkserver(FuturesContract):
    label = "ProcessPoolExecutor"

    @staticmethod
    def make_pool() -> Executor:
        return ProcessPoolExecutor(2, multiprocessing.get_context("forkserver"))

    def test_a_pool_that_breaks(self) -> None:
        """When a worker takes the pool along, what was in flight is unknown, and all is counted."""
        with ProcessPoolExecutor(2, multiprocessing.get_context("forkserver")) as pool:
            with pytest.raises(carpool.RunFailed, match="takes no more work") as caught:
                carpool.run(
                    functions.create,
                    endless_rows({40: "exit"}),
                    executor=pool,
                    chunk_size=5,
                    progress=False,
                )

        report = caught.value.report
        assert report is not None
        assert report.total == report.succeeded + report.failed + report.unknown
        assert 1 <= report.unknown <= 5 * self.window
        there = stored()
        lost = {functions.name(f.index) for f in report.failures if f.stage == "unknown"}
        assert len(set(there) - lost) == report.succeeded


class TestProcessPoolExecutorSpawn(FuturesContract):
    label = "ProcessPoolExecutor"

    @staticmethod
    def make_pool() -> Executor:
        return ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))


# Python 3.12 and later warn of any fork where there are threads, such as the one with which
# faulthandler watches over the tests.
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
class TestProcessPoolExecutorFork(FuturesContract):
    """The default up to Python 3.13: forked with the caller's connection open."""

    label = "ProcessPoolExecutor"

    @pytest.fixture(scope="class")
    @classmethod
    def pool(cls, django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Executor]:
        with (
            django_db_blocker.unblock(),
            ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool,
        ):
            connection.ensure_connection()
            list(pool.map(time.sleep, [0.1, 0.1]))
            yield pool


class _Immediate(Executor):
    """Runs each call in the caller's own thread, as some test executors and schedulers do."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class TestImmediate(ExecutorContract):
    """An executor whose worker is the caller's thread, with the caller's connection."""

    label = "_Immediate"
    workers = 1

    @pytest.fixture(autouse=True)
    def use(self) -> None:
        self.options = {"executor": _Immediate(), "workers": 1}


def test_a_pool_that_is_shut_down(transactional_db: None) -> None:
    """A pool that takes no work fails the run at once; what was read is named as not run."""
    pool = ThreadPoolExecutor(1)
    pool.shutdown()

    with pytest.raises(carpool.RunFailed, match="shutdown") as caught:
        carpool.run(functions.create, rows(5), executor=pool, chunk_size=2, progress=False)

    assert caught.value.report is not None
    assert {f.error for f in caught.value.report.failures} == {"carpool.exceptions.NotRun"}
    assert stored() == []


def test_threads_of_a_pool_keep_no_connection(
    transactional_db: None, no_connections_left: None
) -> None:
    """A pool's threads live on after the run, without connections that nobody would close."""
    with ThreadPoolExecutor(3) as pool:
        report = carpool.run(
            functions.create, rows(30), executor=pool, chunk_size=2, progress=False
        )

        assert report.succeeded == 30
    assert stored() == names(range(30))
