"""The plain data that run, executors and workers hand to one another.

Only these cross a process: no exception, no model instance, no connection. A *position* counts
within a chunk, an *index* within the whole input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from carpool.coalescing.figures import Figures
    from carpool.journal.recording import Note, Permit, Places

Stage = Literal["item", "function", "commit", "on_commit", "worker", "unknown", "run"]
"""Where an item failed.

``item``: it could not be sent or loaded. ``function``: the function, or a statement of it, raised.
``commit``: the database refused its rows at COMMIT. ``on_commit``: a callback raised after COMMIT;
**its rows are stored**. ``worker``: its worker died or was ended. ``unknown``: lost during COMMIT.
``run``: the run stopped before its turn.
"""


GONE = object()
"""In place of an item whose row no longer exists. Never crosses a process."""


@dataclass(frozen=True, slots=True)
class Fault:
    """An error as plain data; see ``errors.describe`` for how one is made."""

    error: str
    message: str
    traceback: str = ""
    sqlstate: str | None = None
    stage: Stage = "function"


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that did not succeed, and why.

    ``item`` is what the source gave, untouched by the function; of a QuerySet run, the primary
    key. ``error`` is the exception's dotted path, ``sqlstate`` the database's five-character code
    where its driver tells one (PostgreSQL does; MySQL's and SQLite's own codes are in ``message``).
    """

    index: int
    item: Any
    error: str
    message: str
    traceback: str = ""
    sqlstate: str | None = None
    stage: Stage = "function"

    def __str__(self) -> str:
        name = self.error.rpartition(".")[2]
        return f"item {self.index}: {name}: {self.message}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item; ``stream()`` yields these.

    ``value`` is what the function returned. Where ``ok`` is False, ``failure`` says why.
    """

    index: int
    item: Any
    ok: bool
    value: Any = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Items on their way through a worker, in one transaction.

    ``payloads`` are the items pickled one by one, taken before any function could change them:
    what a process is sent, and what a repeated try starts from. None where an item can't be
    pickled (executors in the same process use the item itself then).

    ``local``: read for an executor in the same process, so the payloads won't do for another.
    ``again``: part of one that has run, so a function may have changed the items. ``places``: where
    the items are in the input, for the journal; None without one. ``step``: of its marks.
    ``alone``: to be sent when no other is out, and none after it until it is back.
    """

    number: int
    indexes: Sequence[int]
    items: Sequence[Any]
    payloads: Sequence[bytes | None]
    local: bool = False
    again: bool = False
    places: Places | None = None
    step: int = 1
    alone: bool = False

    @property
    def note(self) -> Note | None:
        """What the journal will say of the chunk."""
        return None if self.places is None else self.places.note(self.step)

    def __len__(self) -> int:
        return len(self.items)

    def part(self, number: int, positions: Sequence[int]) -> Chunk:
        """Return the chunk of only these positions."""
        return Chunk(
            number,
            [self.indexes[p] for p in positions],
            [self.items[p] for p in positions],
            [self.payloads[p] for p in positions],
            self.local,
            again=True,
            places=None if self.places is None else self.places.part(positions),
            step=self.step,
            alone=self.alone,
        )


class Ending(Enum):
    """How a chunk's transaction ended. The value says what run() does about it."""

    COMMITTED = "count it"
    REFUSED = "the database refused at COMMIT and blamed no row: split it, run the parts"
    UNKNOWN = "the connection was lost during COMMIT: report it, never run it again"
    UNAVAILABLE = "no transaction could be begun: stop the run"
    TAKEN_OVER = "rolled back, since another coordinator has the run now: stop"
    DELIVERED_TWICE = "not run, or rolled back, this time: the journal knows how it ended"
    STOPPED = "rolled back because the run was stopped: report its items as not run"


@dataclass(frozen=True, slots=True)
class Spent:
    """Where the time of chunks went, in seconds, all workers' together.

    ``seconds``: in transactions that ended, their COMMIT included, waiting for SQLite's write lock
    not. ``cpu``: of the threads that ran them. ``database``: in statements, COPY and COMMIT (of a
    dry run, ROLLBACK), what the driver computes in them included.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    database: float = 0.0

    @property
    def waiting(self) -> float:
        """Seconds for anything else: the network, a file, another program, a turn at the processor.

        At least so many: what the driver computes in a statement is taken off twice.
        """
        return max(0.0, self.seconds - self.cpu - self.database)

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.seconds + other.seconds, self.cpu + other.cpu, self.database + other.database
        )


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """What a worker says of a chunk. ``faults`` and ``values`` are by position.

    ``seconds`` is the time since the transaction began, waiting for its lock not counted; ``cpu``
    and ``database`` are parts of it, see `Spent`. Packed values are pickled one by one; else they
    are the very objects. ``repeated``: calls of the function beyond one an item. ``figures``: what
    coalescing has saved.
    """

    number: int
    ending: Ending
    seconds: float = 0.0
    retries: int = 0
    faults: dict[int, Fault] = field(default_factory=dict)
    skipped: tuple[int, ...] = ()
    values: dict[int, Any] = field(default_factory=dict)
    values_are_packed: bool = False
    fault: Fault | None = None
    repeated: int = 0
    figures: Figures | None = None
    cpu: float = 0.0
    database: float = 0.0

    @property
    def spent(self) -> Spent:
        """Where its time went."""
        return Spent(self.seconds, self.cpu, self.database)


@dataclass(frozen=True, slots=True)
class Job:
    """What every worker of a run needs to know, once.

    ``function``, ``setup``, ``convert`` (what an item is passed through first) and
    ``before_chunk`` are the callables themselves; `child.ShippedJob` is the form in which they
    travel. ``keep_values``: send back what the function returns. ``coalesce``: queue
    the rows of a chunk's items and write them together. ``lock``: load the queryset's rows FOR
    UPDATE. ``permit``: to write the journal; None without one.
    """

    function: Callable[..., Any]
    setup: Callable[[], Any] | None
    queryset: Any
    using: tuple[str, ...]
    retries: int
    dry_run: bool
    keep_values: bool
    coalesce: bool = False
    lock: bool = False
    permit: Permit | None = None
    convert: Callable[[Any], Any] | None = None
    before_chunk: Callable[[list[Any]], Any] | None = None
