"""Where chunks are run. Public are the functions that make engines of clusters."""

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
    return celery()  # by the only name there is


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


def celery(
    app: Any = None,
    *,
    queue: str | None = None,
    workers: int | None = None,
    patience: float = 30.0,
    redelivered_chunks_may_be_unknown: bool = False,
) -> Engine:
    """Run chunks in a project's Celery workers: ``run(…, executor=celery(app), journal="name")``.

    ``executor="celery"`` is the same with the project's app and without options. The workers need
    the task: see docs/celery.md. Before the first item they are asked who they are, and refused
    where their Python, Django, carpool, databases or SECRET_KEY are not the caller's.

    Args:
        app: the project's ``celery.Celery``; None: the current one.
        queue: the queue that chunks are sent to; None: where the project's ``task_routes`` send
            the task ``carpool.run_chunk``, which is its default queue if they don't mention it.
        workers: chunks run at a time; None: as many as the pools of the queue's workers have
            processes or threads when the run begins. ``workers=`` of `run` goes before it.
        patience: seconds after which a chunk that nothing is heard of is looked for. Items that
            take longer are no problem: a chunk that a worker has is waited for. Four times as
            long without a word from any worker ends the run.
        redelivered_chunks_may_be_unknown: run without a journal. Celery may deliver a chunk twice;
            nobody can then say whether it was stored the first time, so it is not run again and its
            items are reported as unknown. `stream` has no journal and so needs this.

    Raises:
        ConfigurationError: Celery is not installed, or the project has no app.
    """
    try:
        from carpool.executors.on_celery import Celery
    except ModuleNotFoundError as missing:
        raise ConfigurationError(
            f"Celery is not installed ({missing}). Install django-carpool[celery]."
        ) from missing
    return Celery(
        app,
        queue=queue,
        workers=workers,
        patience=patience,
        may_be_unknown=redelivered_chunks_may_be_unknown,
    )
