"""What `run` expects of an executor. One contract test-suite holds them all to it.

An executor takes chunks while it `wants` some, and gives each back once, as an event: `Ended`, a
worker's own word, or `Lost`, what is known of a chunk whose worker is gone. It never runs a chunk
twice by itself, and never reads ahead: how many are in flight is its window.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from carpool.pacing import TARGET
from carpool.types import Chunk, ChunkResult, Fault


class Phase(Enum):
    """Where a worker was when it was lost. The value says what that means for its chunk."""

    RUNNING = "rolled back by the database: run it again, without the suspect"
    COMMITTING = "stored or not, nobody can say"
    COMMITTED = "stored; the worker's last word before COMMIT is true"
    NOT_TOLD = "this executor doesn't tell: it may have been stored"


@dataclass(frozen=True, slots=True)
class Ended:
    """A chunk has been run."""

    chunk: Chunk
    result: ChunkResult


@dataclass(frozen=True, slots=True)
class Lost:
    """A chunk's worker is gone.

    ``suspect`` is the position of the item that was running, ``guilty`` that it is known to be the
    cause (it ran past its time limit), ``prepared`` what the worker said just before COMMIT,
    ``killed`` that somebody ended the worker from outside, which needn't be the suspect's doing.
    """

    chunk: Chunk
    phase: Phase
    fault: Fault
    suspect: int | None = None
    guilty: bool = False
    prepared: ChunkResult | None = None
    killed: bool = False


Event = Ended | Lost

GRACE = 1.0
"""Seconds the chunks in flight have to finish after Ctrl-C: a paced chunk takes a third of one."""


def window(workers: int) -> int:
    """Return how many chunks may be in flight: one each, and some ready for who finishes first."""
    return workers + max(1, workers // 2)


class Executor(ABC):
    """Runs chunks.

    Attributes:
        label: what the report calls it.
        workers: how many chunks it runs at a time; 0 if that is not known before `start`.
        in_flight: chunks submitted and not yet given back.
        local: functions get the items themselves, so an item that can't be pickled is no problem,
            and one that a function has changed is changed for the caller, as in a loop.
        redelivers: it may run a chunk twice, though it gives it back once.
        crowds: its workers have connections of their own: `run` asks if there may be so many.
        alone: the source is read and the functions run by turns, on the same connection.
    """

    label: str
    workers: int
    in_flight: int = 0
    local: bool = False
    alone: bool = False
    redelivers: bool = False
    crowds: bool = True

    @property
    def chunk_seconds(self) -> float:
        """How long a chunk should take here."""
        return TARGET

    @abstractmethod
    def start(self) -> None:
        """Begin to make the workers; needn't wait for them.

        Raises:
            RunFailed: there can be none. ``wait`` may raise it, too.
        """

    def expect(self, total: int | None) -> None:  # noqa: B027  # most don't care
        """Be told how many items the source says there are, before the first chunk."""

    def wants(self) -> int:
        """Return how many more chunks it takes now."""
        return window(self.workers) - self.in_flight

    def sent(self) -> Iterable[Chunk]:
        """Return the chunks in flight; asked for only where ``redelivers``."""
        raise NotImplementedError

    @abstractmethod
    def submit(self, chunk: Chunk) -> None:
        """Take a chunk."""

    @abstractmethod
    def wait(self) -> list[Event]:
        """Wait until at least one chunk has ended, or Ctrl-C; return what has ended."""

    @abstractmethod
    def poll(self) -> list[Event]:
        """Return what has ended, without waiting."""

    @abstractmethod
    def stop(self) -> list[Event]:
        """End what is in flight within about `GRACE` seconds; return all of it as events."""

    @abstractmethod
    def close(self) -> None:
        """Leave nothing behind: no worker, no connection. May be called twice."""
