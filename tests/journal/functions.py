"""What the runs of these tests call: importable, so that a worker of any kind finds it.

An item is a number. What goes wrong with it is said by keywords, so that a later call of a run can
have another function on the same items.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from django.db import connection, transaction
from django.db.models import F

from carpool.journal.models import Lease
from tests.app.models import AuditLine, Author, Pizzeria

NONE: frozenset[int] = frozenset()


def name(number: int) -> str:
    return f"{number:05}"


def names(numbers: Any) -> list[str]:
    return [name(n) for n in numbers]


def stored() -> list[str]:
    """Return the names in the table, each as often as it is there."""
    return sorted(Author.objects.values_list("name", flat=True))


def lines() -> list[str]:
    """Return the names in the other database."""
    return sorted(AuditLine.objects.values_list("name", flat=True))


def store(
    number: Any,
    *,
    bad: Collection[int] = NONE,
    poison: Collection[int] = NONE,
    after: Collection[int] = NONE,
    kick: Collection[int] = NONE,
) -> None:
    """Store an author. ``bad``: raise; ``poison``: end the worker; ``after``: raise in on_commit;
    ``kick``: have the run taken over by somebody."""
    Author.objects.create(name=name(number))
    if number in bad:
        raise ValueError(f"{number} is bad")
    if number in poison:
        os._exit(3)
    if number in after:
        transaction.on_commit(fail)
    if number in kick:
        Lease.objects.update(fence=F("fence") + 1)


def store_in_both(number: int, *, bad: Collection[int] = NONE) -> None:
    """Store a row in each database."""
    store(number)
    AuditLine.objects.create(name=name(number))
    if number in bad:
        raise ValueError(f"{number} is bad")


def store_noting(folder: str, number: int) -> None:
    """Store an author, and note outside of the database that it was run."""
    with Path(folder, "runs").open("a") as file:
        file.write(f"{number}\n")
    store(number)


def store_unless_locked(item: Any) -> None:
    """Store numbers, and take what can't be pickled as it is."""
    if isinstance(item, int):
        store(item)


def fail() -> None:
    raise ValueError("after COMMIT")


def finish(row: Any, *, bad: Collection[int] = NONE) -> None:
    """Count the row up, so that it no longer matches the filter that it was found by."""
    if isinstance(row, Pizzeria):
        row.visits += 1
    else:
        row.books_written += 1
    row.save()
    if int(row.name) in bad:
        raise ValueError(f"{row.name} is bad")


def press(number: int, at: int) -> Iterator[int]:
    """Yield numbers, and press Ctrl-C at one."""
    for n in range(number):
        if n == at:
            signal.raise_signal(signal.SIGINT)
        yield n


def break_off(number: int, at: int) -> Iterator[int]:
    """Yield numbers, and fail at one."""
    for n in range(number):
        if n == at:
            raise LookupError("the file ends here")
        yield n


def press_at(number: int, at: int) -> int:
    """Yield a number after Ctrl-C, if it is the one."""
    if number == at:
        signal.raise_signal(signal.SIGINT)
    return number


def elsewhere(task: Any) -> Any:
    """Call it in another thread, on that thread's own connection; return what it returns."""
    found: list[Any] = []

    def work() -> None:
        try:
            found.append(task())
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return found[0]


# For setup=: a COMMIT that ends its worker, once.


def die_at_commit(folder: str, when: str, number: int) -> None:
    """Have this worker die before or after the first COMMIT of a chunk with the item, and never
    again: the folder tells. Or "always" before it."""
    commit = connection._commit  # type: ignore[attr-defined]

    def die() -> None:
        if not Author.objects.filter(name=name(number)).exists():
            commit()
            return
        marker = Path(folder, "died")
        if when != "always":
            if marker.exists():
                commit()
                return
            marker.touch()
        if when == "after":
            commit()
        os._exit(7)

    connection._commit = die  # type: ignore[attr-defined]
