"""What `coalesce()` promises of `save()` on rows that are there: statements, values, errors."""

from __future__ import annotations

import datetime
import decimal
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import DatabaseError, IntegrityError, connection, connections, models, transaction
from django.db.models import F
from django.db.models.signals import post_save
from django.test.utils import isolate_apps
from django.utils import timezone

import carpool
from carpool.coalescing import queue
from tests.app.models import (
    Account,
    Article,
    Author,
    Book,
    Box,
    Car,
    Country,
    Course,
    Gadget,
    Lesson,
    Mirror,
    Parcel,
    Person,
    Pizzeria,
    Place,
    Profile,
    Restaurant,
    Seat,
    Selected,
    Stamped,
    Sticker,
    Tag,
    Ticket,
    TicketStub,
)
from tests.coalesce.sent import statements
from tests.waiting import HANG

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.usefixtures("nobody_reads_an_authors_key"),
]


def updates(sent: list[str]) -> list[str]:
    """Return the UPDATEs among some statements; on SQLite a batch says how often it is sent."""
    return [sql for sql in sent if "UPDATE " in sql.partition("SET")[0]]


@contextmanager
def receiving(model: type[models.Model], receiver: Callable[..., None]) -> Iterator[None]:
    """Call a receiver after each save() of a model."""
    post_save.connect(receiver, sender=model)
    try:
        yield
    finally:
        post_save.disconnect(receiver, sender=model)


@contextmanager
def noting(model: type[models.Model]) -> Iterator[list[bool]]:
    """Collect what post_save says of whether the row is new."""
    found: list[bool] = []

    def note(sender: Any, created: bool, **kwargs: Any) -> None:
        found.append(created)

    with receiving(model, note):
        yield found


def tags(number: int) -> list[Tag]:
    """Store some rows, and load them."""
    Tag.objects.bulk_create(Tag(word=f"w{n:04}") for n in range(number))
    return list(Tag.objects.order_by("word"))


# Statements.


@pytest.mark.first_rows
@pytest.mark.parametrize("fields", [None, ["uses"]], ids=["every column", "update_fields"])
def test_a_thousand_changes_take_six_statements(fields: list[str] | None) -> None:
    """Loaded before the block, changed and saved one by one."""
    loaded = tags(1000)
    with statements() as sent, carpool.coalesce() as figures:
        for n, tag in enumerate(loaded):
            tag.uses = n
            tag.save(update_fields=fields)

    assert len(sent) <= 6, sent
    assert len(updates(sent)) == 1
    assert figures.queued == 1000
    assert figures.sent == len(sent)
    assert figures.flushes == 1
    assert not figures.early
    assert list(Tag.objects.order_by("word").values_list("uses", flat=True)) == list(range(1000))


@pytest.mark.parametrize("fields", [None, ["pages"]], ids=["every column", "update_fields"])
def test_a_receiver_that_saves_a_related_object_costs_little(fields: list[str] | None) -> None:
    """Two tables, a thousand rows of each."""
    Author.objects.bulk_create(Author(name=f"a{n:04}") for n in range(1000))
    Book.objects.bulk_create(Book(name=a.name, author=a) for a in Author.objects.order_by("name"))
    loaded = list(Book.objects.select_related("author").order_by("name"))

    def count_pages(sender: Any, instance: Book, created: bool, **kwargs: Any) -> None:
        assert not created
        instance.author.books_written = instance.pages
        instance.author.save()

    with receiving(Book, count_pages), statements() as sent, carpool.coalesce() as figures:
        for n, book in enumerate(loaded):
            book.pages = n
            book.save(update_fields=fields)

    assert len(sent) <= 10, sent
    assert not figures.early
    stored = Book.objects.order_by("name").values_list("pages", "author__books_written")
    assert list(stored) == [(n, n) for n in range(1000)]


def test_a_set_of_columns_is_a_statement() -> None:
    """Rows of which the same columns change go together, in whatever order they come."""
    Author.objects.bulk_create(Author(name=f"a{n}") for n in range(20))
    loaded = list(Author.objects.order_by("pk"))
    with statements() as sent, carpool.coalesce():
        for n, author in enumerate(loaded):
            author.name = f"b{n}"
            author.books_written = n
            author.save(update_fields=["name"] if n % 2 else ["books_written"])

    assert len(sent) == 2, sent
    assert list(Author.objects.order_by("pk").values_list("name", "books_written")) == [
        (f"b{n}", 0) if n % 2 else (f"a{n}", n) for n in range(20)
    ]


def test_the_order_of_update_fields_does_not_matter() -> None:
    """Nor does whether they are a list, a tuple or a set, or name a column's attribute."""
    person = Person.objects.create(name="boss")
    Person.objects.bulk_create(Person(name=f"p{n}") for n in range(4))
    loaded = list(Person.objects.exclude(pk=person.pk).order_by("pk"))
    given: list[Any] = [["name", "boss"], ("boss", "name"), {"boss_id", "name"}, ["boss", "name"]]
    with statements() as sent, carpool.coalesce():
        for one, fields in zip(loaded, given, strict=True):
            one.name, one.boss = "n", person
            one.save(update_fields=fields)

    assert len(sent) == 1, sent
    assert Person.objects.filter(name="n", boss=person).count() == 4


@pytest.mark.parametrize(("fields", "levels"), [(None, 3), (["visits", "oven"], 2), (["oven"], 1)])
def test_an_inherited_object_is_a_statement_a_level(fields: list[str] | None, levels: int) -> None:
    """A pizzeria is a row in three tables."""
    for n in range(10):
        Pizzeria.objects.create(name=f"p{n}")
    loaded = list(Pizzeria.objects.order_by("pk"))
    with statements() as sent, carpool.coalesce():
        for n, pizzeria in enumerate(loaded):
            pizzeria.visits, pizzeria.stars, pizzeria.oven = n, n, f"o{n}"
            pizzeria.save(update_fields=fields)

    assert len(updates(sent)) == levels, sent
    assert len(sent) == levels
    changed = list(Pizzeria.objects.order_by("pk").values("visits", "stars", "oven"))
    for n, row in enumerate(changed):
        assert row["oven"] == f"o{n}"
        assert row["visits"] == (n if levels > 1 else 0)
        assert row["stars"] == (n if levels > 2 else 0)


def test_a_child_without_columns_of_its_own_changes_its_parent_only() -> None:
    """A car whose wheels stay is a change of the vehicle's row, where that is all there is."""
    for n in range(10):
        Car.objects.create(plate=f"p{n}")
    loaded = list(Car.objects.order_by("pk"))
    with statements() as sent, carpool.coalesce():
        for car in loaded:
            car.plate += " new"
            car.save(update_fields=["plate"])

    assert len(sent) == 1, sent
    assert [car.plate for car in Car.objects.order_by("pk")] == [f"p{n} new" for n in range(10)]


@pytest.mark.parametrize("fields", [None, ["holder"]], ids=["every column", "update_fields"])
def test_a_composite_key(fields: list[str] | None) -> None:
    """Loaded in the block, so that the rows are known to be there."""
    Seat.objects.bulk_create(Seat(row=row, number=n) for row in "ab" for n in range(10))
    with statements() as sent, carpool.coalesce():
        for n, seat in enumerate(Seat.objects.order_by("pk")):
            seat.holder = f"h{n}"
            seat.save(update_fields=fields)

    assert len(updates(sent)) == 1, sent
    assert len(sent) == 2
    assert [seat.holder for seat in Seat.objects.order_by("pk")] == [f"h{n}" for n in range(20)]


def test_deferred_columns_are_left_alone() -> None:
    """only() and defer() make save() change what was loaded, in a statement for each set."""
    Author.objects.bulk_create(Author(name=f"a{n}", books_written=n) for n in range(10))
    some = list(Author.objects.only("name").order_by("pk")[:5])
    others = list(Author.objects.defer("name").order_by("pk")[5:])
    Author.objects.update(name="meanwhile", books_written=77)
    with statements() as sent, carpool.coalesce():
        for author in some + others:
            author.save()

    assert len(sent) == 2, sent
    assert list(Author.objects.order_by("pk").values_list("name", "books_written")) == [
        *((f"a{n}", 77) for n in range(5)),
        *(("meanwhile", n) for n in range(5, 10)),
    ]


def test_a_row_saved_twice_is_changed_once() -> None:
    """One statement, with the last value of each column."""
    tag, other = tags(2)
    with statements() as sent, carpool.coalesce() as figures:
        for n in range(5):
            tag.uses = n
            tag.save(update_fields=["uses"])
        other.uses = 9
        other.save(update_fields=["uses"])
    assert len(sent) == 1, sent
    assert figures.queued == 6
    assert list(Tag.objects.order_by("word").values_list("uses", flat=True)) == [4, 9]


def test_a_row_saved_twice_with_other_columns_is_changed_once() -> None:
    """The columns of both."""
    Author.objects.create(name="a")
    author = Author.objects.get()
    with statements() as sent, carpool.coalesce():
        author.name = "b"
        author.save(update_fields=["name"])
        author.books_written = 3
        author.save(update_fields=["books_written"])
        author.books_written = 4
        author.save()
    assert len(sent) == 1, sent
    assert Author.objects.values_list("name", "books_written").get() == ("b", 4)


def test_two_objects_of_one_row() -> None:
    """Each writes what it has, in turn."""
    Author.objects.create(name="a")
    first, second = Author.objects.get(), Author.objects.get()
    with statements() as sent, carpool.coalesce():
        first.name, second.books_written = "first", 7
        first.save()
        second.save()
    assert len(sent) == 1, sent
    assert Author.objects.values_list("name", "books_written").get() == ("a", 7)


def test_a_queued_row_is_changed_in_the_queue() -> None:
    """A row whose INSERT is queued takes no UPDATE, whatever the way to save it again."""
    with statements() as sent, carpool.coalesce():
        tickets = [Ticket.objects.create(name=f"t{n}") for n in range(10)]
        for ticket in tickets:
            ticket.amount = 5
            ticket.save()
        for ticket in tickets:
            ticket.amount = 6
            ticket.save(update_fields=["amount"])
        for ticket in tickets:
            ticket.amount += 1
            ticket.save(force_update=True)
    assert not updates(sent), sent
    assert set(Ticket.objects.values_list("amount", flat=True)) == {7}


def test_changes_and_new_rows_share_a_block() -> None:
    """Existing rows that point at new ones, and new ones that point at them."""
    Person.objects.bulk_create(Person(name=f"p{n}") for n in range(10))
    loaded = list(Person.objects.order_by("pk"))
    with carpool.coalesce() as figures:
        for n, person in enumerate(loaded):
            person.boss = Person.objects.create(name=f"boss{n}", boss=loaded[n - 1])
            person.save()
    if connection.features.can_defer_constraint_checks:
        assert figures.flushes == 1
    for n, person in enumerate(Person.objects.filter(name__startswith="p").order_by("pk")):
        assert person.boss is not None
        assert person.boss.name == f"boss{n}"
        assert person.boss.boss == loaded[n - 1]


def test_a_long_block_writes_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue is bounded for changes, too."""
    monkeypatch.setattr("carpool.coalescing.queue.MOST_ROWS", 100)
    loaded = tags(250)
    with statements() as sent, carpool.coalesce() as figures:
        for tag in loaded:
            tag.uses = 1
            tag.save()
    assert len(updates(sent)) == 3
    assert figures.flushes == 3
    assert not figures.early
    assert Tag.objects.filter(uses=1).count() == 250


def test_asave_is_queued() -> None:
    """Called by async_to_sync() in the block."""
    loaded = tags(10)

    async def save(tag: Tag) -> None:
        tag.uses = 3
        await tag.asave(update_fields=["uses"])

    with statements() as sent, carpool.coalesce():
        for tag in loaded:
            async_to_sync(save)(tag)
    assert len(sent) == 1, sent
    assert Tag.objects.filter(uses=3).count() == 10


def test_other_databases_have_their_own_queue() -> None:
    """save(using=…) of a row that was loaded there."""
    Tag.objects.using("other").create(word="a")
    Tag.objects.using("default").create(word="a")
    one, two = Tag.objects.using("default").get(), Tag.objects.using("other").get()
    with carpool.coalesce(["default", "other"]) as figures:
        one.uses, two.uses = 1, 2
        one.save()
        two.save()
    assert figures.queued == 2
    assert Tag.objects.using("default").get().uses == 1
    assert Tag.objects.using("other").get().uses == 2


def test_a_row_from_another_database_is_made_here() -> None:
    """An object loaded there and saved here is looked for first, as ever."""
    Tag.objects.using("other").create(pk=77, word="a")
    tag = Tag.objects.using("other").get()
    with noting(Tag) as created, carpool.coalesce():
        tag.save(using="default")
    assert created == [True]
    assert Tag.objects.using("default").get().word == "a"


# Values.

NASTY = (
    "it's",
    'a "quote"',
    "100% %s %(a)s %%",
    "back\\slash \\' \\n",
    "line\nbreak\ttab\r",
    "\u2028 é 𝄞 ß İ",
    "",
    " spaces ",
    "NULL",
    "\\N",
    "$1 {} ? :a",
)
UTC = datetime.UTC
EAST = datetime.timezone(datetime.timedelta(hours=5, minutes=30))

#: Model, column and the values that its rows get.
VALUES: dict[str, tuple[type[models.Model], str, tuple[Any, ...]]] = {
    "short text": (Gadget, "name", NASTY),
    "text": (Gadget, "text", (*NASTY, "é\\'%" * 20_000, "x" * 40)),
    "JSON": (
        Gadget,
        "data",
        ({"a": [1, None, "x'\"\\%s"]}, [], {}, "text", 1.5, True, 0, {"é": "𝄞"}, [[{}]]),
    ),
    "JSON or NULL": (Gadget, "maybe", (None, {"b": None}, [None], None, "null")),
    "decimals": (
        Gadget,
        "price",
        tuple(
            map(
                decimal.Decimal,
                ("0", "0.0001", "-99999999.9999", "1E+3", "7", "1.5", "99999999.9999", "-0"),
            )
        ),
    ),
    "numbers for decimals": (Gadget, "price", (1, "2.5", decimal.Decimal("3.25"), 4)),
    "binary": (
        Gadget,
        "raw",
        (b"", bytes(range(256)), b"\x00\xff\\'%s", memoryview(b"view"), bytearray(b"array")),
    ),
    "durations": (
        Gadget,
        "length",
        (
            None,
            datetime.timedelta(0),
            datetime.timedelta(days=-3, microseconds=7),
            datetime.timedelta(days=40_000, hours=5, microseconds=999_999),
        ),
    ),
    "booleans": (Gadget, "flag", (None, True, False, 1, 0)),
    "booleans, NULL last": (Gadget, "flag", (True, None, False, None)),
    "dates": (
        Gadget,
        "day",
        (None, datetime.date(1000, 1, 1), datetime.date(9999, 12, 31), datetime.date(2024, 2, 29)),
    ),
    "floats": (Gadget, "small", (0.0, 0.1, -1 / 3, 1e22, 1.7e308, 2.3e-308, 3, -0.0, 1e-5)),
    "addresses": (Gadget, "address", (None, "10.0.0.1", "::1", "2001:db8::ff", None)),
    "date and time": (
        Stamped,
        "happened_at",
        (
            None,
            datetime.datetime(2001, 2, 3, tzinfo=UTC),
            datetime.datetime(2001, 2, 3, 4, 5, 6, 7, tzinfo=UTC),
            datetime.datetime(1970, 1, 1, 1, 2, 3, tzinfo=EAST),
            datetime.datetime(9999, 12, 30, 23, 59, 59, 999_999, tzinfo=UTC),
        ),
    ),
    "whole numbers": (Author, "books_written", (0, -1, 2**31 - 1, -(2**31), 1, True)),
    "keys by UUID": (Ticket, "amount", (1, 2, 3)),
    "keys with a converter": (Parcel, "name", NASTY),
    "given keys with a converter": (Mirror, "amount", (1, 2, 3)),
    "keys of text": (Country, "title", NASTY),
}


def store(model: type[models.Model], number: int) -> None:
    """Make rows of a model."""
    for n in range(number):
        given: dict[str, Any] = {"name": f"n{n}"}
        if model is Mirror or model is Country:
            given = {"code": f"k'{n}é%s"}
        if model is Ticket:
            given["id"] = uuid.UUID(int=n)
        model._default_manager.create(**given)


def stored(model: type[models.Model], column: str) -> list[Any]:
    rows = model._default_manager.order_by("pk").values_list(column, flat=True)
    return [bytes(value) if isinstance(value, memoryview) else value for value in rows]


@pytest.mark.parametrize("by_fields", [False, True], ids=["every column", "update_fields"])
@pytest.mark.parametrize("kind", VALUES)
def test_values_are_stored_as_a_loop_stores_them(kind: str, by_fields: bool) -> None:
    """Whichever comes first, and decides a list's types."""
    model, column, values = VALUES[kind]
    store(model, len(values))
    # Binary columns have SQL of their own around a value, so that they are not queued.
    others = [f.name for f in model._meta.concrete_fields if f.name != "raw" and not f.primary_key]
    fields = [column] if by_fields else others if model is Gadget and column != "raw" else None

    def change(given: list[Any]) -> None:
        for row, value in zip(model._default_manager.order_by("pk"), given, strict=True):
            setattr(row, column, value)
            row.save(update_fields=fields)

    for turned in range(len(values)):
        given = [*values[turned:], *values[:turned]]
        change(given)
        expected = stored(model, column)
        change(given[1:] + given[:1])
        with statements() as sent, carpool.coalesce():
            change(given)
        assert len(updates(sent)) == 1 or column == "raw", sent
        found = stored(model, column)
        assert found == expected
        assert [str(value) for value in found] == [str(value) for value in expected]


def test_foreign_keys_of_every_kind() -> None:
    """To a UUID, to a key with a converter, to NULL and back."""
    tickets = [Ticket.objects.create(name=f"t{n}") for n in range(3)]
    parcels = [Parcel.objects.create(name=f"p{n}") for n in range(3)]
    stubs = [TicketStub.objects.create(name="s", ticket=tickets[0]) for _ in range(3)]
    stickers = [Sticker.objects.create(name="s", parcel=parcels[0]) for _ in range(3)]
    people = [Person.objects.create(name=f"p{n}") for n in range(3)]
    for person in people[:2]:
        person.boss = people[2]
        person.save()
    with statements() as sent, carpool.coalesce():
        for n in range(3):
            stubs[n].ticket, stickers[n].parcel = tickets[n], parcels[n]
            people[n].boss = None if n == 1 else people[1]
            stubs[n].save()
            stickers[n].save()
            people[n].save()
    assert len(updates(sent)) == 3, sent
    assert [s.ticket for s in TicketStub.objects.order_by("pk")] == tickets
    assert [s.parcel for s in Sticker.objects.order_by("pk")] == parcels
    assert [p.boss for p in Person.objects.order_by("pk")] == [people[1], None, people[1]]


@pytest.mark.parametrize("fields", [None, ["name"]], ids=["every column", "update_fields"])
@pytest.mark.parametrize("first", ["x", "x" * 41], ids=["short first", "long first"])
@pytest.mark.only_on("postgresql", "mysql")
def test_a_text_too_long_is_refused(first: str, fields: list[str] | None) -> None:
    """Not cut, wherever in the list it is."""
    Author.objects.bulk_create(Author(name=f"a{n}") for n in range(3))
    loaded = list(Author.objects.order_by("pk"))
    with pytest.raises(DatabaseError), carpool.coalesce():
        for author, name in zip(loaded, [first, "y" * 41, "z"], strict=True):
            author.name = name
            author.save(update_fields=fields)
    assert [a.name for a in Author.objects.order_by("pk")] == ["a0", "a1", "a2"]


class FixedField(models.CharField):  # type: ignore[type-arg]
    """A column of a type whose length, left out, means one."""

    def db_type(self, connection: Any) -> str:
        return f"char({self.max_length})"


@contextmanager
def table_of(model: type[models.Model]) -> Iterator[None]:
    """Make a model's table for the block."""
    with connection.schema_editor() as editor:
        editor.create_model(model)
    try:
        yield
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(model)


@isolate_apps("tests.app")
def test_a_type_of_ones_own_keeps_its_length() -> None:
    """``char(5)`` is no ``char``."""

    class Fixed(models.Model):
        text = FixedField(max_length=5)

        class Meta:
            app_label = "app"

    with table_of(Fixed):
        for n in range(3):
            Fixed.objects.create(text=f"t000{n}")
        with carpool.coalesce():
            for row in Fixed.objects.order_by("pk"):
                row.text = row.text.replace("t", "x")
                row.save()
        assert list(Fixed.objects.order_by("pk").values_list("text", flat=True)) == [
            "x0000",
            "x0001",
            "x0002",
        ]


def test_dates_that_pre_save_sets() -> None:
    """auto_now is set at each save(), auto_now_add kept; the instance has what is stored."""
    for n in range(5):
        Stamped.objects.create(name=f"s{n}")
    past = timezone.now() - datetime.timedelta(days=9)
    Stamped.objects.update(created_at=past, changed_at=past)
    loaded = list(Stamped.objects.order_by("pk"))
    with carpool.coalesce():
        for n, stamped in enumerate(loaded):
            stamped.amount = n
            stamped.save(update_fields=["amount"] if n == 4 else None)
    for n, stamped in enumerate(Stamped.objects.order_by("pk")):
        assert stamped.amount == n
        assert stamped.created_at == past
        assert (stamped.changed_at > past) == (n != 4)
        assert stamped.changed_at == loaded[n].changed_at
        assert stamped.changed_time == loaded[n].changed_time


def test_what_is_changed_after_the_save_is_stored_as_it_was() -> None:
    """A value is taken at the save()."""
    for n in range(2):
        Gadget.objects.create(name=f"g{n}")
    one, two = Gadget.objects.order_by("pk")
    raw = bytearray(b"before")
    with carpool.coalesce():
        one.data, one.raw = {"a": [1]}, raw
        one.save()
        two.save()
        one.data["a"].append(2)
        raw[:] = b"after!"
    one.refresh_from_db()
    assert one.data == {"a": [1]}
    assert bytes(one.raw) == b"before"


# Rows that aren't there.


def gone(number: int = 3) -> list[Stamped]:
    """Load rows, the middle one of which somebody else deletes."""
    past = timezone.now() - datetime.timedelta(days=9)
    for n in range(number):
        Stamped.objects.create(name=f"s{n}")
    Stamped.objects.update(created_at=past)
    loaded = list(Stamped.objects.order_by("pk"))
    Stamped.objects.filter(pk=loaded[1].pk).delete()
    return loaded


@pytest.mark.parametrize("how", [{"update_fields": ["amount"]}, {"force_update": True}])
def test_a_row_that_must_be_there_and_is_not(how: dict[str, Any]) -> None:
    """The error is Django's, word for word, at the flush."""
    loaded = gone()
    error: type[Exception] = getattr(Stamped, "NotUpdated", DatabaseError)
    with pytest.raises(error) as plain, transaction.atomic():
        loaded[1].save(**how)
    saved = []
    with pytest.raises(error) as coalesced, carpool.coalesce():
        for stamped in loaded:
            stamped.amount = 5
            stamped.save(**how)
            saved.append(stamped)
    assert len(saved) == 3
    assert type(coalesced.value) is type(plain.value)
    assert str(coalesced.value) == str(plain.value)
    assert not Stamped.objects.filter(amount=5).exists()


@pytest.mark.parametrize("how", [{"update_fields": ["amount"]}, {"force_update": True}])
def test_an_inner_atomic_meets_the_missing_row(how: dict[str, Any]) -> None:
    """Where Django code may catch it."""
    loaded = gone()
    with carpool.coalesce():
        for stamped in loaded:
            stamped.amount = 5
            try:
                with transaction.atomic():
                    stamped.save(**how)
            except DatabaseError:
                assert stamped is loaded[1]
            else:
                assert stamped is not loaded[1]
    assert [s.amount for s in Stamped.objects.all()] == [5, 5]


def test_a_vanished_row_is_inserted() -> None:
    """With its key, and with auto_now_add set anew, as save() does."""
    loaded = gone()
    before = timezone.now()
    with carpool.coalesce():
        for n, stamped in enumerate(loaded):
            stamped.amount = n
            stamped.save()
    found = list(Stamped.objects.order_by("pk"))
    assert [s.pk for s in found] == [s.pk for s in loaded]
    assert [s.amount for s in found] == [0, 1, 2]
    assert [s.created_at >= before for s in found] == [False, True, False]
    assert found[1].created_at == loaded[1].created_at


def test_a_vanished_child_is_inserted() -> None:
    """All levels of it, or the last."""
    for n in range(3):
        Restaurant.objects.create(name=f"r{n}")
    loaded = list(Restaurant.objects.order_by("pk"))
    Restaurant.objects.filter(pk=loaded[0].pk).delete()
    Restaurant.objects.get(pk=loaded[1].pk).delete(keep_parents=True)
    with carpool.coalesce():
        for restaurant in loaded:
            restaurant.visits = restaurant.stars = 5
            restaurant.save()
    assert list(Restaurant.objects.order_by("pk").values_list("pk", "visits", "stars")) == [
        (r.pk, 5, 5) for r in loaded
    ]


@pytest.mark.parametrize("by", ["instance", "queryset", "cascade", "raw"])
def test_after_a_delete_in_the_block_created_is_right(by: str) -> None:
    """Whatever deletes: from then on each save() of the table is sent at its place."""
    authors = [Author.objects.create(name=f"a{n}") for n in range(3)]
    for author in authors:
        Book.objects.create(name=author.name, author=author)
    loaded = list(Book.objects.order_by("pk"))
    with noting(Book) as created, carpool.coalesce():
        if by == "instance":
            Book.objects.get(pk=loaded[1].pk).delete()
        elif by == "queryset":
            Book.objects.filter(name="a1").delete()
        elif by == "cascade":
            key = authors[1].pk
            authors[1].delete()
            Author(pk=key, name="again").save()
        else:
            with connection.cursor() as cursor:
                cursor.execute(f"DELETE FROM {Book._meta.db_table} WHERE name = 'a1'")
        for book in loaded:
            book.pages = 7
            book.save()
    assert created == [False, True, False]
    assert Book.objects.filter(pages=7).count() == 3


def test_after_a_rolled_back_savepoint_created_is_right() -> None:
    """The row was made in it, and is no more."""
    with noting(Ticket) as created, carpool.coalesce():
        with transaction.atomic():
            ticket = Ticket.objects.create(name="t")
            Ticket.objects.count()
            transaction.set_rollback(True)
        ticket.amount = 5
        ticket.save()
    assert created == [True, True]
    assert Ticket.objects.get().amount == 5


def test_a_rolled_back_savepoint_takes_its_changes_back() -> None:
    """Only its own; what came before is written, what comes after too."""
    one, two, three = tags(3)
    with carpool.coalesce():
        one.uses = 1
        one.save()
        with transaction.atomic():
            one.uses = two.uses = 2
            one.save()
            two.save()
            transaction.set_rollback(True)
        three.uses = 3
        three.save()
    assert [tag.uses for tag in Tag.objects.order_by("word")] == [1, 0, 3]


def test_an_object_with_a_key_of_ones_own() -> None:
    """Made, not loaded; with update_fields it changes a row, or there is an error."""
    loaded = tags(3)
    with statements() as sent, carpool.coalesce():
        for n, tag in enumerate(loaded):
            Tag(pk=tag.pk, uses=n).save(update_fields=["uses"])
    assert len(sent) == 1, sent
    assert [tag.uses for tag in Tag.objects.order_by("word")] == [0, 1, 2]
    with pytest.raises(DatabaseError), carpool.coalesce():
        Tag(pk=loaded[-1].pk + 1000, uses=1).save(update_fields=["uses"])


def test_an_object_with_a_key_of_ones_own_and_no_more() -> None:
    """save() of such a one is an UPDATE where the row is there, else an INSERT."""
    loaded = tags(2)
    with noting(Tag) as created, carpool.coalesce():
        Tag(pk=loaded[0].pk, word="mine").save()
        Tag(pk=loaded[1].pk + 1000, word="new").save()
    assert created == [False, True]
    assert [tag.word for tag in Tag.objects.order_by("pk")] == ["mine", "w0001", "new"]


def test_a_key_that_is_changed_makes_another_row() -> None:
    """As save() has it."""
    Country.objects.create(code="a", title="A")
    with noting(Country) as created, carpool.coalesce():
        country = Country.objects.get()
        country.title = "first"
        country.save()
        country.code = "b"
        country.save()
        country.title = "second"
        country.save()
    assert created == [False, True, False]
    assert dict(Country.objects.values_list("code", "title")) == {"a": "first", "b": "second"}


def test_a_generated_key_that_is_changed_makes_another_row() -> None:
    """Likewise where the database makes the keys."""
    (tag,) = tags(1)
    old = tag.pk
    with carpool.coalesce():
        tag.uses = 1
        tag.save()
        tag.pk, tag.word = old + 1000, "copy"
        tag.save()
    assert dict(Tag.objects.values_list("pk", "word")) == {old: "w0000", old + 1000: "copy"}


@pytest.mark.only_on("mysql")
@pytest.mark.parametrize("codes", ["aA", "Aa", "áa", "aá"])
def test_keys_that_a_collation_holds_equal(codes: str) -> None:
    """They name one row, and the last word is the later one's."""
    Country.objects.create(code="a")
    with carpool.coalesce():
        Country(code=codes[0], title="first").save(update_fields=["title"])
        Country(code=codes[1], title="second").save(update_fields=["title"])
    assert Country.objects.get().title == "second"


@pytest.mark.parametrize("fields", [None, ["amount"]], ids=["every column", "update_fields"])
def test_a_change_after_a_change_of_the_key_by_update(fields: list[str] | None) -> None:
    """A queryset moves the row from under the object."""
    Mirror.objects.create(code="ab")
    with carpool.coalesce():
        mirror = Mirror.objects.get()
        mirror.amount = 1
        mirror.save(update_fields=fields)
        Mirror.objects.filter(code="ab").update(code="xy")
        mirror.amount = 2
        if fields:
            with pytest.raises(DatabaseError), transaction.atomic():
                mirror.save(update_fields=fields)
        else:
            mirror.save()
    expected = {"xy": 1} if fields else {"xy": 1, "ab": 2}
    assert dict(Mirror.objects.values_list("code", "amount")) == expected


# Unique values.


def accounts(number: int) -> list[Account]:
    """Store rows whose e-mail is unique."""
    Account.objects.bulk_create(
        Account(name=f"n{n}", email=f"e{n}", number=n) for n in range(number)
    )
    return list(Account.objects.order_by("pk"))


@pytest.mark.parametrize("fields", [None, ["email"]], ids=["every column", "update_fields"])
def test_swapped_values(fields: list[str] | None) -> None:
    """By way of a third, as in a loop."""
    one, two, other = accounts(3)
    with carpool.coalesce():
        one.email = "for the moment"
        one.save(update_fields=fields)
        two.email = "e0"
        two.save(update_fields=fields)
        one.email = "e1"
        one.save(update_fields=fields)
        other.name = "changed"
        other.save()
    assert [a.email for a in Account.objects.order_by("pk")] == ["e1", "e0", "e2"]


@pytest.mark.parametrize("fields", [None, ["email"]], ids=["every column", "update_fields"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_value_that_another_has_given_up(turned: bool, fields: list[str] | None) -> None:
    """A chain of them, whichever way the keys run."""
    loaded = accounts(50)
    if turned:
        loaded.reverse()
    taken = [account.email for account in loaded]
    with carpool.coalesce():
        for account, email in zip(loaded, ["new", *taken], strict=False):
            account.email = email
            account.save(update_fields=fields)
    for account, email in zip(loaded, ["new", *taken], strict=False):
        assert Account.objects.get(pk=account.pk).email == email


def test_a_new_row_takes_what_another_has_given_up() -> None:
    """And an old row what a deleted one had."""
    one, two, three = accounts(3)
    with carpool.coalesce():
        one.email = "new"
        one.save()
        Account.objects.create(name="n", email="e0", number=9)
        two.delete()
        three.email = "e1"
        three.save()
    assert set(Account.objects.values_list("email", flat=True)) == {"new", "e0", "e1"}


@pytest.mark.parametrize("fields", [None, ["email"]], ids=["every column", "update_fields"])
def test_a_change_that_a_loop_refuses_is_refused(fields: list[str] | None) -> None:
    """Two rows swap without a third: at the first of them the value is taken still."""
    one, two, _ = accounts(3)
    with pytest.raises(IntegrityError), carpool.coalesce():
        one.email = "e1"
        one.save(update_fields=fields)
        two.email = "e0"
        two.save(update_fields=fields)
    assert [a.email for a in Account.objects.order_by("pk")] == ["e0", "e1", "e2"]


@pytest.mark.parametrize("turned", [False, True])
def test_a_value_taken_too_early_is_refused(turned: bool) -> None:
    """Its owner gives it up, but only afterwards."""
    loaded = accounts(2)
    if turned:
        loaded.reverse()
    one, two = loaded
    with pytest.raises(IntegrityError), carpool.coalesce():
        one.email = two.email
        one.save()
        two.email = "new"
        two.save()


def test_a_value_that_was_mended_in_time_is_refused_all_the_same() -> None:
    """A loop would have met the error at the first save()."""
    one, two = accounts(2)
    with pytest.raises(IntegrityError), carpool.coalesce():
        one.email = two.email
        one.save()
        one.email = "free"
        one.save()
    with pytest.raises(IntegrityError), carpool.coalesce():
        one.email = "free"
        one.balance = -1
        one.save()
        one.balance = 1
        one.save()


def test_columns_that_are_unique_together() -> None:
    """Rows that pass each other's pairs of values."""
    loaded = accounts(20)
    with carpool.coalesce():
        for account in reversed(loaded):
            account.number += 1
            account.save()
        for account in loaded:
            account.region = "south"
            account.save(update_fields=["region"])
            account.number -= 1
            account.save(update_fields=["number"])
    assert [(a.region, a.number) for a in Account.objects.order_by("pk")] == [
        ("south", n) for n in range(20)
    ]


@pytest.mark.only_on("postgresql")
def test_a_table_that_was_empty_when_it_was_vacuumed() -> None:
    """PostgreSQL takes it for a single row, and would scan it for each row of itself."""
    tags(2000)
    Tag.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute(f"VACUUM (TRUNCATE OFF) {Tag._meta.db_table}")
    loaded = tags(2000)

    def rows_read() -> int:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables "
                "WHERE relname = %s",
                [Tag._meta.db_table],
            )
            return int(cursor.fetchall()[0][0])

    with carpool.coalesce():
        before = rows_read()
        for tag in loaded[:20]:
            tag.uses = 5
            tag.save()
        assert 40 <= rows_read() - before <= 40 + len(loaded)
    assert Tag.objects.filter(uses=5).count() == 20


def test_a_change_that_is_refused_before_a_savepoint_of_another_block_is() -> None:
    """The block that catches the error can't undo it; the block that it is of ends with it."""
    Author.objects.create(name="a")
    with pytest.raises(DatabaseError, match="did not affect"), carpool.coalesce():
        Tag.objects.create(word="before")
        assert Tag.objects.count() == 1  # written: a new row would not wait for the savepoint
        author = Author.objects.get(name="a")
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute(f"DELETE FROM {Author._meta.db_table}")  # as another program would
        author.name = "b"
        author.save(update_fields=["name"])
        with pytest.raises(DatabaseError, match="did not affect"), transaction.atomic():
            Tag.objects.create(word="inner")
            list(Tag.objects.all())
        assert not connection.needs_rollback
        with pytest.raises(DatabaseError, match="rows were refused"):
            Tag.objects.create(word="after")
    assert not Tag.objects.exists()


@pytest.mark.only_on("sqlite", "postgresql")  # MariaDB's JSON columns are written at once
def test_changes_of_queued_rows_count_as_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small they were when they were queued."""
    monkeypatch.setattr(queue, "MOST_BYTES", 80_000)
    with carpool.coalesce() as figures:
        objects = [Gadget(name="g") for _ in range(20)]
        for one in objects:
            one.save()
        before = figures.flushes
        for one in objects:
            one.text = "x" * 10_000
            one.save()
        assert figures.flushes >= before + 2
        Gadget.objects.filter(pk=objects[0].pk).update(text="")
    assert Gadget.objects.exclude(text="").count() == 19


# Locks.


@pytest.mark.only_on("postgresql", "mysql")
@pytest.mark.parametrize("fields", [None, ["uses"]], ids=["every column", "update_fields"])
def test_two_blocks_that_change_the_same_rows_wait_for_each_other(
    fields: list[str] | None,
) -> None:
    """Rows are locked in the order of their keys, whatever the order in which they are saved."""
    loaded = tags(200)
    errors: list[Exception] = []
    start = threading.Barrier(2)

    def change(order: list[int]) -> None:
        try:
            mine = list(Tag.objects.order_by("word"))
            for turn in range(8):
                start.wait(HANG)
                with carpool.coalesce():
                    for number in order:
                        mine[number].uses = turn
                        mine[number].save(update_fields=fields)
        except Exception as error:
            errors.append(error)
            start.abort()
        finally:
            connections.close_all()

    forth = list(range(len(loaded)))
    threads = [threading.Thread(target=change, args=[order]) for order in (forth, forth[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert set(Tag.objects.values_list("uses", flat=True)) == {7}


# The barrier.


def test_a_query_for_another_row_does_not_flush() -> None:
    """By key; a query for the row itself does, and sees the new value."""
    one, two = tags(2)
    with carpool.coalesce() as figures:
        one.uses = 5
        one.save()
        assert Tag.objects.get(pk=two.pk).uses == 0
        assert not figures.early
        assert Tag.objects.get(pk=one.pk).uses == 5
        assert figures.early.total() == 1


READS: dict[str, Callable[[Tag], Any]] = {
    "the old word": lambda tag: Tag.objects.filter(word="w0000").exists(),
    "the new word": lambda tag: Tag.objects.filter(word="new").exists(),
    "a count": lambda tag: Tag.objects.filter(uses=5).count(),
    "refresh": lambda tag: tag.refresh_from_db(),
    "another's": lambda tag: Tag.objects.filter(word="w0001").update(uses=9),
    "all rows": lambda tag: Tag.objects.update(uses=F("uses") + 1),
    "a join": lambda tag: Book.objects.filter(tags__word="new").count(),
    "a subquery": lambda tag: Author.objects.filter(pk__in=Tag.objects.values("uses")).count(),
    "raw": lambda tag: list(Tag.objects.raw(f"SELECT * FROM {Tag._meta.db_table}")),
}


@pytest.mark.parametrize("way", READS)
def test_whatever_may_read_the_row_sees_the_change(way: str) -> None:
    """The word it had, too, is a reason to write it first."""
    one, _ = tags(2)
    with carpool.coalesce() as figures:
        one.word, one.uses = "new", 5
        one.save()
        READS[way](one)
        assert figures.early.total() == 1
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT COUNT(*) FROM {Tag._meta.db_table} WHERE word = 'new'")
            assert cursor.fetchone() == (1,)


FINDS: dict[str, Callable[[], Any]] = {
    "union": lambda: Tag.objects.filter(word="no").union(Tag.objects.filter(word="w0000")).get(),
    "difference": lambda: (
        Tag.objects.filter(uses=0).difference(Tag.objects.filter(word="w0001")).get()
    ),
    "or": lambda: Tag.objects.filter(models.Q(word="no") | models.Q(word="w0000")).get(),
    "in": lambda: Tag.objects.filter(word__in=["no", "w0000"]).get(),
    "not": lambda: Tag.objects.exclude(word="w0001").get(),
    "raw": lambda: Tag.objects.raw(f"SELECT * FROM {Tag._meta.db_table} ORDER BY word")[0],
    "annotated": lambda: Tag.objects.annotate(n=F("uses")).get(n=0, word__lt="w0001"),
    "deferred": lambda: Tag.objects.only("uses").get(word="w0000"),
}


@pytest.mark.parametrize("way", FINDS)
def test_whatever_found_the_row_it_is_written_before_it_is_looked_for(way: str) -> None:
    """What a query has asked for is not always what the row has."""
    tags(2)
    with carpool.coalesce():
        tag = FINDS[way]()
        tag.uses = 5
        tag.save(update_fields=["uses"])
        assert Tag.objects.get(word="w0000").uses == 5
        tag.uses = 6
        tag.save(update_fields=["uses"])
        assert Tag.objects.filter(word__in=["other", "w0000"]).get().uses == 6


def test_sql_of_ones_own_that_moves_a_row() -> None:
    """An UPDATE by a cursor may change a key: save() is told that its row is no more."""
    Country.objects.create(code="a")
    with noting(Country) as created, carpool.coalesce():
        country = Country.objects.get()
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE {Country._meta.db_table} SET code = 'b'")
        country.title = "new"
        country.save()
    assert created == [True]
    assert dict(Country.objects.values_list("code", "title")) == {"a": "new", "b": ""}


@pytest.mark.parametrize("how", ["get", "update_or_create"])
def test_a_row_found_by_a_unique_value_is_known_by_it(how: str) -> None:
    """Looking for another by that column doesn't flush; looking for it does."""
    tags(3)
    with carpool.coalesce() as figures:
        if how == "get":
            one = Tag.objects.get(word="w0000")
            one.uses = 1
            one.save()
        else:
            Tag.objects.update_or_create(word="w0000", defaults={"uses": 1})
        Tag.objects.get(word="w0001")
        assert not figures.early
        assert Tag.objects.get(word="w0000").uses == 1
        assert figures.early.total() == 1


def test_a_row_that_was_found_by_one_value_and_has_another() -> None:
    """Both are reasons to write it."""
    tags(3)
    for asked, found in (("w0000", False), ("new", True)):
        with carpool.coalesce() as figures:
            one = Tag.objects.get(word="w0000")
            one.word = "new"
            one.save()
            Tag.objects.get(word="w0001")
            assert not figures.early
            assert Tag.objects.filter(word=asked).exists() == found
            assert figures.early.total() == 1
        Tag.objects.filter(word="new").update(word="w0000")


def test_update_or_create_keeps_its_batch() -> None:
    """Two hundred rows that are there."""
    tags(200)
    with statements() as sent, carpool.coalesce():
        for n in range(200):
            Tag.objects.update_or_create(word=f"w{n:04}", defaults={"uses": n})
    assert 1 <= len(updates(sent)) <= 2
    assert sum("SELECT" in sql for sql in sent) >= 200
    assert [tag.uses for tag in Tag.objects.order_by("word")] == list(range(200))


def test_update_or_create_of_old_and_new_rows() -> None:
    """Half of them are there; each comes twice."""
    tags(20)
    with carpool.coalesce():
        made = [
            Tag.objects.update_or_create(word=f"w{n % 40:04}", defaults={"uses": n})[1]
            for n in range(80)
        ]
    assert made == [False] * 20 + [True] * 20 + [False] * 40
    assert [tag.uses for tag in Tag.objects.order_by("word")] == list(range(40, 80))


def test_get_change_save_or_else_create_keeps_its_batch() -> None:
    """The import that everybody writes, over rows of which half are there."""
    tags(100)
    with statements() as sent, carpool.coalesce() as figures:
        for n in range(200):
            word = f"w{n:04}"
            try:
                tag = Tag.objects.get(word=word)
            except Tag.DoesNotExist:
                Tag.objects.create(word=word, uses=n)
            else:
                tag.uses = n
                tag.save()
    assert len(updates(sent)) == 1 + sum("sqlite_sequence" in sql for sql in updates(sent)), sent
    assert not figures.early
    assert [tag.uses for tag in Tag.objects.order_by("word")] == list(range(200))


def test_an_update_of_a_queryset_beside_queued_changes() -> None:
    """It comes in its turn, and counts its rows."""
    loaded = tags(4)
    with carpool.coalesce():
        for tag in loaded:
            tag.uses = 1
            tag.save()
        assert Tag.objects.filter(uses=1).update(uses=F("uses") + 1) == 4
        loaded[0].uses = 10
        loaded[0].save()
        assert Tag.objects.filter(pk=loaded[0].pk).update(uses=F("uses") + 1) == 1
        assert Tag.objects.filter(pk=loaded[1].pk).update(uses=20) == 1
        assert Tag.objects.bulk_update(loaded[2:], ["uses"]) == 2
    assert [tag.uses for tag in Tag.objects.order_by("word")] == [11, 20, 1, 1]


# Deleting.


def test_deleting_an_object_whose_change_is_queued() -> None:
    """And its neighbours keep theirs."""
    authors = [Author.objects.create(name=f"a{n}") for n in range(4)]
    books = [Book.objects.create(name=a.name, author=a) for a in authors]
    with carpool.coalesce():
        for book in books:
            book.pages = 5
            book.save()
        for author in authors:
            author.name = "new"
            author.save()
        assert books[0].delete()[0] == 1
        assert authors[1].delete()[0] == 2
        assert Book.objects.filter(pages=5, author=authors[2]).delete()[0] == 1
    assert list(Book.objects.values_list("author", "pages")) == [(authors[3].pk, 5)]
    assert sorted(Author.objects.values_list("name", flat=True)) == ["new"] * 3


@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
def test_a_run_of_delete(executor: Any) -> None:
    """``run(Author.delete, queryset)``: cascades, and signals for each row of it."""
    for n in range(10):
        author = Author.objects.create(name=f"a{n}")
        Profile.objects.create(author=author)
        Book.objects.create(name=f"b{n}", author=author)
    rows = Author.objects.filter(name__lt="a7")
    report = carpool.run(Author.delete, rows, executor=executor, chunk_size=4, progress=False)
    report.raise_for_failures()
    assert report.succeeded == 7
    assert sorted(Author.objects.values_list("name", flat=True)) == ["a7", "a8", "a9"]
    assert Book.objects.count() == Profile.objects.count() == 3


# What is sent at once.


def test_expressions_are_sent_at_their_place() -> None:
    """The database reckons, and the next query sees it."""
    loaded = tags(3)
    with carpool.coalesce():
        for tag in loaded:
            tag.uses = 4
            tag.save()
            tag.uses = F("uses") + 1
            tag.save()
            tag.refresh_from_db()
            assert tag.uses == 5
            tag.uses += 1
            tag.save(update_fields=["uses"])
    assert {tag.uses for tag in Tag.objects.all()} == {6}


def test_select_on_save() -> None:
    """It asks first, and so is told."""
    Selected.objects.bulk_create(Selected(name=f"s{n}") for n in range(3))
    loaded = list(Selected.objects.order_by("pk"))
    Selected.objects.filter(pk=loaded[1].pk).delete()
    with noting(Selected) as created, carpool.coalesce():
        for selected in loaded:
            selected.amount = 5
            selected.save()
    assert created == [False, True, False]
    assert Selected.objects.filter(amount=5).count() == 3


@pytest.mark.parametrize("how", [{"force_update": True}, {"update_fields": ["amount"]}], ids=str)
def test_select_on_save_is_never_queued(how: dict[str, Any]) -> None:
    """Its model says that the count of updated rows is not to be trusted: each goes by itself.

    So Django's queryset, which somebody may have replaced, is asked.
    """
    Selected.objects.bulk_create(Selected(name=f"s{n}") for n in range(3))
    loaded = list(Selected.objects.all())
    with statements() as sent, carpool.coalesce():
        for selected in loaded:
            selected.amount = 5
            selected.save(**how)
    assert len([sql for sql in sent if sql.startswith("UPDATE")]) == 3


@pytest.mark.parametrize("fields", [None, ["width"]], ids=["every column", "update_fields"])
def test_columns_that_the_database_computes(fields: list[str] | None) -> None:
    """They follow, and the instance has them where Django brings them back."""
    if not connection.features.supports_stored_generated_columns:
        pytest.skip("no generated columns")
    for n in range(3):
        Box.objects.create(name=f"b{n}", height=2)
    loaded = list(Box.objects.order_by("pk"))
    with carpool.coalesce():
        for n, box in enumerate(loaded):
            box.width = n
            box.save(update_fields=fields)
    assert [box.area for box in Box.objects.order_by("pk")] == [0, 2, 4]
    for n, box in enumerate(loaded):
        box.refresh_from_db()
        assert box.area == 2 * n


def test_rows_that_the_default_manager_hides() -> None:
    """save() goes by the base manager."""
    Article.everything.bulk_create(Article(name=f"a{n}", hidden=True) for n in range(3))
    loaded = list(Article.everything.order_by("pk"))
    with noting(Article) as created, carpool.coalesce():
        for article in loaded:
            article.text = "new"
            article.save()
    assert created == [False] * 3
    assert Article.everything.filter(text="new").count() == 3


class Hiding(models.Manager[Any]):
    """What save() doesn't see, it makes."""

    def get_queryset(self) -> models.QuerySet[Any]:
        return super().get_queryset().filter(hidden=False)


@isolate_apps("tests.app")
def test_a_base_manager_of_ones_own() -> None:
    """Rows that it hides can't be updated by save(), and that is told at once."""

    class Half(models.Model):
        word = models.CharField(max_length=40)
        hidden = models.BooleanField(default=False)
        rows: Any = models.Manager()
        objects = Hiding()

        class Meta:
            app_label = "app"
            base_manager_name = "objects"

    with table_of(Half):
        Half.rows.create(word="seen")
        Half.rows.create(word="hidden", hidden=True)
        seen, hidden = Half.rows.order_by("pk")
        with carpool.coalesce():
            seen.word = "new"
            seen.save(update_fields=["word"])
            with pytest.raises(DatabaseError, match="did not affect"), transaction.atomic():
                hidden.save(update_fields=["word"])
        assert [half.word for half in Half.rows.order_by("pk")] == ["new", "hidden"]


@isolate_apps("tests.app")
def test_a_class_with_an_update_of_its_own() -> None:
    """``_do_update()``, as packages for locking have it: it is called, and answers."""

    class Locked(models.Model):
        word = models.CharField(max_length=40)
        version = models.IntegerField(default=0)

        class Meta:
            app_label = "app"

        def _do_update(self, base_qs: Any, *arguments: Any, **options: Any) -> Any:
            found = base_qs.filter(version=self.version)
            return super()._do_update(found, *arguments, **options)  # type: ignore[misc]

    with table_of(Locked):
        row = Locked.objects.create(word="a")
        with carpool.coalesce():
            row.word = "b"
            row.save(update_fields=["word"])
            row.version = 5
            with pytest.raises(DatabaseError, match="did not affect"), transaction.atomic():
                row.save(update_fields=["word"])
        assert Locked.objects.get().word == "b"


def test_an_order_with_respect_to_a_parent() -> None:
    """Its column is asked for; the rest is right."""
    course = Course.objects.create(name="c")
    for n in range(3):
        Lesson.objects.create(name=f"l{n}", course=course)
    with carpool.coalesce():
        for lesson in course.lessons.all():
            lesson.name += " new"
            lesson.save()
        course.set_lesson_order(list(course.get_lesson_order())[::-1])
    assert [lesson.name for lesson in course.lessons.all()] == ["l2 new", "l1 new", "l0 new"]


def test_no_columns_at_all() -> None:
    """update_fields without a name does nothing; a child without columns looks for its row."""
    (tag,) = tags(1)
    with statements() as sent, carpool.coalesce():
        tag.uses = 3
        tag.save(update_fields=[])
    assert not sent
    place = Place.objects.create(name="p")
    with pytest.raises(ValueError, match="not exist"), carpool.coalesce():
        place.save(update_fields=["nothing"])  # type: ignore[misc]


def test_a_change_sent_at_once_waits_for_what_makes_room_for_it() -> None:
    """An UPDATE that can't be queued meets the unique columns as they are by then."""
    first = Account.objects.create(name="a", email="a", number=1)
    second = Account.objects.create(name="b", email="b", number=2)

    with carpool.coalesce():
        first.number = 3
        first.save(update_fields=["number"])
        second.number = F("number") - 1
        second.save(update_fields=["number"])

    assert sorted(Account.objects.values_list("pk", "number")) == [(first.pk, 3), (second.pk, 1)]
