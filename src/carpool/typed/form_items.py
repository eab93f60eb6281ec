"""Rows as Django forms: bound, valid, with the row as their data.

Columns that the form doesn't have are ignored, as forms do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.forms import BaseForm

from carpool.exceptions import InvalidItem
from carpool.typed.converter import Converter


def is_one(kind: type) -> bool:
    """Tell a form, ModelForms included."""
    return issubclass(kind, BaseForm)


class Items(Converter):
    """Makes the form with ``data=row`` and asks ``is_valid()``."""

    def convert(self, item: Any) -> Any:
        if not isinstance(item, Mapping):
            raise InvalidItem(
                f"The item is a {type(item).__name__!r}; a {self.type.__name__} is made of a row, "
                "a mapping of columns to cells."
            )
        form = self.type(data=item)
        if not form.is_valid():
            raise InvalidItem(form.errors.as_text())
        return form
