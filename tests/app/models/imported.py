"""What rows of a file are saved as, with all that full_clean() looks at."""

from __future__ import annotations

from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models

from tests.app.models.base import Named


class Customer(Named):
    """A parent with a unique natural key, one of two columns, and several of the same name."""

    email = models.EmailField(unique=True, max_length=40)
    city = models.CharField(max_length=40, default="", blank=True)
    active = models.BooleanField(default=True)


def refuse_seven(value: Any) -> None:
    if value == "seven@example.org":
        raise ValidationError("Not seven.")


class Purchase(models.Model):
    """Foreign keys by a key, by another unique column, and to rows of a kind only."""

    natural: ClassVar[tuple[str, ...]] = ("number",)

    number = models.CharField("order no.", max_length=12, unique=True)
    customer = models.ForeignKey(
        Customer, models.CASCADE, related_name="purchases", verbose_name="buyer"
    )
    referrer = models.ForeignKey(
        Customer,
        models.SET_NULL,
        to_field="email",
        null=True,
        blank=True,
        related_name="referred",
        limit_choices_to={"active": True},
        validators=[refuse_seven],
    )
    previous = models.ForeignKey("self", models.SET_NULL, null=True, blank=True)
    quantity = models.IntegerField(default=1, validators=[MinValueValidator(1)])
    size = models.CharField(max_length=1, blank=True, choices=[("s", "Small"), ("l", "Large")])
    note = models.CharField(max_length=40, null=True, blank=True)
    gift = models.BooleanField(default=False)
    details = models.JSONField(null=True, blank=True)
    placed_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.number

    def clean(self) -> None:
        if self.quantity == 13:
            raise ValidationError("Thirteen is refused.")


class Choosy(Named):
    """A clean_fields() of its own, which looks at the foreign key if it may."""

    customer = models.ForeignKey(Customer, models.CASCADE)

    def clean_fields(self, exclude: Any = None) -> None:
        super().clean_fields(exclude)
        if "customer" not in (exclude or ()) and not self.customer.active:
            raise ValidationError({"customer": "The customer is not active."})
