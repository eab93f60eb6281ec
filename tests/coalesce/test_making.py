"""A block changes nothing that Python can see of how instances are made and saved.

For its time quicker methods are in the place of `Model.__init__`, `Model.save` and the managers'
`create()`. Each situation here is run with and without a block (see `witness`).
"""

from __future__ import annotations

import copy
import inspect
import pickle
import pydoc
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, time
from typing import Any
from unittest import mock
from uuid import UUID

import django
import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.core.files.base import ContentFile
from django.db import IntegrityError, connections, models, transaction
from django.db.models.base import DEFERRED
from django.db.models.query_utils import DeferredAttribute
from django.db.models.signals import post_init, post_save, pre_init, pre_save

import carpool
from carpool.coalescing.making import Maker, owner_of_create
from carpool.coalescing.plans import Plan
from tests.app.models import (
    Amphibian,
    Article,
    AuditLine,
    Author,
    Book,
    Box,
    Country,
    Document,
    Echo,
    Gadget,
    Kiosk,
    Lesson,
    Membership,
    Novel,
    Parcel,
    Person,
    Picture,
    Pizzeria,
    Place,
    Priced,
    Profile,
    Purchase,
    Remark,
    Restaurant,
    Seat,
    Selected,
    Slugged,
    Stamped,
    Tag,
    Ticket,
    Town,
)
from tests.app.models.base import Named
from tests.coalesce.witness import BOTH, Situation, Witness, assert_same

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.usefixtures("nobody_reads_an_authors_key"),
]

SITUATIONS: list[Situation] = []

LONG_AGO = datetime(2001, 2, 3, tzinfo=UTC)
LATER = datetime(2031, 2, 3, tzinfo=UTC)


def situation(function: Situation) -> Situation:
    SITUATIONS.append(function)
    return function


@pytest.mark.parametrize("function", SITUATIONS, ids=lambda function: function.__name__)
def test_a_block_makes_no_difference(function: Situation) -> None:
    """What a situation shows of instances, signals, calls and errors is the same."""
    assert_same(function)


class Row(Named):
    """What the odd classes here have in common: they are kept in the table of authors."""

    books_written = models.IntegerField(default=0)

    class Meta:
        abstract = True
        app_label = "app"
        db_table = "app_author"


# Instances: what they are made of.


@situation
def without_arguments(see: Witness) -> None:
    see.signals()
    for kind in (Author, Book, Novel, Tag, Gadget, Seat, Box, Priced, Pizzeria, Amphibian, Remark):
        see(kind())


@situation
def with_keywords_in_any_order(see: Witness) -> None:
    see.signals()
    see(Author(books_written=2, name="a"), Author(id=7, name="a"), Tag(uses=None, word="w"))  # type: ignore[misc]
    see(Gadget(text="t", data={"b": 1}, flag=True), Author(pk=7), Author(books_written=1, pk=7))


@situation
def with_positional_arguments(see: Witness) -> None:
    see.signals()
    see(Author(1, "a", 2), Author(1), Author(1, "a"), Author(1, "a", books_written=3))
    see(Book(1, "b", 2, 3), Box(1, "b"), Seat("r", 1, "h"))  # type: ignore[misc]
    see.error(Author, 1, "a", 2, 3)
    see.error(Author, 1, "a", name="b")
    see.error(Author, 1, "a", 2, name="b")
    see.error(Book, 1, "b", 2, author=Author())


@situation
def with_unknown_keywords(see: Witness) -> None:
    see.error(Author, nme="a")
    see.error(Author, name="a", nme="a", other=1)
    see.error(Author.objects.create, nme="a")
    see.error(Author.objects.create, "a")
    see.error(Author, profile=None)  # the other side of a one-to-one
    see.error(Author.objects.create, profile=None)
    see.error(Author.objects.create, name="a", profile=Profile(bio="b"))
    see.error(Author, books=[])
    see.error(Book, tags=[])


@situation
def with_related_objects(see: Witness) -> None:
    see.signals()
    see.routers()
    saved = Author.objects.create(name="a")
    for author in (saved, Author(name="new"), Author(id=7)):
        see(Book(author=author, name="b"), Novel(name="n", author=author), author)
        see(Profile(bio="p", author=author), author)
    see(Book(author_id=saved.pk), Book(author=saved, author_id=7), Book(author_id=7, author=None))
    see(Book(author=None), Profile(author=None, bio="p"), Book(author_id=None))  # type: ignore[misc]
    see(Purchase(number="1", referrer=None), Membership(person_id=1, club=None))
    see.error(Book, author=1)
    see.error(Book, author=Tag())
    see.error(Book, author_id=saved, name="b")
    see.error(Book, author=DEFERRED)


@situation
def with_a_relation_that_routers_refuse(see: Witness) -> None:
    see.routers()
    see.error(Book, author=Author(name="a"), name="b")
    book = Book(author=Author.objects.create(name="a"))
    with mock.patch("tests.app.router.Router.allow_relation", return_value=False):
        see.error(Book, author=Author(name="a"), name="b")
        see.error(Book.objects.create, author=book.author, name="b")
    see.error(Book, author=Author.objects.using("other").create(name="o"))


@situation
def with_a_generic_foreign_key(see: Witness) -> None:
    see.signals()
    ContentType.objects.get_for_model(Picture)
    picture = Picture.objects.create(name="p")
    see(Remark(target=picture, name="r"), Remark(name="r", target=None))
    see(Remark.objects.create(target=picture, name="r"))
    see.error(Remark.objects.create, name="r", target=Picture())
    see(picture.remarks.create(name="s"))


@situation
def with_deferred_values(see: Witness) -> None:
    absent: Any = DEFERRED
    see(Author(absent, "a", absent), Author(name=absent), Author(id=1, books_written=absent))
    see(Author(1, name=absent), Book(author_id=absent), Author(pk=absent))


@situation
def that_are_loaded(see: Witness) -> None:
    see.signals()
    author = Author.objects.create(name="a")
    book = Book.objects.create(name="b", author=author)
    see(Author.objects.get(), Novel.objects.select_related("author").get())
    see(Book.objects.only("name").get(), Book.objects.defer("name").get())
    see(list(Author.objects.raw("SELECT id FROM app_author")))
    see(Author.from_db("other", ["id"], [author.pk]))
    see(Author.from_db("default", ["id", "name", "books_written"], [author.pk, "a", 0]))
    book.refresh_from_db()
    see(book)


@situation
def of_inherited_tables(see: Witness) -> None:
    see.signals()
    place = Place.objects.create(name="p", visits=1)
    see(Restaurant(place_ptr=place, stars=1), Restaurant(place_ptr_id=place.pk))
    see(Pizzeria(name="z", oven="gas"), Pizzeria(restaurant_link=Restaurant(name="r")))
    for made in (Pizzeria, Amphibian, Kiosk):
        see(made.objects.create(**{"plate" if made is Amphibian else "name": "n"}))
    see.error(Restaurant.objects.create, place_ptr=Place(name="q"))
    child = Restaurant(place_ptr=place, stars=2)
    child.save_base(raw=True)
    see(child)


@situation
def of_classes_that_have_none(see: Witness) -> None:
    see.error(Named)
    see.error(Named, name="a")
    see.error(models.Model)
    see.error(models.Manager().create)
    see.error(models.Manager().create, name="a")


@situation
def with_composite_keys(see: Witness) -> None:
    see.signals()
    see(Seat(row="a", number=1), Seat(pk=("a", 1)), Seat("a", 1))
    seat = Seat.objects.create(row="a", number=1)
    see(seat, Seat.objects.create(pk=("b", 1), holder="h"))
    seat.holder = "other"
    seat.save()
    see(seat)
    see.error(Seat.objects.create, row="a")


@situation
def with_files(see: Witness) -> None:
    see.signals()
    see(Document(name="d").file.name, Document(file="f.txt").file.instance.name)
    made = Document.objects.create(name="d")
    see(made.file.name, list(made.__dict__))
    made = Document(name="d", file=ContentFile(b"c", "witness.txt"))
    made.save()
    see("documents/witness" in str(made.file.name), list(made.__dict__))
    made.file.delete(save=False)


@situation
def with_defaults_of_the_database(see: Witness) -> None:
    see(Priced(), Priced(price=1), Box(name="b", area=3))
    priced = Priced.objects.create(name="p")
    see(priced.price, priced.label, list(priced.__dict__))
    box = Box(name="b")
    box.save()
    see(box.area, list(box.__dict__))
    box.name = "c"
    box.save()
    see(list(box.__dict__))


@situation
def with_callable_defaults(see: Witness) -> None:
    calls: list[str] = []

    def counted(name: str) -> Callable[[], str]:
        def default() -> str:
            calls.append(name)
            return f"{name}{len(calls)}"

        return default

    class Owner(Row):
        class Meta(Row.Meta):
            abstract = False

    class Odd(models.Model):
        first = models.CharField(max_length=9, default=counted("first"))
        owner = models.ForeignKey(Owner, models.CASCADE, default=counted("owner"))
        shared = models.JSONField(default={"the": "same"})
        last = models.CharField(max_length=9, default=counted("last"))

        class Meta:
            app_label = "app"

    see(Odd(), Odd(first="f"), Odd(owner_id=1), Odd(owner=Owner(name="a")), Odd(1, "f"), calls)
    see(Odd().shared is Odd().shared)
    see.error(Odd, owner=Tag())
    see.error(Odd, nonsense=1)
    see(calls)


@situation
def with_defaults_that_are_not_constant(see: Witness) -> None:
    class OneByOne(models.IntegerField):  # type: ignore[type-arg]
        given = 0

        def _get_default(self) -> int:
            self.given += 1
            return self.given

    class Odd(Named):
        number = OneByOne()
        stage = models.CharField(max_length=9, default="draft")

        class Meta:
            app_label = "app"

    class Partial(Named):
        absent = models.CharField(max_length=9, default=DEFERRED)

        class Meta:
            app_label = "app"

    field: Any = Odd._meta.get_field("stage")
    with mock.patch.object(field, "get_default", side_effect=["first", "second"]):
        see([Odd(), Odd(name="a"), Odd(stage="own")])
    see([Partial(name="a"), Partial(absent="a")])


@situation
def with_a_default_that_is_patched(see: Witness) -> None:
    see(Author().books_written)
    field: Any = Author._meta.get_field("books_written")
    with mock.patch.object(field, "default", 5):
        see(Author(), Author(name="a"), Author(books_written=1))
    see(Author())


@situation
def with_defaults_whose_getter_is_patched(see: Witness) -> None:
    for kind, name, value in [(Author, "books_written", 5), (Ticket, "id", UUID(int=5))]:
        kind()
        field: Any = kind._meta.get_field(name)
        with mock.patch.object(field, "get_default", return_value=value) as get_default:
            see(getattr(kind(), name), get_default.call_count)


@situation
def with_a_default_that_raises(see: Witness) -> None:
    def refuse() -> str:
        raise LookupError("no default today")

    class Odd(Named):
        text = models.CharField(max_length=9, default=refuse)
        last = models.CharField(max_length=9, default="x")

        class Meta:
            app_label = "app"

    see.error(Odd)
    see.error(Odd, name="a")
    see(Odd(text="t"))


# Instances: classes with something of their own.


@situation
def with_properties(see: Witness) -> None:
    class Odd(Row):
        class Meta(Row.Meta):
            abstract = False

        @property
        def title(self) -> str:
            return self.name.title()

        @title.setter
        def title(self, value: str) -> None:
            see(("title", value, list(self.__dict__)))
            self.name = value.lower()

        @property
        def fixed(self) -> int:
            return 1

    see(Odd(title="TITLE"), Odd(name="n", title="TITLE"), Odd.objects.create(title="T"))
    see.error(Odd, fixed=2)
    see.error(Odd.objects.create, fixed=2)


@situation
def with_an_init(see: Witness) -> None:
    class Odd(Row):
        class Meta(Row.Meta):
            abstract = False

        def __init__(self, *args: Any, note: str = "", **kwargs: Any) -> None:
            self.before = note
            self.books_written = 8
            super().__init__(*args, **kwargs)
            self.after = self.name

    see(Odd(), Odd(name="a", note="n"), Odd(1, "a", 2), Odd.objects.create(name="b", note="m"))
    see(Odd.objects.get(name="b"))


@situation
def that_are_made_twice(see: Witness) -> None:
    author = Author.objects.create(name="a")
    book = Book(name="b", author=author, pages=3)
    Book.__init__(book, name="c")
    see(book)
    Book.__init__(book, 1, "d", 2, 3)
    see(book)
    book.author = author
    Book.__init__(book, author=None)
    see(book)
    box = Box(area=3)
    Box.__init__(box)
    see(box)


class After:
    """Stands behind Model among the bases, and is called by it."""

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["mixed_in"] = True


@situation
def with_bases_before_and_after(see: Witness) -> None:
    class Before:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.before = len(args) + len(kwargs)
            super().__init__(*args, **kwargs)

    class Odd(Before, Row, After):  # type: ignore[misc]
        class Meta(Row.Meta):
            abstract = False

    see(Odd(), Odd(name="a"), Odd(1, "a", 2), Odd.objects.create(name="a"), Odd.objects.get())


@situation
def with_their_own_setattr(see: Witness) -> None:
    class Odd(Row):
        class Meta(Row.Meta):
            abstract = False

        def __setattr__(self, name: str, value: Any) -> None:
            see((name, type(value).__name__, name in self.__dict__))
            super().__setattr__(name, value)

    see(Odd(), Odd(name="a"))
    made = Odd.objects.create(name="a")
    see(made, Odd.objects.get())
    made.name = "b"
    made.save()
    see(made)


@situation
def with_their_own_getattribute(see: Witness) -> None:
    class Odd(Row):
        class Meta(Row.Meta):
            abstract = False

        def __getattribute__(self, name: str) -> Any:
            found = super().__getattribute__(name)
            return f"<{found}>" if name == "name" else found

    made = Odd.objects.create(name="a")
    see(made.name, made, Odd.objects.get().name)


@situation
def with_descriptors(see: Witness) -> None:
    class Attribute(DeferredAttribute):
        def __set__(self, instance: Any, value: Any) -> None:
            see((self.field.attname, value, list(instance.__dict__)))  # type: ignore[attr-defined]
            instance.__dict__[self.field.attname] = value  # type: ignore[attr-defined]

    class Watched(models.CharField):  # type: ignore[type-arg]
        descriptor_class = Attribute

    class State:
        def __set__(self, instance: Any, value: Any) -> None:
            see(("state", type(value).__name__))
            instance.__dict__["_state"] = value

        def __get__(self, instance: Any, owner: Any = None) -> Any:
            return self if instance is None else instance.__dict__["_state"]

    class Odd(models.Model):
        name = Watched(max_length=9)
        books_written = models.IntegerField(default=0)

        class Meta(Row.Meta):
            abstract = False

    class Stated(Row):
        _state = State()  # type: ignore[assignment]

        class Meta(Row.Meta):
            abstract = False

    see(Odd(), Odd(name="a"), Odd(1, "a"), Odd.objects.create(name="a"))
    see(Stated(), Stated(name="a"), Stated.objects.create(name="b"))


@situation
def with_their_own_from_db(see: Witness) -> None:
    class Odd(Row):
        class Meta(Row.Meta):
            abstract = False

        @classmethod
        def from_db(cls, db: Any, field_names: Any, values: Any, **kwargs: Any) -> Odd:
            see(("from_db", db, list(field_names), len(values)))
            found = super().from_db(db, field_names, values, **kwargs)
            found.books_written += 1
            return found

    Odd.objects.create(name="a")
    see(Odd.objects.get(), Odd.objects.only("name").get())


@situation
def with_a_receiver_of_pre_init(see: Witness) -> None:
    def change(sender: Any, args: Any, kwargs: Any, **_: Any) -> None:
        see(("pre_init", sender.__name__, list(args), dict(kwargs)))
        kwargs.pop("nme", None)
        if sender is Author and not args:
            kwargs["name"] = "changed"

    see.receive(pre_init, change)
    see.signals()
    see(Author(), Author(nme="a"), Tag(word="w"), Author(1, "a", 2))  # type: ignore[misc]
    see(Author.objects.create(name="b"))


@situation
def with_a_mocked_pre_init(see: Witness) -> None:
    with mock.patch.object(pre_init, "send") as send:
        Author(name="a")
        Author(1, "a", 2)
    see(send.call_args_list)


@situation
def with_a_receiver_of_post_init(see: Witness) -> None:
    def change(sender: Any, instance: Any, **_: Any) -> None:
        instance.name = "changed"
        if not instance.books_written:
            raise LookupError("no books")

    see.receive(post_init, change, sender=Author)
    see.error(Author)
    see.error(Author, name="a", books_written=1)
    see.error(Author.objects.create, name="a", books_written=2)
    see.error(Author.objects.get)


@situation
def whose_fields_change(see: Witness) -> None:
    class Odd(models.Model):
        name = models.CharField(max_length=40)

        class Meta:
            app_label = "app"
            db_table = "app_person"

    boss = Person.objects.create(name="b")
    made = Odd.objects.create(name="o")
    see(made, Odd(1, "a"))
    Odd.add_to_class("boss_id", models.BigIntegerField(null=True, default=7))
    see(Odd(name="a"), Odd(boss_id=1), Odd(), Odd(1, "a", 2))
    see(Odd.objects.create(name="t", boss_id=boss.pk).boss_id == boss.pk)
    made.boss_id = boss.pk
    made.save()
    see([odd.boss_id == boss.pk for odd in Odd.objects.all()])
    see(list(Person.objects.filter(boss=boss).values_list("name", flat=True).order_by("name")))


@situation
def that_are_copied_and_pickled(see: Witness) -> None:
    author = Author.objects.create(name="a")
    book = Book(name="b", author=author)
    for made in (author, book, Author.objects.defer("name").get(), Seat(row="r", number=1)):
        see(copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made)))
    book.save()
    see(copy.copy(book), pickle.loads(pickle.dumps(book)))


# Saving.


@situation
def saved_in_every_way(see: Witness) -> None:
    see.signals(pre_save, post_save)
    see.routers()
    author = Author(name="a")
    author.save()
    see(author)
    author.save()
    author.save(force_update=True)
    author.save(update_fields=["name"])
    author.save(update_fields=[])
    author.save(using="default")
    author.save_base()
    author.save_base(raw=True)
    given = Author(id=1_000_000, name="given")
    given.save()
    see(given)
    forced = Author(name="forced")
    forced.save(force_insert=(Author,))
    see(forced)
    forced = Author(name="forced")
    forced.save(force_insert=(models.Model,))
    for kwargs in (
        {"force_insert": True, "force_update": True},
        {"force_insert": True, "update_fields": ["name"]},
        {"force_insert": 1},
        {"force_insert": (Tag,)},
        {"force_insert": ("x",)},
        {"update_fields": ["nme"]},
        {"update_fields": "name"},
        {"using": "nowhere"},
        {"nme": 1},
    ):
        see.error(Author(name="b").save, **kwargs)
    see.error(Author(name="b").save, force_update=True)


@situation
def saved_with_positional_arguments(see: Witness) -> None:
    see.signals(pre_save, post_save)
    author = Author(name="a")
    see.error(author.save, True)
    see(author)
    see.error(author.save, False, True)
    see.error(author.save, False, False, "default", ["name"])
    see.error(author.save, False, using="default")
    see.error(author.save, 1, 2, 3, 4, 5)
    see.error(author.save, False, force_insert=True)
    see.error(Kiosk(name="k").save, True)


@situation
def saved_on_another_database(see: Witness) -> None:
    see.signals(pre_save, post_save)
    see.routers()
    see(AuditLine.objects.create(name="l"))
    author = Author.objects.create(name="a")
    author.save(using="other")
    see(author)
    author = Author.objects.db_manager("other").create(name="a")
    see(author)
    author.save()
    author.save(using="default")
    see(author, Author.objects.using("other").create(name="c"))
    hinted = Author.objects.db_manager(hints={"instance": AuditLine()}).create(name="h")
    see(hinted)


@situation
def saved_with_unsaved_relations(see: Witness) -> None:
    author = Author(name="a")
    book = Book(name="b", author=author)
    see.error(book.save)
    see.error(Book.objects.create, name="b", author=author)
    profile = Profile(author=author)
    see.error(profile.save)
    see(book, profile, author)
    author.save()
    book.save()
    see(book, author)
    profile = Profile(author=author)
    profile.save()
    see(profile, author)
    other = Author.objects.create(name="o")
    book.author_id = other.pk
    see(book)
    book.save()
    see(book)
    book.author = author
    author.pk = other.pk
    book.save()
    see(book)


@situation
def saved_with_deferred_columns(see: Witness) -> None:
    see.signals(pre_save, post_save)
    Book.objects.create(name="b", author=Author.objects.create(name="a"))
    for book in (
        Book.objects.only("name").get(),
        Book.objects.defer("name").get(),
        Book.objects.only("pk").get(),
        Novel.objects.defer("author").get(),
    ):
        book.pages = 3
        book.save()
        see(book)
    book = Book.objects.only("name", "author").get()
    book.pk = None
    book._state.adding = True
    with transaction.atomic():
        see.error(book.save, force_insert=True)
        see(transaction.get_connection().needs_rollback)
        transaction.set_rollback(True)
    see(book)
    author = Author.objects.only("name").get()
    del author.name
    author.save()
    see(author)


@situation
def saved_with_keys_of_their_own(see: Witness) -> None:
    ticket = Ticket(name="t", amount=1)
    ticket.pk = None
    ticket.save()
    see(type(ticket.pk).__name__, ticket._state.adding)
    see.signals(pre_save, post_save)
    country = Country(title="t")
    country.pk = None
    country.save()
    see(country)
    see(Country.objects.create(code="c"), Country.objects.create(pk="d"))
    parcel = Parcel.objects.create(name="p")
    see(type(parcel.pk).__name__, list(parcel.__dict__))
    see(
        Author.objects.create(id="77", name="text").pk,
        Town.objects.create(country_id="c", name="t"),
    )


@situation
def whose_key_is_set_and_deleted_by_hand(see: Witness) -> None:
    Author.objects.create(name="before").save()
    author = Author.__new__(Author)
    see.error(delattr, author, "id")
    for key in (5, 6):
        see.error(setattr, author, "id", key)
    see(dict(author.__dict__))
    for _ in range(2):
        see.error(delattr, author, "id")
    restaurant = Restaurant.objects.create(name="r")
    restaurant.save()
    see.error(delattr, restaurant, Restaurant._meta.pk.attname)
    see.error(lambda: getattr(restaurant, Restaurant._meta.pk.attname) == restaurant.id)


@situation
def saved_as_another_row(see: Witness) -> None:
    see.signals(pre_save, post_save)
    author = Author.objects.create(name="a")
    author.pk = None
    author.save()
    see(author)
    author.pk = None
    author._state.adding = True
    author.save(force_insert=True)
    see(author)
    author.delete()
    see(author)
    author.save()
    see(author, Author.objects.count())
    author.pk = 4_000_000
    author.save()
    see(author, Author.objects.count())


@situation
def saved_with_attributes_that_are_not_what_is_kept(see: Witness) -> None:
    class Shown(DeferredAttribute):
        def __get__(self, instance: Any, owner: Any = None) -> Any:
            return self if instance is None else f"<{instance.__dict__.get('name')}>"

        def __set__(self, instance: Any, value: Any) -> None:
            instance.__dict__["name"] = value

    class Wrapped(models.CharField):  # type: ignore[type-arg]
        descriptor_class = Shown

    class Odd(models.Model):
        name = Wrapped(max_length=40)
        books_written = models.IntegerField(default=0)

        class Meta(Row.Meta):
            abstract = False

    class Plain(Row):
        class Meta(Row.Meta):
            abstract = False

    class Proxy(Plain):
        class Meta:
            app_label = "app"
            proxy = True

        @property
        def books_written(self) -> int:  # type: ignore[override]
            return int(self.__dict__["books_written"]) + 10

        @books_written.setter
        def books_written(self, value: int) -> None:
            self.__dict__["books_written"] = value

    odd = Odd.objects.create(name="a")
    odd.save()
    Odd(name="b").save()
    Odd.objects.bulk_create([Odd(name="c"), Odd(name="d")])
    proxy = Proxy.objects.create(name="p")
    proxy.save()
    Proxy(name="q", books_written=3).save()
    Proxy.objects.bulk_create([Proxy(name="r")])
    see(odd, proxy)
    see(sorted(Author.objects.values_list("name", "books_written")))


@situation
def saved_with_a_key_that_the_field_makes(see: Witness) -> None:
    class Numbered(models.BigAutoField):  # type: ignore[type-arg]
        def get_pk_value_on_save(self, instance: Any) -> int:
            see(("made", instance.name))
            return 5_000_000 + len(instance.name)

    class Odd(models.Model):
        id = Numbered(primary_key=True)
        name = models.CharField(max_length=40)
        books_written = models.IntegerField(default=0)

        class Meta(Row.Meta):
            abstract = False

    made = Odd.objects.create(name="abc")
    see(made.pk, Odd(id=7, name="x").pk)
    other = Odd(name="abcd")
    other.save()
    see(other.pk)


@situation
def saved_with_methods_of_their_own(see: Witness) -> None:
    def watched(name: str) -> Callable[..., Any]:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            see((name, len(args), sorted(kwargs)))
            return getattr(super(type(self), self), name)(*args, **kwargs)

        return method

    for name in (
        "save",
        "save_base",
        "full_clean",
        "_prepare_related_fields_for_save",
        "_save_parents",
        "_save_table",
        "_do_insert",
        "_do_update",
        "_is_pk_set",
        "_get_pk_val",
    ):
        kind = type(
            f"Odd{name}",
            (Row,),
            {
                "Meta": type("Meta", (Row.Meta,), {"abstract": False}),
                "__module__": __name__,
                "a": 1,
                name: watched(name),
            },
        )
        made: Any = kind(name="a")
        made.save()
        made.name = "b"
        made.save()
        see(made, kind.objects.create(name=name))  # type: ignore[attr-defined]


@situation
def saved_with_relations_and_a_method_of_their_own(see: Witness) -> None:
    class Writer(Row):
        class Meta(Row.Meta):
            abstract = False

    class Odd(Named):
        author = models.ForeignKey(Writer, models.CASCADE)
        pages = models.IntegerField(default=0)

        class Meta:
            app_label = "app"
            db_table = "app_book"

        def _prepare_related_fields_for_save(self, *args: Any, **kwargs: Any) -> None:
            see("prepared")
            super()._prepare_related_fields_for_save(  # type: ignore[misc]
                *args, **kwargs
            )

    writer = Writer.objects.create(name="a")
    odd = Odd(name="o", author=writer)
    odd.save()
    odd.save()
    see(odd, Odd.objects.create(author=writer))


@situation
def saved_inside_receivers(see: Witness) -> None:
    see.signals(pre_save, post_save)

    def save_again(sender: Any, instance: Any, **_: Any) -> None:
        if instance.books_written < 3:
            instance.books_written += 1
            instance.save()

    def change(sender: Any, instance: Any, **_: Any) -> None:
        instance.name += "!"
        Tag.objects.get_or_create(word=instance.name)

    see.receive(pre_save, change, sender=Author)
    see.receive(post_save, save_again, sender=Author)
    see(Author.objects.create(name="a"), Echo.objects.create(name="e"))
    see(Slugged.objects.create(name="A B"))


@situation
def saved_with_a_receiver_that_takes_a_column_away(see: Witness) -> None:
    def take_away(sender: Any, instance: Any, **_: Any) -> None:
        del instance.__dict__["books_written"]

    author = Author.objects.create(name="a")
    see.receive(pre_save, take_away, sender=Author)
    author.save()
    see(author)
    see.error(Author.objects.create, name="b")


@situation
def saved_with_a_receiver_that_sets_the_key(see: Witness) -> None:
    def set_key(sender: Any, instance: Any, **_: Any) -> None:
        instance.pk = 3_000_000

    see.receive(pre_save, set_key, sender=Author)
    author = Author(name="a")
    author.save()
    see(author.pk, author)


@situation
def saved_with_receivers_that_raise(see: Witness) -> None:
    def refuse(sender: Any, **_: Any) -> None:
        raise LookupError("not this one")

    for signal in (pre_save, post_save):
        signal.connect(refuse, sender=Author)
        author = Author(name="a")
        see.error(author.save)
        signal.disconnect(refuse, sender=Author)
        see(author._state.adding, transaction.get_connection().needs_rollback)
    see.error(Author.objects.create, name="b")


@situation
def saved_with_values_that_are_refused(see: Witness) -> None:
    for value in ("x", [], object):
        author = Author(name="a", books_written=value)  # type: ignore[misc]
        with transaction.atomic():
            see.error(author.save)
            see(transaction.get_connection().needs_rollback, author)
            see.error(Tag.objects.count)
            transaction.set_rollback(True)


@situation
def saved_with_values_that_are_expressions(see: Witness) -> None:
    author = Author.objects.create(name="a", books_written=models.Value(3) + 1)
    see(author)
    author.refresh_from_db()
    author.books_written = models.F("books_written") + 1
    author.save()
    see(author)
    author.refresh_from_db()
    see(author)


@situation
def saved_with_patched_instances(see: Witness) -> None:
    author = Author(name="a")
    with mock.patch.object(author, "save_base") as save_base:
        author.save()
    see(save_base.call_args_list, author._state.adding)


@situation
def saved_with_patched_classes(see: Witness) -> None:
    Author.objects.create(name="before")
    for owner in (Author, models.Model):
        for name in ("save", "save_base", "_save_table", "_prepare_related_fields_for_save"):
            with mock.patch.object(owner, name) as patched:
                Author(name="a").save()
                see((name, patched.call_args_list))
        with mock.patch.object(owner, "__init__", return_value=None) as patched:
            see(list(Author(name="a").__dict__), patched.call_args_list)


@situation
def saved_with_patches_of_what_is_called_late(see: Witness) -> None:
    author = Author.objects.create(name="before")
    author.save()
    for owner in (Author, models.Model):
        for name in ("_do_insert", "_do_update", "_get_pk_val"):
            method = getattr(owner, name)
            with mock.patch.object(owner, name, autospec=True, side_effect=method) as patched:
                Author(name="a").save()
                author.save()
                author.save(update_fields=["name"])
            see((name, patched.called))


class Wrapped:
    """A function behind a proxy that passes for it, as those of tracing libraries do (wrapt)."""

    def __init__(self, function: Callable[..., Any], calls: list[str]) -> None:
        self.function = function
        self.calls = calls

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self.function)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.function, name)

    def __eq__(self, other: object) -> bool:
        return self.function == other

    def __hash__(self) -> int:
        return hash(self.function)

    def __get__(self, instance: Any, owner: type[Any]) -> Wrapped:
        bound: Any = self.function
        return Wrapped(bound.__get__(instance, owner), self.calls)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append(self.function.__name__)
        return self.function(*args, **kwargs)


@situation
def saved_with_wrapped_methods(see: Witness) -> None:
    Author.objects.create(name="before")
    for name in ("__init__", "save", "save_base", "_save_table", "_do_insert"):
        calls: list[str] = []
        with mock.patch.object(models.Model, name, Wrapped(vars(models.Model)[name], calls)):
            Author(name="a").save()
        see(calls)


def test_a_wrapper_around_djangos_methods_is_called_and_stays() -> None:
    """Whatever it pretends to be, it is nobody's but the library's; before a block, and in one."""
    for name in ("__init__", "save", "save_base", "_save_table", "_do_insert"):
        original = vars(models.Model)[name]
        calls: list[str] = []
        try:
            with carpool.coalesce():
                wrapped = Wrapped(vars(models.Model)[name], calls)
                setattr(models.Model, name, wrapped)
            for _ in range(2):
                with carpool.coalesce():
                    Author.objects.create(name="a")
            assert vars(models.Model)[name] is wrapped
        finally:
            setattr(models.Model, name, original)
        assert calls == [name] * 2


@situation
def saved_with_times_that_are_switched_on(see: Witness) -> None:
    stamps = [f for f in Stamped._meta.fields if getattr(f, "auto_now", False)]
    stamped = Stamped(name="a", changed_at=LONG_AGO, changed_on=LONG_AGO, changed_time=time.min)
    with ExitStack() as off:
        for field in stamps:
            off.enter_context(mock.patch.object(field, "auto_now", False))
        stamped.save()
        stamped.save()
        see([getattr(stamped, field.attname) for field in stamps])
    for save in (stamped.save, Stamped(name="b").save):
        with mock.patch("django.utils.timezone.now", return_value=LATER):
            save()
        see(list(Stamped.objects.order_by("pk").values_list("changed_at", flat=True)))


def calls_of(asked: mock.Mock) -> int | bool:
    """Return how often it was called; whether, from 6.0 on, whose save() calls pre_save() twice."""
    return asked.call_count if django.VERSION < (6, 0) else asked.called


@situation
def saved_with_a_mocked_pre_save(see: Witness) -> None:
    for _ in range(2):
        for field, value in [("changed_at", LONG_AGO), ("happened_at", LONG_AGO)]:
            on: Any = Stamped._meta.get_field(field)
            with mock.patch.object(on, "pre_save", return_value=value) as pre_save:
                stamped = Stamped.objects.create(name=field)
                stamped.save()
            see(field, calls_of(pre_save))
            see(list(Stamped.objects.order_by("pk").values_list(field, flat=True)[:1]))


@situation
def saved_with_times_that_are_taken_once(see: Witness) -> None:
    Stamped(name="before").save()
    with mock.patch("django.utils.timezone.now", return_value=LATER) as now:
        amounts: list[Any] = [1, models.Value(1), "not a number", None]
        for amount in amounts:
            stamped = Stamped(name="a", amount=amount)
            for _ in range(2):
                with suppress(ValueError, IntegrityError), transaction.atomic():
                    stamped.save()
                see(calls_of(now), stamped.created_at, stamped.changed_at)


@situation
def saved_with_a_mocked_signal(see: Witness) -> None:
    for signal in (pre_save, post_save, post_init):
        with mock.patch.object(signal, "send") as send:
            author = Author(name="a")
            author.save()
        see([(call.args, list(call.kwargs)) for call in send.call_args_list])


@situation
def saved_in_async_code(see: Witness) -> None:
    see.signals(pre_save, post_save)

    async def work() -> None:
        author = Author(name="a")
        await author.asave()
        see(author, await Author.objects.acreate(name="b"))

    async_to_sync(work)()


@situation
def saved_by_select_first_and_in_an_order(see: Witness) -> None:
    selected = Selected.objects.create(name="s")
    selected.amount = 1
    selected.save()
    see(selected)
    stamped = Stamped(name="s")
    stamped.save()
    see(list(stamped.__dict__), stamped.created_at is not None)
    lessons = Lesson._meta.get_field("course").related_model.objects.create(name="c").lessons
    see([lessons.create(name="l"), lessons.create(name="m")])


# Managers.


@situation
def created_by_managers_of_their_own(see: Witness) -> None:
    class Query(models.QuerySet[Any]):
        def create(self, **kwargs: Any) -> Any:
            see("Query.create")
            return super().create(**kwargs)

    class Asking(models.QuerySet[Any]):
        @property
        def db(self) -> str:
            see(("Asking.db", self._for_write))
            return "default"

    class Noting(models.QuerySet[Any]):
        def __setattr__(self, name: str, value: Any) -> None:
            if name == "_for_write":
                see((name, value))
            super().__setattr__(name, value)

    class Getting(models.Manager[Any]):
        def get_queryset(self) -> models.QuerySet[Any]:
            see("Getting.get_queryset")
            return super().get_queryset()

    class Creating(models.Manager[Any]):
        def create(self, **kwargs: Any) -> Any:
            return super().create(**{"name": "given", **kwargs})

    for manager in (
        Query.as_manager(),
        models.Manager.from_queryset(Query)(),
        Getting.from_queryset(Query)(),
        Asking.as_manager(),
        Noting.as_manager(),
        Getting(),
        Creating(),
    ):
        kind: Any = type(
            "Odd",
            (Row,),
            {
                "Meta": type("Meta", (Row.Meta,), {"abstract": False}),
                "__module__": __name__,
                "objects": manager,
            },
        )
        see(kind.objects.create(), kind.objects.db_manager("other").create(name="o"))
    see(Article.objects.create(name="a", hidden=True), type(User.objects.create(username="u").pk))


@situation
def created_with_patched_managers(see: Witness) -> None:
    made = Author.objects.create(name="before")
    for target, name in (
        (Author.objects, "get_queryset"),
        (Author.objects, "create"),
        (Author.objects, "_queryset_class"),
        (models.Manager, "get_queryset"),
        (models.Manager, "create"),
        (models.QuerySet, "create"),
    ):
        with mock.patch.object(target, name) as patched:
            result = Author.objects.create(name="a")
        see((name, isinstance(result, Author), patched.called))
    see(made)


@situation
def created_by_related_managers(see: Witness) -> None:
    see.signals(pre_save, post_save)
    see.routers()
    author = Author.objects.create(name="a")
    book = author.books.create(name="b")
    see(book, author, book.tags.create(word="w"))
    see.error(Author().books.create, name="b")
    see(Author.objects.get_or_create(name="g"), Author.objects.update_or_create(name="g"))


# The methods themselves.


@situation
def the_methods_look_as_ever(see: Witness) -> None:
    create: Any = owner_of_create().create  # type: ignore[attr-defined]
    for method in (models.Model.save, models.Model.__init__, create, Author.save, Author.__init__):
        see(str(inspect.signature(method)), method.__doc__, method.__qualname__, method.__module__)
        see(getattr(method, "alters_data", None), pydoc.plain(pydoc.render_doc(method)))
    see(pickle.loads(pickle.dumps(models.Model.save)) is models.Model.save)

    class Odd(Row):
        class Meta(Row.Meta):
            abstract = False

        def save(self, *args: Any, **kwargs: Any) -> None:
            super().save(*args, **kwargs)

    see(Odd.save.alters_data)  # type: ignore[attr-defined]


def methods() -> Iterator[tuple[type[Any], str]]:
    yield from ((models.Model, name) for name in ("__init__", "save", "_save_table"))
    yield from ((models.Model, name) for name in ("_do_insert", "_do_update"))
    yield owner_of_create(), "create"


def noted(seen: list[str], method: Any) -> Any:
    """Return a method that writes its name down before it does what it does."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        seen.append(method.__name__)
        return method(*args, **kwargs)

    return wrapper


def test_the_methods_are_back_after_nested_blocks() -> None:
    """Only the last of several blocks puts Django's own methods back."""
    before = [vars(owner)[name] for owner, name in methods()]
    with carpool.coalesce():
        with carpool.coalesce(BOTH):
            Author.objects.create(name="a")
        hooks = [vars(owner)[name] for owner, name in methods()]
        Author.objects.create(name="b")
    assert not any(hook is one for hook, one in zip(hooks, before, strict=True))
    assert [vars(owner)[name] for owner, name in methods()] == before


@pytest.mark.parametrize("name", ["__init__", "save"])
def test_a_method_that_is_patched_in_a_block_stays_patched(name: str) -> None:
    """A library's patch of Model, made while a block is open, is not undone at its end."""
    original = vars(models.Model)[name]
    calls = []
    try:
        with carpool.coalesce():
            inner = vars(models.Model)[name]

            def patched(self: Any, *args: Any, **kwargs: Any) -> None:
                calls.append(name)
                inner(self, *args, **kwargs)

            setattr(models.Model, name, patched)
            Author(name="a").save()
            assert calls == [name]
        assert vars(models.Model)[name] is patched
        Author(name="b").save()
        assert calls == [name] * 2
        with carpool.coalesce():
            Author(name="c").save()
        assert calls == [name] * 3
        assert vars(models.Model)[name] is patched
    finally:
        setattr(models.Model, name, original)
    assert set(Author.objects.values_list("name", flat=True)) == {"a", "b", "c"}


def test_a_patch_that_ends_after_the_block_leaves_nothing_that_works() -> None:
    """What a mock puts back may be a block's method; it is Django's by what it does, and goes."""
    original = models.Model.__init__
    patch = mock.patch.object(models.Model, "__init__", return_value=None)
    try:
        with carpool.coalesce():
            patch.start()
        patch.stop()
        with mock.patch.object(Maker, "of", side_effect=AssertionError):
            Author(name="a")
        with carpool.coalesce():
            pass
        assert models.Model.__init__ is original
    finally:
        models.Model.__init__ = original  # type: ignore[method-assign]


def test_a_patch_of_the_key_may_end_after_the_block() -> None:
    """It stays to its end; and what a mock puts back then goes with the next block."""
    before = vars(Author)["id"]
    key = mock.patch.object(Author, "id", new_callable=mock.PropertyMock, return_value=9)
    reduce = mock.patch.object(Author, "__reduce_ex__", return_value=(str, ("mine",)))
    try:
        with carpool.coalesce():
            Author.objects.create(name="a")
            key.start()
            reduce.start()
        assert Author(name="b").id == 9
        assert pickle.loads(pickle.dumps(Author(name="b"))) == "mine"
        key.stop()
        reduce.stop()
        with carpool.coalesce():
            Author.objects.create(name="c")
        assert vars(Author)["id"] is before
        assert "__reduce_ex__" not in vars(Author)
    finally:
        Author.id = before
        if "__reduce_ex__" in vars(Author):
            del Author.__reduce_ex__


def test_a_class_that_is_patched_in_a_block_stays_patched() -> None:
    """A tracker of fields wraps a class' own methods, and calls what it found there."""
    seen: list[str] = []
    try:
        with carpool.coalesce():
            Author.objects.create(name="before")
            for name in ("__init__", "save", "save_base"):
                setattr(Author, name, noted(seen, getattr(Author, name)))
            Author.objects.create(name="a")
        Author.objects.create(name="b")
    finally:
        for name in ("__init__", "save", "save_base"):
            delattr(Author, name)
    assert seen == ["__init__", "save", "save_base"] * 2


def test_a_method_patched_before_the_block_is_called() -> None:
    """A project may have put its own in the place of a method of Model's, or of a queryset's."""
    for owner, name in [
        (models.Model, "save"),
        (models.Model, "save_base"),
        (models.Model, "_save_table"),
        (models.Model, "_do_insert"),
        (models.Model, "__init__"),
        (models.QuerySet, "create"),
        (owner_of_create(), "create"),
    ]:
        with mock.patch.object(owner, name, autospec=True, side_effect=vars(owner)[name]) as called:
            with carpool.coalesce():
                Author.objects.create(name="a")
            assert called.call_count == 1, name


def test_other_threads_go_djangos_way() -> None:
    """A block is its thread's own: elsewhere instances are made and saved as ever."""
    seen: list[Any] = []

    def work() -> None:
        try:
            with mock.patch.object(Maker, "fill", side_effect=AssertionError):
                author = Author.objects.using("other").create(name="a")
                seen.append((author.name, Author.objects.using("other").count()))
        except BaseException as error:
            seen.append(error)
        finally:
            connections.close_all()

    with carpool.coalesce():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert seen == [("a", 1)]


def test_many_threads_at_once() -> None:
    """Blocks that begin and end elsewhere disturb no instance that is being made."""
    stop = threading.Event()
    wrong: list[Any] = []

    def make() -> None:
        while not stop.is_set():
            made = Book(name="b", author_id=1)
            if list(made.__dict__) != ["_state", "id", "name", "author_id", "pages"]:
                wrong.append(made.__dict__)

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        with carpool.coalesce():
            Author.objects.create(name="a")
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


# That the quick way is taken at all.


@pytest.mark.parametrize("kind", [Author, Book, Novel, Tag, Pizzeria, Box, Seat, Stamped])
def test_a_plain_class_has_a_maker(kind: type[models.Model]) -> None:
    assert Maker.of(kind) is not None


def test_a_plain_class_is_made_and_queued_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time by the class' maker and by its plan."""
    taken: list[str] = []
    for owner, name in ((Maker, "fill"), (Plan, "save_all")):
        monkeypatch.setattr(owner, name, noted(taken, getattr(owner, name)))
    with carpool.coalesce() as figures:
        boss = Person.objects.create(name="a")
        Person.objects.create(name="b", boss=boss)
        boss.save()
    assert taken == ["fill", "save_all", "fill", "save_all", "save_all"]
    assert figures.queued == 3
