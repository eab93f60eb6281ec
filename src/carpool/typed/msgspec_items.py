"""Rows as msgspec Structs, by ``msgspec.convert(row, Struct, strict=False)``.

Columns that the Struct doesn't have are ignored, or refused where it says
``forbid_unknown_fields=True``.
"""

from __future__ import annotations

import sys
from typing import Any

from carpool.exceptions import ConfigurationError, InvalidItem
from carpool.typed.converter import Converter


def is_one(kind: type) -> bool:
    """Tell a Struct."""
    struct = getattr(sys.modules.get("msgspec"), "Struct", None)
    return struct is not None and issubclass(kind, struct)


class Items(Converter):
    """Converts without ``strict``, so that texts become numbers, dates …

    Raises:
        ConfigurationError: msgspec has no conversion for the type of a field.
    """

    def __init__(self, target: Any) -> None:
        super().__init__(target)
        import msgspec

        self._convert = msgspec.convert
        self._error = msgspec.ValidationError
        try:
            msgspec.convert(None, target, strict=False)  # reads the types of all fields
        except msgspec.ValidationError:
            pass
        except Exception as error:
            raise ConfigurationError(
                f"The function takes a {self.type.__name__}, which msgspec can't convert to: "
                f"{error}"
            ) from error

    def convert(self, item: Any) -> Any:
        try:
            return self._convert(item, self.target, strict=False)
        except self._error as error:
            raise InvalidItem(str(error)) from error
