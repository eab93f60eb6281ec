from __future__ import annotations

from typing import ClassVar

from django.db import models

from tests.app.models.base import Named


class AuditLine(Named):
    """A row of another database, which a block on `default` must leave alone (gotcha 13)."""

    database: ClassVar[str] = "other"

    detail = models.CharField(max_length=40, default="")


class AuditNote(Named):
    """A foreign key within the other database."""

    database: ClassVar[str] = "other"

    line = models.ForeignKey(AuditLine, models.CASCADE, related_name="notes")
