"""Which rows a run can lock, and how it asks for that. SQLite, at hand here, plays the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.db.models import Count, Exists, F, OuterRef, QuerySet, Sum

from carpool.exceptions import ConfigurationError
from carpool.locking import locked, refuse_unlockable
from carpool.sources import QuerySetSource, source_of
from tests.app.models import (
    Amphibian,
    Author,
    Book,
    Kiosk,
    Novel,
    Person,
    Pizzeria,
    Place,
    Seat,
)


@pytest.fixture(autouse=True)
def _row_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection.features, "has_select_for_update", True)
    monkeypatch.setattr(connection.features, "has_select_for_update_of", True)


def source(items: Any, using: tuple[str, ...] = ("default",)) -> Any:
    return source_of(items, using, lock=True)


def numbered() -> Any:
    return Author.objects.annotate(number=Count("books"))


REFUSED: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "distinct()": (lambda: Author.objects.distinct(), ["uses distinct()"]),
    "a count": (numbered, ["aggregates (a Count, a Sum", "Subquery"]),
    "a filter by a count": (lambda: numbered().filter(number__gt=1), ["aggregates"]),
    "an alias": (lambda: Author.objects.alias(n=Sum("books__pages")), ["aggregates"]),
}


@pytest.mark.parametrize(("make", "words"), REFUSED.values(), ids=REFUSED)
def test_rows_that_are_not_a_tables_are_refused(make: Callable[[], Any], words: list[str]) -> None:
    """The message says what stands in the way, and how to lock the same rows."""
    with pytest.raises(ConfigurationError) as caught:
        source(make())
    for word in [*words, 'Model.objects.filter(pk__in=queryset.values("pk"))']:
        assert word in str(caught.value)
    assert source_of(make(), ("default",)).queryset is not None, "without a lock it can be run"


@pytest.mark.parametrize(
    "items", [[1, 2], iter([1]), {1: 2}, range(3)], ids=lambda value: type(value).__name__
)
def test_only_rows_can_be_locked(items: Any) -> None:
    """Items that aren't rows of a QuerySet have nothing to lock."""
    name = type(items).__name__
    with pytest.raises(ConfigurationError, match=rf"lock=True.*'{name}'.*Pass the QuerySet itself"):
        source(items)


def test_an_iterator_over_a_queryset_is_refused() -> None:
    """Its objects are loaded by the caller, outside of their chunk's transaction."""
    with pytest.raises(ConfigurationError, match="select_for_update"):
        source(Author.objects.iterator())


@pytest.mark.only_on("sqlite")
def test_sqlite_is_refused_with_what_it_can_do_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cause is SQLite's one lock, the remedy to take it early."""
    monkeypatch.setattr(connection.features, "has_select_for_update", False)
    with pytest.raises(ConfigurationError) as caught:
        source(Author.objects.all())
    for word in ("lock=True", "'default' (SQLite)", "no row locks", "coalesce=False"):
        assert word in str(caught.value)


def test_another_database_without_row_locks_is_refused() -> None:
    """One that Django doesn't come with is told by its capability, and the remedy is F()."""

    class Features:
        has_select_for_update = False

    class Simple:
        alias = "far"
        display_name = "Simple"
        features = Features()

    simple: Any = Simple()
    with pytest.raises(ConfigurationError, match=r"'far' \(Simple\) doesn't have\. .*F\(\)"):
        refuse_unlockable(Author.objects.all(), simple)


ALLOWED: dict[str, Callable[[], QuerySet[Any]]] = {
    "all": lambda: Author.objects.all(),
    "a join": lambda: Author.objects.filter(books__pages=1),
    "a nullable join": lambda: Person.objects.select_related("boss"),
    "an annotation": lambda: Person.objects.annotate(over=F("boss__name")),
    "a subquery": lambda: Author.objects.annotate(
        has=Exists(Book.objects.filter(author=OuterRef("pk")))
    ),
    "an aggregate in a subquery": lambda: Author.objects.filter(pk__in=numbered().values("pk")),
    "prefetches": lambda: Author.objects.prefetch_related("books"),
    "two columns": lambda: Seat.objects.all(),
}


@pytest.mark.parametrize("make", ALLOWED.values(), ids=ALLOWED)
def test_what_can_be_locked_is_accepted(make: Callable[[], QuerySet[Any]]) -> None:
    """No refusal without a reason."""
    assert isinstance(source(make()), QuerySetSource)


class ReadsElsewhere:
    """A router that sends reads to a copy."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "other"

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"


def test_rows_are_locked_where_they_are_written(settings: Any) -> None:
    """Where a router tells reading from writing, keys and rows are read where a lock counts."""
    settings.DATABASE_ROUTERS = [ReadsElsewhere()]
    assert source(Author.objects.all()).queryset.db == "default"
    assert source_of(Author.objects.all(), ("other",)).queryset.db == "other"


OWN_TABLES: list[tuple[Any, set[str]]] = [
    (Author, {"self"}),
    (Novel, {"self"}),
    (Place, {"self"}),
    (Kiosk, {"self", "place"}),
    (Pizzeria, {"self", "restaurant_link", "restaurant_link__place_ptr"}),
]


@pytest.mark.parametrize(("model", "tables"), OWN_TABLES, ids=lambda value: str(value))
def test_a_row_is_locked_in_each_of_its_tables(model: Any, tables: set[str]) -> None:
    """A child's row is in its parents' tables, too; a proxy's is in one."""
    of = locked(model._base_manager.all()).query.select_for_update_of
    assert set(of) == tables
    assert len(of) == len(tables)


def test_the_top_of_a_diamond_is_locked_once() -> None:
    """PostgreSQL would take it twice; others need not."""
    of = locked(Amphibian.objects.all()).query.select_for_update_of
    assert set(of) == {"self", "car_ptr", "car_ptr__car_vehicle", "boat_ptr"}
    assert len(of) == 4


def test_where_tables_cannot_be_named_none_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """MariaDB has FOR UPDATE without OF."""
    monkeypatch.setattr(connection.features, "has_select_for_update_of", False)
    query = locked(Pizzeria.objects.all()).query
    assert query.select_for_update
    assert not query.select_for_update_of


def test_a_lock_of_the_querysets_own_is_kept() -> None:
    """Whoever asked for NOWAIT, or for other tables, gets that; the order is the keys'."""
    own = Book.objects.order_by("name").select_for_update(nowait=True, of=("author",), no_key=True)
    query = locked(own.select_related("author")).query
    assert query.order_by == ("pk",)
    assert query.select_for_update_of == ("author",)
    assert query.select_for_update_nowait
    assert query.select_for_no_key_update
