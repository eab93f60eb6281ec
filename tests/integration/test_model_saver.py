"""Rows saved as instances of a model: cleaned, foreign keys by natural key, a chunk at a time."""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import connection, models, transaction
from django.test.utils import CaptureQueriesContext, isolate_apps
from django.utils import timezone

import carpool
from carpool.exceptions import ConfigurationError, InvalidItem
from carpool.functions import dumps, loads
from carpool.savers import ModelSaver
from tests.app.models import (
    Account,
    Amphibian,
    Article,
    AuditLine,
    AuditNote,
    Author,
    Book,
    Box,
    Choosy,
    Country,
    Customer,
    Draft,
    Gadget,
    Membership,
    Parcel,
    Person,
    Pizzeria,
    Priced,
    Profile,
    Purchase,
    Remark,
    Seat,
    Slugged,
    Stamped,
    Sticker,
    Tag,
    Ticket,
    TicketStub,
    Town,
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

BY_EMAIL = {"Customer E-mail": "customer__email"}


def save(model: Any, *rows: Mapping[str, Any], **options: Any) -> list[Any]:
    """Save the rows as one chunk; return the instances by key."""
    saver = ModelSaver(model, **options)
    with transaction.atomic():
        lookups = saver.before_chunk(rows)
        for row in rows:
            saver(row, lookups)
    return list(model._base_manager.using(options.get("using")).order_by("pk"))


def refusal(model: Any, row: Any, **options: Any) -> str:
    """Return what is said of a row, which is the same with its chunk's lookups and without."""
    saver = ModelSaver(model, **options)
    before = model._base_manager.count()
    messages = set()
    for lookups in (saver.before_chunk([row]), None):
        with pytest.raises(InvalidItem) as caught:
            saver(row, lookups)
        messages.add(str(caught.value))
    assert model._base_manager.count() == before
    (message,) = messages
    return message


def misconfigured(model: Any, *columns: str, **options: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        ModelSaver(model, **options).check(columns)
    return str(caught.value)


@pytest.fixture
def customers() -> list[Customer]:
    Customer.objects.bulk_create(
        [
            Customer(name="Ann", email="ann@example.org", city="Bern"),
            Customer(name="Ann", email="ann2@example.org", city="Rome"),
            Customer(name="Bob", email="bob@example.org", city="Bern", active=False),
            Customer(name="Cid", email="seven@example.org"),
        ]
    )
    return list(Customer.objects.order_by("email"))


def order(number: str = "1", **cells: Any) -> dict[str, Any]:
    return {"number": number, "customer__email": "ann@example.org", **cells}


# Cells.


def test_a_row_is_saved_as_an_instance() -> None:
    """Text becomes what the fields are; what has no column keeps its default."""
    (gadget,) = save(
        Gadget,
        {
            "name": "lamp",
            "data": '{"a": [1]}',
            "price": "1.50",
            "length": "1 02:00:00",
            "flag": "true",
            "day": "2026-11-22",
            "small": "0.5",
            "address": "::1",
        },
    )
    assert (gadget.name, gadget.price, gadget.small) == ("lamp", Decimal("1.50"), 0.5)
    assert gadget.length == datetime.timedelta(days=1, hours=2)
    assert (gadget.flag, gadget.day) == (True, datetime.date(2026, 11, 22))
    assert (gadget.data, gadget.maybe, gadget.address) == ({"a": [1]}, None, "::1")


def test_values_that_are_no_text_are_taken_too() -> None:
    """A line of JSON has numbers, lists and nulls."""
    (gadget,) = save(Gadget, {"name": "lamp", "data": {"a": [1]}, "price": 0.1, "small": 1})
    assert (gadget.data, gadget.price, gadget.small) == ({"a": [1]}, Decimal("0.1"), 1.0)


def test_an_empty_cell_is_null_where_it_may_be(customers: list[Customer]) -> None:
    """Of text, too; a field that may not be null gets the empty text and judges it."""
    (purchase,) = save(
        Purchase,
        order(note="", placed_at="", details="", referrer="", previous__number="", size=""),
    )
    assert (purchase.note, purchase.placed_at, purchase.details) == (None, None, None)
    assert (purchase.referrer_id, purchase.previous_id, purchase.size) == (None, None, "")
    assert refusal(Purchase, order("2", quantity="")) == "'quantity': “” value must be an integer."


def test_a_time_without_a_zone_is_in_the_current_one(customers: list[Customer]) -> None:
    """As in a form, and with a form's message where there is no such time."""
    with timezone.override("Europe/Paris"):
        (purchase,) = save(Purchase, order(placed_at="2026-07-01 12:00"))
        message = refusal(Purchase, order("2", placed_at="2026-03-29 02:30"))
    assert purchase.placed_at == datetime.datetime(2026, 7, 1, 10, tzinfo=datetime.UTC)
    assert "'placed_at': 2026-03-29 02:30:00 couldn’t be interpreted" in message


def test_all_bad_cells_of_a_row_are_named() -> None:
    """Each by its column, with the field's own message."""
    message = refusal(
        Gadget,
        {"name": "x", "Price": "much", "data": "{", "day": "today", "length": "long"},
    )
    assert "'Price': “much” value must be a decimal number." in message
    assert "'data': Value must be valid JSON." in message
    assert "'day': “today” value has an invalid date format." in message
    assert message.count("; ") == 3


# full_clean() and save().


def test_what_the_fields_refuse_is_the_message(customers: list[Customer]) -> None:
    """Validators, choices, lengths: full_clean()'s messages, each with its column."""
    message = refusal(
        Purchase,
        {**order("much too long a number"), "size": "m", "Quantity": "0"},
    )
    assert "'number': Ensure this value has at most 12 characters (it has 22)." in message
    assert "'size': Value 'm' is not a valid choice." in message
    assert "'Quantity': Ensure this value is greater than or equal to 1." in message


def test_what_clean_refuses_is_the_message(customers: list[Customer]) -> None:
    """The model's own clean(), which is of no field."""
    assert refusal(Purchase, order(quantity="13")) == "Thirteen is refused."


def test_a_missing_value_is_refused(customers: list[Customer]) -> None:
    """A field without a column and a default, by its name."""
    assert refusal(Purchase, {"number": "1"}) == "customer: This field cannot be null."
    assert refusal(Purchase, {"number": "", "customer": ""}) == (
        "'number': This field cannot be blank.; 'customer': This field cannot be null."
    )


def test_a_default_need_not_be_what_a_form_takes() -> None:
    """A field without a column stays as it is; an empty cell is judged by full_clean()."""
    (country,) = save(Country, {"code": "fr"})
    assert country.title == ""
    assert refusal(Country, {"code": "de", "title": ""}) == "'title': This field cannot be blank."


def test_what_is_there_already_is_refused() -> None:
    """A unique column, a set of columns, a primary key: new rows only."""
    save(Account, {"name": "a", "email": "a", "region": "east", "number": "1"})
    save(Country, {"code": "fr"})
    assert refusal(Account, {"name": "b", "email": "a"}) == (
        "'email': Account with this Email already exists."
    )
    assert refusal(Account, {"name": "b", "email": "b", "region": "east", "number": "1"}) == (
        "Account with this Region and Number already exists."
    )
    assert "already exists" in refusal(Country, {"code": "fr"})
    assert "already exists" in refusal(Account, {"pk": Account.objects.get().pk, "email": "c"})
    assert "violated" in refusal(Account, {"name": "b", "email": "b", "balance": "-1"})


@pytest.mark.parametrize("coalesce", [True, False], ids=["coalesced", "not coalesced"])
def test_the_second_of_two_in_a_chunk_is_refused(coalesce: bool) -> None:
    """full_clean() sees the rows before it, those that are still queued, too."""
    saver = ModelSaver(Account)
    rows = [{"name": n, "email": e, "number": n} for n, e in [("1", "a"), ("2", "b"), ("3", "a")]]
    report = carpool.run(saver, rows, executor="inline", coalesce=coalesce, progress=False)
    assert report.succeeded == 2
    (failure,) = report.failures
    assert (failure.index, failure.error) == (2, "carpool.exceptions.InvalidItem")
    assert failure.message == "'email': Account with this Email already exists."


def test_a_models_save_and_receivers_run() -> None:
    """It is saved by its own save(), and signals come."""
    (slugged,) = save(Slugged, {"name": "Big Ben"})
    assert slugged.slug != ""
    club, person = save_club()
    (membership,) = save(Membership, {"club": club.pk, "person": person.pk})
    assert membership.badge == "chess/Ann"


def save_club() -> Any:
    return (
        Membership.club.field.related_model.objects.create(name="chess"),
        Person.objects.create(name="Ann"),
    )


# Columns.


def test_columns_are_matched_by_name_attname_and_verbose_name(customers: list[Customer]) -> None:
    """A verbose name in any case; a path along a foreign key as Django spells it."""
    key = str(customers[0].pk)
    for number, header in enumerate(["customer", "customer_id", "buyer", "Buyer", "customer__pk"]):
        save(Purchase, {"Order No.": str(number), header: key})
    assert Purchase.objects.filter(customer=customers[0]).count() == 5
    save(Purchase, {"ORDER NO.": "p", "customer__email": "bob@example.org"})
    assert Purchase.objects.get(number="p").customer.name == "Bob"


def test_the_mapping_goes_before_names(customers: list[Customer]) -> None:
    """A column whose name is a field's may be for another."""
    mapping = {"note": "number", "number": "note", **BY_EMAIL}
    row = {"note": "7", "number": "careful", "Customer E-mail": "ann@example.org"}
    (purchase,) = save(Purchase, row, mapping=mapping)
    assert (purchase.number, purchase.note) == ("7", "careful")


@pytest.mark.parametrize("nothing", ["", None], ids=repr)
def test_a_column_may_be_left_out(nothing: Any) -> None:
    """Mapped to nothing it isn't looked at."""
    (tag,) = save(Tag, {"word": "red", "colour": object()}, mapping={"colour": nothing})
    assert tag.word == "red"


def test_an_unknown_column_is_refused_with_the_fields() -> None:
    """Before the run by check(), and of a row by its failing; likely fields are proposed."""
    message = misconfigured(Tag, "word", "number of uses", "used")
    for part in ("app.Tag", "'number of uses', 'used'", "'word', 'uses'", "{'used': 'uses'}"):
        assert part in message
    assert refusal(Tag, {"word": "red", "used": "1"}).startswith(
        "No field of app.Tag for the column 'used'."
    )


def test_a_file_without_unknown_columns_passes_the_check(customers: list[Customer]) -> None:
    """check() takes a reader's fieldnames."""
    reader = csv.DictReader(io.StringIO("number,Customer E-mail\n7,ann@example.org\n"))
    saver = ModelSaver(Purchase, BY_EMAIL)
    assert reader.fieldnames is not None
    saver.check(reader.fieldnames)
    for row in reader:
        saver(row)
    assert Purchase.objects.get().customer == Customer.objects.get(email="ann@example.org")


REFUSED: dict[str, tuple[Any, str, Any, list[str]]] = {
    "no such field": (Purchase, "a", "custmer", ["no field 'custmer'. Did you mean customer"]),
    "no such related field": (
        Purchase,
        "a",
        "customer__emial",
        ["'a' is mapped to 'customer__emial': app.Customer has no field 'emial'", "email?"],
    ),
    "a path along no foreign key": (
        Purchase,
        "a",
        "number__email",
        ["app.Purchase.number is not a foreign key"],
    ),
    "a lookup": (Purchase, "a", "customer__email__iexact", ["'iexact' can't follow", "equality"]),
    "many-to-many": (Book, "a", "tags", ["app.Book.tags is many-to-many", ".set()"]),
    "a relation from elsewhere": (Author, "a", "books", ["app.Author.books is no column"]),
    "a generic relation": (Remark, "a", "target", ["app.Remark.target is no column"]),
    "a key of several columns": (Seat, "a", "pk", ["app.Seat.pk is no column", "several columns"]),
    "a computed column": (Box, "a", "area", ["app.Box.area is computed by the database"]),
    "a parent link": (Pizzeria, "a", "restaurant_link", ["the link to the parent's row"]),
    "back from the related row": (
        Profile,
        "a",
        "author__books__name",
        ["app.Author.books is no column"],
    ),
}


@pytest.mark.parametrize(("model", "column", "path", "words"), REFUSED.values(), ids=REFUSED)
def test_what_a_column_cannot_fill_is_refused(
    model: Any, column: str, path: str, words: list[str]
) -> None:
    """When the saver is made, where it is mapped; with its first row, where it is a header."""
    with pytest.raises(ConfigurationError) as caught:
        ModelSaver(model, {column: path})
    for word in words:
        assert word in str(caught.value)
    assert refusal(model, {path: "x"})


def test_a_many_to_many_header_is_told_from_an_unknown_one() -> None:
    """It says what the field is, and what to do."""
    assert "The column 'tags': app.Book.tags is many-to-many" in misconfigured(Book, "name", "tags")


def test_two_columns_for_one_field_are_refused() -> None:
    """Neither wins in silence."""
    message = misconfigured(Purchase, "number", "Order No.")
    assert "'number' and 'Order No.' are both for number" in message
    both = {"A": "customer__email", "B": "customer__email"}
    assert "both for customer__email" in misconfigured(Purchase, "A", "B", mapping=both)


def test_a_mapping_of_a_column_that_is_not_there_is_refused() -> None:
    """The usual cause is a typing error in the mapping."""
    message = misconfigured(Purchase, "number", "Customer E-mail", mapping={"Custmer": "customer"})
    assert "There is no column 'Custmer', which the mapping names." in message
    assert "'number', 'Customer E-mail'" in message


@isolate_apps("tests.app")
def test_a_verbose_name_of_two_fields_is_refused() -> None:
    """It has to be mapped to one of them."""

    class Ambiguous(models.Model):
        first = models.IntegerField("size")
        second = models.IntegerField("Size")

        class Meta:
            app_label = "app"

    message = misconfigured(Ambiguous, "SIZE")
    assert "'SIZE' is the verbose name of 2 fields: 'first', 'second'" in message
    assert misconfigured(Ambiguous, "other", mapping={"SIZE": "first"})


def test_models_without_a_table_are_refused(settings: Any) -> None:
    """An abstract one, and one that is swapped for another."""
    with pytest.raises(ConfigurationError, match="Named is abstract"):
        ModelSaver(Author.__mro__[1])
    settings.AUTH_USER_MODEL = "app.Person"
    with pytest.raises(ConfigurationError, match=r"User is swapped for app\.Person"):
        ModelSaver(User)


@pytest.mark.parametrize("item", [7, "row", None, ("a", "b")], ids=repr)
def test_what_is_no_row_is_refused(item: Any) -> None:
    """An item that is no mapping fails, and says what it is."""
    assert refusal(Tag, item).startswith(f"The item is a {type(item).__name__!r}; a app.Tag is")


def test_rows_of_the_wrong_length_are_refused() -> None:
    """Surplus cells are shown; cells that are missing are None to csv.DictReader."""
    long, short = csv.DictReader(io.StringIO("word,uses\nred,1,2\nblue\n"))
    assert "['2']" in refusal(Tag, long)
    assert refusal(Tag, short) == "'uses': This field cannot be null."


def test_rows_may_have_different_columns(customers: list[Customer]) -> None:
    """Lines of JSON leave out what they don't have."""
    save(
        Purchase,
        {"number": "1", "customer__email": "ann@example.org"},
        {"number": "2", "customer__name": "Bob", "quantity": 2},
    )
    assert Purchase.objects.get(number="2").customer.name == "Bob"
    assert refusal(Purchase, {"number": "3", 7: "x"}).startswith("No field of app.Purchase")


# Foreign keys.


def test_a_chunks_foreign_keys_are_a_query_each(customers: list[Customer]) -> None:
    """However many rows: neither the look-up nor full_clean() asks for each."""
    rows = [
        order(
            str(number),
            customer__email=customers[number % 4].email,
            referrer=customers[number % 2].email,
        )
        for number in range(40)
    ]
    saver = ModelSaver(Purchase)
    with CaptureQueriesContext(connection) as queries:
        lookups = saver.before_chunk(rows)
        for row in rows:
            saver(row, lookups)
    asked = [q["sql"] for q in queries.captured_queries if "app_customer" in q["sql"]]
    assert len([sql for sql in asked if sql.startswith("SELECT")]) == 2
    assert Purchase.objects.filter(customer=customers[3]).count() == 10


def test_more_keys_than_a_query_takes_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """In several queries, all of them."""
    monkeypatch.setattr("carpool.savers.lookups.LOOKED_UP_AT_ONCE", 3)
    Author.objects.bulk_create(Author(name=f"{n}") for n in range(8))
    rows = [{"name": str(n), "author__name": str(n)} for n in range(8)]
    with CaptureQueriesContext(connection) as queries:
        ModelSaver(Book).before_chunk(rows)
    assert len(queries) == 3
    monkeypatch.setattr("carpool.savers.lookups.LOOKED_UP_AT_ONCE", 4)
    with CaptureQueriesContext(connection) as queries:
        ModelSaver(Book).before_chunk(row | {"author__pk": row["name"]} for row in rows)
    assert len(queries) == 4, "a row of two values counts twice"
    assert all(book.name == book.author.name for book in save(Book, *rows))


def test_several_columns_name_a_row_together(customers: list[Customer]) -> None:
    """A natural key of two columns, of which neither names one row by itself."""
    mapping = {"First name": "customer__name", "City": "customer__city"}
    rows = [
        {"number": "1", "First name": "Ann", "City": "Rome"},
        {"number": "2", "First name": "Bob", "City": "Bern"},
        {"number": "3", "First name": "Ann", "City": "Bern"},
    ]
    purchases = save(Purchase, *rows, mapping=mapping)
    emails = [purchase.customer.email for purchase in purchases]
    assert emails == ["ann2@example.org", "bob@example.org", "ann@example.org"]
    assert refusal(
        Purchase, {"number": "4", "First name": "Bob", "City": "Rome"}, mapping=mapping
    ) == ("'First name' and 'City': there is no app.Customer with name 'Bob' and city 'Rome'.")


def test_a_path_may_cross_several_foreign_keys(customers: list[Customer]) -> None:
    """What names the related row may be a related row's in turn."""
    save(Purchase, order("1"), order("2", customer__email="bob@example.org"))
    save(Purchase, order("3", previous__customer__name="Bob"))
    assert Purchase.objects.get(number="3").previous == Purchase.objects.get(number="2")


def test_a_row_that_is_not_there_is_named(customers: list[Customer]) -> None:
    """By column, model, field and value."""
    row = {"number": "1", "Customer E-mail": "nobody@example.org"}
    assert refusal(Purchase, row, mapping=BY_EMAIL) == (
        "'Customer E-mail': there is no app.Customer with email 'nobody@example.org'."
    )
    assert refusal(Purchase, {"number": "1", "customer": "0"}) == (
        "'customer': there is no app.Customer with id 0."
    )
    assert refusal(Purchase, {"number": "1", "customer": "x"}) == (
        "'customer': “x” value must be an integer."
    )


def test_a_key_of_several_rows_is_refused(customers: list[Customer]) -> None:
    """Nobody guesses which is meant."""
    message = refusal(Purchase, {"number": "1", "customer__name": "Ann"})
    assert "'customer__name': there are 2 app.Customer with name 'Ann'" in message
    assert "unique" in message
    Author.objects.bulk_create(Author(name="x") for _ in range(40))
    assert "there are 20 or more app.Author" in refusal(Book, {"author__name": "x"})


def test_all_bad_foreign_keys_of_a_row_are_named(customers: list[Customer]) -> None:
    """Together with its bad cells."""
    message = refusal(Purchase, {"customer": "0", "referrer": "x@example.org", "quantity": "x"})
    assert message.count("; ") == 2


def test_a_row_saved_before_in_the_chunk_is_found() -> None:
    """A tree may be in one file, parents first, as a loop would have it."""
    report = carpool.run(
        ModelSaver(Person),
        [{"name": "Ann"}, {"name": "Bob", "boss__name": "Ann"}, {"name": "C", "boss__name": "D"}],
        executor="inline",
        progress=False,
    )
    assert report.succeeded == 2
    assert Person.objects.get(name="Bob").boss == Person.objects.get(name="Ann")
    assert report.failures[0].message == "'boss__name': there is no app.Person with name 'D'."


def test_lookups_hold_what_is_sure_only(customers: list[Customer]) -> None:
    """Of rows that can't be found, or not as they are, nothing is looked up beforehand."""
    rows: list[Any] = [
        order(),
        order(customer__email="nobody@example.org"),
        {"customer__name": "Ann"},
        {"customer": "x"},
        {"unknown": "column"},
        {"previous__details": ["not", "to be", "hashed"]},
        7,
    ]
    found = ModelSaver(Purchase).before_chunk(rows).found
    assert [key for keys in found.values() for key in keys] == [("ann@example.org",)]


def test_a_value_that_cannot_be_hashed_names_a_row(customers: list[Customer]) -> None:
    """A JSONField's, which is looked up for the row alone."""
    save(Purchase, order("1", details="[1]"), order("2", details="[2]"))
    save(Purchase, order("3", previous__details=[2]))
    assert Purchase.objects.get(number="3").previous == Purchase.objects.get(number="2")


def test_where_case_does_not_count_the_database_decides(customers: list[Customer]) -> None:
    """The row spelled as the cell is preferred; else one that the database holds equal."""
    equal = Customer.objects.filter(email="ANN@example.org").exists()
    row = order(customer__email="ANN@example.org")
    if equal:
        (purchase,) = save(Purchase, row)
        assert purchase.customer.email == "ann@example.org"
    else:
        assert "there is no app.Customer" in refusal(Purchase, row)
    Author.objects.bulk_create([Author(name="x"), Author(name="X")])
    for lookups in (True, False):
        saver = ModelSaver(Book)
        cells = {"name": "b", "author__name": "X"}
        saver(cells, saver.before_chunk([cells]) if lookups else None)
    assert {book.author.name for book in Book.objects.all()} == {"X"}


def test_a_foreign_key_to_another_column_holds_that(customers: list[Customer]) -> None:
    """to_field: the key is the e-mail address, however the row is named."""
    first, second = save(
        Purchase,
        order("1", referrer="ann2@example.org"),
        order("2", referrer__city="Rome"),
    )
    assert first.referrer_id == second.referrer_id == "ann2@example.org"


def test_limit_choices_to_holds(customers: list[Customer]) -> None:
    """A row that the foreign key may not point at isn't found, by key or by natural key."""
    assert "there is no app.Customer" in refusal(Purchase, order(referrer="bob@example.org"))
    assert "there is no app.Customer" in refusal(Purchase, order(referrer__name="Bob"))


def test_a_foreign_keys_own_validators_run(customers: list[Customer]) -> None:
    """Though full_clean() isn't asked about keys that were found."""
    message = refusal(Purchase, order(referrer="seven@example.org"))
    assert message == "'referrer': Not seven."


def test_a_model_that_cleans_its_fields_itself_is_asked_as_ever(customers: list[Customer]) -> None:
    """Its clean_fields() sees the foreign key, at the price of Django's query for each row."""
    save(Choosy, {"name": "a", "customer__email": "ann@example.org"})
    assert refusal(Choosy, {"name": "b", "customer__email": "bob@example.org"}) == (
        "'customer__email': The customer is not active."
    )


@isolate_apps("tests.app")
def test_a_full_clean_of_the_models_own_is_called(customers: list[Customer]) -> None:
    """It may refuse with a message of no field, and sees foreign keys as they were found."""

    class Refusing(Purchase):
        class Meta:
            proxy = True
            app_label = "app"

        def full_clean(self, *args: Any, **kwargs: Any) -> None:
            super().full_clean(*args, **kwargs)
            raise ValidationError(f"{self.customer.name} has had enough.")

    assert refusal(Refusing, order()) == "Ann has had enough."


def test_nothing_is_left_on_the_instance(customers: list[Customer]) -> None:
    """What keeps full_clean() from asking again is gone when it is saved."""
    purchase = ModelSaver(Purchase).build(order())
    assert "clean_fields" not in vars(purchase)
    assert purchase._state.adding


def test_a_unique_foreign_key_is_checked(customers: list[Customer]) -> None:
    """A one-to-one by natural key is refused when it is there."""
    Author.objects.create(name="Ann")
    Profile.objects.all().delete()  # a receiver's
    save(Profile, {"author__name": "Ann"})
    message = refusal(Profile, {"author__name": "Ann"})
    assert message == "'author__name': Profile with this Author already exists."


def test_keys_with_converters_of_their_own_work() -> None:
    """A key that Python has as an object, a UUID, text; by itself and by the row's name."""
    parcel = Parcel.objects.create(name="big")
    ticket = Ticket.objects.create(name="early")
    Country.objects.create(code="fr", title="France")
    for row in ({"parcel": str(parcel.pk.number)}, {"parcel__name": "big"}):
        save(Sticker, {"name": "s", **row})
    for row in ({"ticket": str(ticket.pk)}, {"ticket__name": "early"}):
        save(TicketStub, {"name": "s", **row})
    for row in ({"country": "fr"}, {"country__title": "France"}):
        save(Town, {"name": "Nice", **row})
    assert Sticker.objects.filter(parcel=parcel).count() == 2
    assert TicketStub.objects.filter(ticket=ticket).count() == 2
    assert Town.objects.filter(country="fr").count() == 2


def test_a_default_manager_hides_rows_from_names_not_from_keys() -> None:
    """As `objects.get(name=…)` does, and as ForeignKey.validate() does."""
    with isolate_apps("tests.app"):

        class Comment(models.Model):
            article = models.ForeignKey(Article, models.CASCADE)

            class Meta:
                app_label = "app"
                managed = False

        hidden = Article.everything.create(name="secret", hidden=True)
        saver = ModelSaver(Comment)
        by_key = {"article": str(hidden.pk)}
        assert saver.before_chunk([by_key]).found.popitem()[1] == {(hidden.pk,): hidden.pk}  # type: ignore[attr-defined]
        with pytest.raises(InvalidItem, match=r"no app\.Article with name 'secret'"):
            saver({"article__name": "secret"})


# Models and databases of all kinds.


def test_inherited_models_are_saved_whole() -> None:
    """Columns of parents and children, a diamond's, too."""
    (pizzeria,) = save(Pizzeria, {"name": "Da Ugo", "visits": "3", "stars": "2", "oven": "gas"})
    assert (pizzeria.visits, pizzeria.stars, pizzeria.oven) == (3, 2, "gas")
    (amphibian,) = save(Amphibian, {"plate": "X", "wheels": "6", "masts": "2", "crew": "1"})
    assert (amphibian.plate, amphibian.wheels, amphibian.masts) == ("X", 6, 2)


def test_columns_that_the_database_fills_are_left_to_it() -> None:
    """Defaults of the database, computed columns, dates set when saved."""
    (priced,) = save(Priced, {"name": "a", "price": "3"})
    assert (priced.price, priced.label) == (3, "plain")
    (box,) = save(Box, {"name": "b", "width": "2", "height": "3"})
    assert box.area == 6
    (stamped,) = save(Stamped, {"name": "c"})
    assert stamped.pk


def test_a_key_of_several_columns_is_filled_column_by_column() -> None:
    """Its parts are fields like any other."""
    (seat,) = save(Seat, {"row": "A", "number": "7"})
    assert seat.pk == ("A", 7)


def test_rows_go_where_the_router_says() -> None:
    """Without an alias, rows and look-ups of a model follow the router."""
    AuditLine.objects.create(name="line")
    (note,) = save(AuditNote, {"name": "n", "line__name": "line"})
    assert note._state.db == "other"


def test_rows_go_to_the_alias_that_is_given() -> None:
    """With one, both go there."""
    Author.objects.create(name="Ann")
    there = Author.objects.using("other").create(name="Ann")
    (book,) = save(Book, {"name": "b", "author__name": "Ann"}, using="other")
    assert book.author_id == there.pk
    assert not Book.objects.exists()
    (line,) = save(AuditLine, {"name": "astray"}, using="default")
    assert line._state.db == "default"


@pytest.mark.only_on("sqlite", "postgresql")
def test_constraints_are_validated_where_the_row_goes() -> None:
    """What is published in one database is no obstacle in another."""
    row = {"name": "a", "published": "true"}
    save(Draft, row, using="default")
    save(Draft, row, using="other")
    assert "violated" in refusal(Draft, row, using="other")


def test_a_saver_travels(customers: list[Customer]) -> None:
    """Worker processes get it with the run; look-ups are plain data as well."""
    saver: Callable[..., Any] = loads(dumps(ModelSaver(Purchase, BY_EMAIL)))
    row = {"number": "1", "Customer E-mail": "ann@example.org"}
    lookups = loads(dumps(ModelSaver(Purchase, BY_EMAIL).before_chunk([row])))
    saver(row, lookups)
    assert Purchase.objects.get().customer.email == "ann@example.org"


@pytest.mark.parametrize("executor", ["inline", "processes"])
def test_a_saver_is_a_runs_function(customers: list[Customer], executor: Any) -> None:
    """It can be called with an item alone, at the price of a query for each foreign key."""
    rows = [order(str(number)) for number in range(20)] + [order("bad", quantity="x")]
    report = carpool.run(ModelSaver(Purchase), rows, executor=executor, workers=1, progress=False)
    assert (report.succeeded, report.failed) == (20, 1)
    assert report.failures[0].message == "'quantity': “x” value must be an integer."
    assert Purchase.objects.count() == 20
