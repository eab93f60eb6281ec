"""What goes to the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection
from django.test.utils import CaptureQueriesContext


@contextmanager
def statements() -> Iterator[list[str]]:
    """Collect what is sent in the block, BEGIN and COMMIT left out."""
    found: list[str] = []
    with CaptureQueriesContext(connection) as queries:
        yield found
    found += [
        q["sql"]
        for q in queries.captured_queries
        if q["sql"] not in ("BEGIN", "COMMIT", "ROLLBACK")
    ]
