"""First the caller itself, then processes."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, transaction

import carpool
from carpool.executors import auto
from tests.executors import functions
from tests.executors.contract import ExecutorContract
from tests.executors.functions import endless_rows, name, names, rows, stored
from tests.waiting import HANG


class Rows:
    """Rows until it is ``enough``, and a hundred more.

    So a run lasts until the pool is ready, however long that takes, and goes on with it.

    Attributes:
        before: how many there were until it was enough.
        total: how many there were.
    """

    def __init__(
        self, enough: Callable[[], bool], row: Callable[[int], dict[str, Any]] = lambda number: {}
    ) -> None:
        self._enough = enough
        self._row = row
        self.before = self.total = 0

    def __iter__(self) -> Iterator[functions.Row]:
        deadline = time.monotonic() + HANG
        while not self._enough():
            assert time.monotonic() < deadline, "the pool isn't ready"
            yield self._next()
        self.before = self.total
        for _ in range(100):
            yield self._next()

    def _next(self) -> functions.Row:
        number = self.total
        self.total += 1
        return {"name": name(number), **self._row(number)}


class TestAuto(ExecutorContract):
    """Short runs, which end before a pool would be worth its start."""

    options = {"executor": "auto", "workers": 2}
    label = "inline"
    workers = 1
    most_workers = 3  # the caller, then two processes
    sends_items = False

    @pytest.fixture(autouse=True)
    def patience(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the run that must end before the hand-over do so on a busy machine, too."""
        if request.node.originalname == "test_each_item_is_run_once":
            monkeypatch.setattr(auto, "PATIENCE", 3600.0)

    @pytest.fixture
    def handed_over(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
        """Tell whether the test's run has been handed to processes by now."""
        executors: list[auto.AutoExecutor] = []
        start = auto.AutoExecutor.start

        def start_and_tell(executor: auto.AutoExecutor) -> None:
            executors.append(executor)
            start(executor)

        monkeypatch.setattr(auto.AutoExecutor, "start", start_and_tell)
        return lambda: executors[0].label != "inline"

    def test_a_long_run_is_handed_over(self) -> None:
        """A run that goes on is handed to processes: each item once, wherever it ran."""
        indexes: list[int] = []
        processes: set[int] = set()
        items = Rows(lambda: len(processes) == 3)
        for outcome in self.stream(functions.whereabouts, items, ordered=False):
            indexes.append(outcome.index)
            processes.add(outcome.value[0])

        assert sorted(indexes) == list(range(items.total))
        assert len(processes) == 3

    def test_the_report_of_a_long_run(self, handed_over: Callable[[], bool]) -> None:
        """After the hand-over the report names the processes, and all rows are there once."""
        items = Rows(handed_over, lambda number: {"do": "doze"})

        report = self.run(functions.create, items)

        assert report.succeeded == items.total
        assert (report.executor, report.workers) == ("processes (forkserver)", 2)
        assert stored() == names(range(items.total))

    def test_what_cannot_be_sent_across_the_hand_over(
        self, handed_over: Callable[[], bool]
    ) -> None:
        """Items that can't be pickled run before the hand-over; after it they fail, one by one."""
        items = Rows(handed_over, lambda n: {"lock": threading.Lock()} if n % 3 == 0 else {})

        report = self.run(functions.read_lock_slowly, items)

        assert report.total == report.succeeded + report.failed == items.total
        assert {f.error for f in report.failures} == {"carpool.exceptions.NotSendable"}
        unsendable = [n for n in range(items.before, items.total) if n % 3 == 0]
        assert sorted(f.index for f in report.failures) == unsendable
        assert len(stored()) == report.succeeded

    def test_what_the_caller_has_left_over(self) -> None:
        """Chunks that were read for the caller, and have to be run again, stay with the caller.

        Here COMMIT refuses one item in ten, so that most chunks are run in parts; those that wait
        at the hand-over hold items that could not be sent.
        """
        refused = dict.fromkeys(range(0, 200, 10), "refuse at commit")
        items = rows(200, refused)
        for item in items:
            item["lock"] = threading.Lock()
        try:
            outcomes = list(
                self.stream(
                    functions.read_lock_slowly,
                    items,
                    chunk_size=40,
                    setup=functions.obey_at_commit,
                )
            )
        finally:
            vars(connection).pop("_commit", None)

        errors = {o.index: o.failure.error for o in outcomes if o.failure is not None}
        unsendable = {index for index, error in errors.items() if error.endswith("NotSendable")}
        assert len(unsendable) % 40 == 0
        assert unsendable == set(range(200 - len(unsendable), 200))
        assert set(errors) - unsendable == set(refused) - unsendable
        assert stored() == names(n for n in range(200) if n not in errors)

    def test_a_setup_that_fails_in_the_pool(self) -> None:
        """If workers can't begin, the run fails by their error, and what the caller did is kept."""
        setup = functools.partial(functions.fail_elsewhere, os.getpid())
        with pytest.raises(carpool.RunFailed, match="no model to load") as caught:
            self.run(
                functions.create,
                endless_rows(dict.fromkeys(range(100_000), "doze")),
                setup=setup,
            )

        report = caught.value.report
        assert report is not None
        assert len(stored()) == report.succeeded > 0
        assert report.failed + report.succeeded == report.total

    def test_a_time_limit_keeps_items_out_of_the_caller(self) -> None:
        """With ``timeout`` nothing runs where it can't be ended."""
        report = self.run(functions.create, rows(5, {2: "exit"}), timeout=30)

        assert report.executor == "processes (forkserver)"
        assert [failure.index for failure in report.failures] == [2]

    def test_one_worker_is_the_caller(self) -> None:
        """A pool of one would only be a detour."""
        items = rows(30, dict.fromkeys(range(30), "doze"))

        assert self.run(functions.create, items, workers=1).executor == "inline"

    def test_inside_a_transaction_it_stays_inline(self) -> None:
        """Inside ``atomic()`` all runs in the caller's transaction, and goes with it."""
        with transaction.atomic():
            report = self.run(functions.create, rows(30, {3: "raise"}))
            assert (report.executor, report.failed) == ("inline", 1)
            assert len(stored()) == 29
            transaction.set_rollback(True)

        assert stored() == []
