"""Rows locked for their chunk: no change of another writer's is lost between load and save."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.db.models import Count, F, Max, OuterRef, Subquery
from django.test.utils import CaptureQueriesContext

import carpool
from carpool.attempt import Attempt
from tests.app.functions import objects, waiting
from tests.app.models import (
    Amphibian,
    Author,
    Book,
    Country,
    Kiosk,
    Mirror,
    Novel,
    Parcel,
    Person,
    Pizzeria,
    Place,
    Profile,
    Seat,
    Tag,
    Ticket,
)
from tests.integration.beside import uncommitted

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

has_row_locks = pytest.mark.only_on("postgresql", "mysql")
EXECUTORS = [
    pytest.param({"executor": "inline"}, id="inline"),
    pytest.param({"executor": "threads", "workers": 2}, id="threads"),
    pytest.param({"executor": "processes", "workers": 2}, id="processes"),
]

PATIENCE = 0.3
"""Seconds that a function waits for another writer who, if all is well, waits for its COMMIT. Too
few, and a lost update might go unseen; never the other way round."""


def run(function: Callable[[Any], Any], queryset: Any, **options: Any) -> carpool.Report:
    defaults: dict[str, Any] = {"executor": "inline", "chunk_size": 4, "progress": False}
    report = carpool.run(function, queryset, **defaults | options)
    assert report.failures == ()
    return report


def locking_statements(queryset: Any, **options: Any) -> list[str]:
    """Run over the queryset with locks, and return the statements that took them."""
    with CaptureQueriesContext(connection) as queries:
        run(objects.key, queryset, lock=True, **options)
    return [q["sql"] for q in queries.captured_queries if "FOR UPDATE" in q["sql"]]


def make_authors(number: int) -> None:
    Author.objects.bulk_create(Author(name=f"{n:03}") for n in range(number))


def make_tags(*words: str) -> None:
    Tag.objects.bulk_create(Tag(word=word) for word in words)


def uses() -> set[int]:
    return set(Tag.objects.values_list("uses", flat=True))


@has_row_locks
@pytest.mark.parametrize("coalesce", [True, False], ids=["coalesced", "not coalesced"])
@pytest.mark.parametrize("options", EXECUTORS)
def test_what_another_writes_between_load_and_save_is_not_lost(
    options: dict[str, Any], coalesce: bool
) -> None:
    """With lock=True another writer waits for the COMMIT, and both changes count."""
    make_tags("a", "b", "c", "d")
    function = partial(waiting.add_beside_another, field="uses", patience=PATIENCE)

    run(function, Tag.objects.all(), lock=True, chunk_size=2, coalesce=coalesce, **options)

    assert uses() == {2}


@has_row_locks
@pytest.mark.parametrize("options", EXECUTORS)
def test_without_locks_it_is_lost(options: dict[str, Any]) -> None:
    """As in any loop: save() writes what was loaded, and what another wrote since is gone."""
    make_tags("a", "b")
    function = partial(waiting.add_beside_another, field="uses", patience=30)

    run(function, Tag.objects.all(), **options)

    assert uses() == {1}


@pytest.mark.only_on("sqlite")
def test_sqlite_is_refused_and_its_remedy_works() -> None:
    """There are no row locks, but coalesce=False takes the one lock before the rows are loaded."""
    make_tags("a", "b")
    function = partial(waiting.add_beside_another, field="uses", patience=PATIENCE)

    with pytest.raises(carpool.ConfigurationError, match=r"no row locks.*coalesce=False"):
        run(function, Tag.objects.all(), lock=True)
    assert uses() == {0}
    run(function, Tag.objects.all(), coalesce=False)

    assert uses() == {2}


@has_row_locks
def test_a_parents_row_is_locked_with_its_childs() -> None:
    """What another writes to the table of a parent, two levels up, is not lost either."""
    for n in range(2):
        Pizzeria.objects.create(name=f"pizzeria {n}")
    function = partial(waiting.add_beside_another, field="visits", patience=PATIENCE)

    run(function, Pizzeria.objects.all(), lock=True)

    assert list(Place.objects.values_list("visits", flat=True)) == [2, 2]


@has_row_locks
def test_what_is_run_again_after_a_neighbours_failure_is_loaded_and_locked_again() -> None:
    """An undone savepoint lets its locks go on PostgreSQL; what came in between is not lost."""
    make_tags("a", "b", "bad")
    calls: dict[str, int] = {"a": 0, "b": 0, "bad": 0}
    others: list[threading.Thread] = []

    def add_unless_bad(tag: Tag) -> None:
        calls[tag.word] += 1
        before = set(threading.enumerate())
        waiting.add_beside_another(tag, "uses", PATIENCE)
        others.extend(set(threading.enumerate()) - before)
        if tag.word == "bad":
            raise ValueError("bad")

    report = carpool.run(
        add_unless_bad,
        Tag.objects.all(),
        lock=True,
        coalesce=False,
        executor="inline",
        chunk_size=3,
        progress=False,
    )
    for other in others:
        other.join()

    assert (report.succeeded, report.failed) == (2, 1)
    assert calls["a"] > 1
    found = dict(Tag.objects.values_list("word", "uses"))
    assert found == {"a": calls["a"] + 1, "b": calls["b"] + 1, "bad": calls["bad"]}


@has_row_locks
def test_what_another_is_writing_is_waited_for_and_loaded() -> None:
    """The values that a row has when its lock is given, in a parent's table, too."""
    for n in range(3):
        Pizzeria.objects.create(name=f"{n}")
    release = threading.Event()
    timer = threading.Timer(PATIENCE, release.set)
    met: dict[str, int] = {}

    def change() -> None:
        Place.objects.filter(name="0").update(visits=7)
        Place.objects.filter(name="1").update(name="gone")

    def note(pizzeria: Pizzeria) -> None:
        met[pizzeria.name] = pizzeria.visits

    with uncommitted(change, release):
        timer.start()
        report = run(note, Pizzeria.objects.exclude(name="gone"), lock=True)
    timer.join()

    assert (report.succeeded, report.skipped) == (2, 1)
    assert met == {"0": 7, "2": 0}


@has_row_locks
def test_a_try_that_could_not_lock_is_tried_again_with_what_is_there_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows are loaded anew after a lock timeout; those that no longer match are skipped."""
    make_authors(4)
    release = threading.Event()
    met: dict[str, int] = {}
    may_retry = Attempt._can_retry

    def release_and_retry(attempt: Attempt, *args: Any) -> bool:
        release.set()
        return may_retry(attempt, *args)

    def change() -> None:
        Author.objects.filter(name="001").update(name="gone")
        Author.objects.filter(name="002").update(books_written=7)

    def note(author: Author) -> None:
        met[author.name] = author.books_written

    monkeypatch.setattr(Attempt, "_can_retry", release_and_retry)
    with uncommitted(change, release):
        report = run(
            note,
            Author.objects.exclude(name="gone"),
            lock=True,
            executor="threads",
            workers=1,
            retries=10,
            setup=waiting.have_no_patience,
        )

    assert report.retries > 0
    assert (report.succeeded, report.skipped) == (3, 1)
    assert met == {"000": 0, "002": 7, "003": 0}


@has_row_locks
def test_the_loading_statements_lock_in_key_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each query for rows ends with the order of the keys and FOR UPDATE; those for keys don't."""
    monkeypatch.setattr("carpool.items.LOADED_AT_ONCE", 4)
    make_authors(10)
    key = ".".join(map(connection.ops.quote_name, ["app_author", "id"]))
    end = re.compile(rf"ORDER BY {re.escape(key)} ASC FOR UPDATE( OF [^ ]+)?$")

    statements = locking_statements(Author.objects.order_by("-name"), chunk_size=10)

    assert len(statements) == 3
    for statement in statements:
        assert "books_written" in statement, "the rows, not the keys"
        assert end.search(statement)


def amphibians() -> None:
    for n in range(3):
        Amphibian.objects.create(plate=f"{n}")


def kiosks() -> None:
    for n in range(3):
        Kiosk.objects.create(name=f"kiosk {n}")


MODELS: list[Any] = [
    (Author, lambda: make_authors(3), {"app_author"}),
    (Ticket, lambda: [Ticket.objects.create(name=f"{n}") for n in range(3)], {"app_ticket"}),
    (Country, lambda: [Country.objects.create(code=code) for code in "xyz"], {"app_country"}),
    (Seat, lambda: [Seat.objects.create(row="A", number=n) for n in range(3)], {"app_seat"}),
    (Parcel, lambda: [Parcel.objects.create(name=f"{n}") for n in range(3)], {"app_parcel"}),
    (Mirror, lambda: [Mirror.objects.create(code=f"{n}a") for n in range(3)], {"app_mirror"}),
    (Profile, lambda: [Author.objects.create(name=f"{n}") for n in range(3)], {"app_profile"}),
    (Novel, lambda: library(3), {"app_book"}),
    (Kiosk, kiosks, {"app_kiosk", "app_place"}),
    (
        Pizzeria,
        lambda: [Pizzeria.objects.create(name=f"{n}") for n in range(3)],
        {"app_pizzeria", "app_restaurant", "app_place"},
    ),
    (Amphibian, amphibians, {"app_amphibian", "app_car", "app_boat", "app_vehicle"}),
]


def library(number: int) -> None:
    for n in range(number):
        author = Author.objects.create(name=f"author {n}")
        Book.objects.create(name=f"book {n}", author=author, pages=n)


def tables_named(statement: str) -> list[str]:
    """Return the tables after OF, which MariaDB doesn't have."""
    return re.findall(r"\w+", statement.partition(" FOR UPDATE OF ")[2])


@has_row_locks
@pytest.mark.parametrize(
    ("model", "make", "tables"), MODELS, ids=lambda value: getattr(value, "__name__", "-")
)
def test_rows_of_any_model_are_locked(
    model: Any, make: Callable[[], Any], tables: set[str]
) -> None:
    """Whatever the key, and in the tables of all parents, each once."""
    make()
    queryset = model._base_manager.all()

    (statement,) = locking_statements(queryset)

    assert run(objects.key, queryset, lock=True, executor="processes").succeeded == 3
    if connection.features.has_select_for_update_of:
        assert sorted(tables_named(statement)) == sorted(tables)


JOINED: dict[str, Callable[[], Any]] = {
    "nullable": lambda: Person.objects.select_related("boss"),
    "nullable, twice": lambda: Person.objects.select_related("boss__boss"),
    "annotated": lambda: Person.objects.annotate(over=F("boss__name")),
    "filtered": lambda: Person.objects.filter(boss__boss__isnull=True),
    "prefetched": lambda: Person.objects.prefetch_related("staff", "boss"),
}


@has_row_locks
@pytest.mark.parametrize("make", JOINED.values(), ids=JOINED)
def test_rows_behind_a_nullable_join_are_loaded_and_not_locked(make: Callable[[], Any]) -> None:
    """PostgreSQL refuses to lock what an outer join may not find; only the chunk's rows are."""
    boss = Person.objects.create(name="boss")
    Person.objects.bulk_create(Person(name=f"{n}", boss=boss) for n in range(3))

    (statement,) = locking_statements(make())

    if connection.features.has_select_for_update_of:
        assert tables_named(statement) == ["app_person"]


PARTS: dict[str, Callable[[], Any]] = {
    "a child of one": lambda: Place.objects.select_related("restaurant__as_pizzeria"),
    "a parent": lambda: Pizzeria.objects.select_related("restaurant_link__place_ptr"),
    "a column of the child": lambda: Pizzeria.objects.only("oven"),
    "a column of the parent": lambda: Pizzeria.objects.only("visits"),
    "without a column": lambda: Pizzeria.objects.defer("name", "visits", "stars"),
    "filtered by a parent": lambda: Pizzeria.objects.filter(restaurant_link__visits=0),
}


@has_row_locks
@pytest.mark.parametrize("make", PARTS.values(), ids=PARTS)
def test_children_and_parents_in_parts_are_locked(make: Callable[[], Any]) -> None:
    """Inherited rows can be locked whatever is loaded of them, and whatever with them."""
    for n in range(3):
        Pizzeria.objects.create(name=f"{n}")
    Place.objects.create(name="only a place")
    expected = len(make())

    (statement,) = locking_statements(make())

    assert run(objects.key, make(), lock=True).succeeded == expected
    named = tables_named(statement)
    assert len(named) == len(set(named))


@has_row_locks
def test_only_the_chunks_rows_are_locked_where_tables_can_be_named() -> None:
    """A writer of a related row needn't wait, if the database can tell it from the chunk's."""
    if not connection.features.has_select_for_update_of:
        pytest.skip("this database locks all that is joined")
    library(2)

    (statement,) = locking_statements(Book.objects.select_related("author"))

    assert tables_named(statement) == ["app_book"]


@has_row_locks
def test_the_querysets_own_lock_is_kept() -> None:
    """NOWAIT stays NOWAIT, in key order; with SKIP LOCKED what others hold is skipped."""
    make_authors(4)

    (statement,) = locking_statements(Author.objects.select_for_update(nowait=True))
    held = Author.objects.filter(name="002")
    with uncommitted(lambda: held.update(books_written=7), threading.Event()):
        report = run(objects.key, Author.objects.select_for_update(skip_locked=True), lock=True)

    assert statement.endswith("ASC FOR UPDATE NOWAIT")
    assert (report.succeeded, report.skipped) == (3, 1)


MERGED: dict[str, Callable[[], Any]] = {
    "distinct": lambda: Book.objects.filter(tags__word__in="ab").distinct(),
    "a count": lambda: Book.objects.annotate(number=Count("tags")).filter(number__gt=0),
}


@has_row_locks
@pytest.mark.parametrize("make", MERGED.values(), ids=MERGED)
def test_merged_rows_are_refused_and_the_remedy_works(make: Callable[[], Any]) -> None:
    """Rows merged by DISTINCT or GROUP BY can't be locked; the rows they stand for can."""
    library(3)
    make_tags("a", "b")
    for book in Book.objects.filter(pages__gt=0):
        book.tags.set(Tag.objects.all())
    highest = Tag.objects.filter(books=OuterRef("pk")).values("books").annotate(n=Max("word"))

    with pytest.raises(carpool.ConfigurationError, match="lock rows that were merged"):
        run(objects.key, make(), lock=True)
    queryset = Book.objects.filter(pk__in=make().values("pk"))
    queryset = queryset.annotate(last=Subquery(highest.values("n")))

    assert len(locking_statements(queryset)) == 1
    assert run(objects.key, queryset, lock=True).succeeded == 2


@has_row_locks
def test_a_list_cannot_be_locked() -> None:
    """What isn't a QuerySet is refused before the first item, by both calls."""
    make_authors(2)
    for call in (carpool.run, carpool.stream):
        with pytest.raises(carpool.ConfigurationError, match="lock=True is for the rows"):
            call(objects.key, list(Author.objects.all()), lock=True)


@has_row_locks
def test_a_stream_locks_too() -> None:
    """stream() takes the same option."""
    make_authors(3)
    with CaptureQueriesContext(connection) as queries:
        stream = carpool.stream(
            objects.name, Author.objects.all(), executor="inline", chunk_size=3, lock=True
        )
        names = [outcome.value for outcome in stream]

    assert names == ["000", "001", "002"]
    assert sum("FOR UPDATE" in query["sql"] for query in queries.captured_queries) == 1


def is_locked(queryset: Any) -> bool:
    """Tell whether another connection would have to wait for one of the rows."""
    found: list[bool] = []

    def ask() -> None:
        try:
            with transaction.atomic():
                list(queryset.select_for_update(nowait=True))
            found.append(False)
        except OperationalError:
            found.append(True)
        finally:
            connection.close()

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return found[0]


@has_row_locks
def test_rows_are_locked_from_their_load_to_the_commit() -> None:
    """All of a chunk's rows until it ends, those of the next not yet; inside a transaction of the
    caller's until that one ends."""
    make_authors(4)
    rows = [Author.objects.filter(pk=author.pk) for author in Author.objects.order_by("pk")]
    locked: list[list[bool]] = []

    def look(author: Author) -> None:
        locked.append([is_locked(row) for row in rows])

    run(look, Author.objects.all(), lock=True, chunk_size=2)
    assert locked == [[True, True, False, False]] * 2 + [[False, False, True, True]] * 2
    assert not any(map(is_locked, rows))

    with transaction.atomic():
        run(objects.key, rows[0], lock=True, executor="auto")
        assert is_locked(rows[0])
    assert not is_locked(rows[0])
