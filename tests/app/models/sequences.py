from __future__ import annotations

from typing import Any, ClassVar

from django.db import models
from django.db.models import Max

from tests.app.models.base import Named


class Course(Named):
    """The owner of an order and of a row of numbers."""


class Lesson(Named):
    """`_order` is computed from the rows already in the table (gotcha 12)."""

    course = models.ForeignKey(Course, models.CASCADE, related_name="lessons")

    class Meta:
        order_with_respect_to = "course"


class Receipt(models.Model):
    """`save()` takes the next number of its course, and must see the rows saved so far."""

    natural: ClassVar[tuple[str, ...]] = ("course", "number")

    course = models.ForeignKey(Course, models.CASCADE, related_name="receipts")
    number = models.IntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["course", "number"], name="app_receipt_number"),
        ]

    def __str__(self) -> str:
        return f"{self.number}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self._state.adding and self.number is None:
            last = Receipt.objects.filter(course=self.course).aggregate(last=Max("number"))["last"]
            self.number = (last or 0) + 1
        super().save(*args, **kwargs)
