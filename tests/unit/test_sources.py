"""Where items come from: any iterable, or a queryset by its primary keys."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, models
from django.db.models import Count, F, Window
from django.db.models.functions import RowNumber
from django.db.models.manager import BaseManager
from django.test.utils import CaptureQueriesContext
from hypothesis import given, settings
from hypothesis import strategies as st

from carpool import sources
from carpool.exceptions import ConfigurationError
from carpool.sources import IterableSource, QuerySetSource, source_of
from tests.app.models import AuditLine, Author, Book, Seat, Stamped

DEFAULT = ("default",)


def source(items: Any, using: tuple[str, ...] = DEFAULT) -> sources.Source:
    return source_of(items, using)


class Hinted:
    """An iterator that says how many items are left."""

    def __init__(self, hint: Any) -> None:
        self.hint = hint

    def __iter__(self) -> Iterator[int]:
        return iter(range(3))

    def __length_hint__(self) -> Any:
        return self.hint


class Lengthless:
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))

    def __len__(self) -> int:
        raise ConnectionError("ask later")


TOTALS: list[tuple[Callable[[], Any], int | None]] = [
    (lambda: [1, 2, 3], 3),
    (lambda: (1, 2, 3), 3),
    (lambda: {1: 2}, 1),
    (lambda: range(10**6), 10**6),
    (lambda: iter([1, 2, 3]), 3),
    (lambda: (n for n in range(3)), None),
    (lambda: map(int, "123"), None),
    (lambda: Path("/dev/null").open(), None),
    (lambda: Hinted(7), 7),
    (lambda: Hinted(NotImplemented), None),
    (lambda: Hinted(-5), None),
    (lambda: Hinted("many"), None),
    (Lengthless, None),
    (lambda: Hinted(0), 0),
]


@pytest.mark.parametrize(("make", "total"), TOTALS, ids=range(len(TOTALS)))
def test_the_total_is_what_can_be_known_without_reading(
    make: Callable[[], Any], total: int | None
) -> None:
    """A length or a hint is shown; what is unknown, or broken, is None and stops nothing."""
    items = make()
    assert source(items).total() == total
    if hasattr(items, "close"):
        items.close()


@given(st.lists(st.integers()))
def test_an_iterable_gives_its_items(items: list[int]) -> None:
    """A list, or an iterator over it, is read as a loop would."""
    assert list(source(items)) == items
    assert list(source(iter(items))) == items
    assert source(items).queryset is None


@pytest.mark.parametrize(
    "items", ["a string", b"bytes", 5, None, print, Author], ids=lambda value: repr(value)[:20]
)
def test_what_holds_no_items_is_refused(items: Any) -> None:
    """A string is one thing and not its letters; a model is not its rows. The remedy is named."""
    with pytest.raises(ConfigurationError, match=r"items is '\w+'.*Pass an iterable.*QuerySet"):
        source(items)


class OwnManager(BaseManager.from_queryset(models.QuerySet)):  # type: ignore[misc]
    """A manager that is no django.db.models.Manager."""


def own_manager() -> Any:
    manager = OwnManager()
    manager.model = Author
    return manager


@pytest.mark.parametrize(
    "make",
    [
        lambda: Author.objects,
        lambda: Author.objects.all(),
        lambda: Author(pk=1).books,
        lambda: Book(pk=1).tags,
        own_manager,
    ],
    ids=["manager", "queryset", "related", "many-to-many", "own"],
)
def test_a_manager_stands_for_its_queryset(make: Callable[[], Any]) -> None:
    """Model.objects, and what a relation gives, are cut by key as their .all() is."""
    assert isinstance(source(make()), QuerySetSource)


def numbered() -> Any:
    return Author.objects.annotate(number=Window(RowNumber(), order_by="pk"))


REFUSED: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "a slice": (lambda: Author.objects.all()[:10], ["is sliced", "filter(pk__in="]),
    "a union": (
        lambda: Author.objects.all().union(Author.objects.all()),
        ["is a union of others", "run each part"],
    ),
    "an intersection": (
        lambda: Author.objects.all().intersection(Author.objects.all()),
        ["is a intersection", "pk__in"],
    ),
    "values()": (lambda: Author.objects.values("name"), ["gives values", "qs.iterator()"]),
    "values_list()": (lambda: Author.objects.values_list("pk", flat=True), ["gives values"]),
    "dates()": (lambda: Stamped.objects.dates("created_on", "day"), ["gives values"]),
    "distinct(fields)": (lambda: Author.objects.distinct("name"), ["distinct() with fields"]),
    "a window": (numbered, ["window", "qs.iterator()"]),
    "a filter by a window": (lambda: numbered().filter(number__lt=5), ["window", "qs.iterator()"]),
    "rows behind a join": (
        lambda: Author.objects.annotate(by=F("books__author__name")),
        ["several rows"],
    ),
    "rows of a join": (
        lambda: Author.objects.annotate(title=F("books__name")),
        ["several rows", "qs.iterator()"],
    ),
}


@pytest.mark.parametrize(("make", "words"), REFUSED.values(), ids=REFUSED)
def test_a_queryset_that_cannot_be_cut_by_key_is_refused(
    make: Callable[[], Any], words: list[str]
) -> None:
    """Rather a clear refusal with the remedy than a wrong answer."""
    with pytest.raises(ConfigurationError) as caught:
        source(make())
    message = str(caught.value)
    assert "can't be cut into chunks by primary key" in message
    for word in words:
        assert word in message


def test_a_key_without_an_order_is_refused() -> None:
    """A JSON key can't be cut by `greater than`."""

    class Json(models.Model):
        key = models.JSONField(primary_key=True)

        class Meta:
            app_label = "unit_sources"

        def __str__(self) -> str:
            return "json"

    with pytest.raises(ConfigurationError, match=r"can't be ordered.*qs\.iterator\(\)"):
        source(Json._base_manager.all())


def test_a_queryset_of_a_database_that_the_run_does_not_cover_is_refused() -> None:
    """Its rows would be changed outside of the chunk's transaction."""
    with pytest.raises(ConfigurationError) as caught:
        source(AuditLine.objects.all())
    for word in ("'other'", "'default'", "using='other'"):
        assert word in str(caught.value)
    assert isinstance(source(AuditLine.objects.all(), ("default", "other")), QuerySetSource)


CUT: dict[str, Callable[[], Any]] = {
    "all": lambda: Author.objects.all(),
    "ordered": lambda: Author.objects.order_by("-name"),
    "filtered": lambda: Author.objects.filter(name__gt="a3"),
    "aggregated": lambda: Author.objects.annotate(number=Count("books")).filter(number__gte=0),
    "distinct": lambda: Author.objects.filter(name__gt="a").distinct(),
    "only": lambda: Author.objects.only("name"),
    "joined": lambda: Author.objects.filter(books__isnull=True),
    "annotated by a parent": lambda: Book.objects.annotate(by=F("author__name")),
    "none": lambda: Author.objects.none(),
    "locked": lambda: Author.objects.select_for_update(),
}


@pytest.mark.django_db
@pytest.mark.parametrize("make", CUT.values(), ids=CUT)
@pytest.mark.parametrize("page", [1, 2, 3, 100])
def test_keys_come_in_order_page_by_page(
    make: Callable[[], Any], page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys are the queryset's, each once, in key order, whatever the page's length."""
    monkeypatch.setattr(sources, "PAGE", page)
    Author.objects.bulk_create(Author(name=f"a{n}") for n in range(7))
    Book.objects.bulk_create(Book(name=f"b{n}", author=Author.objects.first()) for n in range(7))
    found = source(make())
    expected = sorted(row["pk"] for row in make().values("pk"))
    assert list(found) == expected
    assert found.total() == len(expected)


@pytest.mark.django_db
@pytest.mark.parametrize("page", [1, 2, 5, 100])
def test_keys_of_two_columns_are_cut_too(page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A composite key is a tuple, and pages go on after it."""
    monkeypatch.setattr(sources, "PAGE", page)
    Seat.objects.bulk_create(Seat(row=row, number=n) for row in "BA" for n in range(3))
    assert list(source(Seat.objects.all())) == [(row, n) for row in "AB" for n in range(3)]


@pytest.mark.django_db
@given(copies=st.lists(st.integers(1, 5), max_size=6), page=st.integers(1, 8))
@settings(max_examples=30, deadline=None)
def test_a_key_that_a_join_repeats_comes_as_often(copies: list[int], page: int) -> None:
    """Rows repeated by a join are all met, wherever the pages end."""
    Author.objects.all().delete()
    for number, books in enumerate(copies):
        author = Author.objects.create(name=f"a{number}")
        Book.objects.bulk_create(Book(name=f"b{n}", author=author) for n in range(books))
    queryset = Author.objects.filter(books__name__startswith="b")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "PAGE", page)
        keys = list(source(queryset))
    assert keys == sorted(row.pk for row in queryset)
    assert len(keys) == sum(copies)


@pytest.mark.django_db
def test_rows_added_while_keys_are_read_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that adds rows of the same model does not feed its own run for ever."""
    monkeypatch.setattr(sources, "PAGE", 2)
    Author.objects.bulk_create(Author(name=f"a{n}") for n in range(5))
    met = 0
    for _ in source(Author.objects.all()):
        met += 1
        Author.objects.create(name="another")
    assert met == 5


@pytest.mark.django_db
def test_keys_are_read_a_page_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No query before the first key, and none for a page that nobody has asked for yet."""
    monkeypatch.setattr(sources, "PAGE", 2)
    Author.objects.bulk_create(Author(name=f"a{n}") for n in range(6))
    with CaptureQueriesContext(connection) as queries:
        keys = iter(source(Author.objects.select_related(None)))
        assert len(queries) == 0
        next(keys)
        assert len(queries) == 2  # the highest key, and a page
        assert len(list(keys)) == 5


@pytest.mark.django_db
def test_the_workers_queryset_travels_without_its_rows() -> None:
    """What a worker is sent neither asks the database when pickled nor carries rows."""
    Author.objects.bulk_create(Author(name=f"a{n}") for n in range(3))
    queryset = Author.objects.filter(name__gt="a0").order_by("name")
    assert len(queryset) == 2  # evaluated by the caller
    with CaptureQueriesContext(connection) as queries:
        there = pickle.loads(pickle.dumps(source(queryset).queryset))
        assert len(queries) == 0
    assert sorted(row.name for row in there.all()) == ["a1", "a2"]


def test_rows_are_locked_by_the_worker_that_loads_them_and_not_by_the_parent() -> None:
    """select_for_update() holds in the chunk's transaction; the parent's would wait for it."""
    found = source(Author.objects.select_for_update())
    assert isinstance(found, QuerySetSource)
    assert found.queryset.query.select_for_update
    assert not found._keys.query.select_for_update


def test_an_iterable_is_not_read_by_looking_at_it() -> None:
    """Neither its total nor its source takes an item from an iterator."""
    items = iter([1, 2, 3])
    found = IterableSource(items)
    found.total()
    iter(found)
    assert next(items) == 1
