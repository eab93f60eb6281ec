"""What is to be called, by the arguments."""

from __future__ import annotations

from typing import Any

from django.db.models import Model

from carpool.calling import alias_of
from carpool.exceptions import ConfigurationError
from carpool.savers import ModelSaver
from carpool.targets import resolve_target


def function_of(options: dict[str, Any]) -> Any:
    """Return the function; of a model, what saves its rows.

    Raises:
        ConfigurationError: the name leads nowhere, or --map is not for it.
    """
    target = resolve_target(options["target"])
    mapping = options["mapping"]
    if isinstance(target, type) and issubclass(target, Model):
        aliases = tuple(dict.fromkeys(options["using"] or ["default"]))
        return ModelSaver(target, _mapping(mapping or []), alias_of(target, aliases))
    if mapping is not None:
        raise ConfigurationError(
            f"--map is for models, and {options['target']} is a function. Leave it out, or name a "
            "model."
        )
    return target


def _mapping(pairs: list[str]) -> dict[str, str]:
    mapping = {}
    for pair in pairs:
        column, equals, field = pair.rpartition("=")  # a column's name may have one in it
        if not equals or not column:
            raise ConfigurationError(
                f'--map {pair!r} is not COLUMN=FIELD, as in "Customer E-mail=customer__email".'
            )
        mapping[column] = field
    return mapping
