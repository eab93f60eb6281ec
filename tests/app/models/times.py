from __future__ import annotations

from django.db import models

from tests.app.models.base import Named


class Stamped(Named):
    """Dates that `pre_save` sets: at the first save, at every save, of each type (gotcha 3)."""

    amount = models.IntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)
    created_on = models.DateField(auto_now_add=True)
    changed_on = models.DateField(auto_now=True)
    changed_time = models.TimeField(auto_now=True)
    happened_at = models.DateTimeField(null=True)
