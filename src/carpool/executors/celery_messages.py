"""What coordinator and Celery workers say to each other: names, and what a message holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from kombu import Queue

from carpool.executors.remote import Parcel
from carpool.journal.recording import Note

TASK = "carpool.run_chunk"
COMMAND = "carpool_worker"

REQUEST = "the request of task {}"
ANSWER = "the answer of task {}"
PROOF = "a worker of run {}"
"""What is signed: see `sealed`."""

NEEDS_PARCEL = b"parcel"
"""In place of a result: the worker has not begun, since it doesn't know the run."""

NEEDS_PARCEL_AGAIN = b"parcel, delivered again"
"""The same of a chunk that was delivered before, maybe to a worker that did know the run."""


REPLIES_EXPIRE = 3600.0
"""Seconds after which the broker drops the reply queue of a coordinator that has died."""


def replies_of(run: str) -> Any:
    """Return the queue of a run's answers.

    Both sides declare it: kombu's Redis keeps the expiry in whoever sends, not in the queue.
    """
    name = f"carpool.replies.{run}"
    return Queue(name, routing_key=name, durable=True, auto_delete=False, expires=REPLIES_EXPIRE)


def task_of(run: str, name: int | str) -> str:
    """Return the id of a task of the run."""
    return f"{run}-{name}"


def run_of(task: str) -> tuple[str, str]:
    """Return a task's run, and its name there."""
    run, _, name = task.rpartition("-")
    return run, name


class Order(NamedTuple):
    """A chunk as it is sent. ``parcel``: what the run needs, where it comes along."""

    run: str
    parcel: Parcel | None
    number: int
    payloads: Sequence[bytes | None]
    note: Note | None
