"""The Celery worker's side: the task that runs a chunk, and the command that tells who it is.

Loaded by `carpool.tasks` in workers only; the coordinator knows the task and the command by name.

Answers go by Celery's RPC backend, as messages to the coordinator's own queue, whatever the
project's result backend is: nobody has to poll for them, and nothing stays behind.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import cached_property
from typing import Any

from celery import Task, shared_task, states
from celery.backends.rpc import RPCBackend
from celery.worker import state as requests_here
from celery.worker.control import inspect_command

from carpool.exceptions import ConfigurationError
from carpool.executors.celery_messages import (
    ANSWER,
    NEEDS_PARCEL,
    NEEDS_PARCEL_AGAIN,
    PROOF,
    REQUEST,
    TASK,
    Order,
    replies_of,
    run_of,
)
from carpool.executors.remote import Parcel, Passport, passport_for, perform_chunk, set_up_django
from carpool.executors.sealed import seal, unseal
from carpool.functions import loads

KEPT_PARCELS = 8
"""Runs whose parcel a process keeps, for all its threads. One that was dropped is asked for."""

_parcels: OrderedDict[str, Parcel] = OrderedDict()
_guard = threading.Lock()


class _Backend(RPCBackend):  # type: ignore[misc]
    """Sends answers to their run's own queue."""

    def on_reply_declare(self, task_id: str) -> list[Any]:
        run, _ = run_of(task_id)
        return [replies_of(run)]


class _ChunkTask(Task):  # type: ignore[misc]
    """A task with a backend of its own."""

    @cached_property
    def backend(self) -> Any:
        return _Backend(self.app, serializer="json")


# acks_late: a worker that dies with a chunk has not acknowledged it. Not reject_on_worker_lost: a
# child that died would have its chunk delivered again at once, whole and without an end (Celery's
# issue 9082), and the coordinator would not be told; this way it is, at once, and finds the item.
# Errors are answered though the result is ignored: a lost child, a time limit, a revoked task.
@shared_task(  # type: ignore[untyped-decorator]
    base=_ChunkTask,
    bind=True,
    name=TASK,
    acks_late=True,
    reject_on_worker_lost=False,
    acks_on_failure_or_timeout=True,
    ignore_result=True,
    store_errors_even_if_ignored=True,
    track_started=False,
    rate_limit=None,
    max_retries=0,
    serializer="json",
    typing=False,
)
def run_chunk(self: Any, module: str | None, sealed: str) -> None:
    """Run a chunk and answer. An empty one is a question whether the queue has come to it."""
    request = self.request
    _set_up(module)
    answer = _perform(request, sealed) if sealed else b""
    text = seal(answer, ANSWER.format(request.id))
    self.backend.store_result(request.id, text, states.SUCCESS, request=request)


def _set_up(module: str | None) -> None:
    try:
        set_up_django(module)
    except Exception as error:
        # So that it ends the run: no item is to blame.
        raise ConfigurationError(
            f"Django can't be set up ({type(error).__name__}: {error}). Give workers the "
            "coordinator's code and settings."
        ) from error


def _perform(request: Any, sealed: str) -> bytes:
    data = unseal(sealed, REQUEST.format(request.id))
    try:
        order: Order = loads(data)
    except Exception as error:
        raise ConfigurationError(
            f"what it was sent can't be unpickled ({type(error).__name__}: {error}). Give workers "
            "the coordinator's packages."
        ) from error
    redelivered = bool((request.delivery_info or {}).get("redelivered"))
    parcel = _parcel(order)
    if parcel is None:
        return NEEDS_PARCEL_AGAIN if redelivered else NEEDS_PARCEL
    return perform_chunk(
        order.run,
        lambda: parcel,
        order.number,
        order.payloads,
        order.note,
        redelivered=redelivered,
    )


def _parcel(order: Order) -> Parcel | None:
    with _guard:
        if order.parcel is not None:
            _parcels[order.run] = order.parcel
        parcel = _parcels.get(order.run)
        if parcel is not None:
            _parcels.move_to_end(order.run)
        while len(_parcels) > KEPT_PARCELS:
            _parcels.popitem(last=False)
        return parcel


@inspect_command()  # type: ignore[untyped-decorator]
def carpool_worker(
    state: Any,
    run: str = "",
    home: Passport | None = None,
    module: str | None = None,
    ids: list[str] | tuple[str, ...] = (),
    **others: Any,
) -> dict[str, Any]:
    """Tell which queues this worker consumes, how many chunks it runs at a time, which it has.

    With ``home``, the coordinator's passport, also this worker's, with a proof of its SECRET_KEY.
    """
    consumer = state.consumer
    queues = consumer.task_consumer.queues if consumer.task_consumer else ()
    # requests: all that the worker has taken and not ended. Celery's own query_task reads it, too.
    answer: dict[str, Any] = {
        "queues": [queue.name for queue in queues],
        "size": consumer.pool.num_processes or 1,
        "answers_while_it_works": not type(consumer.pool).__module__.endswith(".solo"),
        "has": [task for task in ids if task in requests_here.requests],
    }
    if home is not None:
        answer["passport"] = passport_for(home, module)
        if "error" not in answer["passport"]:
            answer["proof"] = seal(b"", PROOF.format(run))
    return answer
