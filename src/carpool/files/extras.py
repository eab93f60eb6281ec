"""Libraries that only some formats need, imported when they are."""

from __future__ import annotations

import importlib
from typing import Any

from carpool.exceptions import ConfigurationError


def require(module: str, *, extra: str, for_what: str) -> Any:
    """Import and return a module that an extra of carpool's brings.

    Raises:
        ConfigurationError: it isn't installed, or can't be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigurationError(
            f"{for_what} is read with {module}, which can't be imported ({error}). Install it: "
            f'pip install "django-carpool[{extra}]"'
        ) from error
