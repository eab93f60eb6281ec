"""What a benchmark has measured, as plain data."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Literal

from carpool.coalescing.figures import Figures
from carpool.types import Failure

Kind = Literal["loop", "inline", "threads", "processes"]


@dataclass(frozen=True, slots=True)
class Way:
    """A way to run the sample.

    Attributes:
        kind: a plain loop in one transaction, or an executor of `run`.
        workers: how many.
        chunk_size: items a transaction, if there are enough; of the loop, all.
        coalesce: as `run`'s option of the name; the loop never does.
        paced: the chunk size is what `run` would come to by itself.
    """

    kind: Kind
    workers: int = 1
    chunk_size: int = 1
    coalesce: bool = True
    paced: bool = True

    @property
    def label(self) -> str:
        """What the table calls it."""
        if self.kind == "loop":
            return "plain loop, one transaction"
        text: str = self.kind
        if self.kind != "inline":
            kinds = self.kind if self.workers > 1 else _SINGULAR[self.kind]
            text = f"{self.workers} {kinds}"
        return text if self.coalesce else f"{text}, coalesce=False"


_SINGULAR = {"threads": "thread", "processes": "process"}


@dataclass(slots=True)
class Row:
    """What was measured of a way.

    Attributes:
        items: in the last round.
        chunk_size: small enough that each worker got several chunks of them.
        rates: items a second, a round each; of pools, once the workers were all at work.
        fixed: seconds on top of that, a round each: to start the pool, warm it up and end it.
        once: seconds that the process pays for its first pool, such as the fork server's start: a
            benchmark once, each run as well.
        used: processors that carpool's threads and processes used at a time, in the round with
            the least.
        failed: items that failed in the worst round.
        retries: transactions that were tried again, in all rounds.
        note: why it could not be measured, or not to its end.
        expected: items a second, by which it is given its items.
        overhead: seconds to start and end, likewise.
    """

    way: Way
    items: int = 0
    chunk_size: int = 0
    rates: list[float] = field(default_factory=list)
    fixed: list[float] = field(default_factory=list)
    once: float = 0.0
    used: float = 0.0
    failed: int = 0
    retries: int = 0
    note: str | None = None
    expected: float = 0.0
    overhead: float = 0.0

    @property
    def is_measured(self) -> bool:
        return bool(self.rates) and self.note is None

    @property
    def rate(self) -> float:
        """The median round's."""
        return statistics.median(self.rates)

    @property
    def start_up(self) -> float:
        """The median round's seconds on top, and those of a first pool."""
        return statistics.median(self.fixed) + self.once

    def seconds_for(self, items: int) -> float:
        """Return how long so many items would take."""
        return self.start_up + items / self.rate


@dataclass(frozen=True, slots=True)
class Shares:
    """Where an item's time goes, as parts of 1; measured in one pass in this thread.

    Attributes:
        waiting: neither computing nor in the database: the network, sleep, files, locks of
            Python's, other programs.
        database: in statements: the server, the way there, and what the driver computes.
        function: computed by the function, by receivers, and by what they call.
        overhead: computed by Django and carpool: instances, signals, SQL, queue, transaction.
    """

    waiting: float
    database: float
    function: float
    overhead: float

    @property
    def computing(self) -> float:
        return self.function + self.overhead


@dataclass(frozen=True, slots=True)
class Bench:
    """All that was measured.

    Attributes:
        items: of the sample, in the way that was given the most of them.
        sample: that were taken from the source.
        total: of the source; None if it doesn't tell.
        rounds: that were begun.
        seconds: that everything took.
        reading_seconds: that the source takes to give an item; None of a queryset's keys.
        profiled: items of the pass from which the following figures are.
        item_seconds: that an item took.
        shares: where they went.
        coalesced: what coalescing saved, and what broke its batches.
        failures: the first 100.
        failed: items that failed.
        processors: that this process may use.
        load: how many of them others used just before, or waited for; 0.0 where nobody tells.
        rows: the ways, in the table's order; none where nearly all items failed.
    """

    items: int
    sample: int
    total: int | None
    rounds: int
    seconds: float
    reading_seconds: float | None
    profiled: int
    item_seconds: float
    shares: Shares
    coalesced: Figures | None
    failures: tuple[Failure, ...]
    failed: int
    processors: int
    load: float
    rows: tuple[Row, ...]

    @property
    def loop(self) -> Row | None:
        """The plain loop's row, if it was measured."""
        return next((r for r in self.rows if r.way.kind == "loop" and r.is_measured), None)

    @property
    def worst_failed(self) -> int:
        """Items that failed in the pass in which most did."""
        return max([self.failed, *(row.failed for row in self.rows)])
