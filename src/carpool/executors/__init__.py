"""Where chunks are run. Public are the functions that make engines of clusters."""

from __future__ import annotations

from typing import Any

from carpool.engine import Engine
from carpool.exceptions import ConfigurationError


def engine_of(value: Any) -> Engine:
    """Return the engine, or make one of what `carpool.engine.is_engine` takes.

    Raises:
        ConfigurationError: its package is not installed, or the project has no such thing.
    """
    if isinstance(value, Engine):
        return value
    if value == "celery":
        return celery()
    raise NotImplementedError


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
