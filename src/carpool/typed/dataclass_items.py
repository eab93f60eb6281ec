"""Rows as dataclasses of the standard library."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from carpool.typed.keywords import KeywordConverter


def is_one(kind: type) -> bool:
    """Tell a dataclass."""
    return dataclasses.is_dataclass(kind)


class Items(KeywordConverter):
    """Calls the dataclass with its fields as keywords."""

    def hints(self) -> Mapping[str, Any]:
        return {
            name: hint.type if isinstance(hint, dataclasses.InitVar) else hint
            for name, hint in self.resolved_hints().items()
        }
