"""before_chunk, typed items and models as functions, in real transactions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

import carpool
from carpool.savers import ModelSaver
from tests.app.models import Author, Customer, Purchase, Tag

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

BY_EMAIL = {"Customer E-mail": "customer__email"}
COALESCE = pytest.mark.parametrize("coalesce", [True, False])


@dataclass
class NewAuthor:
    name: str
    books: int = 0


def create_author(author: NewAuthor) -> None:
    Author.objects.create(name=author.name, books_written=author.books)


def names() -> list[str]:
    return sorted(Author.objects.values_list("name", flat=True))


@COALESCE
def test_what_it_reads_is_what_the_transaction_sees(coalesce: bool) -> None:
    """Called again after a rollback, it doesn't know rows that were undone."""
    seen = []

    def known(items: list[str]) -> set[str]:
        assert connection.in_atomic_block
        found = set(Author.objects.values_list("name", flat=True))
        seen.append(found)
        return found

    def create_unless_known(item: str, known: set[str]) -> None:
        if item not in known:
            Author.objects.create(name=item)
            Author.objects.get(name=item)  # so that it's written, and has to be undone
        if item == "c":
            raise ValueError(item)

    report = carpool.run(
        create_unless_known,
        ["a", "b", "c", "d"],
        before_chunk=known,
        chunk_size=4,
        executor="inline",
        coalesce=coalesce,
        progress=False,
    )

    assert [failure.index for failure in report.failures] == [2]
    assert seen == [set(), set()]
    assert names() == ["a", "b", "d"]


def lock(words: list[str]) -> None:
    for word in words:
        Tag.objects.select_for_update().get(word=word)


def count_up(word: str, _: Any) -> None:
    tag = Tag.objects.get(word=word)
    tag.uses += 1
    tag.save()


@pytest.mark.only_on("postgresql", "mysql")
@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_rows_that_it_locks_stay_locked_until_commit(executor: Any) -> None:
    """No increment is lost, whatever others do meanwhile; deadlocks of it are retried."""
    Tag.objects.bulk_create([Tag(word="one"), Tag(word="two")])
    items = ["one", "two", "two", "one"] * 12

    report = carpool.run(
        count_up,
        items,
        before_chunk=lock,
        chunk_size=2,
        retries=30,
        executor=executor,
        workers=2,
        progress=False,
    )

    assert report.failures == ()
    assert set(Tag.objects.values_list("uses", flat=True)) == {24}


def test_an_error_of_the_database_in_it_is_undone_with_its_group() -> None:
    """A refused statement fails the item that it is about; the transaction goes on."""
    Author.objects.create(name="taken", pk=1)

    def claim(items: list[dict[str, Any]]) -> None:
        for item in items:
            if "pk" in item:
                Author(name="other", pk=item["pk"]).save(force_insert=True)

    items: list[dict[str, Any]] = [{"name": name} for name in "abcdefgh"]
    items[5]["pk"] = 1
    report = carpool.run(
        lambda item, _: Author.objects.create(name=item["name"]),
        items,
        before_chunk=claim,
        chunk_size=8,
        executor="inline",
        progress=False,
    )

    (failure,) = report.failures
    assert (failure.index, failure.error) == (5, "django.db.utils.IntegrityError")
    assert failure.message.startswith("before_chunk: ")
    assert names() == [*"abcdegh", "taken"]


def test_loaded_rows_of_a_queryset_are_what_it_gets() -> None:
    """The very instances that the function is called with next."""
    Author.objects.bulk_create(Author(name=f"a{n}") for n in range(30))

    def mark(authors: list[Author]) -> None:
        for author in authors:
            author.books_written = len(authors)

    report = carpool.run(
        lambda author, _: author.save(),
        Author.objects.filter(name__gte="a"),
        before_chunk=mark,
        chunk_size=10,
        executor="inline",
        progress=False,
    )

    assert report.succeeded == 30
    assert set(Author.objects.values_list("books_written", flat=True)) == {10}


def test_rejects_have_the_row_as_it_was(tmp_path: Path) -> None:
    """So that a second pass, over the rejects, begins with the same rows."""
    path = tmp_path / "rejects.jsonl"
    rows = [{"name": "a", "books": "1"}, {"name": "b", "books": "many"}, {"name": "c"}]

    report = carpool.run(create_author, rows, rejects=path, executor="inline", progress=False)

    assert (report.succeeded, report.failed) == (2, 1)
    (line,) = [json.loads(text) for text in path.read_text().splitlines()]
    assert line["item"] == {"name": "b", "books": "many"}
    assert line["error"] == "carpool.exceptions.InvalidItem"
    assert list(carpool.read(path)) == [rows[1]]


def test_a_models_foreign_keys_are_looked_up_once_a_chunk() -> None:
    """A saver's own before_chunk is used without being asked for."""
    Customer.objects.bulk_create(
        Customer(name=f"c{n}", email=f"c{n}@example.org") for n in range(40)
    )
    rows = [{"number": str(n), "Customer E-mail": f"c{n % 40}@example.org"} for n in range(80)]
    rows[33]["Customer E-mail"] = "nobody@example.org"
    with CaptureQueriesContext(connection) as queries:
        report = carpool.run(
            ModelSaver(Purchase, BY_EMAIL), rows, chunk_size=20, executor="inline", progress=False
        )

    (failure,) = report.failures
    assert failure.index == 33
    assert "there is no app.Customer" in failure.message
    assert Purchase.objects.count() == 79
    looked_up = [q for q in queries if "email" in q["sql"] and " IN (" in q["sql"]]
    assert len(looked_up) == 4


def test_a_model_is_saved_in_the_runs_database() -> None:
    """using= is where the chunk's transaction is, and where the rows go."""
    report = carpool.run(
        User,
        [{"username": "ann", "password": "x"}],
        using="other",
        executor="inline",
        progress=False,
    )

    assert report.failures == ()
    assert not User.objects.using("default").exists()
    assert User.objects.using("other").get().username == "ann"


def test_inside_the_callers_transaction() -> None:
    """The hook runs in it, and what it saves goes when the caller rolls back."""
    with transaction.atomic():
        report = carpool.run(
            lambda item, _: Author.objects.create(name=item),
            ["a", "b", "c"],
            before_chunk=lambda items: Author.objects.create(name="+"),
            chunk_size=2,
            progress=False,
        )
        assert report.succeeded == 3
        assert names() == ["+", "+", "a", "b", "c"]
        transaction.set_rollback(True)
    assert names() == []
