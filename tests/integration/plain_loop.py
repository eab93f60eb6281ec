"""What carpool is compared with: a loop, each item in a transaction of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction

import carpool
from tests.snapshot import Log, Snapshot, plain_message, take_log, take_snapshot


@dataclass(frozen=True)
class Error:
    """An item's error, as far as it must be the same."""

    type: str
    message: str
    sqlstate: str | None


@dataclass
class Result:
    """Everything that two ways of running the same items must have in common."""

    errors: dict[int, Error] = field(default_factory=dict)
    values: dict[int, Any] = field(default_factory=dict)
    rows: Snapshot = field(default_factory=dict)
    signals: Log = field(default_factory=dict)

    def look(self) -> Result:
        """Read the database."""
        self.rows = take_snapshot()
        self.signals = take_log()
        return self


def error_of(error: BaseException) -> Error:
    """Describe an exception as a Failure does."""
    kind = type(error)
    return Error(
        f"{kind.__module__}.{kind.__qualname__}",
        plain_message(str(error)),
        getattr(error.__cause__, "sqlstate", None),
    )


def loop(
    function: Callable[[Any], Any], items: Iterable[Any], using: Sequence[str] = ("default",)
) -> Result:
    """Run the function once per item, each in `atomic()`, and note what it raises."""
    result = Result()
    for index, item in enumerate(items):
        try:
            with ExitStack() as stack:
                for alias in using:
                    stack.enter_context(transaction.atomic(using=alias))
                value = function(item)
            result.values[index] = value
        except Exception as error:
            result.errors[index] = error_of(error)
    return result.look()


def carpooled(function: Callable[[Any], Any], items: Iterable[Any], **options: Any) -> Result:
    """Do the same by `carpool.run`."""
    items = list(items)
    report = carpool.run(function, items, progress=False, **options)
    assert report.total == len(items)
    assert report.unknown == report.skipped == 0
    assert report.succeeded + report.failed == report.total
    result = Result()
    for failure in report.failures:
        result.errors[failure.index] = Error(
            failure.error, plain_message(failure.message), failure.sqlstate
        )
    assert len(result.errors) == report.failed
    return result.look()
