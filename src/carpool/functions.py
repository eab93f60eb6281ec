"""How functions and values travel to another process.

Standard pickle where it can, cloudpickle where it can't: functions and classes of ``__main__``, a
shell or a function's body go by value, everything importable by name. What can't go at all is
found here, before the first item, with the culprit's name.
"""

from __future__ import annotations

import functools
import inspect
import pickle
from collections.abc import Iterator
from typing import Any

import cloudpickle

from carpool.exceptions import ConfigurationError


def dumps(value: Any) -> bytes:
    """Pickle a value so that another process can load it; raise whatever pickling raises.

    ``__main__`` is another module over there, so what refers to it must go by value.
    """
    try:
        data = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
        if b"__main__" not in data:
            return data
    except Exception:
        pass  # cloudpickle can send more, and says better what it can't
    return bytes(cloudpickle.dumps(value))


loads = pickle.loads


def ship(role: str, function: Any) -> bytes:
    """Pickle a callable of the user's; ``role`` is the option's name for the error message.

    Raises:
        ConfigurationError: it, or something that it refers to, can't be pickled. The message
            names the innermost culprit found.
    """
    try:
        return bytes(cloudpickle.dumps(function))
    except Exception as error:
        path, culprit = _culprit(function, getattr(function, "__qualname__", repr(function)))
        raise ConfigurationError(
            f"The {role} can't be sent to worker processes: {path} is a "
            f"{type(culprit).__module__}.{type(culprit).__qualname__}, which can't be pickled "
            f"({type(error).__name__}: {error}). Make it inside the function or in setup=, at "
            f'module level of an importable module, or run with executor="threads" or "inline".'
        ) from error


def _culprit(value: Any, path: str, depth: int = 4) -> tuple[str, Any]:
    """Return the innermost part of ``value`` that can't be pickled, and the way to it."""
    if depth:
        for name, part in _parts(value):
            try:
                cloudpickle.dumps(part)
            except Exception:
                return _culprit(part, f"{name} of {path}", depth - 1)
    return path, value


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, functools.partial):
        yield "the function", value.func
        for number, argument in enumerate(value.args):
            yield f"argument {number}", argument
        for key, argument in value.keywords.items():
            yield f"argument {key!r}", argument
    elif inspect.ismethod(value):
        yield "self", value.__self__
    elif inspect.isfunction(value):
        try:
            found = inspect.getclosurevars(value)
        except ValueError:  # a closure's cell that is still empty
            return
        for key, part in found.nonlocals.items():
            yield f"the closure's variable {key!r}", part
        for key, part in found.globals.items():
            yield f"the global {key!r}", part
        for number, part in enumerate(value.__defaults__ or ()):
            yield f"default {number}", part
    elif isinstance(value, dict):
        for key, part in value.items():
            yield f"[{key!r}]", part
    elif isinstance(value, (list, tuple)):
        for number, part in enumerate(value):
            yield f"[{number}]", part
    else:
        for key, part in getattr(value, "__dict__", {}).items():
            yield f"the attribute {key!r}", part
