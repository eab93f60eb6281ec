"""Where chunks are run. Public are the two that make engines of clusters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carpool.engine import Engine, is_dask_client
from carpool.exceptions import ConfigurationError


def engine_of(value: Any) -> Engine:
    """Return the engine, or make one of what `carpool.engine.is_engine` takes.

    Raises:
        ConfigurationError: its package is not installed, or the project has no such thing.
    """
    if isinstance(value, Engine):
        return value
    if is_dask_client(value):
        return dask(value)
    raise NotImplementedError


def dask(
    client: Any, *, resources: Mapping[str, float] | None = None, wait: float = 30.0
) -> Engine:
    """Return an engine that runs chunks on a Dask cluster: ``run(…, executor=dask(client))``.

    ``executor=client`` is the same, without options. Workers need the project's code, carpool and
    Django's settings (``DJANGO_SETTINGS_MODULE``; if they have none, the coordinator's name is
    used), and the scheduler none of them. ``workers=`` of `run` is how many chunks run at a time;
    by default as many as the workers have threads.

    With a journal a run survives lost workers, and is exactly once. Without one, what was running
    on a lost worker is *unknown*, as nothing is run twice.

    Args:
        client: a connected ``distributed.Client``, not an asynchronous one. It stays the caller's.
        resources: what each chunk needs, as in ``client.submit``: so only workers that offer it
            are used, and no more chunks run on each than it offers. ``{"django": 1}``, say, and
            ``dask worker --resources django=4``.
        wait: seconds to wait for a worker, when there is none at the start or later.

    Raises:
        ConfigurationError: the package ``distributed`` is not installed, or that is no client.
    """
    if not is_dask_client(client):
        raise ConfigurationError(
            f"dask() takes a distributed.Client, not a {type(client).__qualname__!r}. Install "
            "django-carpool[dask] and connect one: distributed.Client(address)."
        )
    from carpool.executors.on_dask import Dask

    return Dask(client, resources=resources, wait=wait)
