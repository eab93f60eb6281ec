"""How functions and values travel to another process.

Standard pickle where it can, cloudpickle where it can't: functions and classes of ``__main__``, a
shell or a function's body go by value, everything importable by name. What can't go at all is
found here, before the first item, with the culprit's name.
"""

from __future__ import annotations

import dis
import functools
import importlib
import inspect
import io
import pickle
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
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
        return _dumps_whole(function)
    except Exception as error:
        path, culprit = _culprit(function, getattr(function, "__qualname__", repr(function)))
        raise ConfigurationError(
            f"The {role} can't be sent to worker processes: {path} is a "
            f"{type(culprit).__module__}.{type(culprit).__qualname__}, which can't be pickled "
            f"({type(error).__name__}: {error}). Make it inside the function or in setup=, at "
            f'module level of an importable module, or run with executor="threads" or "inline".'
        ) from error


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Sends a function whole, but by name what Django has one of in each process.

    ``from django.db import connection`` in a script must mean the worker's own there, as it does
    in a module; likewise ``cache``, ``settings``, signals. Most of them can't be pickled anyway.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._names = {
            id(value): (module_name, name)
            for module_name, module in list(sys.modules.items())
            if module_name.partition(".")[0] == "django" and isinstance(module, ModuleType)
            for name, value in list(vars(module).items())
            # Not isinstance(): it would wake Django's lazy objects.
            if not issubclass(type(value), (type, FunctionType, ModuleType))
        }

    def reducer_override(self, obj: Any) -> Any:
        name = self._names.get(id(obj))
        return super().reducer_override(obj) if name is None else (_named, name)


def _named(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _dumps_whole(value: Any) -> bytes:
    with io.BytesIO() as file:
        _Pickler(file).dump(value)
        return file.getvalue()


def _culprit(value: Any, path: str, depth: int = 4) -> tuple[str, Any]:
    """Return the innermost part of ``value`` that can't be pickled, and the way to it."""
    if depth:
        for name, part in _parts(value):
            try:
                _dumps_whole(part)
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
        for key in sorted(_global_names(value.__code__) & value.__globals__.keys()):
            yield f"the global {key!r}", value.__globals__[key]
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


def _global_names(code: CodeType) -> set[str]:
    """Return the names that a function looks up in its module; getclosurevars counts attributes."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    return names.union(*(_global_names(c) for c in code.co_consts if isinstance(c, CodeType)))
