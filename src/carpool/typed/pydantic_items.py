"""Rows as pydantic models, by pydantic's own rules: lax, unless the model says ``strict``.

Columns that the model doesn't have are what its ``extra`` makes of them: ignored, if it says
nothing.
"""

from __future__ import annotations

import sys
from typing import Any

from carpool.exceptions import ConfigurationError, InvalidItem
from carpool.typed.converter import Converter


def is_one(kind: type) -> bool:
    """Tell a pydantic model or a pydantic dataclass."""
    model = getattr(sys.modules.get("pydantic"), "BaseModel", None)
    if model is None:
        return False
    # Only pydantic 2 has it, and so its dataclasses, which are plain dataclasses as well.
    return issubclass(kind, model) or "__pydantic_validator__" in vars(kind)


class Items(Converter):
    """Validates with a ``TypeAdapter``.

    Raises:
        ConfigurationError: pydantic can't make a validator, such as for a name it can't resolve;
            or it is pydantic 1.
    """

    def __init__(self, target: Any) -> None:
        super().__init__(target)
        import pydantic

        if pydantic.VERSION.startswith("1."):
            raise ConfigurationError(
                f"The function takes a {self.type.__name__}, a model of pydantic "
                f"{pydantic.VERSION}; carpool converts to those of pydantic 2. Upgrade pydantic, "
                "or annotate the function with dict and make the model in it."
            )
        try:
            self._adapter = pydantic.TypeAdapter(target)
            if not self._adapter.pydantic_complete:
                self._adapter.rebuild()
        except (pydantic.errors.PydanticUserError, NameError) as error:
            raise ConfigurationError(
                f"The function takes a {self.type.__name__}, which pydantic can't make a validator "
                f"for: {error}"
            ) from error
        self._error = pydantic.ValidationError

    def convert(self, item: Any) -> Any:
        try:
            return self._adapter.validate_python(item)
        except self._error as error:
            raise InvalidItem(str(error)) from error
