"""A worker: sets up once, then runs the chunks it is given, one at a time, in its own thread.

What it keeps between chunks is its connections and what it has learnt about failing items. How a
chunk runs is `attempt`'s; where chunks come from, and that there are other workers, is not known
here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import connections

from carpool.attempt import Attempt
from carpool.exceptions import NotSendable
from carpool.functions import dumps, loads
from carpool.grouping import Grouping
from carpool.items import Items
from carpool.journal.recording import Note
from carpool.observer import Observer
from carpool.tries import Work
from carpool.types import ChunkResult, Job


class Worker:
    """Runs chunks for one job.

    ``pool``: this process or thread exists for the run. So a lost connection may be closed and
    DEBUG's record of statements be cleared; and a KeyboardInterrupt is no Ctrl-C, which only the
    parent is told of.
    """

    def __init__(
        self,
        job: Job,
        *,
        pool: bool,
        observer: Observer | None = None,
        pack: Callable[[Any], Any] | None = None,
    ) -> None:
        self.job = job
        self.pool = pool
        self.observer = observer or Observer()
        self.pack = pack
        self._grouping = Grouping()
        self._reserved: dict[str, Any] = {}

    def setup(self) -> None:
        """Call the job's ``setup``, if it has one. What it raises stops the run."""
        if self.job.setup is not None:
            self.job.setup()

    def perform(
        self, number: int, count: int, items: Items, note: Note | None = None
    ) -> ChunkResult:
        """Run a chunk of ``count`` items to its end, retries included; never raises an error.

        ``note`` is for the journal, if the job has one.
        A KeyboardInterrupt passes where the worker is the parent itself.
        """
        work = Work(
            self.job,
            range(count),
            items,
            self.observer,
            self._grouping,
            pack=self.pack,
            interruptible=not self.pool,
        )
        attempt = Attempt(
            work, number, reserved=self._reserved, owns_connections=self.pool, note=note
        )
        result = attempt.run()
        if self.pool:
            for connection in connections.all(initialized_only=True):
                # What DEBUG=True records: up to 9,000 statements a connection, which nobody reads.
                connection.queries_log.clear()
        return result


_SCALARS = frozenset({type(None), bool, int, float, str, bytes})  # sure to arrive


def packed(value: Any) -> bytes:
    """Pickle what a function returned.

    Raises:
        NotSendable: it can't be pickled; or unpickled, as many an exception can't, which would be
            found too late in the parent.
    """
    try:
        data = dumps(value)
        if type(value) not in _SCALARS:
            loads(data)
        return data
    except Exception as error:
        raise NotSendable(
            f"the function returned a {type(value).__module__}.{type(value).__qualname__}, which "
            f"can't be sent back ({type(error).__name__}: {error}). Return plain data."
        ) from error
