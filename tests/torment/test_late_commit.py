"""A COMMIT of the journal's own that is late: its answer is lost, and it is done all the same."""

from __future__ import annotations

import copy
import threading
import time

import pytest
from django.db import DEFAULT_DB_ALIAS, connection, transaction

from carpool.journal.book import Book
from carpool.journal.models import Entry, Run
from carpool.journal.spans import Spans
from tests.waiting import HANG


@pytest.mark.only_on("postgresql", "mysql")
@pytest.mark.usefixtures("transactional_db")
def test_what_a_late_commit_has_folded_is_kept() -> None:
    """A fold that is done again, while its first COMMIT is on its way, forgets nothing of it."""
    book = Book(DEFAULT_DB_ALIAS, "t")
    book.open("index", {}, take_over=False)
    add_entry(book, 1)
    book.fold()
    add_entry(book, 2)
    folded, again = threading.Event(), copy.deepcopy(book)
    again._stale = True  # its connection has broken at COMMIT

    def commit_late() -> None:
        try:
            with transaction.atomic():
                book.fold()
                folded.set()
                time.sleep(0.3)  # the other waits for the row meanwhile
        finally:
            connection.close()

    late = threading.Thread(target=commit_late)
    late.start()
    assert folded.wait(HANG)

    again.fold()

    late.join()
    assert Spans.loads(Run.objects.get(name="t").settled) == Spans([(1, 2)])
    assert not Entry.objects.exists()


def add_entry(book: Book, number: int) -> None:
    """Write what a chunk of one item writes: that of this position."""
    Entry.objects.create(
        run_id=book.key,
        fence=book.fence,
        chunk=number,
        done=f"[{number}]",
        failed="[]",
        succeeded=1,
        skipped=0,
        marks="",
    )
