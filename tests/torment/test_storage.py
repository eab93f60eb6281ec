"""There is no room for the rejects, or no right to write the journal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from django.db import connection

from carpool.journal.models import Run
from tests.acceptance.conftest import Script
from tests.torment.oracle import agrees, exactly_once, rows_exactly_once
from tests.torment.program import (
    PREAMBLE,
    all_succeeded,
    enough,
    given,
    told,
    wait_for_progress,
)
from tests.torment.refusal import TABLES, Refusal, refusal

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("no_connections_left")]

Start = Callable[..., Script]

ITEMS = 1_000
EVERY = 10
ROOM = 4 * 1024**2
"""Bytes that a file may have. More than the whole SQLite database of the test."""

REJECTING = f"""
import resource

def create_or_not(item):
    number, text = item
    create(number, 0.001)
    if text:
        raise ValueError(number)

items = [(number, "x" * 100_000 if number % {EVERY} == 0 else "") for number in range({ITEMS})]
"""


def test_rejects_on_a_full_device_are_refused(start: Start) -> None:
    """A run whose rejects could never be written isn't begun, and leaves nothing in the journal."""
    script = start(
        REJECTING
        + """
if __name__ == "__main__":
    run(create_or_not, items, rejects="/dev/full")
""",
        preamble=PREAMBLE,
    )

    found = told(script.wait())

    assert found["raised"] == "ConfigurationError"
    assert "/dev/full" in found["message"]
    rows_exactly_once(0)
    assert not Run.objects.exists()


def test_a_disk_that_fills_up(start: Start) -> None:
    """When rejects find no more room the run ends and says so; taken up with room, it is whole.

    No item is done twice or lost; of those that failed each is named.
    """
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("VACUUM")  # the file is as large as it has ever been
    limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({ROOM}, {ROOM}))\n"
    text = """
if __name__ == "__main__":
    run(create_or_not, items, rejects=FOLDER.parent / "rejects", chunk_size=10, retry_failed=True)
"""
    first = start(REJECTING + limit + text, preamble=PREAMBLE)

    found = told(first.wait())
    assert found["raised"] == "RunFailed"
    assert "rejects" in found["message"] and "can't be written" in found["message"]
    assert found["unknown"] == 0
    assert found["succeeded"] == agrees()

    second = start(REJECTING + text, preamble=PREAMBLE)
    found = told(second.wait())
    bad = range(0, ITEMS, EVERY)
    assert found["raised"] is None
    assert (found["succeeded"], found["failed"]) == (ITEMS - len(bad), len(bad))
    exactly_once(ITEMS, but=bad)
    lines = (second.folder.parent / "rejects").read_text().splitlines()
    rejects = [whole(line) for line in lines]
    assert {line["index"] for line in rejects if line} == set(bad)
    assert rejects.count(None) <= 1  # the line for which there was no room


def whole(line: str) -> dict | None:
    """Return what a line says, or None if it was cut short."""
    try:
        found: dict = json.loads(line)
    except ValueError:
        return None
    return found


@pytest.fixture
def refused(transactional_db: None) -> Iterator[Refusal]:
    with refusal() as refused:
        yield refused


WRITING = f"""
def slowly(number):
    create(number, 0.002)

if __name__ == "__main__":
    run(slowly, numbers({ITEMS}))
"""


@pytest.mark.parametrize("table", TABLES)
def test_a_journal_that_cannot_be_written(start: Start, refused: Refusal, table: str) -> None:
    """Where any of the journal's tables refuses rows a run says so, and none are stored."""
    refused.begin(table)

    script = start(WRITING, preamble=PREAMBLE, environment=refused.environment)

    found = told(script.wait())
    assert found["raised"] in ("ConfigurationError", "RunFailed")
    assert refused.said in found["message"]
    if found["raised"] == "RunFailed":
        assert found["total"] == found["failed"] == found["not_run"] > 0
    rows_exactly_once(0)


def test_a_journal_that_can_be_written_no_more(start: Start, refused: Refusal) -> None:
    """A run whose journal refuses rows midway ends, agrees with its rows, and can be taken up."""
    first = start(WRITING, preamble=PREAMBLE, environment=refused.environment)
    wait_for_progress(first)
    refused.begin("carpool_journal_entry")

    found = told(first.wait())
    assert found["raised"] == "RunFailed"
    assert refused.said in found["message"]
    assert found["unknown"] == 0
    assert found["failed"] == found["not_run"] > 0
    assert 0 < found["succeeded"] == agrees()
    assert not first.lines("given"), "its source has come to an end"

    refused.end("carpool_journal_entry")
    enough(first)
    second = start(WRITING, preamble=PREAMBLE, environment=refused.environment)

    second.wait()
    count = given(second)
    assert all_succeeded(second, count)["already"] == found["succeeded"]
    exactly_once(count)
