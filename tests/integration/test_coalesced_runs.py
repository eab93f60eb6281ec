"""What `run()` makes of `coalesce()`: bad rows cost no batch; the report says what was saved."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any

import pytest
from django.db import connection, transaction

import carpool
from tests.app.models import Account, Author, Book, Tag

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

CALLS: list[Any] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


def make_tag(word: str) -> None:
    CALLS.append(word)
    Tag.objects.create(word=word)


def run(function: Any, items: Any, **options: Any) -> carpool.Report:
    return carpool.run(function, items, **{"executor": "inline", "progress": False, **options})


def words() -> list[str]:
    return sorted(Tag.objects.values_list("word", flat=True))


def test_refused_rows_are_found_among_the_writes() -> None:
    """Duplicate keys fail alone; no function is called again for it."""
    Tag.objects.create(word="w007")
    items = [f"w{n:03}" for n in range(100)]
    items[50] = "w049"  # twice among the queued ones

    report = run(make_tag, items, chunk_size=100)

    assert report.succeeded == 98
    assert {f.index for f in report.failures} == {7, 50}
    assert {f.error for f in report.failures} == {"django.db.utils.IntegrityError"}
    assert report.repeated == 0
    assert items == CALLS
    assert words() == sorted(set(items))


@pytest.mark.parametrize("hint", [True, False], ids=["told which", "not told"])
@pytest.mark.parametrize("bad", [{0}, {99}, {0, 1, 2}, {3, 50, 51, 98}, set(range(100))])
def test_any_set_of_refused_rows(
    bad: set[int], hint: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever they are, however many, and whether or not the database tells which."""
    if not hint:
        monkeypatch.setattr("carpool.coalescing.flushing.Flusher.suspect", lambda *_: None)
    Tag.objects.bulk_create([Tag(word=f"w{n:03}") for n in bad])

    report = run(make_tag, [f"w{n:03}" for n in range(100)], chunk_size=100)

    assert {f.index for f in report.failures} == bad
    assert len(CALLS) == 100
    assert words() == [f"w{n:03}" for n in range(100)]


def test_a_wrong_suspect_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the database tells is a hint, no more."""
    monkeypatch.setattr(
        "carpool.coalescing.flushing.Flusher.suspect", lambda self, _: self._writer._rows[0]
    )
    Tag.objects.bulk_create([Tag(word=f"w{n:03}") for n in (5, 70)])

    report = run(make_tag, [f"w{n:03}" for n in range(100)], chunk_size=100)

    assert {f.index for f in report.failures} == {5, 70}
    assert words() == [f"w{n:03}" for n in range(100)]


def test_an_item_that_raises_costs_nothing() -> None:
    """Its queued rows are dropped, and its callbacks; nobody else is called again."""
    done: list[str] = []

    def function(word: str) -> None:
        make_tag(word)
        transaction.on_commit(lambda: done.append(word))
        transaction.on_commit(lambda: done.append(f"{word} robust"), robust=True)
        if word == "b":
            raise ValueError(word)

    report = run(function, ["a", "b", "c"], chunk_size=3)

    assert report.succeeded == 2
    assert words() == ["a", "c"]
    assert done == ["a", "a robust", "c", "c robust"]
    assert report.repeated == 0
    assert report.coalesced is not None
    assert report.coalesced.flushes == 1


def test_a_refused_item_runs_no_callbacks() -> None:
    """Robust or not: a row that was refused at the flush has no commit."""
    done: list[str] = []

    def function(word: str) -> None:
        make_tag(word[0])
        transaction.on_commit(lambda: done.append(word))
        transaction.on_commit(lambda: done.append(f"{word} robust"), robust=True)

    report = run(function, ["a1", "a2", "b"], chunk_size=3)

    assert [f.index for f in report.failures] == [1]
    assert done == ["a1", "a1 robust", "b", "b robust"]


def test_an_item_that_reads_its_rows_is_undone_with_its_chunk() -> None:
    """It has rows in the database when it fails: the others are run again, and told of."""

    def function(word: str) -> None:
        make_tag(word)
        assert Tag.objects.filter(word=word).exists()
        if word == "c":
            raise ValueError(word)

    report = run(function, list("abcde"), chunk_size=5)

    assert [f.index for f in report.failures] == [2]
    assert words() == list("abde")
    assert report.repeated > 0
    assert "was called again" in str(report)


def test_an_item_whose_later_row_is_refused() -> None:
    """Its first row was read, and so written; its second is refused: none of it stays."""
    Tag.objects.create(word="taken")

    def function(word: str) -> None:
        make_tag(word)
        assert Tag.objects.filter(word=word).exists()
        if word == "b":
            Tag.objects.create(word="taken")

    report = run(function, list("abc"), chunk_size=3)

    assert [(f.index, f.error) for f in report.failures] == [(1, "django.db.utils.IntegrityError")]
    assert words() == ["a", "c", "taken"]


def test_a_row_that_is_gone_is_inserted_whoever_catches_what_tells_of_it() -> None:
    """Its item is run again by itself, as where nobody catches anything."""
    for word in "abc":
        Tag.objects.create(word=word)
    tags = list(Tag.objects.order_by("word"))
    Tag.objects.filter(word="b").delete()

    def function(tag: Tag) -> None:
        tag.uses += 1
        with contextlib.suppress(Exception), transaction.atomic():
            tag.save()

    run(function, tags, chunk_size=3).raise_for_failures()

    assert words() == ["a", "b", "c"]


@pytest.mark.parametrize("around", [False, True], ids=["own transaction", "the caller's"])
def test_an_item_that_is_run_again_by_itself_leaves_one_callback(around: bool) -> None:
    """No savepoint was undone for it, with which the first had gone; nor for a refused one."""
    for word in "abcd":
        Tag.objects.create(word=word)
    tags = list(Tag.objects.order_by("word"))
    Tag.objects.filter(word="b").delete()
    done: list[str] = []

    def function(tag: Tag) -> None:
        before = tag.word
        tag.uses += 1
        tag.save()
        if before == "d":
            Tag.objects.create(word="a")
        transaction.on_commit(lambda: done.append(before))

    with transaction.atomic() if around else contextlib.nullcontext():
        report = run(function, tags, chunk_size=4)

    assert [f.index for f in report.failures] == [3]
    assert sorted(done) == ["a", "b", "c"]


def test_an_item_that_is_set_aside_is_run_once_whatever_its_neighbours_do() -> None:
    """Also where their rows are refused at COMMIT, or by a check before it."""
    for name in "abc":
        Author.objects.create(name=name)
    authors = list(Author.objects.order_by("name"))
    Author.objects.filter(name="b").delete()

    def function(item: Author | int) -> None:
        if isinstance(item, int):
            Book.objects.create(name="of nobody", author_id=item)
        else:
            item.books_written += 1
            item.save()
            make_tag(f"{item.name}{len(CALLS)}")

    report = run(function, [authors[1], authors[0], 999_999, authors[2]], chunk_size=4)

    assert [f.index for f in report.failures] == [2]
    assert [word[0] for word in words()] == ["a", "b", "c"]
    assert sorted(Author.objects.values_list("name", flat=True)) == ["a", "b", "c"]


@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
def test_the_report_says_what_was_saved(executor: str) -> None:
    """Summed over all chunks and workers."""
    report = run(make_tag, [f"w{n}" for n in range(500)], executor=executor)

    assert report.succeeded == 500
    assert report.coalesced is not None
    assert report.coalesced.queued == 500
    assert 0 < report.coalesced.sent < 500
    assert f"500 writes became {report.coalesced.sent} statements" in str(report)


def test_the_report_says_what_broke_the_batches() -> None:
    """The table, and the line that read it."""

    def function(word: str) -> None:
        make_tag(word)
        Tag.objects.count()

    report = run(function, list("abc"), chunk_size=3)

    assert report.coalesced is not None
    ((reason, times),) = report.coalesced.early.items()
    assert times == 3
    assert reason.table == "app_tag"
    assert reason.place.startswith("tests/integration/test_coalesced_runs.py:")
    assert f"early flushes: 3 at {reason.place} (app_tag)" in str(report)


def test_switched_off() -> None:
    """coalesce=False sends every statement at its place."""
    report = run(make_tag, list("abc"), coalesce=False)
    assert report.coalesced is None
    assert words() == list("abc")


def test_inside_a_block_of_the_callers() -> None:
    """The caller's queue is written first, and waits; the run isolates its items all the same."""
    with carpool.coalesce():
        Tag.objects.create(word="before")
        report = run(make_tag, ["a", "before", "c"], chunk_size=3)
        Tag.objects.create(word="after")
    assert [f.index for f in report.failures] == [1]
    assert words() == ["a", "after", "before", "c"]


def test_a_callback_after_the_commit_writes_at_once() -> None:
    """on_commit() runs outside of the chunk, with nobody to write a queue."""

    def function(word: str) -> None:
        make_tag(word)
        transaction.on_commit(lambda: Tag.objects.create(word=f"{word} later"))

    assert run(function, ["a", "b"]).succeeded == 2
    assert words() == ["a", "a later", "b", "b later"]


def test_a_dry_run_leaves_nothing() -> None:
    """What is queued is written, so that it can be refused, and rolled back."""
    Tag.objects.create(word="b")
    report = run(make_tag, list("abc"), dry_run=True)
    assert [f.index for f in report.failures] == [1]
    assert words() == ["b"]


def test_dropping_rows_leaves_the_others_their_keys() -> None:
    """A row whose key the database gives, an item that raises, a row whose key is reserved."""

    def function(step: str) -> None:
        if step == "no key":
            Tag.objects.bulk_create([Tag(word=step)], ignore_conflicts=True)
        elif step == "raise":
            raise ValueError(step)
        else:
            Tag.objects.create(word=step)

    with transaction.atomic():  # so that SQLite's lock is ours, and with it all keys that follow
        Tag.objects.create(word="first")
        report = run(function, ["a", "no key", "raise", "b", "c"], chunk_size=5)

    assert [f.index for f in report.failures] == [2]
    assert words() == ["a", "b", "c", "first", "no key"]


@pytest.mark.only_on("sqlite")
def test_setup_code_runs_without_the_write_lock() -> None:
    """Somebody else can write while functions run, until the first flush."""
    other = sqlite3.connect(connection.settings_dict["NAME"], timeout=0, isolation_level=None)
    other.execute("CREATE TABLE IF NOT EXISTS somebody_else (n INTEGER)")

    def function(number: int) -> None:
        other.execute("INSERT INTO somebody_else VALUES (?)", [number])  # no waiting: timeout=0
        Tag.objects.count()
        Account.objects.create(name=f"{number}", email=f"{number}", number=number)
        other.execute("INSERT INTO somebody_else VALUES (?)", [number])

    try:
        report = run(function, range(50), chunk_size=50)
        report.raise_for_failures()
        assert other.execute("SELECT COUNT(*) FROM somebody_else").fetchone() == (100,)
    finally:
        other.execute("DROP TABLE somebody_else")
        other.close()
    assert Account.objects.count() == 50
