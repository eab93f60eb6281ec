"""Whether a method is Django's own: only such a one may be replaced, or passed by."""

from __future__ import annotations

import inspect
import types
from typing import Any

from django.db import models


def is_djangos(function: Any) -> bool:
    """Tell whether a function is Django's own, or a block's: nobody's patch or mock."""
    # Not by __module__, which functools.wraps() copies; nor by isinstance(), which a proxy passes.
    name = getattr(function, "__globals__", {}).get("__name__", "")
    return type(function) is types.FunctionType and name.startswith(("django.db.", "carpool."))


def has_own(kind: Any, name: str) -> bool:
    """Tell whether a class, or a patch of Model, has a method of its own in place of Model's."""
    method = inspect.getattr_static(kind, name, None)
    return method is not inspect.getattr_static(models.Model, name, None) or not (
        method is getattr(object, name, None) or is_djangos(getattr(method, "__func__", method))
    )
