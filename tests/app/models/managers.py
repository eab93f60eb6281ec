from __future__ import annotations

from typing import Any

from django.db import models

from tests.app.models.base import Named


class VisibleManager(models.Manager["Article"]):
    def get_queryset(self) -> models.QuerySet[Any]:
        return super().get_queryset().filter(hidden=False)


class Article(Named):
    """The default manager does not see every row, `_base_manager` does (gotcha 14)."""

    hidden = models.BooleanField(default=False)
    text = models.CharField(max_length=40, default="")

    objects: models.Manager[Any] = VisibleManager()
    everything: models.Manager[Any] = models.Manager()


class Selected(Named):
    """`save()` asks for the row before it updates it."""

    amount = models.IntegerField(default=0)

    class Meta:
        select_on_save = True
