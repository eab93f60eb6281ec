from __future__ import annotations

from django.db import models
from django.db.models.functions import Now, Upper

from tests.app.models.base import Named


class Priced(Named):
    """Values that the database fills in, and that come back to the instance (gotcha 6)."""

    price = models.IntegerField(db_default=100)
    label = models.CharField(max_length=40, db_default="plain")
    priced_at = models.DateTimeField(db_default=Now())


class Box(Named):
    """Columns that the database computes, left out of the INSERT (gotcha 6)."""

    width = models.IntegerField(default=1)
    height = models.IntegerField(default=1)
    area = models.GeneratedField(
        expression=models.F("width") * models.F("height"),
        output_field=models.IntegerField(),
        db_persist=True,
    )
    loud = models.GeneratedField(
        expression=Upper("name"),
        output_field=models.CharField(max_length=40),
        db_persist=True,
    )

    class Meta:
        required_db_features = ("supports_stored_generated_columns",)
