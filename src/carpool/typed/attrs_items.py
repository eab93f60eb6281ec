"""Rows as attrs classes.

A field with a converter of its own gets the cell as it is; the others as for dataclasses. The
class' validators run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carpool.typed.keywords import KeywordConverter


def is_one(kind: type) -> bool:
    """Tell a class that attrs has made; nothing else makes this attribute."""
    return hasattr(kind, "__attrs_attrs__")


class Items(KeywordConverter):
    """Calls the class with its fields as keywords; a field's alias is the column's name."""

    def hints(self) -> Mapping[str, Any]:
        import attrs

        hints = self.resolved_hints()
        return {
            # __init__'s name for it. The type may be given as attr.ib(type=…), too.
            field.alias or field.name: hints.get(field.name, field.type)
            for field in attrs.fields(self.type)
            if field.converter is None
        }
