"""Receivers that do something: the way a project's receivers do (gotcha 18).

They work on the models of `models.reacting`, and on authors and books.
"""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import F
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_save

from tests.app.models import (
    Author,
    Book,
    Echo,
    Fleeting,
    Line,
    Order,
    Picky,
    Profile,
    Sibling,
    Slugged,
    Tag,
)


class Objection(Exception):
    """What a receiver raises when it does not like a row."""


def make_slug(sender: type[models.Model], instance: Slugged, **kwargs: Any) -> None:
    instance.slug = instance.name.lower().replace(" ", "-")


def echo(sender: type[models.Model], instance: Echo, **kwargs: Any) -> None:
    if instance.echoes < 2:
        instance.echoes += 1
        instance.save(update_fields=["echoes"])


def count_siblings(sender: type[models.Model], instance: Sibling, **kwargs: Any) -> None:
    family = instance.family
    family.size = family.siblings.count()
    family.save(update_fields=["size"])


def add_up(
    sender: type[models.Model], instance: Line, created: bool, using: str, **kwargs: Any
) -> None:
    if created:
        Order.objects.using(using).filter(pk=instance.order_id).update(
            total=F("total") + instance.price
        )


def take_off(sender: type[models.Model], instance: Line, using: str, **kwargs: Any) -> None:
    Order.objects.using(using).filter(pk=instance.order_id).update(
        total=F("total") - instance.price
    )


def replace(sender: type[models.Model], instance: Fleeting, **kwargs: Any) -> None:
    for older in Fleeting.objects.filter(
        name=instance.name, generation__lt=instance.generation
    ).order_by("generation"):
        older.delete()


def object_before(sender: type[models.Model], instance: Picky, **kwargs: Any) -> None:
    if instance.objection == "pre_save":
        raise Objection(f"{instance.name}: not before it is saved")


def object_after(sender: type[models.Model], instance: Picky, **kwargs: Any) -> None:
    if instance.objection == "post_save":
        raise Objection(f"{instance.name}: not after it was saved")


def make_profile(
    sender: type[models.Model], instance: Author, created: bool, using: str, **kwargs: Any
) -> None:
    if created:
        Profile.objects.using(using).create(author=instance, bio=f"about {instance.name}")


def count_books(
    sender: type[models.Model], instance: Book, created: bool, using: str, **kwargs: Any
) -> None:
    if created:
        Author.objects.using(using).filter(pk=instance.author_id).update(
            books_written=F("books_written") + 1
        )


def count_uses(
    sender: type[models.Model],
    instance: models.Model,
    action: str,
    pk_set: set[Any] | None,
    reverse: bool,
    using: str,
    **kwargs: Any,
) -> None:
    step = {"post_add": 1, "post_remove": -1}.get(action)
    if step is None:
        return
    words = {instance.pk} if reverse else pk_set
    for key in sorted(words or ()):
        Tag.objects.using(using).filter(pk=key).update(uses=F("uses") + step)


def connect() -> None:
    """Connect every reaction; called from `AppConfig.ready()`, once a process."""
    pre_save.connect(make_slug, sender=Slugged)
    post_save.connect(echo, sender=Echo)
    post_save.connect(count_siblings, sender=Sibling)
    post_save.connect(add_up, sender=Line)
    post_delete.connect(take_off, sender=Line)
    post_save.connect(replace, sender=Fleeting)
    pre_save.connect(object_before, sender=Picky)
    post_save.connect(object_after, sender=Picky)
    post_save.connect(make_profile, sender=Author)
    post_save.connect(count_books, sender=Book)
    m2m_changed.connect(count_uses, sender=Book.tags.through)
