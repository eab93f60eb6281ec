"""What is called for an item, and before a chunk of them.

============================  ==================  ====================  ==========================
the function of the run       is called with      before_chunk is       each item goes through
============================  ==================  ====================  ==========================
any                           ``(item)``                                its annotation's converter
any, with before_chunk=       ``(item, result)``  the option            its annotation's converter
with an attribute of the name ``(item, result)``  the attribute         its annotation's converter
a model's class               by its ModelSaver   the saver's
============================  ==================  ====================  ==========================
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import router
from django.db.models import Model

from carpool.exceptions import ConfigurationError
from carpool.savers import ModelSaver
from carpool.typed import converter_for


@dataclass(frozen=True, slots=True)
class Calls:
    """The callables of a run; see `types.Job`."""

    function: Callable[..., Any]
    convert: Callable[[Any], Any] | None
    before_chunk: Callable[[list[Any]], Any] | None


def calls_of(function: Any, before_chunk: Any, aliases: tuple[str, ...]) -> Calls:
    """Return what a run of ``function`` calls, given its options ``before_chunk`` and ``using``.

    Raises:
        ConfigurationError: of a model, that it has no table or is not written to in ``aliases``; of
            annotations, that items can't be converted; both of before_chunk and the function, that
            they can't go together.
    """
    if isinstance(function, type) and issubclass(function, Model):
        function = ModelSaver(function, using=alias_of(function, aliases))
    # Not getattr(): an object that has whatever it is asked for, a mock, would have this as well.
    own = inspect.getattr_static(function, "before_chunk", None)
    if own is not None:
        if before_chunk is not None:
            raise ConfigurationError(
                f"{_name(function)} has a before_chunk of its own, whose result it is called with. "
                "Leave the option before_chunk out."
            )
        before_chunk = function.before_chunk
    return Calls(function, converter_for(function), before_chunk)


def alias_of(model: type[Model], aliases: tuple[str, ...]) -> str | None:
    """Return the alias to save the model's rows in; None: as the routers say.

    It must be one that the chunk's transaction covers, or rows would be stored one by one.
    """
    written = router.db_for_write(model)
    if written in aliases:
        return None
    if len(aliases) == 1 and aliases[0] != "default":
        return aliases[0]
    raise ConfigurationError(
        f"{model._meta.label} is written to the database {written!r}, by the routers, and the "
        f"chunks' transactions are on {', '.join(map(repr, aliases))}. Pass using={written!r}; or "
        "carpool.savers.ModelSaver(model, using=…), to save it elsewhere."
    )


def _name(function: Any) -> str:
    return (
        f"A {type(function).__qualname__}"
        if not hasattr(function, "__name__")
        else (f"{function.__module__}.{function.__name__}")
    )
