"""Relations: many-to-many of every kind, trees, generic keys, orders and numbers."""

from __future__ import annotations

from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db.models import F

from tests.app.functions.trouble import troubled
from tests.app.models import (
    Author,
    Book,
    Club,
    Course,
    Echo,
    Family,
    Fleeting,
    Lesson,
    Line,
    Membership,
    Order,
    Person,
    Picky,
    Picture,
    Receipt,
    Remark,
    Sibling,
    Slugged,
    Tag,
)


def own_tags(item: dict[str, Any]) -> list[Tag]:
    return [Tag.objects.create(word=f"{item['key']}-{letter}") for letter in "abcd"]


@troubled
def tag_books(item: dict[str, Any]) -> list[str]:
    """Add, add again, remove, set and clear, from the book's side (gotcha 19)."""
    author = Author.objects.create(name=item["key"])
    book = Book.objects.create(name=item["key"], author=author)
    a, b, c, d = own_tags(item)
    book.tags.add(a, b)
    book.tags.add(b, c)
    book.tags.add(a)
    book.tags.remove(b)
    book.tags.set([c, d])
    book.tags.set([a], clear=True)
    words = list(book.tags.values_list("word", flat=True))
    book.tags.clear()
    book.tags.add(d)
    made = book.tags.create(word=f"{item['key']}-made")
    return [*words, made.word]


@troubled
def tag_from_the_other_side(item: dict[str, Any]) -> int:
    """The same from the tag's side: the signals say `reverse`."""
    author = Author.objects.create(name=item["key"])
    books = [Book.objects.create(name=f"{item['key']} {n}", author=author) for n in range(3)]
    tag, other, *_ = own_tags(item)
    tag.books.add(*books)
    tag.books.remove(books[0])
    other.books.set(books[:2])
    other.books.clear()
    return tag.books.count()


@troubled
def join_clubs(item: dict[str, Any]) -> list[str]:
    """Use a through model with its own `save()`, directly and by the relation (gotcha 19)."""
    club = Club.objects.create(name=item["key"])
    people = [Person.objects.create(name=f"{item['key']} {n}") for n in range(3)]
    Membership.objects.create(club=club, person=people[0], role="chair")
    Membership(club=club, person=people[1]).save()
    club.members.add(people[2], through_defaults={"role": "guest"})
    club.members.remove(people[1])
    return sorted(Membership.objects.filter(club=club).values_list("badge", flat=True))


@troubled
def befriend(item: dict[str, Any]) -> int:
    """Relate a model to itself: symmetrical, one-way, and as a tree."""
    ann, ben, cat = (Person.objects.create(name=f"{item['key']} {n}") for n in ("a", "b", "c"))
    ann.friends.add(ben, cat)
    ben.friends.remove(ann)
    ann.follows.add(cat)
    cat.followers.add(ben)
    ben.boss = ann
    ben.save(update_fields=["boss"])
    cat.boss = cat
    cat.save()
    return ann.friends.count()


@troubled
def remark(item: dict[str, Any]) -> None:
    """Set a generic key before and after its target is saved (gotcha 5)."""
    picture = Picture.objects.create(name=item["key"])
    Remark.objects.create(name=f"{item['key']} a", target=picture)
    picture.remarks.create(name=f"{item['key']} b")

    author = Author(name=item["key"])
    late = Remark(name=f"{item['key']} late", target=author)
    author.save()
    late.target = author
    late.save()

    doomed = Picture.objects.create(name=f"{item['key']} doomed")
    doomed.remarks.create(name=f"{item['key']} goes too")
    doomed.delete()
    kind = ContentType.objects.get_for_model(Picture)
    assert Remark.objects.filter(content_type=kind, object_id=picture.pk).count() == 2


@troubled
def order_lessons(item: dict[str, Any]) -> list[str]:
    """Keep an order that is computed from the table (gotcha 12)."""
    course = Course.objects.create(name=item["key"])
    first, second, third = (
        Lesson.objects.create(name=f"{item['key']} {n}", course=course) for n in range(3)
    )
    set_order: Any = course.set_lesson_order  # type: ignore[attr-defined]
    set_order([third.pk, first.pk, second.pk])
    Lesson.objects.create(name=f"{item['key']} last", course=course)
    return [lesson.name for lesson in course.lessons.all()]


@troubled
def number_receipts(item: dict[str, Any]) -> list[int]:
    """Take the next number of the item's own row of numbers (gotcha 12)."""
    course = Course.objects.create(name=item["key"])
    return [Receipt.objects.create(course=course).number for _ in range(4)]


@troubled
def number_shared_receipts(item: dict[str, Any]) -> None:
    """Take the next number of a row of numbers that all items share: one after another only."""
    course, _ = Course.objects.get_or_create(name="shared")
    Receipt.objects.create(course=course)


@troubled
def make_receivers_react(item: dict[str, Any]) -> list[Any]:
    """Let receivers change, save, count, add up and delete (gotcha 18)."""
    slugged = Slugged.objects.create(name=f"{item['key']} Big Name")
    echo = Echo.objects.create(name=item["key"])

    family = Family.objects.create(name=item["key"])
    for number in range(3):
        Sibling.objects.create(name=f"{item['key']} {number}", family=family)

    order = Order.objects.create(name=item["key"])
    for number in range(3):
        Line.objects.create(name=f"{item['key']} {number}", order=order, price=10 + number)
    Line.objects.filter(order=order, price=11).get().delete()
    order.refresh_from_db()

    for generation in range(3):
        Fleeting.objects.create(name=item["key"], generation=generation)
    return [slugged.slug, echo.echoes, family.size, order.total]


@troubled
def object_to(item: dict[str, Any]) -> None:
    """Save a row to which a receiver objects if the item says so, at the signal it says."""
    Author.objects.create(name=item["key"])
    Picky.objects.create(name=item["key"], objection=item.get("objection", ""))


@troubled
def update_shared_parent(item: dict[str, Any]) -> None:
    """Change a row that other items change too, with an expression (gotcha 34)."""
    tag = Tag.objects.get(word=f"shared-{item['n'] % 3}")
    tag.uses = F("uses") + 1
    tag.save(update_fields=["uses"])
    Author.objects.create(name=item["key"])


@troubled
def share_tags(item: dict[str, Any]) -> None:
    """Relate to rows that other items make too: `get_or_create` and a counter by a receiver."""
    author = Author.objects.create(name=item["key"])
    book = Book.objects.create(name=item["key"], author=author)
    tag, _ = Tag.objects.get_or_create(word=f"shared-{item['n'] % 3}")
    book.tags.add(tag)
