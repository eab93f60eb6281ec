"""What a dotted name means: a function (``shop.imports.create_order``) or a model (``shop.Order``).

A name of two parts is an app's label and its model's first, then a module and what is in it.
Everything else is a module and what is in it, a class' static method, say, included.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from django.apps import apps
from django.db.models import Model

from carpool.exceptions import ConfigurationError

MOST_NAMED = 10
"""Names that a message lists; whoever has more looks into the module."""


def resolve_target(dotted: str) -> Any:
    """Return the function, or other callable, or the model class that a dotted name names.

    Raises:
        ConfigurationError: no such app, model, module or attribute, with what is there of a like
            name; an error inside the module (its ``__cause__``); what is named can't be called.
    """
    parts = dotted.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ConfigurationError(
            f"{dotted!r} is not a dotted name. Write the function's module and name "
            '("shop.imports.create_order"), or a model\'s app and name ("shop.Order").'
        )
    if not apps.ready:
        raise ConfigurationError(
            "Django is not set up. Call django.setup() first (manage.py commands and shell do), "
            "with DJANGO_SETTINGS_MODULE set."
        )
    model = _model(parts)
    if model is not None:
        return model
    module, left = _module(parts)
    target: Any = module
    for name in left:
        if not hasattr(target, name):
            raise ConfigurationError(_no_attribute(parts, target, name))
        target = getattr(target, name)
    if isinstance(target, ModuleType):
        raise ConfigurationError(
            f"{dotted} is a module; name a function in it{_list(_callables(target))}"
        )
    if not callable(target):
        raise ConfigurationError(
            f"{dotted} is a {type(target).__name__!r}, which can't be called. Name a function of "
            "one item, or a model."
        )
    return target


def _model(parts: list[str]) -> type[Model] | None:
    """Return the model of that exact name: ``shop.order`` may be a function of the module shop."""
    if len(parts) == 2 and parts[0] in apps.app_configs:
        for model in apps.get_app_config(parts[0]).get_models():
            if model.__name__ == parts[1]:
                return model
    return None


def _module(parts: list[str]) -> tuple[ModuleType, list[str]]:
    """Import as much of the name as is modules; return the last one, and the parts left."""
    module: ModuleType | None = None
    for number in range(len(parts)):
        left = parts[number:]
        # A function may have the name of a module beside it, which an import would put there.
        if module is not None and len(left) == 1 and hasattr(module, left[0]):
            return module, left
        name = ".".join(parts[: number + 1])
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise _error_inside(name, error) from error
            if module is None:
                raise ConfigurationError(_no_module(parts)) from error
            return module, left
        except Exception as error:
            raise _error_inside(name, error) from error
    assert module is not None
    return module, []


def _error_inside(name: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"The module {name} can't be imported: {type(error).__name__}: {error}. The error is in "
        "the module, or in what it imports; see the traceback."
    )


def _no_module(parts: list[str]) -> str:
    """Say that there is no module of the first part's name."""
    first, dotted = parts[0], ".".join(parts)
    config = apps.app_configs.get(first)
    if config is None:
        configs = apps.get_app_configs()
        names = {c.label for c in configs} | {c.name.partition(".")[0] for c in configs}
        return (
            f"{dotted} can't be found: there is neither an app nor a module {first!r}. Run from "
            "the folder of manage.py, so that it is on sys.path; a model's app must be in "
            f"INSTALLED_APPS{_suggestion(first, names, list_them=False)}"
        )
    if len(parts) == 2:
        return _no_model(*parts)
    return (
        f"{dotted} can't be found: {first!r} is the label of an app, not a module. Did you mean "
        f"{'.'.join([config.name, *parts[1:]])}?"
    )


def _no_model(label: str, name: str) -> str:
    models = [model.__name__ for model in apps.get_app_config(label).get_models()]
    return f"The app {label!r} has no model {name!r}{_suggestion(name, models)}"


def _no_attribute(parts: list[str], holder: Any, name: str) -> str:
    if isinstance(holder, ModuleType):
        what = f"The module {holder.__name__}"
        names = [*_callables(holder), *_submodules(holder)]
    else:
        what = f"{getattr(holder, '__qualname__', repr(holder))}"
        names = [attribute for attribute in dir(holder) if not attribute.startswith("_")]
    message = f"{what} has nothing named {name!r}{_suggestion(name, names)}"
    if len(parts) == 2 and parts[0] in apps.app_configs:
        return f"{_no_model(*parts)} {message}"
    return message


def _callables(module: ModuleType) -> list[str]:
    """Return the public functions and classes that are the module's own, not imported into it."""
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and callable(value)
        and getattr(value, "__module__", None) == module.__name__
    )


def _submodules(module: ModuleType) -> list[str]:
    return [found.name for found in pkgutil.iter_modules(getattr(module, "__path__", ()))]


def _suggestion(name: str, names: Iterable[str], *, list_them: bool = True) -> str:
    """End a sentence: with the names close to one that isn't there, else with those there are."""
    names = sorted(names)
    by_case = {candidate.casefold(): candidate for candidate in names}
    close = difflib.get_close_matches(name.casefold(), by_case)
    if close:
        return f". Did you mean {' or '.join(by_case[found] for found in close)}?"
    return _list(names) if list_them else "."


def _list(names: list[str]) -> str:
    if not names:
        return "."
    more = ", …" if len(names) > MOST_NAMED else ""
    return f". There are: {', '.join(names[:MOST_NAMED])}{more}."
