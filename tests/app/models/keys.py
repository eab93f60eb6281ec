from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, ClassVar

from django.db import models

from tests.app.models.base import Named


class Ticket(Named):
    """A key that is set before the first save: `pk is None` does not mean new (gotcha 2)."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    amount = models.IntegerField(default=0)


class TicketStub(Named):
    """A foreign key to a UUID."""

    ticket = models.ForeignKey(Ticket, models.CASCADE, related_name="stubs")


class Country(models.Model):
    """A natural key of text, and `save()` of an existing one is an UPDATE (gotcha 2)."""

    natural: ClassVar[tuple[str, ...]] = ("code",)

    code = models.CharField(max_length=12, primary_key=True)
    title = models.CharField(max_length=40, default="")

    def __str__(self) -> str:
        return self.code


class Town(Named):
    """A foreign key to a natural key."""

    country = models.ForeignKey(Country, models.CASCADE, related_name="towns")


class Seat(models.Model):
    """A primary key of two columns."""

    natural: ClassVar[tuple[str, ...]] = ("row", "number")

    pk = models.CompositePrimaryKey("row", "number")
    row = models.CharField(max_length=12)
    number = models.IntegerField()
    holder = models.CharField(max_length=40, default="")

    def __str__(self) -> str:
        return f"{self.row}{self.number}"


@dataclass(frozen=True, order=True)
class Ref:
    """What Python sees of a key that the database keeps as a number."""

    number: int

    def __str__(self) -> str:
        return f"R-{self.number:06}"


class RefField(models.BigAutoField):  # type: ignore[type-arg]
    """A generated key that is converted on its way in and out (gotcha 15)."""

    def from_db_value(self, value: int | None, expression: Any, connection: Any) -> Ref | None:
        return None if value is None else Ref(value)

    def to_python(self, value: Any) -> Any:
        return value if value is None or isinstance(value, Ref) else Ref(int(value))

    def get_prep_value(self, value: Any) -> Any:
        return value.number if isinstance(value, Ref) else super().get_prep_value(value)


class Parcel(Named):
    """A generated key with a converter."""

    id = RefField(primary_key=True)


class Sticker(Named):
    """A foreign key to a key with a converter."""

    parcel = models.ForeignKey(Parcel, models.CASCADE, related_name="stickers")


class MirroredField(models.CharField):  # type: ignore[type-arg]
    """Text that the database keeps backwards."""

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> str | None:
        return None if value is None else value[::-1]

    def get_prep_value(self, value: Any) -> Any:
        value = super().get_prep_value(value)
        return value[::-1] if isinstance(value, str) else value


class Mirror(models.Model):
    """A given key with a converter."""

    natural: ClassVar[tuple[str, ...]] = ("code",)

    code = MirroredField(max_length=40, primary_key=True)
    amount = models.IntegerField(default=0)

    def __str__(self) -> str:
        return str(self.code)
