"""Runs with a journal: however they end, a call of the same name does the rest, each item once."""

from __future__ import annotations

import datetime
import importlib
import itertools
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import django
import pytest
from django.db import connection, connections
from django.db.models import F
from django.db.models.signals import (
    m2m_changed,
    post_delete,
    post_save,
    pre_delete,
    pre_save,
)
from django.test.utils import CaptureQueriesContext

import carpool
from carpool import Report, Snapshot
from carpool.journal import clerk, journal, marks
from carpool.journal.models import Entry, Lease, Run
from carpool.journal.spans import Spans
from tests.app.models import AuditLine, Author, Pizzeria
from tests.journal.functions import (
    break_off,
    die_at_commit,
    elsewhere,
    finish,
    lines,
    name,
    names,
    press,
    press_at,
    store,
    store_in_both,
    store_noting,
    store_unless_locked,
    stored,
)
from tests.waiting import HANG

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.usefixtures("no_connections_left", "no_thread_left"),
]

NUMBER = 40
KINDS = ["inline", "threads", "processes", "auto", "a pool", "a pool in reverse"]


@pytest.fixture(params=KINDS)
def executor(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """The options that choose each kind of executor."""
    match request.param:
        case "inline" | "auto":
            yield {"executor": request.param}
        case "threads" | "processes":
            yield {"executor": request.param, "workers": 2}
        case "a pool":
            with ThreadPoolExecutor(2) as pool:
                yield {"executor": pool}
        case _:
            with ThreadPoolExecutor(1) as pool:
                # The chunk that was submitted last is run first.
                pool._work_queue = queue.LifoQueue()  # type: ignore[assignment]
                yield {"executor": pool, "workers": 3}


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the clerk look often."""
    monkeypatch.setattr(clerk, "LOOK", 0.02)


@pytest.fixture
def folding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the entries folded between any two chunks."""
    monkeypatch.setattr(journal, "FOLDING", 0.0)
    monkeypatch.setattr(journal, "FOLDING_SHARE", 0)


def run(function: Any, items: Any, **options: Any) -> Report:
    defaults: dict[str, Any] = {
        "executor": "inline",
        "chunk_size": 3,
        "progress": False,
        "journal": "numbers",
    }
    return carpool.run(function, items, **defaults | options)


def report_of(error: BaseException) -> Report:
    report = error.report  # type: ignore[attr-defined]
    assert isinstance(report, Report)
    return report


def the_run(alias: str = "default") -> Run:
    """Return the one row there is, after a look at the other two tables."""
    assert Entry.objects.using(alias).count() == 0
    assert Lease.objects.using(alias).count() == 1
    return Run.objects.using(alias).get()


def check_whole(report: Report, number: int = NUMBER, failed: int = 0) -> None:
    """Check a report that covers the whole input, and that each item is stored once."""
    assert (report.total, report.succeeded, report.failed) == (number, number - failed, failed)
    assert report.unknown == 0
    row = the_run()
    assert Spans.loads(row.settled) == Spans([(0, number - 1)])
    assert (row.succeeded, row.failed) == (number - failed, failed)
    assert row.state == ("failed" if failed else "succeeded")


# However it ends.


def test_taken_up_after_ctrl_c(executor: dict[str, Any]) -> None:
    """What had committed when Ctrl-C came is passed over, and the rest is done, each item once."""
    with pytest.raises(carpool.Interrupted) as caught:
        run(store, press(NUMBER, 25), **executor)
    before = stored()
    assert len(set(before)) == len(before) == report_of(caught.value).succeeded < NUMBER
    row = the_run()
    assert (row.state, row.succeeded) == ("interrupted", len(before))
    assert Spans.loads(row.settled).count() == len(before)
    assert "Ctrl-C" in row.reason

    report = run(store, range(NUMBER), **executor)

    assert stored() == names(range(NUMBER))
    assert report.already == len(before)
    check_whole(report)


def test_taken_up_after_an_error_of_the_source(executor: dict[str, Any]) -> None:
    """All that the source gave before its error is done, and nothing of it again."""
    with pytest.raises(LookupError) as caught:
        run(store, break_off(NUMBER, 25), **executor)
    assert stored() == names(range(25))
    assert report_of(caught.value).succeeded == 25
    row = the_run()
    assert row.state == "failed"
    assert "LookupError: the file ends here" in row.reason

    report = run(store, iter(range(NUMBER)), **executor)

    assert stored() == names(range(NUMBER))
    assert report.already == 25
    check_whole(report)


def test_taken_up_after_too_many_failures(executor: dict[str, Any]) -> None:
    """Items that failed are not tried again unless it is wished; the others are done once."""
    bad = {4, 5, 13, 14}
    with pytest.raises(carpool.TooManyFailures) as caught:
        run(partial(store, bad=bad), range(NUMBER), max_failures=1, **executor)
    before, failed = stored(), report_of(caught.value).failed
    assert failed > 1
    row = the_run()
    assert (row.state, row.failed) == ("failed", failed)
    assert "is bad" in row.last_error

    report = run(store, range(NUMBER), **executor)
    assert (report.failed, report.failed_before) == (failed, failed)
    assert report.already == len(before)
    assert report.failures == ()
    check_whole(report, failed=failed)

    report = run(store, range(NUMBER), retry_failed=True, **executor)
    assert report.already == NUMBER - failed
    assert stored() == names(range(NUMBER))
    check_whole(report)


def test_many_calls_do_what_one_would(executor: dict[str, Any], folding: None) -> None:
    """A run that is interrupted again and again comes to the same end."""
    ends = [2, 3, 11, 12, 30]
    for end in ends:
        with pytest.raises(carpool.Interrupted):
            run(partial(store, bad={1, 20}), press(NUMBER, end), **executor)
    report = run(partial(store, bad={1, 20}), range(NUMBER), **executor)

    assert stored() == names(n for n in range(NUMBER) if n not in {1, 20})
    check_whole(report, failed=2)


def test_ctrl_c_in_the_function() -> None:
    """A chunk that Ctrl-C rolled back is run again, as a whole."""
    with pytest.raises(carpool.Interrupted):
        run(lambda n: store(press_at(n, 7)), range(NUMBER))
    assert stored() == names(range(6))
    report = run(store, range(NUMBER))
    assert (report.already, stored()) == (6, names(range(NUMBER)))
    check_whole(report)


def test_called_again_when_all_is_done(executor: dict[str, Any]) -> None:
    """There is nothing left to do, and the report says what was done."""
    run(store, range(NUMBER), **executor)
    report = run(store, range(NUMBER), **executor)
    assert (report.already, report.chunks) == (NUMBER, 0)
    assert stored() == names(range(NUMBER))
    check_whole(report)


def test_on_error_raise() -> None:
    """A failure of an earlier call doesn't stop a later one; a new one does."""
    with pytest.raises(carpool.ItemsFailed):
        run(partial(store, bad={4}), range(NUMBER), on_error="raise")
    report = run(store, range(NUMBER), on_error="raise")
    assert (report.failed, report.failed_before) == (1, 1)
    with pytest.raises(carpool.ItemsFailed):
        run(partial(store, bad={4}), range(NUMBER), on_error="raise", retry_failed=True)


# Failed items.


def test_failed_items_are_tried_again_until_they_succeed(folding: None) -> None:
    """Each call with retry_failed tries what still fails, and only that."""
    run(partial(store, bad={3, 8, 30}), range(NUMBER))
    report = run(partial(store, bad={8}), range(NUMBER), retry_failed=True)
    assert (report.succeeded, report.failed, report.failed_before) == (NUMBER - 1, 1, 0)
    assert Spans.loads(the_run().failed_positions) == Spans([(8, 8)])
    assert [failure.item for failure in report.failures] == [8]
    check_whole(report, failed=1)

    report = run(store, range(NUMBER), retry_failed=True)
    assert (report.already, report.chunks) == (NUMBER - 1, 1)
    assert stored() == names(range(NUMBER))
    check_whole(report)


def test_items_that_failed_without_a_transaction_are_noted() -> None:
    """Items that can't be sent, or end their worker, are known as failed, and are tried again only
    if it is wished."""
    items = [*range(20)]
    items[3] = threading.Lock()  # type: ignore[call-overload]
    options: dict[str, Any] = {"executor": "processes", "workers": 2}

    report = run(partial(store, poison={11}), items, **options)
    assert {failure.index for failure in report.failures} == {3, 11}
    row = the_run()
    assert Spans.loads(row.failed_positions) == Spans([(3, 3), (11, 11)])
    assert Spans.loads(row.settled) == Spans([(0, 19)])

    report = run(store, items, **options)
    assert (report.chunks, report.failed_before, report.already) == (0, 2, 18)

    report = run(store, items, retry_failed=True, **options)
    assert [failure.index for failure in report.failures] == [3]
    assert stored() == names(n for n in range(20) if n != 3)
    assert Spans.loads(the_run().failed_positions) == Spans([(3, 3)])


def test_items_that_cannot_be_pickled_are_run_inline() -> None:
    """Where no item has to be sent, one that can't be pickled is none the worse for a journal."""
    items: list[Any] = [1, threading.Lock(), 2]
    assert run(store_unless_locked, items).succeeded == 3
    assert run(store_unless_locked, items).already == 3


def test_callbacks_that_fail_are_not_run_again(executor: dict[str, Any]) -> None:
    """An item whose on_commit callback raised is stored: it is never run a second time."""
    report = run(partial(store, after={5, 6}), range(NUMBER), **executor)
    assert (report.failed, {f.stage for f in report.failures}) == (2, {"on_commit"})
    assert stored() == names(range(NUMBER))

    run(store, range(NUMBER), retry_failed=True, **executor)
    assert stored() == names(range(NUMBER))


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_that_dies_during_commit_costs_nothing(when: str, tmp_path: Path) -> None:
    """The journal knows whether the chunk has committed, so nothing is unknown, lost or doubled."""
    setup = partial(die_at_commit, str(tmp_path), when, 7)
    report = run(store, range(20), executor="processes", workers=2, setup=setup)
    assert (tmp_path / "died").exists()
    assert stored() == names(range(20))
    check_whole(report, number=20)


@pytest.mark.timeout(120)
def test_a_worker_that_always_dies_during_commit_ends_the_trying(tmp_path: Path) -> None:
    """An item with which each COMMIT ends its worker is to blame in the end, and it alone."""
    setup = partial(die_at_commit, str(tmp_path), "always", 7)
    report = run(store, range(20), executor="processes", workers=1, setup=setup)
    assert [failure.index for failure in report.failures] == [7]
    assert stored() == names(n for n in range(20) if n != 7)


# QuerySets, by key.


def make_authors(number: int = NUMBER) -> None:
    """Make rows with gaps between their keys."""
    Author.objects.bulk_create(Author(name=name(n)) for n in range(number))
    gone = Author.objects.filter(name__in=names([0, 7, 8, 9, 22, number - 1]))
    gone._raw_delete("default")


def left_to_finish(model: Any = Author) -> Any:
    if model is Pizzeria:
        return Pizzeria.objects.filter(visits=0)
    return Author.objects.filter(books_written=0)


class PressAfter:
    """A progress function that presses Ctrl-C after so many chunks."""

    def __init__(self, chunks: int) -> None:
        self.left = chunks

    def __call__(self, snapshot: Snapshot) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_a_queryset_whose_filter_excludes_what_is_done(executor: dict[str, Any]) -> None:
    """Rows that no longer match since they are done are not missed, the rest is done, once."""
    make_authors()
    number = Author.objects.count()
    for chunks in (2, 3):
        with pytest.raises(carpool.Interrupted):
            run(finish, left_to_finish(), progress=PressAfter(chunks), **executor)
    assert left_to_finish().exists()

    report = run(finish, left_to_finish(), **executor)

    assert report.total == number, "the report doesn't cover the whole"
    assert set(Author.objects.values_list("books_written", flat=True)) == {1}
    assert the_run().succeeded == number
    assert report.succeeded + report.failed == report.total
    assert the_run().state == "succeeded"


def test_a_queryset_that_gives_what_is_done_again() -> None:
    """Rows that are done are passed over, though the queryset gives them."""
    make_authors()
    number = Author.objects.count()
    with pytest.raises(carpool.Interrupted):
        run(finish, Author.objects.all(), progress=PressAfter(3))
    report = run(finish, Author.objects.all())
    assert (report.total, report.succeeded, report.already) == (number, number, 9)
    assert set(Author.objects.values_list("books_written", flat=True)) == {1}


def test_a_queryset_of_a_child_model() -> None:
    """An inherited key is a number like any other."""
    for n in range(10):
        Pizzeria.objects.create(name=name(n))
    with pytest.raises(carpool.Interrupted):
        run(finish, left_to_finish(Pizzeria), progress=PressAfter(2))
    run(finish, left_to_finish(Pizzeria))
    assert list(Pizzeria.objects.values_list("visits", flat=True)) == [1] * 10
    assert the_run().succeeded == 10


def test_failed_rows_are_tried_again_by_key() -> None:
    """Rows that failed are passed over, or tried again if it is wished; the rest is done once."""
    make_authors()
    bad = {4, 15, 16}
    keys = set(Author.objects.filter(name__in=names(bad)).values_list("pk", flat=True))
    report = run(partial(finish, bad=bad), left_to_finish())
    assert {failure.item for failure in report.failures} == keys
    assert Spans.loads(the_run().failed_positions) == Spans((key, key) for key in keys)

    report = run(finish, left_to_finish())
    assert (report.chunks, report.failed, report.failed_before) == (0, 3, 3)

    report = run(partial(finish, bad={15}), left_to_finish(), retry_failed=True)
    assert (report.succeeded - report.already, report.failed) == (2, 1)
    report = run(finish, left_to_finish(), retry_failed=True)
    assert (report.succeeded - report.already, report.failed) == (1, 0)
    assert report.total == Author.objects.count(), "the report doesn't cover the whole"
    assert set(Author.objects.values_list("books_written", flat=True)) == {1}
    assert (the_run().state, the_run().failed) == ("succeeded", 0)
    assert the_run().succeeded == Author.objects.count()


def test_a_failed_row_that_is_not_given_any_more_stays_failed() -> None:
    """What became of it is not changed by rows around it that are done."""
    make_authors()
    run(partial(finish, bad={4, 15, 16}), left_to_finish())
    (gone,) = Author.objects.filter(name__in=names({15}))
    report = run(finish, left_to_finish().exclude(pk=gone.pk), retry_failed=True)
    assert (report.failed, report.failed_before) == (1, 1)
    assert Spans.loads(the_run().failed_positions) == Spans([(gone.pk, gone.pk)])


def test_items_stored_in_some_databases_only_are_never_run_again() -> None:
    """They are named as unknown at each call, and the rest is done."""
    both = {"using": ["default", "other"], "chunk_size": 10}
    run(finish_nothing, range(40), **both)
    Run.objects.using("other").update(settled="[[0,19]]", succeeded=20)
    calls.clear()
    report = run(finish_nothing, range(50), executor="inline", **both)
    assert calls == list(range(40, 50))
    assert (report.succeeded, report.already, report.unknown) == (30, 20, 20)
    assert {f.index for f in report.failures} == set(range(20, 40))
    assert all("not in all" in f.message for f in report.failures)


calls: list[int] = []


def finish_nothing(number: int) -> None:
    """Remember the call."""
    calls.append(number)


def test_rows_added_at_the_end_are_done_by_the_next_call() -> None:
    """A run of a table that grows does what is new."""
    make_authors()
    run(finish, Author.objects.all())
    Author.objects.bulk_create(Author(name=name(n)) for n in range(100, 110))
    report = run(finish, Author.objects.all())
    assert report.succeeded - report.already == 10
    assert set(Author.objects.values_list("books_written", flat=True)) == {1}


def test_a_row_given_twice_ends_the_run() -> None:
    """A queryset that repeats a row is refused with the remedy, and nothing of the row is done."""
    Author.objects.bulk_create(Author(name=name(n)) for n in range(3))
    author = Author.objects.get(name=name(1))
    for _ in range(2):
        author.books.create(name="a book")
    with pytest.raises(carpool.SourceRepeats, match="distinct"):
        run(finish, Author.objects.filter(books__name="a book"))
    assert the_run().state == "failed"


# Several databases.

BOTH = ["default", "other"]


def test_several_databases(executor: dict[str, Any]) -> None:
    """Each database has the journal of its own part, and each item is in both once."""
    with pytest.raises(carpool.Interrupted) as caught:
        run(partial(store_in_both, bad={4}), press(NUMBER, 25), using=BOTH, **executor)
    assert stored() == lines()
    here = report_of(caught.value)
    for alias in BOTH:
        row = the_run(alias)
        assert (row.state, row.succeeded) == ("interrupted", here.succeeded)
        assert row.failed == here.failed - here.not_run
    assert the_run("default").settled == the_run("other").settled

    report = run(store_in_both, range(NUMBER), using=BOTH, retry_failed=True, **executor)

    assert stored() == lines() == names(range(NUMBER))
    check_whole(report)
    assert Spans.loads(the_run("other").settled) == Spans([(0, NUMBER - 1)])
    assert the_run("other").state == "succeeded"


def test_another_database_alone() -> None:
    """A run of another database has its journal there, and nothing of it in the default one."""
    AuditLine.objects.bulk_create(AuditLine(name=name(n)) for n in range(9))
    report = run(lambda line: line.delete(), AuditLine.objects.all(), using="other")
    assert report.succeeded == 9
    assert Run.objects.count() == Entry.objects.count() == 0
    assert the_run("other").succeeded == 9


def test_failures_without_a_transaction_are_noted_in_each_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A database that fails while they are written costs nothing: the source is still the same."""
    items: list[Any] = [*range(6), threading.Lock(), *range(7, 20)]
    options: dict[str, Any] = {"executor": "processes", "workers": 1, "using": BOTH}
    run(store_in_both, items, **options)
    for alias in BOTH:
        assert Spans.loads(the_run(alias).failed_positions) == Spans([(6, 6)])
    report = run(store_in_both, items, **options)
    assert (report.already, report.failed_before) == (19, 1)


# A source that isn't what it was.


def test_a_changed_source_stops_before_anything_is_written(executor: dict[str, Any]) -> None:
    """Of a source that has changed nothing is run from the change on; the error says where."""
    with pytest.raises(carpool.Interrupted):
        run(store, press(NUMBER, 25))
    before = stored()

    with pytest.raises(carpool.SourceChanged) as caught:
        run(store, [*range(4), 99, *range(5, NUMBER)], **executor)

    assert stored() == before
    assert caught.value.position == 4
    then, now = marks.digest(4, 4), marks.digest(99, 4)
    for words in ("position 4", f"{then:08x}", f"{now:08x}", "ignore_changed_source=True"):
        assert words in str(caught.value)
    assert (report_of(caught.value).chunks, report_of(caught.value).failed) == (0, 0)
    assert the_run().state == "failed"

    report = run(store, range(NUMBER), **executor)
    assert stored() == names(range(NUMBER))
    check_whole(report)


def test_a_shorter_source_is_refused() -> None:
    """A file cut short is no reason to call the run done."""
    run(store, range(20))
    with pytest.raises(carpool.SourceChanged, match=r"it has 12 items now.*position 19") as caught:
        run(store, range(12))
    assert caught.value.position == 12
    assert the_run().state == "failed"
    assert stored() == names(range(20))


def test_a_longer_source_is_continued(executor: dict[str, Any]) -> None:
    """What is new at the end is done by the next call, and the one after knows it."""
    for number in (20, 33, NUMBER, NUMBER):
        report = run(store, iter(range(number)), **executor)
        assert stored() == names(range(number))
        check_whole(report, number=number)
    assert report.already == NUMBER


def test_a_change_may_be_ignored() -> None:
    """With ignore_changed_source positions count, and nothing is done twice."""
    with pytest.raises(carpool.Interrupted):
        run(store, press(20, 10))
    before = stored()
    report = run(store, range(100, 120), ignore_changed_source=True)
    assert report.already == len(before) == 9
    assert stored() == before + names(range(109, 120))


def test_a_long_run_is_no_change(monkeypatch: pytest.MonkeyPatch, folding: None) -> None:
    """Marks that become coarse while the source is read don't make it another source."""
    monkeypatch.setattr(marks, "MOST", 8)
    with pytest.raises(carpool.Interrupted):
        run(partial(store, bad={3, 50}), press(100, 60), chunk_size=1)
    run(partial(store, bad={50}), range(90), chunk_size=1, retry_failed=True)
    report = run(store, range(100), chunk_size=7, retry_failed=True)
    assert stored() == names(range(100))
    check_whole(report, number=100)
    changed = [*range(33), "another", *range(34, 100)]
    with pytest.raises(carpool.SourceChanged, match=r"positions 32 to 47"):
        run(store, changed)


# What the journal says.


def test_the_report_covers_the_whole() -> None:
    """A resumed run's report counts what was done and what failed before, and says so in words."""
    with pytest.raises(carpool.Interrupted):
        run(partial(store, bad={1, 2}), press(NUMBER, 21))
    report = run(partial(store, bad={30}), range(NUMBER))
    assert report.total == NUMBER
    assert (report.succeeded, report.already) == (NUMBER - 3, 19)
    assert (report.failed, report.failed_before) == (3, 2)
    assert [failure.index for failure in report.failures] == [30]
    assert "19 of them were done before, 2 had failed and not been tried again" in str(report)


def test_the_progress_counts_what_was_done_before() -> None:
    """The bar of a resumed run goes on where it was."""
    with pytest.raises(carpool.Interrupted):
        run(store, press(NUMBER, 21))
    seen: list[Snapshot] = []
    run(store, range(NUMBER), progress=seen.append)
    assert seen[0].done > 21
    assert (seen[-1].done, seen[-1].total) == (NUMBER, NUMBER)


def test_the_row_tells_the_run() -> None:
    """Whoever looks into the table sees what runs, how far it is, and by whom."""
    with pytest.raises(carpool.Interrupted):
        run(partial(store, bad={4}), press(NUMBER, 21), retries=3, coalesce=False)
    first = the_run()
    assert first.name == "numbers"
    assert first.function == "tests.journal.functions.store"
    assert "generator" in first.source or "press" in first.source
    assert first.options["chunk_size"] == 3
    assert first.options["retries"] == 3
    assert first.options["coalesce"] is False
    assert first.options["executor"] == "inline"
    assert (first.succeeded, first.failed, first.skipped) == (20, 1, 0)
    assert first.last_error == "item 4: ValueError: 4 is bad"
    assert (first.host, first.pid) == (socket.gethostname(), os.getpid())
    assert first.django_version == django.get_version()
    assert first.carpool_version
    assert first.wanted == ""
    assert first.rate is not None and first.rate > 0
    assert first.created_at <= first.started_at <= first.finished_at  # type: ignore[operator]
    assert first.beat_at is not None
    assert str(first) == "numbers: interrupted"

    with pytest.raises(RuntimeError):
        run(store, range(NUMBER), progress=look_and_leave)
    run(store, range(NUMBER), retry_failed=True)
    last = the_run()
    assert last.pk == first.pk
    assert (last.created_at, last.started_at) == (first.created_at, first.started_at)
    assert last.finished_at > first.finished_at  # type: ignore[operator]
    assert (last.source, last.state) == ("builtins.range", "succeeded")
    assert last.reason == "every item of the source is done, and none has failed"
    assert last.last_error == ""


def look_and_leave(snapshot: Snapshot) -> None:
    """See what the row says while the run goes on."""
    row = Run.objects.get()
    assert (row.state, row.finished_at) == ("running", None)
    assert row.reason == "taken up again"
    raise RuntimeError("seen enough")


def test_a_source_may_be_anything(tmp_path: Path) -> None:
    """Whatever the source is, its name is found, or done without."""
    path = tmp_path / "numbers"
    path.write_text("1\n2\n")
    with path.open() as file:
        sources: list[Any] = [
            [1, 2],
            (n for n in (1, 2)),
            map(int, "12"),
            {1: 2, 2: 1},
            zip([1, 2], strict=True),
            file,
        ]
        for number, source in enumerate(sources):
            report = run(print_nothing, source, journal=f"run {number}")
            assert report.succeeded == 2
            assert Run.objects.get(name=f"run {number}").source


def print_nothing(item: Any) -> None:
    pass


def test_odd_words_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever an error says, the journal can be told how the run ended."""

    def fail(number: int) -> None:
        raise ValueError("nul \x00, surrogate \ud800, 😀 and much more " + "x" * 100_000)

    report = run(fail, range(3), journal="näme 😀"[:5])
    assert report.failed == 3
    assert the_run().state == "failed"
    assert "ValueError" in the_run().last_error


def test_names_are_told_apart() -> None:
    """Two names are two runs, even if they differ in little; a database that takes them for one
    refuses the second."""
    for count, word in enumerate(["numbers", "Numbers", "nümbers"], 1):
        if connection.vendor == "mysql" and count > 1:
            with pytest.raises(carpool.ConfigurationError, match=f"{word}.*the name 'numbers'"):
                run(store, range(2), journal=word)
            continue
        run(store, range(2), journal=word)
        assert stored() == sorted(names(range(2)) * count)


@pytest.mark.usefixtures("folding")
def test_a_run_of_many_chunks_leaves_one_row() -> None:
    """Entries are made part of the row again and again while it goes on; in the end there are
    none, and the row is short."""
    folds = length = entries = 0

    def source() -> Iterator[int]:
        nonlocal folds, length, entries
        while folds < 3 and length < 5_000:
            yield length
            length += 1
            now = elsewhere(Entry.objects.count)
            folds += now < entries
            entries = now

    run(store, source(), chunk_size=2)
    assert folds == 3
    row = the_run()
    assert row.settled == f"[[0,{length - 1}]]"
    assert Run.objects.count() == 1


def test_receivers_hear_nothing() -> None:
    """The user's receivers are told of the user's rows only."""
    heard: set[str] = set()

    def receive(sender: Any, **kwargs: Any) -> None:
        heard.add(sender._meta.app_label)

    signals = (pre_save, post_save, pre_delete, post_delete, m2m_changed)
    for signal in signals:
        signal.connect(receive)
    try:
        run(partial(store, bad={3}), range(9), chunk_size=2)
        run(store, range(9), retry_failed=True, take_over=True)
        Run.objects.update(state="running")
        assert Run.objects.get().cancel()
    finally:
        for signal in signals:
            signal.disconnect(receive)
    assert heard == {"app"}


@pytest.mark.parametrize("using", [["default"], BOTH], ids=len)
def test_a_chunk_costs_one_statement(using: list[str]) -> None:
    """In a chunk's transaction the journal is one INSERT for each database, and nothing else."""
    function = store if len(using) == 1 else store_in_both
    run(function, range(6), chunk_size=2, using=using, journal="first")  # the keys' own statements
    for alias in using:
        with CaptureQueriesContext(connections[alias]) as queries:
            run(function, range(12), chunk_size=4, using=using, journal=f"of {alias}")
        mine = [
            query["sql"] for query in queries.captured_queries if "carpool_journal" in query["sql"]
        ]
        if connection.vendor == "sqlite":  # where only a chunk can be sure of the lock for a beat
            mine = [sql for sql in mine if "beat_at" not in sql]
        assert len(mine) == 3, mine
        assert all(sql.startswith("INSERT INTO") for sql in mine)


# Two that want it.


def running(**columns: Any) -> None:
    """Make the run look as if another process had it."""
    Run.objects.update(
        **{"state": "running", "host": "elsewhere", "pid": 77, "beat_at": now(), **columns}
    )


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def begun() -> list[str]:
    """Begin the run, and leave it; return what is stored."""
    with suppress(KeyboardInterrupt):
        run(store, press(NUMBER, 21))
    return stored()


def test_a_run_that_lives_is_refused() -> None:
    """A second call is told who has it, what to do, and changes nothing."""
    before = begun()
    running()
    fence = Lease.objects.get().fence
    with pytest.raises(carpool.RunIsTaken, match=r"process 77 on elsewhere.*take_over=True"):
        run(store, range(NUMBER))
    row = the_run()
    assert (row.pid, row.state, stored()) == (77, "running", before)
    assert Lease.objects.get().fence == fence


def test_a_run_may_be_taken_over_at_once() -> None:
    """With take_over=True nobody is waited for."""
    begun()
    running()
    report = run(store, range(NUMBER), take_over=True)
    assert stored() == names(range(NUMBER))
    check_whole(report)
    assert the_run().pid == os.getpid()


def test_a_run_that_is_silent_is_taken_over() -> None:
    """What has not been heard of for long enough is dead."""
    begun()
    running(beat_at=now() - datetime.timedelta(seconds=16))
    seen: list[str] = []

    def look(snapshot: Snapshot) -> None:
        seen.append(Run.objects.get().reason)

    report = run(store, range(NUMBER), progress=look)
    assert "taken over from process 77 on elsewhere, not heard of for " in seen[0]
    check_whole(report)


def test_a_coordinator_that_was_taken_over_commits_nothing_more(executor: dict[str, Any]) -> None:
    """Another does the rest while the first still tries: each item is stored once, and the first
    is told."""
    reports: list[Report] = []
    refused: list[str] = []

    def take_it(snapshot: Snapshot) -> None:
        if not reports:
            with pytest.raises(carpool.RunIsTaken) as caught:
                run(store, range(NUMBER))
            refused.append(str(caught.value))
            reports.append(run(store, range(NUMBER), take_over=True))

    with pytest.raises(carpool.TakenOver, match=r"taken (the run )?over") as caught:
        run(store, range(NUMBER), progress=take_it, **executor)

    assert f"process {os.getpid()} on {socket.gethostname()}" in refused[0]
    assert stored() == names(range(NUMBER))
    check_whole(reports[0])
    mine = report_of(caught.value)
    assert reports[0].already >= mine.succeeded > 0


def test_a_chunk_of_a_coordinator_without_lease_is_rolled_back(executor: dict[str, Any]) -> None:
    """A chunk that is at work when the run is taken over leaves nothing, and the run ends."""
    with pytest.raises(carpool.TakenOver) as caught:
        run(partial(store, kick={10}), range(NUMBER), **executor)
    report = report_of(caught.value)
    before = stored()
    assert not {name(9), name(10), name(11)} & set(before)
    assert len(before) == report.succeeded
    assert {failure.error for failure in report.failures} == {"carpool.exceptions.NotRun"}
    assert Run.objects.get().state == "running", "whoever has it says how it ends"

    report = run(store, range(NUMBER), take_over=True, **executor)
    assert stored() == names(range(NUMBER))
    check_whole(report)


def test_taken_in_one_database_only() -> None:
    """A run of two databases that is refused in one of them lets the other go."""
    run(store, range(3))
    running()
    with pytest.raises(carpool.RunIsTaken):
        run(store_in_both, range(3), using=["other", "default"])
    Run.objects.update(beat_at=None, state="succeeded")
    report = run(store_in_both, range(3), using=["other"])
    assert report.total == 3


# Asked by others.


def ask(what: str) -> None:
    elsewhere(lambda: getattr(Run.objects.get(), what)())


@pytest.mark.usefixtures("looking")
def test_a_run_may_be_cancelled(executor: dict[str, Any]) -> None:
    """Chunks in flight finish, no more are read, and the call says that it was cancelled."""
    asked: list[int] = []

    def cancel(snapshot: Snapshot) -> None:
        if not asked:
            asked.append(1)
            ask("cancel")

    with pytest.raises(carpool.RunCancelled) as caught:
        run(store, itertools.count(), progress=cancel, **executor)
    report = report_of(caught.value)
    done = stored()
    assert done == names(range(len(done)))
    assert (report.succeeded, report.failed, report.unknown) == (len(done), 0, 0)
    row = the_run()
    assert (row.state, row.succeeded, row.wanted) == ("cancelled", len(done), "")
    assert "cancel" in row.reason

    report = run(store, range(len(done) + 5))
    assert report.already == len(done)
    check_whole(report, number=len(done) + 5)


@pytest.mark.usefixtures("looking")
def test_a_run_may_be_paused(executor: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is paused no item is begun; then it goes on to the end."""
    seen: list[list[str]] = []

    def sleep(seconds: float) -> None:
        time.sleep(0.01)
        seen.append(stored())
        if len(seen) == 5:
            ask("resume")

    def pause(snapshot: Snapshot) -> None:
        if not asked:
            asked.append(1)
            ask("pause")

    def slow() -> Iterator[int]:
        for n in range(150):
            if asked and not seen:
                time.sleep(0.02)
            yield n

    asked: list[int] = []
    module = importlib.import_module("carpool.run")
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    report = run(store, slow(), progress=pause, **executor)

    assert len(seen) >= 5
    assert len(seen[0]) < 150
    assert all(rows == seen[0] for rows in seen), "nothing is done while it is paused"
    assert stored() == names(range(150))
    check_whole(report, number=150)


@pytest.mark.usefixtures("looking")
def test_a_paused_run_may_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits can be told to end, and by Ctrl-C too."""

    def sleep(seconds: float) -> None:
        time.sleep(0.01)
        ask("cancel")

    asked: list[int] = []

    def pause(snapshot: Snapshot) -> None:
        if not asked:
            asked.append(1)
            ask("pause")

    module = importlib.import_module("carpool.run")
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    with pytest.raises(carpool.RunCancelled):
        run(store, itertools.count(), progress=pause)
    assert the_run().state == "cancelled"


def test_what_was_asked_of_a_dead_run_is_forgotten() -> None:
    """A call after a cancel that nobody heard runs."""
    begun()
    assert Run.objects.get().state != "running"
    Run.objects.update(state="running", beat_at=None)  # as a process that was killed leaves it
    assert Run.objects.get().cancel()
    assert Run.objects.get().wanted == "cancel"
    report = run(store, range(NUMBER))
    check_whole(report)


@pytest.mark.parametrize("what", ["cancel", "pause", "resume"])
def test_what_does_not_run_cannot_be_asked(what: str) -> None:
    """Nor is it, when it runs again."""
    begun()
    stale = Run.objects.get()
    Run.objects.update(wanted="left")  # whatever is there stays there
    assert getattr(stale, what)() is False
    assert (stale.wanted, Run.objects.get().wanted) == ("", "left")
    check_whole(run(store, range(NUMBER)))


@pytest.mark.usefixtures("looking")
def test_a_wish_from_just_before_is_asked_of_nobody() -> None:
    """Who has read the row of an ended run, and asks when it runs again, is heard; before, not."""
    begun()
    stale = Run.objects.get()
    assert not stale.cancel()
    asked: list[bool] = []

    def cancel(snapshot: Snapshot) -> None:
        if not asked:
            elsewhere(lambda: asked.append(stale.cancel()))

    with pytest.raises(carpool.RunCancelled):
        run(store, itertools.count(), progress=cancel, ignore_changed_source=True)
    assert asked == [True]


# Without the app.

SCRIPT = """
import sys
import django
django.setup()
import carpool

if __name__ == "__main__":
    for executor in ("inline", "threads", "processes", "auto"):
        report = carpool.run(id, range(20), executor=executor, progress=False)
        assert report.succeeded == 20, report
    try:
        carpool.run(id, range(20), journal="a")
    except carpool.ConfigurationError as error:
        print(error)
    assert "carpool.journal.models" not in sys.modules
"""


def test_without_the_app_nothing_changes(
    subprocess_environment: dict[str, str], tmp_path: Path
) -> None:
    """A project without the app runs as ever, loads none of its models, and is told what to add."""
    (tmp_path / "bare_settings.py").write_text(
        "from tests.settings import *\n"
        'INSTALLED_APPS = [app for app in INSTALLED_APPS if app != "carpool.journal"]\n'
    )
    script = SCRIPT.replace(
        "from tests.journal.functions import print_nothing",
        "from builtins import id as print_nothing",
    )
    (tmp_path / "script.py").write_text(script)
    process = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        env={
            **subprocess_environment,
            "DJANGO_SETTINGS_MODULE": "bare_settings",
            "PYTHONPATH": f"{tmp_path}{os.pathsep}{subprocess_environment['PYTHONPATH']}",
        },
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert process.returncode == 0, process.stderr
    assert '"carpool.journal" to INSTALLED_APPS' in process.stdout


def test_the_caller_may_use_its_connection_meanwhile() -> None:
    """The journal has a connection of its own: a cursor that the source reads is no matter."""
    Author.objects.bulk_create(Author(name="old") for _ in range(50))

    def source() -> Iterator[int]:
        for number, _ in enumerate(Author.objects.filter(name="old").iterator(chunk_size=2)):
            yield number

    report = run(store_nothing, source(), executor="threads", workers=2)
    assert report.succeeded == 50


def store_nothing(number: int) -> None:
    Author.objects.filter(name="none").update(books_written=F("books_written") + 1)


class Lossy(Executor):
    """Runs each call, and loses the answer of one; before it is run or after."""

    def __init__(self, lost: int, *, done: bool) -> None:
        self.lost = lost
        self.done = done
        self.calls = 0
        self.zombie: Any = None
        self.pool = ThreadPoolExecutor(1)

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls != self.lost:
            return self.pool.submit(fn, *args, **kwargs)
        self.zombie = partial(fn, *args, **kwargs)
        return self.pool.submit(self.lose)

    def lose(self) -> None:
        if self.done:
            self.zombie()
        raise ConnectionError("the cluster is gone")


@pytest.mark.parametrize("done", [True, False])
def test_a_chunk_that_a_pool_has_lost_is_asked_for(done: bool, tmp_path: Path) -> None:
    """A pool that can't tell what became of a chunk costs nothing: the journal can; and whoever
    still has the chunk can't commit it later, not even when the run is over."""
    function = partial(store_noting, str(tmp_path))
    pool = Lossy(4, done=done)
    with pool.pool:
        report = run(function, range(NUMBER), executor=pool, workers=2)
        check_whole(report)
        assert stored() == names(range(NUMBER))

        pool.pool.submit(pool.zombie).result()

        assert stored() == names(range(NUMBER))
    runs = (tmp_path / "runs").read_text().split()
    assert len(runs) == NUMBER + 3, "only the lost chunk was run twice, and one of them undone"
