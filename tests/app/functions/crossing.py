"""Two databases in one item."""

from __future__ import annotations

from typing import Any

from tests.app.functions.trouble import troubled
from tests.app.models import AuditLine, AuditNote, Author, Book


@troubled
def write_to_both(item: dict[str, Any]) -> None:
    """Write to both databases, routed object by object (gotcha 13)."""
    author = Author.objects.create(name=item["key"])
    line = AuditLine.objects.create(name=item["key"], detail=f"saw {author.name}")
    line.notes.create(name=f"{item['key']} note")
    Book.objects.create(name=item["key"], author=author)
    AuditNote.objects.create(name=f"{item['key']} second", line_id=line.pk)
    line.detail = "done"
    line.save()


@troubled
def write_with_using(item: dict[str, Any]) -> None:
    """Write one model to two databases, and move a row between them."""
    Author.objects.using("other").create(name=f"{item['key']} there")
    here = Author(name=f"{item['key']} both")
    here.save(using="default")
    here.pk = None
    here.save(using="other", force_insert=True)
    AuditLine.objects.using("default").create(name=f"{item['key']} astray")


@troubled
def write_to_other(item: dict[str, Any]) -> None:
    """Write to the other database alone."""
    AuditLine.objects.create(name=item["key"])
