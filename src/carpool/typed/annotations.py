"""What a function says of its first parameter."""

from __future__ import annotations

import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)


def first_annotation(function: Any) -> Any:
    """Return the annotation of the parameter that an item is passed as, or None.

    ``Annotated[X, …]`` is X. None where there is none, or where it can't be resolved: a name that
    is imported for type checkers only says nothing at run time.
    """
    try:
        parameters = signature_of(function).parameters.values()
    except (TypeError, ValueError):  # a builtin, or something whose signature nobody knows
        return None
    first = next(iter(parameters), None)
    if first is None or first.kind not in _POSITIONAL or first.annotation is first.empty:
        return None
    return _resolved(first.annotation, _innermost(function))


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature, with annotations that may not be resolved.

    Raises:
        TypeError, ValueError: there is none.
    """
    if sys.version_info >= (3, 14):
        # Annotations are evaluated when asked for; none of the others may stand in the way.
        from annotationlib import Format

        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)


def _innermost(function: Any) -> Any:
    """Return the function whose module's names its annotations use."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif inspect.ismethod(function):
            function = function.__func__
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif inspect.isroutine(function):
            return function
        elif isinstance(function, type):
            function = function.__init__  # type: ignore[misc]
        else:
            function = type(function).__call__


def _resolved(annotation: Any, function: Any) -> Any:
    """Evaluate one annotation, so that of the function's others none can stand in the way."""
    names = getattr(function, "__globals__", {})
    only = types.SimpleNamespace(__annotations__={"item": annotation})
    try:
        return typing.get_type_hints(only, names, _closure(function))["item"]
    except Exception:  # an annotation may be any expression, and need not be for us
        return None


def _closure(function: Any) -> dict[str, Any]:
    try:
        return dict(inspect.getclosurevars(function).nonlocals)
    except (TypeError, ValueError):  # no Python function, or a cell that is still empty
        return {}
