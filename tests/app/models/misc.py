from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.db import models

from tests.app.models.base import Named


def empty() -> dict[str, Any]:
    return {}


class Gadget(Named):
    """The types whose values are adapted on their way to the database."""

    data = models.JSONField(default=empty)
    maybe = models.JSONField(null=True)
    price = models.DecimalField(max_digits=12, decimal_places=4, default=Decimal(0))
    raw = models.BinaryField(default=b"")
    length = models.DurationField(null=True)
    flag = models.BooleanField(null=True)
    day = models.DateField(null=True)
    text = models.TextField(default="")
    small = models.FloatField(default=0.0)
    address = models.GenericIPAddressField(null=True)


class Quoted(Named):
    """A table and a column whose names need their quotes."""

    order = models.IntegerField(db_column="select", default=0)

    class Meta:
        db_table = "app Quoted Table"
