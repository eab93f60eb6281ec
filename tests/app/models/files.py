from __future__ import annotations

from django.db import models

from tests.app.models.base import Named

FOLDER = "documents"


class Document(Named):
    """A file that `pre_save` stores before the row is written (gotcha 4)."""

    file = models.FileField(upload_to=FOLDER)
