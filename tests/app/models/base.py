from __future__ import annotations

from typing import ClassVar

from django.db import models


class Named(models.Model):
    """A row known by its name, whatever key the database gave it.

    `natural` lists the fields that name a row in a snapshot and in the log of signals.
    """

    natural: ClassVar[tuple[str, ...]] = ("name",)

    name = models.CharField(max_length=40)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.name
