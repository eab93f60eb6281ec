"""In the process of Django's ``runtests.py``: put a block around every test, and record results.

Django's settings name `Runner` as their ``TEST_RUNNER``. Two variables say what it does:
``CARPOOL_DJANGO_BLOCK``, "plain" or "coalesced", and ``CARPOOL_DJANGO_RESULTS``, the JSON to write.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import time
import unittest
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias
from unittest import mock

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import TestCase, TransactionTestCase
from django.test.runner import DiscoverRunner
from django.test.utils import CaptureQueriesContext

from carpool.coalescing import Figures, coalesce
from carpool.coalescing.registry import unit_of
from tools.django_suite.results import ERROR, FAILED, PASSED, SKIPPED, Outcome, Results

#: Seconds that a test may take before it counts as hanging, which ends the run with all stacks.
TEST_LIMIT = 120

ErrorInfo: TypeAlias = (
    tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
)


class Recorder(unittest.TextTestResult):
    """Django's usual result, which writes down each test's outcome as well."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.results = Results()

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        faulthandler.dump_traceback_later(TEST_LIMIT, exit=True)
        super().startTest(test)

    def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802
        super().addSuccess(test)
        self.results.record(test.id(), Outcome(PASSED))

    def addError(self, test: unittest.TestCase, err: ErrorInfo) -> None:  # noqa: N802
        super().addError(test, err)
        self.results.record(test.id(), Outcome(ERROR, summary(err)))

    def addFailure(self, test: unittest.TestCase, err: ErrorInfo) -> None:  # noqa: N802
        super().addFailure(test, err)
        self.results.record(test.id(), Outcome(FAILED, summary(err)))

    def addSubTest(  # noqa: N802
        self, test: unittest.TestCase, subtest: unittest.TestCase, err: ErrorInfo | None
    ) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.results.record(test.id(), Outcome(FAILED, summary(err)))

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: N802
        super().addSkip(test, reason)
        self.results.record(getattr(test, "test_case", test).id(), Outcome(SKIPPED, reason))

    def addExpectedFailure(  # noqa: N802
        self, test: unittest.TestCase, err: ErrorInfo
    ) -> None:
        super().addExpectedFailure(test, err)
        self.results.record(test.id(), Outcome(PASSED))

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802
        super().addUnexpectedSuccess(test)
        self.results.record(test.id(), Outcome(FAILED, "unexpected success"))


def summary(err: ErrorInfo) -> str:
    """Return the error's type and the first line of its message."""
    kind, error, _ = err
    assert kind is not None
    first = next(iter(str(error).splitlines()), "")
    return f"{kind.__name__}: {first}"


class Runner(DiscoverRunner):
    """Django's test runner with our blocks and our records."""

    def get_resultclass(self) -> type[Recorder]:
        return Recorder

    def run_suite(self, suite: unittest.TestSuite, **kwargs: Any) -> Recorder:
        figures = Figures()
        began = time.monotonic()
        with blocks_around_tests(figures):
            result = super().run_suite(suite, **kwargs)
        faulthandler.cancel_dump_traceback_later()
        assert isinstance(result, Recorder)
        result.results.seconds = time.monotonic() - began
        result.results.queued = figures.queued
        result.results.sent = figures.sent
        result.results.write(Path(os.environ["CARPOOL_DJANGO_RESULTS"]))
        return result


@contextlib.contextmanager
def block(aliases: Sequence[str], figures: Figures) -> Iterator[None]:
    """The block around a test; its figures are added to `figures`."""
    if os.environ["CARPOOL_DJANGO_BLOCK"] == "plain":
        with contextlib.ExitStack() as stack:
            for alias in aliases:
                stack.enter_context(transaction.atomic(using=alias))
            yield
    elif aliases:
        with coalesce(using=aliases) as its_figures:
            yield
        figures.add(its_figures)
    else:
        yield


@contextlib.contextmanager
def blocks_around_tests(figures: Figures) -> Iterator[None]:
    """Run every test in a block, and each class' ``setUpTestData()`` in one of its own."""
    call_set_up = TransactionTestCase._callSetUp  # type: ignore[attr-defined]
    set_up_class = TestCase.setUpClass.__func__  # type: ignore[attr-defined]
    begin_count = CaptureQueriesContext.__enter__
    end_count = CaptureQueriesContext.__exit__

    def call_set_up_in_block(self: TransactionTestCase) -> None:
        # The context is left after the test's other cleanups, and before Django's rollback.
        self.enterContext(block(databases_of(type(self)), figures))
        call_set_up(self)

    def set_up_class_in_block(cls: type[TestCase]) -> None:
        set_up_data = cls.setUpTestData

        def set_up_data_in_block() -> None:
            with block(databases_of(cls), figures):
                set_up_data()

        with mock.patch.object(cls, "setUpTestData", set_up_data_in_block):
            set_up_class(cls)

    # See Note [Counted queries].
    def begin_empty(self: CaptureQueriesContext) -> CaptureQueriesContext:
        write_what_is_queued(self.connection)
        return begin_count(self)

    def end_empty(
        self: CaptureQueriesContext,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            try:
                write_what_is_queued(self.connection)
            except BaseException as late:
                end_count(self, type(late), late, late.__traceback__)
                raise
        end_count(self, kind, error, traceback)

    with contextlib.ExitStack() as patches:
        for target, name, replacement in (
            (TransactionTestCase, "_callSetUp", call_set_up_in_block),
            (TestCase, "setUpClass", classmethod(set_up_class_in_block)),
            (CaptureQueriesContext, "__enter__", begin_empty),
            (CaptureQueriesContext, "__exit__", end_empty),
        ):
            patches.enter_context(mock.patch.object(target, name, replacement))
        yield


def databases_of(cls: type[TransactionTestCase]) -> list[str]:
    """Return the aliases that the tests of a class may use."""
    names: list[str] = cls._databases_names(include_mirrors=False)  # type: ignore[attr-defined]
    return names


def write_what_is_queued(connection: BaseDatabaseWrapper) -> None:
    """Flush the connection's block, if it is in one, and send the savepoints it has put off."""
    unit = unit_of(connections[connection.alias])
    if unit is not None and not connection.needs_rollback:
        unit.write()
        unit.transaction.send_savepoints()
