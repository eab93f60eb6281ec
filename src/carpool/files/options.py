"""The options of `read()`, as the formats see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

UTF_8 = "utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """See `carpool.read`, which explains each."""

    encoding: str = UTF_8
    columns: Sequence[str] | None = None
    dialect: Any = None
    delimiter: str | None = None
    quotechar: str | None = None
    sheet: str | None = None
    allow_nan: bool = False
    unwrap_rejects: bool = True

    def given(self) -> dict[str, Any]:
        """Return those that were given, that is, aren't the default."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            field.name: values[field.name]
            for field in fields(self)
            if values[field.name] != field.default
        }
