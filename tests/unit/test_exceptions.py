"""What carpool raises: it travels, keeps its report, and is drawn as it is."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from carpool import exceptions
from carpool.exceptions import CarpoolError, Interrupted, ItemsFailed, TooManyFailures
from carpool.report import Report

REPORT = Report(3, 2, 1, 0, 0, 0, 1.5, 2, "inline", 1)
CLASSES = [
    value
    for value in vars(exceptions).values()
    if inspect.isclass(value)
    and issubclass(value, BaseException)
    and value.__module__ == exceptions.__name__
]
RAISED = [kind for kind in CLASSES if not issubclass(kind, Warning)]


@pytest.mark.parametrize("kind", RAISED, ids=lambda kind: kind.__name__)
def test_every_exception_travels_with_its_report(kind: type[CarpoolError]) -> None:
    """An exception has the same message and report in another process."""
    there = pickle.loads(pickle.dumps(kind("what happened", REPORT)))
    assert type(there) is kind
    assert str(there) == there.message == "what happened"
    assert there.report == REPORT


@pytest.mark.parametrize("kind", RAISED, ids=lambda kind: kind.__name__)
def test_a_report_given_later_travels_too(kind: type[CarpoolError]) -> None:
    """run() sets .report on an error raised further down; that must not be lost either."""
    error = kind("what happened")
    assert error.report is None
    error.report = REPORT
    assert pickle.loads(pickle.dumps(error)).report == REPORT


def test_the_drawing_names_every_class() -> None:
    """The hierarchy drawn on top of the module has every class, and no other."""
    drawn = set(re.findall(r"^[ │]+(?:[├└]── )?([A-Z]\w+)", exceptions.__doc__ or "", re.MULTILINE))
    named = {kind.__name__ for kind in CLASSES}
    assert named <= drawn
    assert drawn - named <= {"Exception", "KeyboardInterrupt", "RuntimeWarning"}


def test_ctrl_c_passes_by_except_exception() -> None:
    """Interrupted is a KeyboardInterrupt, so that `except Exception` does not swallow it."""
    assert issubclass(Interrupted, KeyboardInterrupt)
    assert not issubclass(Interrupted, Exception)


def test_too_many_failures_is_caught_as_items_failed() -> None:
    """Who catches ItemsFailed is told of either limit."""
    assert issubclass(TooManyFailures, ItemsFailed)
