"""QuerySets as a source: cut by primary key, loaded where they are worked on."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, models
from django.db.models import Count, F, Prefetch, Subquery, Window
from django.db.models.functions import RowNumber, Upper
from django.test.utils import CaptureQueriesContext

import carpool
from carpool.items import LOADED_AT_ONCE
from tests.app.functions import objects
from tests.app.models import (
    Account,
    Article,
    AuditLine,
    Author,
    Book,
    Country,
    Mirror,
    Novel,
    Parcel,
    Pizzeria,
    Profile,
    Remark,
    Restaurant,
    Seat,
    Tag,
    Ticket,
)
from tests.app.receivers import Recorded
from tests.integration.cases import start_afresh
from tests.integration.plain_loop import loop
from tests.snapshot import take_log, take_snapshot

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

EXECUTORS = [
    pytest.param({"executor": "inline"}, id="inline"),
    pytest.param({"executor": "threads", "workers": 2}, id="threads"),
    pytest.param({"executor": "processes", "workers": 2}, id="processes"),
]


def values(function: Callable[[Any], Any], items: Any, **options: Any) -> list[Any]:
    """Run the function over the queryset, and return what it returned."""
    defaults: dict[str, Any] = {"executor": "inline", "chunk_size": 4, "progress": False}
    outcomes = list(carpool.stream(function, items, **defaults | options))
    assert [outcome.failure for outcome in outcomes if not outcome.ok] == []
    return [outcome.value for outcome in outcomes]


def library(number: int = 10) -> list[Book]:
    """Make books, each with its author and its tags."""
    shared = Tag.objects.create(word="shared")
    books = []
    for n in range(number):
        author = Author.objects.create(name=f"author {n:02}")
        book = Book.objects.create(name=f"book {n:02}", author=author, pages=n)
        book.tags.add(shared, Tag.objects.create(word=f"tag {n:02}"))
        books.append(book)
    return books


def make_authors(number: int) -> None:
    Author.objects.bulk_create(Author(name=f"{n:03}") for n in range(number))


def seats() -> None:
    Seat.objects.bulk_create(Seat(row=row, number=n) for row in "CAB" for n in range(5))


def parcels() -> None:
    for n in range(9):
        Parcel.objects.create(name=f"parcel {n}")


def tickets() -> None:
    Ticket.objects.bulk_create(Ticket(id=uuid.uuid4(), name=f"ticket {n}") for n in range(15))


def countries() -> None:
    codes = ["é", "ß", "z", "A", "a b", "_", "%", "日本", "'", '"', "\\", "Zz", "0", "10", "9"]
    Country.objects.bulk_create(Country(code=f"{n:02}{code}") for n, code in enumerate(codes))
    Country.objects.bulk_create(Country(code=f"{code}{n:02}") for n, code in enumerate(codes))


def mirrors() -> None:
    Mirror.objects.bulk_create(Mirror(code=f"{n}{letter}") for n in range(5) for letter in "ab")


def pizzerias() -> None:
    for n in range(9):
        Pizzeria.objects.create(name=f"pizzeria {n}")


KEYS: list[Any] = [
    (Author, lambda: make_authors(15)),
    (Ticket, tickets),
    (Country, countries),
    (Seat, seats),
    (Parcel, parcels),
    (Mirror, mirrors),
    (Pizzeria, pizzerias),
    (Profile, lambda: [Author.objects.create(name=f"{n}") for n in range(9)]),
    (Novel, library),
]


@pytest.mark.parametrize("options", EXECUTORS)
@pytest.mark.parametrize(("model", "make"), KEYS, ids=lambda value: getattr(value, "__name__", "-"))
def test_every_row_once_whatever_its_key(
    model: type[models.Model], make: Callable[[], Any], options: dict[str, Any]
) -> None:
    """Each row is met once, with keys of one column, of two, of text, UUIDs, and converted ones."""
    make()
    expected = [row.pk for row in model._base_manager.all()]

    met = values(objects.key, model._base_manager.all(), **options)

    assert len(expected) > 8
    assert len(met) == len(expected)
    assert set(met) == set(expected)


@pytest.mark.parametrize("model", [Author, Ticket, Seat], ids=lambda model: model.__name__)
def test_every_row_once_over_many_pages(model: type[models.Model]) -> None:
    """Each row is met once where the parent needs several queries to read the keys."""
    number = 4_500
    if model is Seat:
        Seat.objects.bulk_create(Seat(row=f"{n % 7}", number=n) for n in range(number))
    else:
        model._base_manager.bulk_create(model(name=f"{n}") for n in range(number))
    with CaptureQueriesContext(connection) as queries:
        report = carpool.run(
            objects.key,
            model._base_manager.all(),
            executor="threads",
            workers=2,
            chunk_size=1000,
            progress=False,
        )

    assert (report.total, report.succeeded, report.skipped) == (number, number, 0)
    assert len(queries) <= 8, "the parent reads keys by pages, and nothing else"


@pytest.mark.parametrize("options", EXECUTORS)
def test_the_queryset_says_how_objects_are_loaded(options: dict[str, Any]) -> None:
    """select_related, prefetch_related, only, defer and annotate hold in the worker."""
    library()
    few = Prefetch("tags", Tag.objects.filter(word__startswith="tag"), to_attr="short_tags")
    querysets = [
        Book.objects.all(),
        Book.objects.select_related("author"),
        Book.objects.prefetch_related("tags"),
        Book.objects.prefetch_related(few),
        Book.objects.only("pages"),
        Book.objects.defer("name", "pages"),
        Book.objects.annotate(number=Count("tags"), loud=Upper("name")),
        Book.objects.select_related("author").only("name", "author__name"),
        Book.objects.filter(author__name__gte="author 03").exclude(pages=5).order_by("-pages"),
        Book.objects.annotate(number=Count("tags")).filter(number__gt=1, pages__lt=8),
        Book.objects.annotate(number=F("pages") * 2),
    ]
    for queryset in querysets:
        expected = sorted(map(repr, map(objects.describe, queryset)))

        assert sorted(map(repr, values(objects.describe, queryset, **options))) == expected
        assert expected


def test_relations_are_loaded_by_the_chunk() -> None:
    """A chunk's objects cost one query for the rows and one for what is prefetched."""
    library(20)
    queryset = Book.objects.select_related("author").prefetch_related("tags")

    with CaptureQueriesContext(connection) as queries:
        values(objects.describe, queryset, chunk_size=20)

    loads = [query["sql"] for query in queries.captured_queries if "INNER JOIN" in query["sql"]]
    assert sorted("app_tag" in sql for sql in loads) == [False, True]


@pytest.mark.parametrize("options", EXECUTORS)
def test_objects_saved_leave_what_a_loop_leaves(options: dict[str, Any]) -> None:
    """Saving objects, some with deferred fields and some bad, leaves rows and signals of a loop."""
    function = Recorded(objects.add_page_unless_bad)

    def make() -> Any:
        start_afresh()
        library()
        Book.objects.filter(pages__in=(2, 3, 7)).update(name=models.Value("this is bad"))
        Book.objects.filter(pages=2).update(name="first bad")
        return Book.objects.defer("author")

    expected = loop(function, make())
    report = carpool.run(function, make(), chunk_size=5, progress=False, **options)

    assert (report.total, report.succeeded, report.failed) == (10, 7, 3)
    assert take_snapshot() == expected.rows
    assert take_log() == expected.signals
    bad = {b.pk for b in Book.objects.filter(name__endswith="bad")}
    assert {failure.item for failure in report.failures} == bad


def test_children_with_parents_are_saved_level_by_level() -> None:
    """A queryset of a child model gives whole children, whose parents' columns are saved too."""
    pizzerias()

    report = carpool.run(
        objects.promote, Restaurant.objects.all(), executor="inline", progress=False
    )

    assert report.succeeded == 9
    assert set(Restaurant.objects.values_list("stars", "visits")) == {(1, 1)}


def test_a_refused_update_fails_alone() -> None:
    """An object whose update the database refuses fails by its key; the others are updated."""
    for n in range(12):
        Account.objects.create(name=f"{n}", email=f"{n}", region=f"{n}", balance=n % 4 * 5)
    poor = set(Account.objects.filter(balance__lt=10).values_list("pk", flat=True))

    report = carpool.run(
        objects.settle, Account.objects.all(), executor="inline", chunk_size=12, progress=False
    )

    assert {failure.item for failure in report.failures} == poor
    assert sorted(Account.objects.values_list("balance", flat=True)) == [0] * 6 + [5] * 6


def rename_or_collide(tag: Tag) -> None:
    tag.word = "taken" if tag.uses else f"{tag.word}x"
    tag.save()


def rename_or_miss(tag: Tag) -> None:
    if tag.uses:
        gone = Tag(pk=tag.pk + 100_000, word="gone")
        gone._state.adding, gone._state.db = False, "default"
        gone.save()
    else:
        tag.word += "x"
        tag.save()


@pytest.mark.parametrize("number", [LOADED_AT_ONCE + 1, LOADED_AT_ONCE + 100])
@pytest.mark.parametrize("function", [rename_or_collide, rename_or_miss])
def test_a_refused_item_before_further_rows_are_loaded(
    function: Callable[[Tag], None], number: int
) -> None:
    """Loading them writes what is queued, whose refusal is the doing of the item that saved it."""
    Tag.objects.bulk_create(Tag(word=f"t{n:04}") for n in range(number))
    keys = sorted(Tag.objects.values_list("pk", flat=True))
    bad = keys[LOADED_AT_ONCE - 1]
    Tag.objects.filter(pk=bad).update(uses=1)
    Tag.objects.filter(pk=keys[-1]).update(word="taken")

    last = Tag.objects.order_by("-pk").values("word")[:1]  # so that it sees what is queued
    tags = Tag.objects.order_by("pk").annotate(last=Subquery(last))
    report = carpool.run(function, tags, executor="inline", chunk_size=number, progress=False)

    failed = int(function is rename_or_collide)
    assert (report.total, report.failed) == (number, failed)
    assert [failure.item for failure in report.failures] == [bad] * failed
    assert Tag.objects.filter(word__endswith="x").count() == number - 1
    assert Tag.objects.filter(word="gone").count() == 1 - failed


def number_of(books: list[Book]) -> int:
    return len(books)


def add_page(book: Book, number: int) -> None:
    assert number > 0
    objects.add_page_unless_bad(book)


@pytest.mark.only_on("sqlite", "postgresql")  # MariaDB's SELECT warns, and gives NULL
@pytest.mark.parametrize("coalesced", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        *EXECUTORS,
        pytest.param({"executor": "inline", "chunk_size": 1}, id="one by one"),
        pytest.param(
            {"executor": "inline", "before_chunk": number_of, "function": add_page},
            id="before_chunk",
        ),
    ],
)
def test_a_row_that_the_database_cannot_deliver_fails_alone(
    options: dict[str, Any], coalesced: bool, database_vendor: str
) -> None:
    """Text that isn't UTF-8, an annotation that divides by zero: the others are loaded."""
    library(30)
    queryset = Book.objects.all()
    if database_vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("UPDATE app_book SET name = CAST(X'ff' AS TEXT) WHERE pages IN (3, 17)")
        error, message = "OperationalError", "Could not decode to UTF-8 column 'name'"
    else:
        error, message = "DataError", "division by zero"
        queryset = queryset.annotate(share=100 / ((F("pages") - 3) * (F("pages") - 17)))
    bad = set(Book.objects.filter(pages__in=(3, 17)).values_list("pk", flat=True))
    pages = Book.objects.filter(pk__in=bad).values_list("pages", flat=True)
    assert len(bad) == 2
    whole = set(Book.objects.exclude(pk__in=bad).values_list("pk", "pages"))
    defaults: dict[str, Any] = {"function": objects.add_page_unless_bad, "chunk_size": 12}
    defaults |= {"coalesce": coalesced, "progress": False}

    report = carpool.run(items=queryset, **defaults | options)

    assert (report.total, report.succeeded, report.failed) == (30, 28, 2)
    assert {failure.item for failure in report.failures} == bad
    for failure in report.failures:
        assert (failure.stage, failure.error) == ("item", f"django.db.utils.{error}")
        assert failure.message.startswith(message)
    assert sorted(pages) == [3, 17]
    left = set(Book.objects.exclude(pk__in=bad).values_list("pk", "pages"))
    assert left == {(pk, pages + 1) for pk, pages in whole}


@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
def test_rows_deleted_meanwhile_are_skipped(executor: Any) -> None:
    """Rows that are gone when their chunk is loaded are counted as skipped, and not run."""
    make_authors(40)

    report = carpool.run(
        objects.delete_next,
        Author.objects.all(),
        executor=executor,
        workers=1,
        chunk_size=1,
        progress=False,
    )

    assert report.skipped == 20, "each row deletes the next one before its turn"
    assert report.succeeded == report.total == Author.objects.count() == 20


def test_a_filter_that_no_longer_holds_skips_the_row() -> None:
    """A row that another item took out of the filter is skipped, not worked on by mistake."""
    Article.everything.bulk_create(Article(name=f"{n}", text="same") for n in range(6))

    report = carpool.run(
        hide_all,
        Article.objects.filter(text="same"),
        executor="inline",
        chunk_size=2,
        progress=False,
    )

    assert (report.total, report.succeeded, report.skipped) == (2, 2, 4)


def hide_all(article: Article) -> None:
    Article.everything.update(hidden=True)


@pytest.mark.parametrize("model", [Author, Ticket], ids=lambda model: model.__name__)
@pytest.mark.parametrize("options", EXECUTORS[:2])
def test_rows_made_by_the_function_are_left_alone(
    model: type[models.Model], options: dict[str, Any]
) -> None:
    """A function that creates rows of the model it runs on comes to an end, after the rows there
    were at the start."""
    model._base_manager.bulk_create(model(name=f"{n}") for n in range(25))

    report = carpool.run(
        objects.multiply, model._base_manager.all(), chunk_size=3, progress=False, **options
    )

    assert report.total == 25
    assert model._base_manager.count() == 75


def test_rows_made_after_the_start_are_left_alone_over_many_pages() -> None:
    """Rows that the first item makes are not read with the later pages of keys."""
    make_authors(2_100)

    report = carpool.run(
        objects.double_all_if_first,
        Author.objects.all(),
        executor="inline",
        chunk_size=500,
        progress=False,
    )

    assert report.total == 2_100
    assert Author.objects.count() == 4_200


def test_duplicates_by_a_join_are_run_as_often_as_a_loop_would() -> None:
    """A row that a join gives three times is run three times, within a chunk and across two."""
    books = library(4)
    for book in books:
        book.tags.add(*(Tag.objects.create(word=f"more {book.pk} {n}") for n in range(3)))
    queryset = Book.objects.filter(tags__word__startswith="more")
    expected = sorted(map(objects.name, queryset))

    assert len(expected) == 12
    for chunk_size in (1, 2, 12):
        assert sorted(values(objects.name, queryset, chunk_size=chunk_size)) == expected
    assert len(values(objects.name, queryset.distinct())) == 4


REFUSED = {
    "sliced": lambda: Author.objects.order_by("name")[3:7],
    "union": lambda: Author.objects.filter(name="1").union(Author.objects.filter(name="2")),
    "intersection": lambda: Author.objects.all().intersection(Author.objects.filter(name="2")),
    "difference": lambda: Author.objects.all().difference(Author.objects.filter(name="2")),
    "values": lambda: Author.objects.values("name"),
    "values_list": lambda: Author.objects.values_list("name", flat=True),
    "dates": lambda: Ticket.objects.values_list("id"),
    "window": lambda: Author.objects.annotate(rank=Window(RowNumber(), order_by=F("name").asc())),
    "window filter": lambda: Author.objects.annotate(
        rank=Window(RowNumber(), order_by=F("name").desc())
    ).filter(rank__lte=7),
    "distinct fields": lambda: Author.objects.order_by("books_written").distinct("books_written"),
    "reversed": lambda: Author.objects.order_by("name").reverse()[:5],
}


@pytest.mark.parametrize("kind", list(REFUSED))
def test_what_cannot_be_cut_is_refused_or_right(kind: str) -> None:
    """A queryset that a cut by key would change is refused with a remedy, or gives its rows."""
    if kind == "distinct fields" and not connection.features.can_distinct_on_fields:
        pytest.skip("this database has no DISTINCT ON")
    make_authors(20)
    expected = sorted(map(repr, map(ranked, REFUSED[kind]())))

    met: list[Any] = []
    refusal = ""
    try:
        met = values(ranked, REFUSED[kind](), chunk_size=3)
    except carpool.ConfigurationError as error:
        refusal = str(error)

    if refusal:
        assert any(word in refusal for word in ("instead", "pass ", "Pass ", "leave "))
    else:
        assert sorted(map(repr, met)) == expected


def ranked(row: Any) -> Any:
    return (row.name, getattr(row, "rank", None)) if isinstance(row, Author) else row


def test_a_subquery_is_right() -> None:
    """A queryset filtered by another queryset, sliced inside, gives its rows."""
    make_authors(20)
    first = Author.objects.order_by("name").values("pk")[5:9]
    if connection.vendor == "mysql":
        first = Author.objects.filter(name__gte="005", name__lt="009").values("pk")

    met = values(objects.name, Author.objects.filter(pk__in=first), chunk_size=3)

    assert sorted(met) == ["005", "006", "007", "008"]


def test_a_queryset_of_another_database_needs_its_alias() -> None:
    """A queryset of an alias that the run doesn't cover is refused; with `using` it is right."""
    AuditLine.objects.bulk_create(AuditLine(name=f"{n}") for n in range(9))
    Author.objects.using("other").create(name="there")

    with pytest.raises(carpool.ConfigurationError, match="other"):
        carpool.run(objects.name, AuditLine.objects.all(), progress=False)
    with pytest.raises(carpool.ConfigurationError, match="other"):
        carpool.run(objects.name, Author.objects.using("other"), progress=False)

    assert sorted(values(objects.name, AuditLine.objects.all(), using="other")) == [
        f"{n}" for n in range(9)
    ]
    assert values(objects.name, Author.objects.using("other"), using="other") == ["there"]
    assert values(objects.name, Author.objects.using("other"), using=["default", "other"]) == [
        "there"
    ]


@pytest.mark.parametrize("options", EXECUTORS[1:])
def test_the_parent_reads_keys_only(options: dict[str, Any]) -> None:
    """The parent's queries are few and don't grow with the chunks, nor does it load a row."""
    make_authors(60)
    counts = []
    for chunk_size in (30, 2):
        with CaptureQueriesContext(connection) as queries:
            carpool.run(
                objects.name, Author.objects.all(), chunk_size=chunk_size, progress=False, **options
            )
        counts.append(len(queries))
        assert not any("books_written" in query["sql"] for query in queries.captured_queries)

    assert counts[0] == counts[1] <= 4


def test_an_evaluated_queryset_is_read_anew() -> None:
    """A queryset that was evaluated before is not run on its stale objects."""
    make_authors(5)
    queryset = Author.objects.all()
    list(queryset)
    Author.objects.update(books_written=7)

    assert values(lambda author: author.books_written, queryset) == [7] * 5


def test_no_rows_at_all() -> None:
    """A queryset without rows, and none(), end at once with nothing done."""
    for queryset in (Author.objects.all(), Author.objects.none()):
        report = carpool.run(objects.name, queryset, executor="inline", progress=False)
        assert (report.total, report.succeeded, report.failed, report.skipped) == (0, 0, 0, 0)


def test_a_manager_is_its_queryset() -> None:
    """A manager stands for all the rows that it shows."""
    Article.everything.bulk_create(
        Article(name=f"{n}", hidden=hidden) for n, hidden in enumerate([True, False, False])
    )

    assert values(objects.name, Article.objects) == ["1", "2"]


def test_a_related_manager_is_its_queryset() -> None:
    """The managers of a reverse foreign key and of a many-to-many stand for the related rows."""
    first, *_ = library(3)
    Book.objects.create(name="second", author=first.author)
    manager: Any = first.author.books

    assert sorted(values(objects.name, manager, executor="threads")) == ["book 00", "second"]
    assert sorted(values(objects.name, first.tags, executor="processes", workers=1)) == [
        "shared",
        "tag 00",
    ]


@pytest.mark.parametrize("options", EXECUTORS)
def test_rows_can_be_locked_by_the_queryset(options: dict[str, Any]) -> None:
    """select_for_update locks a chunk's rows in the chunk's transaction, and not the parent's."""
    make_authors(9)

    assert len(values(objects.name, Author.objects.select_for_update(), **options)) == 9


@pytest.mark.parametrize("options", EXECUTORS)
def test_prefetches_of_every_kind(options: dict[str, Any]) -> None:
    """Generic, nested and sliced prefetches are loaded for the chunk as for all the rows."""
    for book in library(6):
        Remark.objects.create(name=f"on {book.name}", target=book)
        for n in range(3):
            Book.objects.create(name=f"{book.name} {n}", author=book.author, pages=n)
    two = Prefetch("books", Book.objects.order_by("pages", "pk")[:2], to_attr="first_books")
    authors = Author.objects.prefetch_related(two, "books__tags")
    remarks = Remark.objects.prefetch_related("target__author")
    for function, queryset in ((objects.bookshelf, authors), (objects.target, remarks)):
        expected = sorted(map(repr, map(function, queryset)))

        assert sorted(map(repr, values(function, queryset, **options))) == expected


def test_a_large_chunk_of_any_key() -> None:
    """A chunk larger than a database's limit on parameters or terms is loaded all the same."""
    Seat.objects.bulk_create(Seat(row="A", number=n) for n in range(1_500))
    Ticket.objects.bulk_create(Ticket(name=f"{n}") for n in range(1_500))

    for model in (Seat, Ticket):
        report = carpool.run(
            objects.key,
            model._base_manager.all(),
            executor="inline",
            chunk_size=1_500,
            progress=False,
        )
        assert report.succeeded == 1_500


def test_an_iterator_over_values_is_an_iterable() -> None:
    """The remedy that a refusal names works: an iterator over the queryset."""
    make_authors(10)
    names = Author.objects.order_by("-name").values_list("name", flat=True).iterator()

    assert values(str.lower, names) == [f"{n:03}" for n in reversed(range(10))]


def test_an_iterator_over_objects_keeps_its_order() -> None:
    """Objects from an iterator are items like any other: in their order, with their state."""
    make_authors(10)

    met = values(objects.name, Author.objects.order_by("-name").iterator(), executor="threads")

    assert met == [f"{n:03}" for n in reversed(range(10))]
