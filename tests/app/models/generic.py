from __future__ import annotations

from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models

from tests.app.models.base import Named


class Remark(Named):
    """A generic foreign key, which may be set before its target is saved (gotcha 5).

    Without a constraint, as this app has no migrations: its tables are made before those of the
    content types.
    """

    content_type = models.ForeignKey(ContentType, models.CASCADE, db_constraint=False)
    object_id = models.BigIntegerField()
    target = GenericForeignKey("content_type", "object_id")


class Picture(Named):
    """The other end of the generic foreign key: deleting it deletes its remarks."""

    remarks = GenericRelation(Remark)
