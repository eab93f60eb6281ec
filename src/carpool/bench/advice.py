"""The recommendation: one sentence, by rules over what was measured.

1. Where more than a few items failed, there were too few, or they took no time, that is what is
   said. A few that failed are said at the end.
2. Of the ways that were measured, the one that would be through first with the whole source (or, if
   nobody knows how long that is, has the highest rate). Another that is at most 10 % slower and
   simpler is taken instead: a loop, then one process, then threads, then processes; fewer workers;
   `run`'s own chunk size.
3. Another chunk size, or no coalescing, only if it gains clearly in more than one round: else
   `run`'s own way is taken, since the two differ by little and rounds by more.
4. What else seems to gain something does so by chance: one worker in a pool, which does what one
   process does; and threads that have nothing to overlap. At least a third of an item's time must
   wait or be in the database, or they must have computed on more than one processor, as libraries
   do outside of Python's lock.
"""

from __future__ import annotations

from carpool.bench.figures import Bench, Row, Shares
from carpool.progress import duration, in_units
from carpool.words import a_second, counted

FEW_FAILED = 0.05
"""Share of failed items up to which there is advice: they change the figures by less than rounds
differ, and real files have bad rows."""

TOO_FEW = 16
"""Items below which nothing is said, unless they are all there are."""

TOO_SHORT = 0.05
"""Seconds that the loop must take: below, the clock and the machine's other work are measured."""

NOT_WORTH_IT = 1.0
"""Seconds for everything in a plain loop below which it needs nothing better."""

CLOSE = 0.9
"""Of the best: what is as fast as this is taken if it is simpler."""

CLEARLY = 1.15
"""Times as fast as `run`'s own way that another chunk size, or no coalescing, must be."""

OVERLAPS = 1 / 3
"""Share of waiting and database that threads need: with less, half as fast again is the most that
they can gain, since what computes takes turns."""

SIDE_BY_SIDE = 1.2
"""Processors that threads must have used without it: those that take turns use one at most."""

MOST_OF_IT = 0.5
"""Share of an item's time from which it is said to be what the item's time is."""

READING = 0.8
"""Part of the rate at which the source can be read from which on that is the limit."""

_ORDER = {"loop": 0, "inline": 1, "threads": 2, "processes": 3}


def advice_on(bench: Bench) -> str:
    """Return the recommendation."""
    if bench.failed > FEW_FAILED * bench.profiled or _in_pools(bench) > FEW_FAILED:
        return _of_failures(bench)
    return _advice(bench) + _few_failures(bench)


def _advice(bench: Bench) -> str:
    """Return what to do, whatever failed."""
    all_of_it = bench.total is not None and bench.total <= bench.items
    if bench.items < TOO_FEW and not all_of_it:
        are = "is" if bench.items == 1 else "are"
        return (
            f"{_items(bench.items)} {are} too few to say anything: take a larger sample, or allow "
            "more time."
        )
    loop = bench.loop
    candidates = [row for row in bench.rows if row.is_measured]
    if not candidates:
        return "Nothing could be measured."
    if loop is not None:
        seconds = loop.seconds_for(bench.total or bench.items)
        if bench.total is not None and seconds < NOT_WORTH_IT:
            everything = f"{'all ' if bench.total > 1 else ''}{_items(bench.total)}"
            return f"A plain loop does {everything} in {_short(seconds)}: keep it."
        if loop.items / loop.rate < TOO_SHORT:
            # Those of a larger sample would not fit into the loop's time either.
            remedy = (
                "allow more time (--seconds)"
                if loop.items < bench.sample or bench.sample == bench.total
                else "take a larger one (--sample)"
            )
            return (
                f"The sample takes {_short(loop.items / loop.rate)} in a plain loop, too short to "
                f"compare: {remedy}."
            )
    best = best_of(candidates, bench)
    return _why(bench.shares) + _what(best, bench) + _limits(best, bench)


def best_of(rows: list[Row], bench: Bench) -> Row:
    """Return the way to take."""

    def speed(row: Row) -> float:
        if bench.total is None:
            return row.rate
        return bench.total / row.seconds_for(bench.total)

    waits = bench.shares.waiting + bench.shares.database >= OVERLAPS
    sensible = [row for row in rows if _makes_sense(row, waits=waits)] or rows

    def gains(row: Row) -> bool:
        own = _own_way(row, sensible)
        return own is row or (bench.rounds > 1 and speed(row) > CLEARLY * speed(own))

    allowed = [row for row in sensible if gains(row)]
    top = max(map(speed, allowed))
    return min(
        (row for row in allowed if speed(row) >= CLOSE * top),
        key=lambda row: (_ORDER[row.way.kind], row.way.workers, not row.way.paced, -speed(row)),
    )


def _makes_sense(row: Row, *, waits: bool) -> bool:
    """Tell whether a way may be advised; a pool of one is measured for comparison only."""
    if row.way.kind in ("loop", "inline"):
        return True
    overlaps = row.way.kind != "threads" or waits or row.used > SIDE_BY_SIDE
    return row.way.workers > 1 and overlaps


def _own_way(row: Row, rows: list[Row]) -> Row:
    """Return what `run` does by itself with such workers; the row, if that wasn't measured."""
    own = [
        r
        for r in rows
        if (r.way.kind, r.way.workers, r.way.paced) == (row.way.kind, row.way.workers, True)
    ]
    return next((r for r in own if r.way.coalesce), row if row in own or not own else own[0])


def _of_failures(bench: Bench) -> str:
    if bench.failed > FEW_FAILED * bench.profiled:
        return (
            f"{bench.failed:,} of {_items(bench.profiled)} failed{_first(bench)}: see to them "
            "first, since what an item costs that fails is not what one costs that succeeds."
        )
    worst = max(bench.rows, key=_share_failed)
    if worst.way.workers == 1:  # an item that the profile did not come to
        return f"{worst.failed:,} of {_items(worst.items)} failed: see to them first."
    return (
        f"{worst.failed:,} of {_items(worst.items)} failed with {worst.way.label}, and "
        f"{bench.failed or 'none'} of {bench.profiled:,} with one worker: the function may not be "
        "safe to run side by side. See to that first."
    )


def _few_failures(bench: Bench) -> str:
    if bench.failed:
        return f" {bench.failed:,} of {_items(bench.profiled)} failed{_first(bench)}."
    if not bench.worst_failed:
        return ""
    worst = max(bench.rows, key=_share_failed)
    if worst.way.workers == 1:
        return f" {worst.failed:,} of {_items(worst.items)} failed."
    return (
        f" {worst.failed:,} of {_items(worst.items)} failed with {worst.way.label}, and none of "
        f"{bench.profiled:,} with one worker: bad items, or the function is not safe to run side "
        "by side."
    )


def _first(bench: Bench) -> str:
    return f" ({in_a_line(str(bench.failures[0]))})" if bench.failures else ""


def _share_failed(row: Row) -> float:
    return row.failed / row.items if row.items else 0.0


def _in_pools(bench: Bench) -> float:
    """Return the largest share of failed items that a way had beyond one worker's profile."""
    return max((_share_failed(row) for row in bench.rows), default=0.0) - (
        bench.failed / bench.profiled
    )


def _why(shares: Shares) -> str:
    """Begin the sentence with what an item's time is."""
    if shares.waiting >= MOST_OF_IT:
        return f"{shares.waiting:.0%} of an item is waiting: "
    if shares.database >= MOST_OF_IT:
        return f"{shares.database:.0%} of an item is the database: "
    if shares.computing >= MOST_OF_IT:
        more = f", {shares.overhead:.0%} by Django and carpool" if shares.overhead >= 0.05 else ""
        return f"{shares.computing:.0%} of an item is computing{more}: "
    return (
        f"An item is {shares.computing:.0%} computing, {shares.database:.0%} database and "
        f"{shares.waiting:.0%} waiting: "
    )


def _what(best: Row, bench: Bench) -> str:
    way, loop = best.way, bench.loop
    if way.kind == "loop":
        if not any(row.is_measured and row.way.workers > 1 for row in bench.rows):
            return (
                f"a plain loop is as fast as one worker ({a_second(best.rate)} items/s); more were "
                "not tried."
            )
        return f"a plain loop is as fast as anything ({a_second(best.rate)} items/s): keep it."
    if way.kind == "inline":
        how = "one process, --executor inline" + ("" if way.coalesce else " --no-coalesce")
    else:
        how = f"{way.label} (--executor {way.kind} --workers {way.workers}"
        by_default = way.kind == "processes" and way.workers == bench.processors
        how += ", which is run()'s default)" if by_default else ")"
        alike = [row for row in bench.rows if row.way.kind == way.kind and row.is_measured]
        tried = max(row.way.workers for row in alike)
        if way.workers == tried and way.kind == "threads":
            how += " or more"
    if not way.paced:
        how += f", --chunk-size {best.chunk_size}"
    speed = f"{a_second(best.rate)} items/s"
    if loop is not None:
        speed += f", {best.rate / loop.rate:.1f} times the plain loop"
    if loop is not None and bench.total is not None and bench.total > bench.items:
        speed += (
            f"; all {_items(bench.total)} in {_short(best.seconds_for(bench.total))} instead of "
            f"{_short(loop.seconds_for(bench.total))}"
        )
    return f"{how}: {speed}."


def _limits(best: Row, bench: Bench) -> str:
    """Say what the figures don't promise."""
    reading = bench.reading_seconds
    doubt = " There was time for one round only: allow more to be sure." if bench.rounds < 2 else ""
    if reading is None or best.rate * reading < READING:
        return doubt
    return doubt + (
        f" Reading the source alone takes {reading * 1e6:,.0f} µs an item, {a_second(1 / reading)} "
        "items/s: no workers are faster than that."
    )


def _items(number: int) -> str:
    return counted(number, "item")


def _short(seconds: float) -> str:
    return in_units(seconds) if seconds < 1 else duration(seconds)


def in_a_line(text: str, length: int = 120) -> str:
    """Return the text as one line, cut to that length."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"
