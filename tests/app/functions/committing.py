"""Code that runs when the item's rows are safe: `on_commit`."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from tests.app.functions.trouble import troubled
from tests.app.models import Author, Book
from tests.app.receivers import recording


@troubled
def write_on_commit(item: dict[str, Any]) -> None:
    """Write after the commit, and from a callback within a callback."""
    author = Author.objects.create(name=item["key"])

    def inner() -> None:
        with recording(f"{item['key']} inner"):
            Author.objects.create(name=f"{item['key']} inner")

    def callback() -> None:
        with recording(f"{item['key']} callback"), transaction.atomic():
            Book.objects.create(name=f"{item['key']} after", author=author)
            transaction.on_commit(inner)

    transaction.on_commit(callback)


@troubled
def delete_on_commit(item: dict[str, Any]) -> None:
    """Delete after the commit what the item wrote."""
    author = Author.objects.create(name=f"{item['key']} short-lived")
    Author.objects.create(name=f"{item['key']} lasting")

    def callback() -> None:
        with recording(f"{item['key']} callback"):
            author.delete()

    transaction.on_commit(callback)


@troubled
def commit_within_savepoints(item: dict[str, Any]) -> None:
    """Register callbacks in inner blocks: those of a rolled back block never run."""

    def note(text: str) -> None:
        transaction.on_commit(lambda: Author.objects.create(name=f"{item['key']} {text}"))

    note("first")
    with transaction.atomic():
        note("inner")
    try:
        with transaction.atomic():
            note("undone")
            raise LookupError
    except LookupError:
        pass
    note("last")


@troubled
def raise_robustly_on_commit(item: dict[str, Any]) -> None:
    """A robust callback's error is logged, and the next callback runs."""
    Author.objects.create(name=item["key"])

    def fail() -> None:
        raise ValueError("logged, not raised")

    transaction.on_commit(fail, robust=True)
    transaction.on_commit(lambda: Author.objects.create(name=f"{item['key']} next"))


def call_three_times(item: dict[str, Any]) -> None:
    """Register three callbacks, the second of which raises if the item is bad."""

    def write(text: str) -> None:
        Author.objects.create(name=f"{item['key']} {text}")

    def fail() -> None:
        if item["bad"]:
            raise ValueError(item["key"])

    transaction.on_commit(lambda: write("first"))
    transaction.on_commit(fail)
    transaction.on_commit(lambda: write("last"))
