"""The receiver of the shape whose objects are saved twice."""

from __future__ import annotations

from typing import Any

from django.db.models.signals import post_save
from django.dispatch import receiver

from benchmarks.models import Ticket


@receiver(post_save, sender=Ticket)
def number_ticket(instance: Ticket, created: bool, **kwargs: Any) -> None:
    """Give a new ticket its number, and save it again."""
    if created:
        instance.number = f"T-{instance.pk}"
        instance.save()
