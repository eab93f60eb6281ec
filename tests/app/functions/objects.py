"""What is run on the objects of a QuerySet."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import connection, models
from django.test.utils import CaptureQueriesContext

from tests.app.models import Account, Article, Author, Book, Restaurant, Tag, Ticket
from tests.app.receivers import natural_name


def name(instance: models.Model) -> str:
    """Name the object by what it says."""
    return natural_name(instance)


def key(instance: models.Model) -> Any:
    return instance.pk


def describe(book: Book) -> dict[str, Any]:
    """Tell what an object came with: deferred fields, cached relations, annotations, alias."""
    with CaptureQueriesContext(connection) as queries:
        words: dict[str, Any] = {
            "deferred": sorted(book.get_deferred_fields()),
            "related": sorted(book._state.fields_cache),  # type: ignore[attr-defined]
            "prefetched": sorted(getattr(book, "_prefetched_objects_cache", {})),
            "tags": sorted(tag.word for tag in getattr(book, "short_tags", ())),
            "annotated": {
                key: book.__dict__[key] for key in ("number", "loud") if key in book.__dict__
            },
            "alias": book._state.db,
        }
        if "author" in words["related"]:
            words["author"] = book.author.name
        if "tags" in words["prefetched"]:
            words["words"] = sorted(tag.word for tag in book.tags.all())
    return words | {"queries": len(queries)}


def add_page(book: Book) -> None:
    """Save the object, changing what it was found by."""
    book.pages += 1
    book.save()


def add_page_unless_bad(book: Book) -> None:
    """Save the object, then refuse it if its name says so."""
    add_page(book)
    if book.name.endswith("bad"):
        raise ValueError(f"{book.name} it is")


def multiply(instance: models.Model) -> None:
    """Create two further rows of the object's own model."""
    if isinstance(instance, Ticket):
        for _ in range(2):
            Ticket.objects.create(id=uuid.uuid4(), name="further")
    else:
        for _ in range(2):
            type(instance)._base_manager.create(name="further")


def double_all_if_first(author: Author) -> None:
    """Have the first author create as many again."""
    if author.name == "000":
        number = Author.objects.count()
        Author.objects.bulk_create(Author(name=f"further {n}") for n in range(number))


def delete(instance: models.Model) -> None:
    instance.delete()


def bookshelf(author: Any) -> list[Any]:
    """Tell what was prefetched: all books with their tags, and the first two."""
    with CaptureQueriesContext(connection) as queries:
        books = sorted((b.name, sorted(t.word for t in b.tags.all())) for b in author.books.all())
        first = [book.name for book in author.first_books]
    return [author.name, books, first, len(queries)]


def target(remark: Any) -> list[Any]:
    """Tell what a generic key points to, and that object's author."""
    with CaptureQueriesContext(connection) as queries:
        words = [remark.name, remark.target.name, remark.target.author.name]
    return [*words, len(queries)]


def delete_next(author: Author) -> None:
    """Delete the author after this one, before its turn."""
    Author.objects.filter(name=f"{int(author.name) + 1:03}").delete()


def publish(article: Article) -> None:
    article.hidden = True
    article.save()


def promote(restaurant: Restaurant) -> None:
    """Save a child: a row of each level."""
    restaurant.stars += 1
    restaurant.visits += 1
    restaurant.save()


def use_tag(tag: Tag) -> None:
    tag.uses += 1
    tag.save(update_fields=["uses"])


def settle(account: Account) -> None:
    """Take what the balance may not give: a check refuses it."""
    account.balance -= 10
    account.save()


def rank(instance: Any) -> tuple[str, int]:
    """Tell the object's annotation."""
    return (instance.name, instance.rank)
