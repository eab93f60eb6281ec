from __future__ import annotations

from django.db import models
from django.db.models import Deferrable, Q

from tests.app.models.base import Named


class Account(Named):
    """Every refusal that a database knows: unique, NOT NULL, a check, a text that is too long."""

    email = models.CharField(max_length=40, unique=True)
    region = models.CharField(max_length=12, default="north")
    number = models.IntegerField(default=0)
    balance = models.IntegerField(default=0)

    class Meta:
        unique_together = [("region", "number")]
        constraints = [
            models.CheckConstraint(condition=Q(balance__gte=0), name="app_account_balance"),
        ]


class Slot(Named):
    """Positions that may be swapped within a transaction, since uniqueness is checked at COMMIT.

    Only PostgreSQL can: the other databases make no constraint, and a check says so.
    """

    position = models.IntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["position"],
                name="app_slot_position",
                deferrable=Deferrable.DEFERRED,
            ),
        ]


class Turn(Named):
    """A number that is unique at once, though a transaction may put that off till COMMIT.

    PostgreSQL only, like `Slot`.
    """

    number = models.IntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["number"], name="app_turn_number", deferrable=Deferrable.IMMEDIATE
            ),
        ]


class Draft(Named):
    """Unique among the published ones only, where the database has partial indexes."""

    published = models.BooleanField(default=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["name"], condition=Q(published=True), name="app_draft_published"
            ),
        ]
