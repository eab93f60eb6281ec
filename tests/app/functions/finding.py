"""Get or create, savepoints, deletes: code that looks before, or catches after."""

from __future__ import annotations

from typing import Any

from django.db import IntegrityError, connection, transaction

from tests.app.functions.trouble import troubled
from tests.app.models import (
    Account,
    Author,
    Book,
    Country,
    Pizzeria,
    Place,
    Slot,
    Tag,
    Turn,
)


@troubled
def get_or_create(item: dict[str, Any]) -> list[bool]:
    """Find what is there and create what is not, by a lookup and by a lost race."""
    first, created = Country.objects.get_or_create(code=item["key"], defaults={"title": "one"})
    second, again = Country.objects.get_or_create(code=item["key"], defaults={"title": "two"})
    assert first == second and second.title == "one"
    author, _ = Author.objects.get_or_create(name=item["key"])
    book, new = author.books.get_or_create(name=item["key"], defaults={"pages": 7})
    assert book.author_id == author.pk
    return [created, again, new]


@troubled
def update_or_create(item: dict[str, Any]) -> list[Any]:
    """Create by one call and update by the next."""
    results: list[Any] = []
    for title in ("one", "two"):
        country, created = Country.objects.update_or_create(
            code=item["key"], defaults={"title": title}, create_defaults={"title": "new"}
        )
        results += [country.title, created]
    return results


@troubled
def catch_within_savepoint(item: dict[str, Any]) -> str:
    """Catch an IntegrityError within an inner `atomic()`, and go on (the lawful way)."""
    email = f"{item['key']}@example.org"
    Account.objects.create(name=item["key"], email=email, region=item["key"])
    try:
        with transaction.atomic():
            Author.objects.create(name=f"{item['key']} undone")
            Account.objects.create(name=item["key"], email=email, region=f"{item['key']}x")
    except IntegrityError:
        Author.objects.create(name=f"{item['key']} caught")
        return "caught"
    return "not refused"


# Renamed in Django 6.1, where the old name warns.
savepoint = getattr(transaction, "savepoint_create", None) or transaction.savepoint


@troubled
def nest(item: dict[str, Any]) -> int:
    """Roll back an inner block by hand and by an exception, and keep the outer one."""
    Author.objects.create(name=f"{item['key']} outer")
    with transaction.atomic():
        Author.objects.create(name=f"{item['key']} inner")
        with transaction.atomic():
            Author.objects.create(name=f"{item['key']} rolled back")
            transaction.set_rollback(True)
    try:
        with transaction.atomic():
            Author.objects.create(name=f"{item['key']} raised")
            raise LookupError
    except LookupError:
        pass
    point = savepoint()
    Author.objects.create(name=f"{item['key']} by hand")
    transaction.savepoint_rollback(point)
    point = savepoint()
    Author.objects.create(name=f"{item['key']} kept")
    transaction.savepoint_commit(point)
    return Author.objects.filter(name__startswith=item["key"]).count()


@troubled
def delete_rows(item: dict[str, Any]) -> list[int]:
    """Delete one row, a queryset, a cascade and a child with its parents."""
    author = Author.objects.create(name=item["key"])
    for number in range(3):
        book = Book.objects.create(name=f"{item['key']} {number}", author=author)
        book.tags.add(Tag.objects.create(word=f"{item['key']}-{number}"))
    counts = [author.books.filter(name__endswith="0").delete()[0], book.delete()[0]]
    pizzeria = Pizzeria.objects.create(name=item["key"])
    place = Place.objects.create(name=f"{item['key']} stays")
    counts.append(pizzeria.delete()[0])
    keep = Author.objects.create(name=f"{item['key']} kept")
    Book.objects.create(name=f"{item['key']} kept", author=keep)
    counts.append(author.delete()[0])
    assert place.pk is not None
    return counts


@troubled
def save_deleted(item: dict[str, Any]) -> None:
    """Save an object after deleting it: a new row."""
    author = Author.objects.create(name=item["key"])
    author.delete()
    author.save()


@troubled
def read_by_cursor(item: dict[str, Any]) -> list[int]:
    """Read and write by SQL what `save()` has just written, and the other way round."""
    author = Author.objects.create(name=item["key"])
    table = connection.ops.quote_name(Author._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT COUNT(*) FROM {table} WHERE name = %s", [item["key"]])
        (before,) = cursor.fetchone()
        cursor.execute(
            f"UPDATE {table} SET books_written = 40 WHERE name = %s",
            [item["key"]],
        )
    author.refresh_from_db()
    author.books_written += 2
    author.save()
    (raw,) = Author.objects.raw(f"SELECT * FROM {table} WHERE name = %s", [item["key"]])
    return [before, raw.books_written]


@troubled
def iterate_while_writing(item: dict[str, Any]) -> int:
    """Write while reading the same table with an iterator."""
    author = Author.objects.create(name=item["key"])
    for number in range(5):
        Book.objects.create(name=f"{item['key']} {number}", author=author, pages=number)
    seen = 0
    for book in Book.objects.filter(author=author).order_by("pages").iterator(chunk_size=2):
        book.pages += 10
        book.save()
        seen += 1
    assert list(Book.objects.filter(author=author, pages__gte=10).values_list("pages")) != []
    return seen


@troubled
def swap_slots(item: dict[str, Any]) -> None:
    """Swap two unique positions: allowed until COMMIT where the constraint can wait."""
    base = item["n"] * 2
    one = Slot.objects.create(name=f"{item['key']} a", position=base)
    two = Slot.objects.create(name=f"{item['key']} b", position=base + 1)
    one.position, two.position = two.position, one.position
    one.save()
    two.save()


@troubled
def take_turn(item: dict[str, Any]) -> str:
    """Take a number, or the next free one if the database says at once that it is taken."""
    number = item["number"]
    while True:
        try:
            with transaction.atomic():
                Turn.objects.create(name=item["key"], number=number)
            return f"{number}"
        except IntegrityError:
            number += 1000


@troubled
def write_by_copy(item: dict[str, Any]) -> None:
    """Write one row by PostgreSQL's COPY, and nothing else."""
    table = connection.ops.quote_name(Author._meta.db_table)
    sql = f"COPY {table} (name, books_written) FROM STDIN"
    with connection.cursor() as cursor, cursor.copy(sql) as copy:
        copy.write_row((item["key"], 0))
