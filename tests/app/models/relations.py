from __future__ import annotations

from typing import Any, ClassVar

from django.db import models

from tests.app.models.base import Named


class Author(Named):
    """A parent of foreign keys."""

    books_written = models.IntegerField(default=0)


class Tag(models.Model):
    """A shared row, known by a unique word."""

    natural: ClassVar[tuple[str, ...]] = ("word",)

    word = models.CharField(max_length=40, unique=True)
    uses = models.IntegerField(default=0)

    def __str__(self) -> str:
        return self.word


class Book(Named):
    """A foreign key and an auto-created many-to-many, whose through model sends no `save` signals.

    The foreign key is checked at COMMIT where the database can defer (gotcha 37).
    """

    author = models.ForeignKey(Author, models.CASCADE, related_name="books")
    tags = models.ManyToManyField(Tag, related_name="books")
    pages = models.IntegerField(default=0)


class Novel(Book):
    """A proxy: its signals name the proxy (gotcha 11)."""

    class Meta:
        proxy = True


class BookRow(models.Model):
    """The same table as `Book`, under another, unmanaged model."""

    natural: ClassVar[tuple[str, ...]] = ("name",)

    name = models.CharField(max_length=40)
    pages = models.IntegerField()
    author_id = models.BigIntegerField()

    class Meta:
        managed = False
        db_table = "app_book"

    def __str__(self) -> str:
        return self.name


class Profile(models.Model):
    """A one-to-one that a receiver creates with its author (see `reactions`)."""

    natural: ClassVar[tuple[str, ...]] = ("author",)

    author = models.OneToOneField(Author, models.CASCADE, related_name="profile")
    bio = models.CharField(max_length=40, default="")

    def __str__(self) -> str:
        return f"profile {self.pk}"


class Club(Named):
    """A many-to-many through a model of the project's own."""

    members: models.ManyToManyField[Any, Any] = models.ManyToManyField(
        "Person", through="Membership", related_name="clubs"
    )


class Person(Named):
    """Relations to itself: symmetrical, one-way, and a foreign key."""

    friends = models.ManyToManyField("self")
    follows = models.ManyToManyField("self", symmetrical=False, related_name="followers")
    boss = models.ForeignKey("self", models.SET_NULL, null=True, related_name="staff")


class Membership(models.Model):
    """A through model with its own `save()`, which `bulk_create` would pass by (gotcha 19)."""

    natural: ClassVar[tuple[str, ...]] = ("club", "person")

    club = models.ForeignKey(Club, models.CASCADE)
    person = models.ForeignKey(Person, models.CASCADE)
    role = models.CharField(max_length=12, default="member")
    badge = models.CharField(max_length=80, default="")

    class Meta:
        unique_together = [("club", "person")]

    def __str__(self) -> str:
        return self.badge

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.badge = f"{self.club.name}/{self.person.name}"
        super().save(*args, **kwargs)
