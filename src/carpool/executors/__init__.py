"""Where chunks are run. Public are the two that make engines of clusters."""

from __future__ import annotations

from typing import Any

from carpool.engine import Engine


def engine_of(value: Any) -> Engine:
    """Return the engine, or make one of what `carpool.engine.is_engine` takes.

    Raises:
        ConfigurationError: its package is not installed, or the project has no such thing.
    """
    if isinstance(value, Engine):
        return value
    raise NotImplementedError
