"""The caller itself."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any

import pytest

import carpool
from tests.executors import functions
from tests.executors.contract import ExecutorContract
from tests.executors.functions import endless_rows, names, rows, stored


class TestInline(ExecutorContract):
    options = {"executor": "inline"}
    label = "inline"
    workers = 1
    sends_function = False
    sends_items = False

    def test_ctrl_c_in_the_function(self) -> None:
        """Ctrl-C while an item runs rolls its chunk back; those before it are stored."""
        with pytest.raises(carpool.Interrupted) as caught:
            self.run(functions.create, rows(30, {14: "ctrl-c"}), chunk_size=4)

        assert caught.value.report is not None
        assert caught.value.report.succeeded == 12
        assert stored() == names(range(12))

    def test_a_second_ctrl_c_in_a_callback(self) -> None:
        """Ctrl-C in a callback after COMMIT lets it end; a second one costs its item's success.

        All rows are stored by then, so all others count as succeeded.
        """
        with pytest.raises(carpool.Interrupted) as caught:
            self.run(functions.create, rows(30, {6: "ctrl-c after commit"}), chunk_size=4)

        report = caught.value.report
        assert report is not None
        assert stored() == ["a callback", *names(range(8))]
        assert (report.succeeded, report.total) == (7, 8)
        assert [(f.index, f.stage) for f in report.failures] == [(6, "on_commit")]

    def test_ctrl_c_between_two_chunks(self) -> None:
        """Ctrl-C that strikes in `run` itself is no other: it ends with the report."""

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            return press if frame.f_code is carpool.run.__code__ else None

        def press(frame: FrameType, event: str, argument: Any) -> Any:
            if event == "line" and stored():
                sys.settrace(None)
                frame.f_trace = None
                os.kill(os.getpid(), signal.SIGINT)
            return press

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            with pytest.raises(KeyboardInterrupt) as caught:
                self.run(functions.create, endless_rows(), chunk_size=4)
        finally:
            sys.settrace(before)

        assert isinstance(caught.value, carpool.Interrupted)
        self.check_interrupted(caught.value.report, 8)
