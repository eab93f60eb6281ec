"""Where the time of a run went: by shares, never by seconds."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction

import carpool
import carpool.hints as hints_module
from carpool.report import Report
from tests.app.models import Author, Tag

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


def sleep(item: int) -> None:
    time.sleep(0.01)


def ask(item: int) -> None:
    """Have the database take as long as it takes to add a hundred thousand numbers."""
    numbers = "SELECT 1 AS n UNION ALL SELECT n + 1 FROM numbers WHERE n < 90000"
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute("SET SESSION max_recursive_iterations = 100000")
        cursor.execute(f"WITH RECURSIVE numbers AS ({numbers}) SELECT sum(n) FROM numbers")
        cursor.fetchall()


def run(function: Any, items: Any, **options: Any) -> Report:
    return carpool.run(function, items, **{"executor": "inline", "progress": False, **options})


@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
def test_sleeping_is_waiting(executor: Any) -> None:
    """Whoever runs it; it is neither the processor's time nor the database's."""
    spent = run(sleep, range(30), executor=executor).spent
    assert spent.seconds >= 0.3  # what was slept
    assert spent.waiting > spent.seconds / 2
    assert spent.cpu + spent.database < spent.seconds / 2


def test_statements_are_the_databases() -> None:
    """As long as they take, and no longer than the chunk."""
    spent = run(ask, range(10)).spent
    assert spent.seconds / 2 < spent.database <= spent.seconds
    assert spent.waiting < spent.seconds / 2


@pytest.mark.parametrize("coalesce", [True, False], ids=["coalesced", "not coalesced"])
def test_writes_are_the_databases(coalesce: bool) -> None:
    """The queue's own statements, COPY among them, and COMMIT."""
    report = run(lambda n: Tag.objects.create(word=f"w{n:04}"), range(500), coalesce=coalesce)
    assert report.succeeded == 500
    assert 0 < report.spent.database < report.spent.seconds
    assert 0 < report.spent.cpu <= report.spent.seconds


def test_the_processor_has_a_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by a clock that has the thread compute for longer than the chunk took."""
    began = time.thread_time()
    monkeypatch.setattr(time, "thread_time", lambda: began + 2 * (time.monotonic() - began))
    spent = run(lambda n: Tag.objects.create(word=f"w{n:04}"), range(500)).spent
    assert spent.cpu == spent.seconds > 0
    assert spent.waiting == 0


def test_commit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wrapper of execute() sees it."""
    commit = connection._commit

    def slow_commit() -> None:
        time.sleep(0.2)
        commit()

    monkeypatch.setattr(connection, "_commit", slow_commit)
    spent = run(lambda n: Author.objects.create(name=f"a{n}"), range(20), chunk_size=20).spent
    assert spent.database >= 0.2  # what was slept in COMMIT


def test_the_rollback_of_a_dry_run_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there in COMMIT's place."""
    rollback = connection._rollback

    def slow_rollback() -> None:
        time.sleep(0.2)
        rollback()

    monkeypatch.setattr(connection, "_rollback", slow_rollback)
    spent = run(lambda n: Author.objects.create(name=f"a{n}"), range(20), dry_run=True).spent
    assert spent.database >= 0.2  # what was slept in ROLLBACK


@pytest.mark.only_on("postgresql")
def test_copy_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent on the driver's own cursor."""
    from carpool.coalescing.unit import Unit

    units: list[Unit] = []
    begin_group = Unit.begin_group

    def noted(unit: Unit) -> None:
        units.append(unit)
        begin_group(unit)

    monkeypatch.setattr(Unit, "begin_group", noted)
    run(lambda n: Author.objects.create(name=f"a{n}"), range(20), chunk_size=20)
    (unit,) = units
    assert unit.copying > 0


def test_a_run_that_waits_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its report's last line, once it is long enough."""
    monkeypatch.setattr(hints_module, "ENOUGH_SECONDS", 3600.0)
    assert run(sleep, range(30)).hint is None
    monkeypatch.setattr(hints_module, "ENOUGH_SECONDS", 0.1)
    report = run(sleep, range(30))
    assert report.hint is not None and "waiting" in report.hint
    assert f"\nhint: {report.hint}" in str(report)
    assert run(sleep, range(30), executor="threads", workers=32).hint is None


def test_threads_as_many_as_the_database_has_use_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer on SQLite, whose chunks write by turns."""
    monkeypatch.setattr(hints_module, "ENOUGH_SECONDS", 0.1)
    number = 8 if connection.vendor == "sqlite" else 32
    assert f"workers={number} " in str(run(sleep, range(30)).hint)


def sleep_and_fail(n: int) -> None:
    sleep(n)
    raise ValueError(n)


def test_no_hint_where_all_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are to be seen to first."""
    monkeypatch.setattr(hints_module, "ENOUGH_SECONDS", 0.1)
    report = run(sleep_and_fail, range(30))
    assert (report.failed, report.hint) == (30, None)


def test_no_hint_where_chunks_cannot_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    """On SQLite without coalescing they take turns at its lock, whatever they wait for."""
    monkeypatch.setattr(hints_module, "ENOUGH_SECONDS", 0.1)
    hint = run(sleep, range(30), coalesce=False).hint
    assert (hint is None) == (connection.vendor == "sqlite")


@pytest.mark.parametrize("why", ["timeout", "an executor of one's own", "atomic"])
def test_no_hint_where_threads_are_no_choice(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time limits are kept by processes only, and transactions are one connection's."""
    monkeypatch.setattr(hints_module, "ENOUGH_SECONDS", 0.1)
    with ExitStack() as stack:
        options: dict[str, Any] = {}
        if why == "timeout":
            options = {"executor": "processes", "timeout": 60, "workers": 1}
        elif why == "atomic":
            stack.enter_context(transaction.atomic())
        else:
            options = {"executor": stack.enter_context(ThreadPoolExecutor(1))}
        report = run(sleep, range(30), **options)
    assert report.spent.waiting > 0.75 * report.spent.seconds
    assert report.hint is None


def test_broken_batches_are_told_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the file and the line of the statement that broke them."""
    monkeypatch.setattr(hints_module, "ENOUGH_SECONDS", 0.0)
    report = run(make_and_count, range(1100), dry_run=True)
    line = make_and_count.__code__.co_firstlineno + 2
    assert f"{Path(__file__).name}:{line} (app_tag)" in str(report.hint)


def make_and_count(number: int) -> None:
    Tag.objects.create(word=f"w{number:04}")
    Tag.objects.count()
