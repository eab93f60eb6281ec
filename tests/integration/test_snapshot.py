"""The instruments: a snapshot and a log that see what they should, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import transaction

from tests.app.functions import relating, saving
from tests.app.models import Author, Book, Person, Remark, SignalLog, Stamped, Tag
from tests.app.receivers import Recorded, recording
from tests.snapshot import empty_tables, tables, take_log, take_snapshot

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


def make(names: str = "abc") -> None:
    """Make related rows; their keys depend on the order of the names."""
    for name in names:
        author = Author.objects.create(name=name)
        book = Book.objects.create(name=name, author=author)
        book.tags.add(Tag.objects.create(word=name))
        Remark.objects.create(name=name, target=book)
        Stamped.objects.create(name=name)
        person = Person.objects.create(name=name)
        person.boss = person
        person.save()


def test_a_snapshot_does_not_depend_on_keys_or_the_clock() -> None:
    """The same rows made in another order, later and with other keys, look the same."""
    make("abc")
    first, keys = take_snapshot(), set(Author.objects.values_list("pk", "name"))
    empty_tables()
    make("cab")

    assert set(Author.objects.values_list("pk", "name")) != keys
    assert take_snapshot() == first


CHANGES: dict[str, Callable[[], object]] = {
    "a column": lambda: Book.objects.filter(name="a").update(pages=7),
    "a row more": lambda: Author.objects.create(name="a"),
    "a row less": lambda: Tag.objects.get(word="c").delete(),
    "a foreign key": lambda: Book.objects.filter(name="a").update(
        author=Author.objects.get(name="b")
    ),
    "a key to itself": lambda: Person.objects.filter(name="a").update(
        boss=Person.objects.get(name="b")
    ),
    "a many-to-many": lambda: Book.objects.get(name="a").tags.add(Tag.objects.get(word="b")),
    "a generic key": lambda: Remark.objects.filter(name="a").update(
        object_id=Book.objects.get(name="b").pk
    ),
    "a date": lambda: Stamped.objects.filter(name="a").update(changed_at=saving.LONG_AGO),
    "the other database": lambda: Author.objects.using("other").create(name="a"),
    "two keys swapped": lambda: swap(),
}


def swap() -> None:
    one, two = Book.objects.filter(name__in="ab").order_by("name")
    one.author, two.author = two.author, one.author
    one.save()
    two.save()


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_snapshot_sees(change: str) -> None:
    """Any change to a row, a relation or a date shows in the snapshot."""
    make()
    before = take_snapshot()

    CHANGES[change]()

    assert take_snapshot() != before


def test_the_log_tells_signals_in_their_order() -> None:
    """The log holds an item's signals in order, with their arguments, and names for keys."""
    function = Recorded(relating.tag_from_the_other_side)
    with transaction.atomic():
        function({"key": "x"})

    log = take_log()["x"]

    assert [line.split()[:3] for line in log[:4]] == [
        ["pre_save", "app.Author", "[x]"],
        ["post_save", "app.Author", "[x]"],
        ["pre_save", "app.Profile", "[x]"],
        ["post_save", "app.Profile", "[x]"],
    ]
    assert log[0].endswith("adding=True, db=None, raw=False, update_fields=None, using=default")
    assert "created=True" in log[1]
    added = [line for line in log if "post_add" in line]
    assert added[0] == (
        "m2m_changed app.Book_tags [x-a] action=post_add, keys=['x 0', 'x 1', 'x 2'],"
        " model=app.Book, reverse=True, using=default"
    )
    assert any("pre_clear" in line and "keys=None" in line for line in log)


def test_the_log_goes_with_its_item() -> None:
    """An item that fails or is rolled back leaves nothing in the log, nor does a bare function."""
    with pytest.raises(ValueError, match="bad"), transaction.atomic():
        Recorded(saving.create_account)({"key": "x", "bad": "raise"})
    with transaction.atomic():
        Recorded(saving.create_account)({"key": "y"})
        transaction.set_rollback(True)
    saving.create_account({"key": "z"})

    assert take_log() == {}
    assert not SignalLog.objects.exists()


def test_recording_loads_no_deferred_field() -> None:
    """Looking on does not load what the function left out."""
    make("a")
    with recording("x"):
        book = Book.objects.only("pages").get()
        book.save(update_fields=["pages"])

    assert "name" in book.get_deferred_fields()
    assert "[<deferred>]" in take_log()["x"][0]


def test_every_model_has_a_natural_name() -> None:
    """Each model of the test app says by which of its fields it is known."""
    for model in tables("default"):
        if not model._meta.auto_created:
            names = getattr(model, "natural", ())
            assert names, model
            assert all(model._meta.get_field(name) for name in names)
