"""One row at a time, by `save()`: every model that has a trap of its own."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from typing import Any

from django.core.files.base import ContentFile
from django.db.models import F

from tests.app.functions.trouble import troubled
from tests.app.models import (
    Account,
    Amphibian,
    Article,
    Author,
    Book,
    BookRow,
    Box,
    Country,
    Document,
    Gadget,
    Kiosk,
    Mirror,
    Novel,
    Parcel,
    Pizzeria,
    Place,
    Priced,
    Quoted,
    Seat,
    Selected,
    Stamped,
    Sticker,
    Ticket,
    TicketStub,
    Town,
)

LONG_AGO = datetime.datetime(2001, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)


@troubled
def create_account(item: dict[str, Any]) -> str:
    """Create one row that stands in nobody's way."""
    account = Account.objects.create(
        name=item["key"], email=f"{item['key']}@example.org", region=item["key"]
    )
    return account.email


@troubled
def create_given_account(item: dict[str, Any]) -> None:
    """Create one row under an address that the item may share with another."""
    email = item.get("email", item["key"])
    Account.objects.create(name=item["key"], email=email, region=item["key"])


@troubled
def stamp(item: dict[str, Any]) -> None:
    """Date a row at its first save, at a later one, and with `update_fields` (gotcha 3)."""
    fresh = Stamped.objects.create(name=f"{item['key']} fresh", happened_at=LONG_AGO)
    assert fresh.created_at is not None
    assert isinstance(fresh.changed_on, datetime.date)

    for what in ("saved", "listed", "not listed", "nothing"):
        row = Stamped.objects.create(name=f"{item['key']} {what}")
        Stamped.objects.filter(pk=row.pk).update(
            created_at=LONG_AGO, changed_at=LONG_AGO, changed_on=LONG_AGO.date()
        )
        row = Stamped.objects.get(pk=row.pk)
        row.amount = 5
        if what == "saved":
            row.save()
        elif what == "listed":
            row.save(update_fields=["amount", "changed_at"])
        elif what == "not listed":
            row.save(update_fields=["amount"])
        else:
            row.save(update_fields=[])


@troubled
def store_file(item: dict[str, Any]) -> str:
    """Store a file with its row, and another in its place."""
    document = Document(name=item["key"])
    document.file.save(f"{item['key']}-a.txt", ContentFile(b"first"), save=False)
    document.save()
    document.file = ContentFile(b"second", name=f"{item['key']}-b.txt")
    document.save()
    with document.file.open() as stored:
        assert stored.read() == b"second"
    return document.file.name.rsplit("/", 1)[-1]


@troubled
def save_uuid(item: dict[str, Any]) -> None:
    """Save a new row with a key, the same row again, and a given key twice (gotcha 2)."""
    ticket = Ticket(name=item["key"])
    assert ticket.pk is not None and ticket._state.adding
    ticket.save()
    ticket.amount = 1
    ticket.save()
    TicketStub.objects.create(name=item["key"], ticket=ticket)

    given = uuid.uuid5(uuid.NAMESPACE_URL, item["key"])
    Ticket(id=given, name=f"{item['key']} given", amount=1).save()
    Ticket(id=given, name=f"{item['key']} given", amount=2).save(force_update=True)


@troubled
def save_natural(item: dict[str, Any]) -> None:
    """Save twice under one natural key: an INSERT, then an UPDATE (gotcha 2)."""
    Country(code=item["key"], title="first").save()
    again = Country(code=item["key"], title="second")
    again.save()
    Country.objects.create(code=f"{item['key']}+")
    Town.objects.create(name=item["key"], country=again)
    Town.objects.create(name=f"{item['key']} 2", country_id=f"{item['key']}+")


@troubled
def save_composite(item: dict[str, Any]) -> str:
    """Save rows of a two-column key, and one of them again."""
    seats = [Seat.objects.create(row=item["key"], number=number) for number in range(3)]
    seats[1].holder = "somebody"
    seats[1].save()
    Seat(pk=(item["key"], 2), holder="a newcomer").save()
    Seat.objects.get(pk=(item["key"], 0)).delete()
    return str(seats[1].pk)


@troubled
def save_converted(item: dict[str, Any]) -> None:
    """Use a generated key that is converted, at once and through a relation (gotcha 15)."""
    parcel = Parcel.objects.create(name=item["key"])
    Sticker.objects.create(name=f"{item['key']} a", parcel=parcel)
    Sticker.objects.create(name=f"{item['key']} b", parcel_id=parcel.pk)
    assert Parcel.objects.get(pk=parcel.pk) == parcel
    assert type(parcel.pk) is type(Parcel.objects.get(name=item["key"]).pk)

    Mirror.objects.create(code=f"{item['key']} abc")
    mirror = Mirror.objects.get(code=f"{item['key']} abc")
    mirror.amount = 3
    mirror.save()


@troubled
def save_db_default(item: dict[str, Any]) -> list[Any]:
    """Leave values to the database, and read them (gotcha 6)."""
    plain = Priced.objects.create(name=item["key"])
    half = Priced.objects.create(name=f"{item['key']} half", price=7)
    half.label = "changed"
    half.save()
    Priced.objects.create(name=f"{item['key']} full", price=8, label="x", priced_at=LONG_AGO)
    plain.refresh_from_db()
    return [plain.price, plain.label, half.price, half.label]


@troubled
def save_generated(item: dict[str, Any]) -> list[Any]:
    """Let the database compute columns, and read them after INSERT and UPDATE (gotcha 6)."""
    box = Box.objects.create(name=item["key"], width=2, height=3)
    first = Box.objects.get(pk=box.pk).area
    box.height = 5
    box.save()
    box.refresh_from_db()
    return [first, box.area, box.loud]


@troubled
def save_parents_late(item: dict[str, Any]) -> None:
    """Set foreign keys before their parents are saved (gotcha 5)."""
    author = Author(name=item["key"])
    book = Book(name=item["key"], author=author)
    author.save()
    book.save()
    assert book.author_id == author.pk

    ticket = Ticket(name=f"{item['key']} late")
    stub = TicketStub(name=f"{item['key']} late", ticket=ticket)
    ticket.save()
    stub.save()


@troubled
def save_inherited(item: dict[str, Any]) -> int:
    """Save two levels of inheritance, and change a field of each level (gotcha 11)."""
    pizzeria = Pizzeria.objects.create(name=item["key"], visits=1, stars=2, oven="gas")
    pizzeria.name = f"{item['key']} renamed"
    pizzeria.stars = 3
    pizzeria.oven = "wood"
    pizzeria.save()
    pizzeria.visits = 9
    pizzeria.save(update_fields=["visits"])
    place = Place.objects.get(pk=pizzeria.pk)
    place.visits += 1
    place.save()
    return place.visits


@troubled
def save_child_of_saved_parent(item: dict[str, Any]) -> None:
    """Add a child to a parent that is there already."""
    place = Place.objects.create(name=item["key"])
    kiosk = Kiosk(place=place)
    kiosk.__dict__.update({"name": place.name, "visits": 4})
    kiosk.save()
    Kiosk.objects.create(name=f"{item['key']} Two")


@troubled
def save_diamond(item: dict[str, Any]) -> None:
    """Save a diamond, whose top is written once (gotcha 11)."""
    amphibian = Amphibian.objects.create(plate=item["key"], wheels=6, masts=0, crew=3)
    amphibian.masts = 2
    amphibian.plate = f"{item['key']} new"
    amphibian.save()


@troubled
def save_proxy(item: dict[str, Any]) -> None:
    """Save by a proxy, and change the row by the model itself."""
    author = Author.objects.create(name=item["key"])
    novel = Novel.objects.create(name=item["key"], author=author)
    book = Book.objects.get(pk=novel.pk)
    book.pages = 300
    book.save()


@troubled
def save_hidden(item: dict[str, Any]) -> int:
    """Change a row that the default manager does not show (gotcha 14)."""
    article = Article.objects.create(name=item["key"], hidden=True)
    article.text = "changed"
    article.save()
    article.refresh_from_db()
    assert not Article.objects.filter(pk=article.pk).exists()
    return Article.everything.filter(name=item["key"]).count()


@troubled
def save_selected(item: dict[str, Any]) -> None:
    """Save where `save()` first asks whether the row is there."""
    row = Selected.objects.create(name=item["key"])
    row.amount = 2
    row.save()


@troubled
def save_types(item: dict[str, Any]) -> None:
    """Save values of every type that is adapted."""
    Gadget.objects.create(
        name=item["key"],
        data={"list": [1, 2.5, None, "é"], "nested": {"key": item["key"]}},
        maybe=None,
        price=Decimal("12.3400"),
        raw=b"\x00\xff" + item["key"].encode(),
        length=datetime.timedelta(days=1, microseconds=5),
        flag=True,
        day=datetime.date(2020, 2, 29),
        text="a 'quote', a \"double\", a \\ and a %s\nand a tab\t☃",
        small=0.1,
        address="2001:db8::1",
    )
    gadget = Gadget.objects.create(name=f"{item['key']} bare", data=[])
    gadget.price = F("price") + 1
    gadget.save()
    gadget.refresh_from_db()
    gadget.flag = gadget.price == 1
    gadget.save(update_fields={"flag"})
    Quoted.objects.create(name=item["key"], order=4)


@troubled
def save_twice(item: dict[str, Any]) -> None:
    """Save again and again, forced and with fields, before and after a read."""
    author = Author(name=item["key"])
    author.save(force_insert=True)
    author.books_written = 1
    author.save()
    author.books_written = 2
    author.save(force_update=True)
    author.books_written = 3
    author.name = f"{item['key']} never written"
    author.save(update_fields=["books_written"])
    assert Author.objects.get(pk=author.pk).name == item["key"]


@troubled
def save_deferred(item: dict[str, Any]) -> None:
    """Save with deferred fields, which are neither loaded nor written (gotcha 7)."""
    author = Author.objects.create(name=item["key"])
    Book.objects.create(name=f"{item['key']} deferred", author=author, pages=1)
    book = Book.objects.only("pages").get(author=author)
    Book.objects.filter(pk=book.pk).update(name=f"{item['key']} meanwhile")
    book.pages = 2
    book.save()
    assert "name" in book.get_deferred_fields()


@troubled
def save_copy(item: dict[str, Any]) -> None:
    """Copy a row the Django way: take its key away and save it again."""
    author = Author.objects.create(name=item["key"])
    author.pk = None
    author._state.adding = True
    author.name = f"{item['key']} copy"
    author.save()


@troubled
def save_by_another_model(item: dict[str, Any]) -> int:
    """Read and change a table by an unmanaged model on top of it."""
    author = Author.objects.create(name=item["key"])
    Book.objects.create(name=item["key"], author=author, pages=3)
    row = BookRow.objects.get(author_id=author.pk)
    row.pages += 1
    row.save()
    return Book.objects.get(author=author).pages


@troubled
def create_in_bulk(item: dict[str, Any]) -> int:
    """Use `bulk_create`, `bulk_update` and `update` within an item."""
    author = Author.objects.create(name=item["key"])
    Book.objects.bulk_create(
        Book(name=f"{item['key']} {number}", author=author) for number in range(4)
    )
    books = list(author.books.order_by("name"))
    for number, book in enumerate(books):
        book.pages = number
    Book.objects.bulk_update(books, ["pages"])
    Book.objects.filter(author=author, pages__gte=2).update(pages=F("pages") * 10)
    return sum(author.books.values_list("pages", flat=True))


@troubled
def pop_everything(item: dict[str, Any]) -> None:
    """Empty the item while working on it, as code that builds keyword arguments does."""
    key = item.pop("key")
    item.pop("bad", None)
    item.pop("case", None)
    item.pop("n")
    assert not item, "the item was not whole"
    Author.objects.create(name=key)
