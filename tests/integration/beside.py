"""What another connection does beside a run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection, transaction

from tests.waiting import HANG


@contextmanager
def uncommitted(change: Callable[[], Any], release: threading.Event) -> Iterator[None]:
    """Have another connection make a change, and commit it when told, or when the block ends."""
    made = threading.Event()

    def make() -> None:
        try:
            with transaction.atomic():
                change()
                made.set()
                release.wait(HANG)
        finally:
            connection.close()

    thread = threading.Thread(target=make)
    thread.start()
    try:
        assert made.wait(HANG)
        yield
    finally:
        release.set()
        thread.join()
