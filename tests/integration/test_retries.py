"""Trouble that is no item's fault: deadlocks, conflicts, long waits, lost connections."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connection

import carpool
from tests.app.functions import waiting
from tests.app.models import Author, Tag
from tests.app.receivers import Recorded
from tests.integration.beside import uncommitted
from tests.snapshot import take_log

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.only_on("postgresql", "mysql"),
]

Item = dict[str, Any]
INLINE = pytest.param({"executor": "inline"}, id="inline")
THREADS = pytest.param({"executor": "threads", "workers": 2}, id="threads")
PROCESSES = pytest.param({"executor": "processes", "workers": 2}, id="processes")


def names() -> list[str]:
    return sorted(Author.objects.values_list("name", flat=True))


@pytest.fixture
def quick_deadlocks() -> Iterator[None]:
    """Have PostgreSQL look for deadlocks at once, where it lets us, and not after a second."""
    if connection.vendor != "postgresql":
        yield
        return
    name = connection.ops.quote_name(str(connection.settings_dict["NAME"]))
    with connection.cursor() as cursor:
        try:
            cursor.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '50ms'")
        except DatabaseError:
            yield
            return
        yield
        cursor.execute(f"ALTER DATABASE {name} RESET deadlock_timeout")


def opposite(number: int, run: int) -> list[Item]:
    """Make items that lock two rows, `run` after `run` of them in opposite order."""
    Tag.objects.bulk_create([Tag(word="one"), Tag(word="two")])
    orders = [["one", "two"], ["two", "one"]]
    return [{"key": f"i{n:03}", "words": orders[n // run % 2]} for n in range(number)]


@pytest.mark.parametrize("options", [THREADS, PROCESSES])
@pytest.mark.usefixtures("quick_deadlocks")
def test_a_deadlock_is_retried(options: dict[str, Any]) -> None:
    """Workers that lock two rows in opposite order both get through, and no item is lost."""
    items = opposite(16, 1)

    report = carpool.run(
        Recorded(waiting.lock_in_turn), items, chunk_size=1, retries=30, progress=False, **options
    )

    assert report.failures == ()
    assert report.succeeded == 16
    assert report.retries > 0
    assert names() == [item["key"] for item in items]
    assert set(Tag.objects.values_list("uses", flat=True)) == {16}
    assert {item: len(notes) for item, notes in take_log().items()} == {
        item["key"]: 4 for item in items
    }


@pytest.mark.usefixtures("quick_deadlocks")
def test_a_deadlock_undoes_all_of_a_chunk_or_nothing() -> None:
    """Chunks of many items that meet in a deadlock are retried whole: each item counts once."""
    items = opposite(24, 4)
    items[7]["bad"] = "raise"
    items[18]["bad"] = "unique"

    report = carpool.run(
        waiting.lock_in_turn,
        items,
        chunk_size=4,
        retries=30,
        executor="threads",
        workers=2,
        progress=False,
    )

    assert sorted(failure.index for failure in report.failures) == [7, 18]
    assert report.retries > 0
    assert names() == [item["key"] for item in items if "bad" not in item]
    assert set(Tag.objects.values_list("uses", flat=True)) == {22}


@pytest.mark.usefixtures("quick_deadlocks")
def test_a_deadlock_that_the_function_swallows_loses_nobody() -> None:
    """An item that catches a deadlock and goes on costs no neighbour its rows.

    MariaDB has then undone the whole transaction, PostgreSQL only the savepoint.
    """
    items = opposite(18, 3)

    report = carpool.run(
        waiting.lock_in_turn_and_catch,
        items,
        chunk_size=3,
        retries=30,
        executor="threads",
        workers=2,
        progress=False,
    )

    assert report.failures == ()
    assert names() == [item["key"] for item in items]


@pytest.mark.usefixtures("quick_deadlocks")
def test_without_retries_the_victim_is_named() -> None:
    """With retries=0 a deadlock's victim fails with what the database said; the rest commits."""
    items = opposite(12, 1)

    report = carpool.run(
        waiting.lock_in_turn,
        items,
        chunk_size=1,
        retries=0,
        executor="threads",
        workers=2,
        progress=False,
    )

    assert report.retries == 0
    assert 0 < report.failed == 12 - report.succeeded
    failed = {failure.item["key"] for failure in report.failures}
    assert names() == [item["key"] for item in items if item["key"] not in failed]
    for failure in report.failures:
        assert failure.error == "django.db.utils.OperationalError"
        assert "eadlock" in failure.message
        assert failure.sqlstate == ("40P01" if connection.vendor == "postgresql" else None)


@pytest.mark.only_on("postgresql")
@pytest.mark.parametrize("function", [waiting.count_up, waiting.number_from_all])
def test_serialization_failures_are_retried(function: Any) -> None:
    """SERIALIZABLE transactions that collide, at a statement or at COMMIT, come out in a row."""
    Tag.objects.create(word="shared")
    items = [{"key": f"{n:03}"} for n in range(20)]

    report = carpool.run(
        function,
        items,
        executor="threads",
        workers=2,
        chunk_size=1,
        retries=50,
        setup=waiting.serialize_transactions,
        progress=False,
    )

    assert report.failures == ()
    assert report.retries > 0
    assert names() == [item["key"] for item in items]


def test_a_lock_timeout_is_retried() -> None:
    """A chunk that waited too long for a lock is tried again, whole, when the lock is free."""
    Tag.objects.create(word="shared")
    items = [{"key": f"{n:03}"} for n in range(4)]
    release = threading.Event()
    tries: list[str] = []

    def add_use(item: Item) -> None:
        tries.append(item["key"])
        if tries.count("000") == 2:
            release.set()
        waiting.add_use(item)

    with uncommitted(lambda: Tag.objects.select_for_update().get(word="shared"), release):
        report = carpool.run(
            add_use,
            items,
            executor="threads",
            workers=1,
            chunk_size=4,
            retries=10,
            setup=waiting.have_no_patience,
            progress=False,
        )

    assert report.failures == ()
    assert report.retries > 0
    assert names() == [item["key"] for item in items]
    assert Tag.objects.get().uses == 4


def test_the_callers_connection_lost_between_chunks_is_opened_again() -> None:
    """Inline the connection is the caller's; one that is of no use to anybody is closed."""
    ended = iter([True])

    def end_once(snapshot: carpool.Snapshot) -> None:
        if next(ended, False):
            with suppress(DatabaseError):
                waiting.end_this_connection()

    items: list[Item] = [{"key": f"i{n:03}"} for n in range(12)]
    report = carpool.run(
        waiting.lose_connection, items, executor="inline", chunk_size=6, progress=end_once
    )

    assert report.failures == ()
    assert len(names()) == 24


@pytest.mark.parametrize("options", [INLINE, THREADS, PROCESSES])
def test_a_lost_connection_is_opened_again(options: dict[str, Any], tmp_path: Path) -> None:
    """A connection that the server ends in the middle of a chunk costs a retry, and no item."""
    items: list[Item] = [{"key": f"i{n:03}"} for n in range(12)]
    items[4]["once"] = str(tmp_path / "happened")

    report = carpool.run(waiting.lose_connection, items, chunk_size=6, progress=False, **options)

    assert report.failures == ()
    assert report.retries == 1
    assert names() == sorted(f"{item['key']}{end}" for item in items for end in ("", " again"))


@pytest.mark.parametrize("options", [INLINE, THREADS, PROCESSES])
def test_an_item_that_always_loses_the_connection_fails_alone(options: dict[str, Any]) -> None:
    """An item with which the connection is lost each time is given up; its neighbours commit."""
    items: list[Item] = [{"key": f"i{n:03}", "lose": n in (2, 9)} for n in range(12)]

    report = carpool.run(
        waiting.lose_connection, items, chunk_size=6, retries=1, progress=False, **options
    )

    assert sorted(failure.index for failure in report.failures) == [2, 9]
    good = [item["key"] for item in items if not item["lose"]]
    assert names() == sorted(f"{key}{end}" for key in good for end in ("", " again"))
    Author.objects.create(name="the connection works")


@pytest.fixture
def deadly_commit() -> Iterator[None]:
    """Have PostgreSQL end a connection during the COMMIT that stores a row named "deadly"."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION end_connection() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END$$"
        )
        cursor.execute(
            "CREATE CONSTRAINT TRIGGER deadly AFTER INSERT ON app_tag DEFERRABLE INITIALLY"
            " DEFERRED FOR EACH ROW WHEN (NEW.word = 'deadly') EXECUTE FUNCTION end_connection()"
        )
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP FUNCTION end_connection() CASCADE")


@pytest.mark.only_on("postgresql")
@pytest.mark.parametrize("options", [INLINE, THREADS, PROCESSES])
@pytest.mark.usefixtures("deadly_commit")
def test_items_lost_during_commit_are_unknown(options: dict[str, Any]) -> None:
    """Items whose connection is lost during COMMIT are unknown, not run again; the rest commits."""
    items = [{"key": f"i{n:03}", "word": "deadly" if n == 7 else f"word {n}"} for n in range(12)]

    report = carpool.run(waiting.write_word, items, chunk_size=4, progress=False, **options)

    assert (report.succeeded, report.failed, report.unknown) == (8, 0, 4)
    assert sorted(failure.index for failure in report.failures) == [4, 5, 6, 7]
    assert {failure.stage for failure in report.failures} == {"unknown"}
    assert names() == [item["key"] for n, item in enumerate(items) if not 4 <= n < 8]


@pytest.mark.only_on("mysql")
def test_a_statement_that_commits_is_not_said_to_be_undone() -> None:
    """Where DDL ends the transaction, no item whose row is stored is said not to be."""
    items: list[Item] = [{"key": f"i{n:03}", "define": n == 5} for n in range(10)]

    report: carpool.Report | None
    try:
        report = carpool.run(
            waiting.define_table, items, executor="inline", chunk_size=10, progress=False
        )
    except carpool.RunFailed as error:
        report = error.report

    assert report is not None
    failed = {failure.item["key"] for failure in report.failures if failure.stage != "unknown"}
    assert report.total == 10
    assert len(names()) == len(set(names())), "an item was stored twice"
    assert failed.isdisjoint(names())
