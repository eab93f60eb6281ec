"""Threads of this process."""

from __future__ import annotations

import threading

import pytest

from carpool import Snapshot
from tests.executors import functions
from tests.executors.contract import ExecutorContract
from tests.executors.functions import names, rows, stored


class TestThreads(ExecutorContract):
    options = {"executor": "threads", "workers": 2}
    label = "threads"
    sends_function = False
    sends_items = False

    def test_no_thread_is_left(self) -> None:
        """When the run is over, so are its threads."""
        before = set(threading.enumerate())

        self.run(functions.create, rows(40, {3: "raise"}), workers=5, chunk_size=4)

        assert not set(threading.enumerate()) - before

    @pytest.mark.only_on("postgresql", "mysql")
    def test_threads_run_side_by_side(self) -> None:
        """Items that wait do so at the same time: a barrier lets none pass before all are there.

        (Not so on SQLite, where chunks have to wait for one another's write lock.)
        """
        barrier = threading.Barrier(4)

        report = self.run(lambda row: barrier.wait(30), rows(8), workers=4, chunk_size=1)

        assert report.failures == ()

    def test_an_item_that_never_ends(self) -> None:
        """A thread can't be ended: when the run stops, its chunk is left, and stores nothing."""
        release = threading.Event()
        begun = threading.Event()

        def wait(row: functions.Row) -> None:
            functions.create(row)
            if row["do"] == "wait":
                begun.set()
                release.wait(60)

        def press(snapshot: Snapshot) -> None:
            if snapshot.done >= 2 and begun.wait(60):
                raise LookupError("enough")

        with pytest.raises(LookupError) as caught:
            self.run(wait, rows(6, {2: "wait"}), workers=1, chunk_size=2, progress=press)
        release.set()
        left = [thread for thread in threading.enumerate() if thread.name.startswith("carpool")]
        for thread in left:
            thread.join(60)

        report = caught.value.report  # type: ignore[attr-defined]
        assert (report.succeeded, report.unknown) == (2, 2)
        assert {f.index: f.stage for f in report.failures if f.index in (2, 3)} == {
            2: "unknown",
            3: "unknown",
        }
        assert stored() == names(range(2))
