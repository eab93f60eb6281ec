"""The plain loop that everything is measured against.

``for item in items: function(item)``, in one transaction that is rolled back: the fastest loop that
one would write without `coalesce()`. (Without the transaction, each ``save()`` waits for a COMMIT.)
What carpool does for typed items and before_chunk is done here, too, the latter once for all. If
items fail, each gets a savepoint, since the others must go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from carpool import databases
from carpool.calling import Calls
from carpool.errors import Trouble, trouble_of
from carpool.items import Items
from carpool.probe import in_its_transaction, only_reads
from carpool.types import GONE, Fault


@dataclass(frozen=True, slots=True)
class Passed:
    """A pass: items, and the seconds they took, without the ROLLBACK."""

    items: int
    failed: int
    seconds: float


def loop(
    calls: Calls, items: Items, number: int, using: tuple[str, ...], *, savepoints: bool
) -> Passed:
    """Call the function for each item, and roll it all back.

    Raises:
        Whatever the function raises, unless there are ``savepoints``; and then, too, what undoes
        the whole transaction.
    """
    failed = 0
    with databases.chunk_transaction(using), in_its_transaction(using), only_reads(using):
        began = time.perf_counter()
        call, loaded = _prepared(calls, items, number)
        for item in loaded:
            if item is GONE:
                continue
            if isinstance(item, Fault):
                failed += 1
            elif not savepoints:
                call(item)
            else:
                failed += not _is_well(call, item, using)
        seconds = time.perf_counter() - began
        for alias in using:
            transaction.set_rollback(True, using=alias)
    return Passed(number, failed, seconds)


def _prepared(calls: Calls, items: Items, number: int) -> tuple[Callable[[Any], Any], Any]:
    """Return what is called for an item, and the items."""
    function, convert, before = calls.function, calls.convert, calls.before_chunk
    loaded = (item for _, item in items.load(range(number)))
    if before is None:
        return (function if convert is None else lambda item: function(convert(item))), loaded
    whole = [_converted(convert, item) for item in loaded]
    result = before([item for item in whole if item is not GONE and not isinstance(item, Fault)])
    return lambda item: function(item, result), whole


def _converted(convert: Callable[[Any], Any] | None, item: Any) -> Any:
    if convert is None or item is GONE or isinstance(item, Fault):
        return item
    try:
        return convert(item)
    except Exception as error:
        return Fault(type(error).__qualname__, str(error))


def _is_well(call: Callable[[Any], Any], item: Any, using: tuple[str, ...]) -> bool:
    try:
        with ExitStack() as stack:
            for alias in using:
                stack.enter_context(transaction.atomic(using=alias))
            call(item)
    except (Exception, SystemExit) as error:
        if trouble_of(error) in (Trouble.ROLLED_BACK, Trouble.LOST):
            raise
        return False
    return True
