"""What coordinator and Celery workers say to each other: names, and what a message holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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


class Order(NamedTuple):
    """A chunk as it is sent. ``parcel``: what the run needs, where it comes along."""

    run: str
    parcel: Parcel | None
    number: int
    payloads: Sequence[bytes | None]
    note: Note | None
