"""Some models live in the database `other`, as `router.db_for_write` decides object by object."""

from __future__ import annotations

from typing import Any

from django.db import models

OTHER = "other"


def lives_in_other(model: type[models.Model]) -> bool:
    return getattr(model, "database", None) == OTHER


class Router:
    """Send the models that say `database = "other"` there, and leave the rest to the default.

    Tables are made in both databases, so that a test can write any model to either.
    """

    def db_for_read(self, model: type[models.Model], **hints: Any) -> str | None:
        return OTHER if lives_in_other(model) else None

    def db_for_write(self, model: type[models.Model], **hints: Any) -> str | None:
        return OTHER if lives_in_other(model) else None

    def allow_relation(self, obj1: models.Model, obj2: models.Model, **hints: Any) -> bool | None:
        if lives_in_other(type(obj1)) or lives_in_other(type(obj2)):
            return True
        return None
