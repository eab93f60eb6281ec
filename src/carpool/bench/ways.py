"""Which ways to run the sample are compared, and how many of its items each is given.

Workers go up in doublings. Processes up to twice the processors: beyond, they only take turns.
Threads as far if items compute, which shows that they gain nothing, and up to `MOST_THREADS` if
they wait, in statements or elsewhere. Chunks are as large as `run` would make them; other sizes are
tried inline and with a process for each processor.

Each way is given about the same time, not the same items: 32 threads get through 32 times as many
that wait, and with a loop's few would each have one chunk of one. All begin with the first item.
Where the sample has too few for so many workers, chunks would be smaller than any that `run` makes,
and cost more than their items: such a way is left out, and the table says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from carpool.bench.figures import Shares, Way
from carpool.pacing import LARGEST, SMALLEST_SHARE, TARGET

MOST_THREADS = 32
"""Threads tried: each has a connection, and PostgreSQL takes a hundred by default."""

WAITS = 0.3
"""Share of waiting and database from which many threads are tried: 1.4 times as fast at best."""

CHUNKS_A_WORKER = 4
"""Chunks each worker gets at least, the first of which is left out of its rate: fewer, and the
last worker at work alone would be most of what is measured."""

CHUNKS_AT_LEAST = 2
"""Chunks for each worker below which a way is left out: one is its start, and none would be left to
measure."""

FEWEST = 16
"""Items that a way is given at least: fewer tell nothing."""

SIZES = (1, 10, 100, 1000)
"""Chunk sizes tried besides the paced one."""

CHUNK_SECONDS = 0.001
"""Seconds a chunk costs besides its items: a round trip and a transaction, for the estimate."""

POOL_SECONDS = 0.4
"""Seconds that a pool of processes costs, for the estimate; and a tenth of it for each worker."""


def paced_size(item_seconds: float) -> int:
    """Return the chunk size that `run` comes to by itself for such items."""
    return max(1, min(LARGEST, round(TARGET / max(item_seconds, 1e-9))))


def ways(
    items: int,
    item_seconds: float,
    shares: Shares,
    processors: int,
    *,
    workers: int | None = None,
    coalesce: bool = True,
) -> list[Way]:
    """Return the ways to compare, in the table's order.

    Args:
        items: of the sample.
        item_seconds: that one takes.
        shares: where they go.
        processors: that this process may use.
        workers: the most to try; None: as above.
        coalesce: False: nothing is coalesced anywhere.
    """
    size = paced_size(item_seconds)
    found = [Way("loop", chunk_size=items, coalesce=False)]
    if coalesce:
        found.append(Way("inline", chunk_size=size, coalesce=False))
    found += _sizes(Way("inline", chunk_size=size, coalesce=coalesce), items)
    waits = shares.waiting + shares.database >= WAITS
    most = workers or (max(MOST_THREADS, processors) if waits else 2 * processors)
    found += [Way("threads", n, size, coalesce) for n in _doublings(most)]
    doublings = list(_doublings(workers or 2 * processors))
    several = min(max(2, processors), doublings[-1])
    for n in doublings:
        way = Way("processes", n, size, coalesce)
        found += _sizes(way, items) if n == several else [way]
    return found


def _doublings(most: int) -> Iterator[int]:
    number = 1
    while number < most:
        yield number
        number *= 2
    yield most


def _sizes(way: Way, items: int) -> list[Way]:
    """Return the way, and before and behind it the same with other chunk sizes."""
    size = fitted(way, items).chunk_size
    others = [
        Way(way.kind, way.workers, other, way.coalesce, paced=False)
        for other in SIZES
        if other < size / 3
    ]
    return [*others, way]


def fitted(way: Way, items: int) -> Way:
    """Return the way with chunks that are small enough for so many items."""
    most = items if way.kind == "loop" else items // (CHUNKS_A_WORKER * way.workers)
    return replace(way, chunk_size=max(smallest_chunk(way), min(way.chunk_size, most)))


def smallest_chunk(way: Way) -> int:
    """Return the fewest items of a chunk: of several workers what `run` comes down to near an end.

    One worker is compared with one, whose chunks are the same.
    """
    return max(1, way.chunk_size // SMALLEST_SHARE) if way.paced and way.workers > 1 else 1


def fewest_for(way: Way) -> int:
    """Return how many items the sample must have, or the way is left out."""
    return CHUNKS_AT_LEAST * way.workers * smallest_chunk(way) if way.workers > 1 else 1


def start_of(way: Way) -> float:
    """Return about how many seconds it takes to start and to end."""
    return POOL_SECONDS * (1 + way.workers / 10) if way.kind == "processes" else 0.0


def rate_of(way: Way, item_seconds: float, shares: Shares, processors: int) -> float:
    """Return about how many items a second that way does, before anything is known of it."""
    # What computes doesn't go side by side in threads. What waits does, on as many as there are.
    at_once = processors if way.kind == "processes" else 1
    one = (
        shares.computing / min(way.workers, at_once)
        + shares.database / min(way.workers, processors)
        + shares.waiting / way.workers
    )
    return 1 / max(1e-9, item_seconds * one + CHUNK_SECONDS / way.chunk_size)


def items_for(way: Way, seconds: float, rate: float, sample: int) -> int:
    """Return how many of the sample's items that way is given, to take about so long."""
    least = max(FEWEST, fewest_for(way))
    return min(sample, max(least, int(seconds * rate)))
