"""The benchmark's parts: which ways, how many items, what the clock says, and the advice."""

from __future__ import annotations

import gc
import re
import signal
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpool.bench import bench as bench_of
from carpool.bench import watching
from carpool.bench.advice import advice_on, best_of
from carpool.bench.figures import Bench, Kind, Row, Shares, Way
from carpool.bench.measuring import Timing, rate_of
from carpool.bench.profile import Profile, owner_of
from carpool.bench.rounds import Rounds, charge_first_pool
from carpool.bench.sample import Sample
from carpool.bench.table import text_of
from carpool.bench.ways import fewest_for, fitted, items_for, paced_size, ways
from carpool.bench.ways import rate_of as expected_rate
from carpool.coalescing.figures import EarlyFlush, Figures
from carpool.exceptions import ConfigurationError
from carpool.pacing import SMALLEST_SHARE
from carpool.types import Failure

WAITING = Shares(0.97, 0.01, 0.01, 0.01)
COMPUTING = Shares(0.02, 0.08, 0.6, 0.3)
DATABASE = Shares(0.05, 0.75, 0.1, 0.1)
MIXED = Shares(0.2, 0.4, 0.2, 0.2)


def row(
    kind: Kind, rate: float, workers: int = 1, start_up: float = 0.0, items: int = 1000, **way: Any
) -> Row:
    """Return a row of three rounds around a rate."""
    found = Row(Way(kind, workers, 100, **({"coalesce": kind != "loop"} | way)), items, 100)
    found.rates += [rate * 0.98, rate, rate * 1.02]
    found.fixed += [start_up] * 3
    return found


def measured(*rows: Row, shares: Shares = WAITING, **changes: Any) -> Bench:
    """Return a benchmark with these rows."""
    values: dict[str, Any] = {
        "items": 1000,
        "sample": 1000,
        "total": None,
        "rounds": 3,
        "seconds": 30.0,
        "reading_seconds": None,
        "profiled": 500,
        "item_seconds": 0.005,
        "shares": shares,
        "coalesced": None,
        "failures": (),
        "failed": 0,
        "processors": 4,
        "load": 0.0,
        "rows": rows,
    }
    return Bench(**values | changes)


def pools(threads: dict[int, float], processes: dict[int, float], loop: float = 200) -> list[Row]:
    rows = [row("loop", loop), row("inline", loop)]
    rows += [row("threads", rate, n) for n, rate in threads.items()]
    return rows + [row("processes", rate, n, 0.4) for n, rate in processes.items()]


# The advice.


def test_waiting_is_for_threads_as_many_as_pay() -> None:
    """The fewest within a tenth of the best."""
    rows = pools({1: 200, 8: 1550, 16: 2950, 32: 3000}, {4: 780, 8: 1500})
    assert advice_on(measured(*rows)) == (
        "97% of an item is waiting: 16 threads (--executor threads --workers 16): 2,950 items/s, "
        "14.8 times the plain loop."
    )


def test_the_most_that_were_tried_may_not_be_enough() -> None:
    """Which is said."""
    rows = pools({1: 200, 16: 2500, 32: 5000}, {4: 780})
    assert "32 threads (--executor threads --workers 32) or more" in advice_on(measured(*rows))
    left_out = Row(Way("threads", 64), note="left out")
    assert "--workers 32) or more" in advice_on(measured(*rows, left_out))


def test_computing_is_for_processes() -> None:
    """As many as pay; that they are the default is said."""
    rows = pools({1: 200, 4: 215}, {1: 190, 2: 390, 4: 760, 8: 780})
    text = advice_on(measured(*rows, shares=COMPUTING))
    assert text.startswith("90% of an item is computing, 30% by Django and carpool: 4 processes")
    assert "which is run()'s default" in text
    fewer = measured(*rows, shares=COMPUTING, processors=8)
    assert "default" not in advice_on(fewer)


@pytest.mark.parametrize("gain", [1.2, 3.0])
def test_threads_without_anything_to_overlap_are_chance(gain: float) -> None:
    """However well they did; unless they used more than one processor."""
    rows = pools({2: 200 * gain}, {2: 190})
    rows[2].used = 1.0
    assert "threads" not in advice_on(measured(*rows, shares=COMPUTING))
    rows[2].used = 1.8
    assert "2 threads" in advice_on(measured(*rows, shares=COMPUTING))


def test_a_pool_of_one_is_for_comparison() -> None:
    """It can't be better than the same without a pool, whatever was measured."""
    rows = pools({1: 400, 2: 300}, {1: 500, 2: 310})
    assert "2 threads" in advice_on(measured(*rows))
    assert "2 processes" in advice_on(measured(*rows, shares=COMPUTING))


def test_one_process_where_pools_gain_nothing() -> None:
    """Simpler wins within a tenth, and the database is what it's about."""
    rows = [row("loop", 1000), row("inline", 6000), row("threads", 6300, 2)]
    text = advice_on(measured(*rows, row("processes", 6500, 2), shares=DATABASE))
    assert text == (
        "75% of an item is the database: one process, --executor inline: 6,000 items/s, 6.0 times "
        "the plain loop."
    )


def test_a_plain_loop_that_is_as_fast_is_kept() -> None:
    """With what an item is, if it isn't one thing."""
    rows = [row("loop", 1000), row("inline", 900), row("processes", 1050, 2)]
    assert advice_on(measured(*rows, shares=MIXED)) == (
        "An item is 40% computing, 40% database and 20% waiting: a plain loop is as fast as "
        "anything (1,000 items/s): keep it."
    )


def test_what_a_pool_costs_counts_for_the_whole() -> None:
    """Where the source tells how long it is."""
    rows = [row("loop", 1000), row("inline", 1000), row("processes", 2000, 2, start_up=5.0)]
    assert "2 processes" in advice_on(measured(*rows, shares=COMPUTING))
    assert "keep it" in advice_on(measured(*rows, shares=COMPUTING, total=9_000))
    assert "all 100,000 items in 55 s instead of 2 min" in advice_on(
        measured(*rows, shares=COMPUTING, total=100_000)
    )


def test_chunk_sizes_are_named_only_where_they_matter() -> None:
    """That of run() itself is taken where it is as good."""
    rows = [row("loop", 100), row("inline", 500), row("inline", 520, paced=False)]
    assert "--chunk-size" not in advice_on(measured(*rows, shares=DATABASE))
    rows.append(row("inline", 900, paced=False))
    assert "--executor inline, --chunk-size 100:" in advice_on(measured(*rows, shares=DATABASE))


def test_chunk_sizes_are_not_named_by_chance() -> None:
    """Nor the switch: not of one round, nor for less than 15 % more than run()'s own way."""
    rows = [row("loop", 100), row("inline", 500)]
    odd = [row("inline", 570, paced=False), row("inline", 570, coalesce=False)]
    for other in odd:
        text = advice_on(measured(*rows, other, shares=DATABASE))
        assert "one process, --executor inline: 500 items/s" in text
    for other in (row("inline", 580, paced=False), row("inline", 580, coalesce=False)):
        text = advice_on(measured(*rows, other, shares=DATABASE))
        assert "580 items/s" in text
        once = advice_on(measured(*rows, other, shares=DATABASE, rounds=1))
        assert "one process, --executor inline: 500 items/s" in once
    # A bench without coalescing has no other way.
    alone = [row("loop", 100), row("inline", 500, coalesce=False)]
    assert "--executor inline --no-coalesce" in advice_on(measured(*alone, shares=DATABASE))


def test_without_coalescing_is_an_option_like_others() -> None:
    """Named by its switch."""
    rows = [row("loop", 100), row("inline", 500), row("inline", 900, coalesce=False)]
    text = advice_on(measured(*rows, shares=DATABASE))
    assert "--executor inline --no-coalesce" in text


BAD = Failure(4, {}, "builtins.ValueError", "bad")


def test_many_failures_come_first() -> None:
    """Those of the function, and those that only workers side by side meet."""
    rows = pools({8: 1600}, {})
    text = advice_on(measured(*rows, failed=26, failures=(BAD,)))
    assert text.startswith("26 of 500 items failed (item 4: ValueError: bad): see to them first")
    rows[2].failed = 60
    assert advice_on(measured(*rows)).startswith(
        "60 of 1,000 items failed with 8 threads, and none of 500 with one worker: the function may"
    )
    rows[2].failed = 90
    assert "and 5 of 500 with one worker" in advice_on(measured(*rows, failed=5))


def test_few_failures_are_mentioned() -> None:
    """Behind the recommendation, which is what it would be without them."""
    rows = pools({8: 1600}, {})
    without = advice_on(measured(*rows))
    assert "8 threads" in without
    text = advice_on(measured(*rows, failed=25, failures=(BAD,)))
    assert text == f"{without} 25 of 500 items failed (item 4: ValueError: bad)."
    rows[2].failed = 1
    assert advice_on(measured(*rows)) == (
        f"{without} 1 of 1,000 items failed with 8 threads, and none of 500 with one worker: bad "
        "items, or the function is not safe to run side by side."
    )


def test_where_all_fail_nothing_else_is_said() -> None:
    """There is no table then."""
    bench = measured(failed=500, failures=(BAD,))
    assert "slowest" not in text_of(bench)
    assert advice_on(bench).startswith("500 of 500 items failed (item 4: ValueError: bad)")


def test_a_loop_beside_which_nothing_was_tried() -> None:
    """Is not said to be as fast as anything."""
    text = advice_on(measured(*pools({1: 200}, {1: 190})))
    assert text.endswith(
        "a plain loop is as fast as one worker (200 items/s); more were not tried."
    )


def test_too_little_to_say_anything() -> None:
    """Few items, unless there are no more; or no time."""
    rows = [row("loop", 200, items=10), row("threads", 1600, 8)]
    assert "10 items are too few" in advice_on(measured(*rows, items=10))
    assert "10 items are too few" in advice_on(measured(*rows, items=10, total=5000))
    assert "does all 10 items in 50 ms: keep it" in advice_on(measured(*rows, items=10, total=10))
    fast = [row("loop", 1_000_000), row("inline", 300_000)]
    assert "too short to compare: take a larger one (--sample)" in advice_on(measured(*fast))
    cut: list[dict[str, Any]] = [{"sample": 1001}, {"total": 1000, "items": 22}]
    for changes in cut:
        few = [row("loop", 100, items=2), row("inline", 100, items=22)]
        assert "allow more time (--seconds)" in advice_on(measured(*few, **changes))
    assert "does all 2,000 items" in advice_on(measured(*fast, total=2000))


def test_nothing_that_could_be_measured() -> None:
    """Is said as well."""
    assert advice_on(measured(Row(Way("loop"), note="no"))) == "Nothing could be measured."


def test_a_source_that_is_slower_than_the_workers() -> None:
    """Is named as the limit."""
    rows = pools({16: 3000}, {})
    assert "Reading the source" not in advice_on(measured(*rows, reading_seconds=1e-5))
    text = advice_on(measured(*rows, reading_seconds=3e-4))
    assert text.endswith(
        "Reading the source alone takes 300 µs an item, 3,333 items/s: no workers are faster than "
        "that."
    )


def test_one_round_is_not_much() -> None:
    """Which is said, and what to do."""
    rows = pools({16: 3000}, {})
    assert "one round" not in advice_on(measured(*rows))
    text = advice_on(measured(*rows, rounds=1))
    assert text.endswith("There was time for one round only: allow more to be sure.")


RATES = st.floats(1, 1e6)


@given(
    loop=RATES,
    inline=RATES,
    threads=st.dictionaries(st.sampled_from([1, 2, 4, 8]), RATES),
    processes=st.dictionaries(st.sampled_from([1, 2, 4]), RATES),
    parts=st.tuples(*[st.floats(0.01, 1)] * 4),
    total=st.none() | st.integers(1, 10**7),
)
def test_what_is_advised_is_close_to_the_best(
    loop: float,
    inline: float,
    threads: dict[int, float],
    processes: dict[int, float],
    parts: tuple[float, ...],
    total: int | None,
) -> None:
    """Of what was allowed; and there is always a sentence."""
    whole = sum(parts)
    shares = Shares(*(part / whole for part in parts))
    rows = pools(threads, processes, loop)
    rows[1] = row("inline", inline)
    bench = measured(*rows, shares=shares, total=total)
    assert advice_on(bench).endswith(".")
    best = best_of(rows, bench)
    allowed = [
        r
        for r in rows
        if r.way.kind in ("loop", "inline")
        or (r.way.workers > 1 and (r.way.kind == "processes" or best.way.kind == "threads"))
    ]
    if total is None:
        assert best.rate >= 0.9 * max(r.rate for r in allowed)
    else:
        assert best.seconds_for(total) <= min(r.seconds_for(total) for r in allowed) / 0.899


# The first pool.


def test_what_the_first_pool_pays_each_run_pays() -> None:
    """The fork server's start, which a benchmark has once."""
    one, two = row("processes", 100, 1), row("processes", 200, 2)
    one.fixed, two.fixed = [0.1, 0.1], [0.2, 0.3, 0.2]
    # A look came first, which isn't counted.
    charge_first_pool([(one, 0.7), (two, 0.2), (one, 0.1), (two, 0.3), (one, 0.1), (two, 0.2)])
    assert (one.start_up, two.start_up) == pytest.approx((0.7, 0.8))
    assert two.seconds_for(100) == pytest.approx(0.8 + 0.5)


class FirstIsSlow:
    """Measures nothing; its first pool of processes takes a second longer than the others."""

    pools = 0

    def measure(self, way: Way, sample: Sample, *, savepoints: bool) -> Timing:
        if way.kind != "processes":
            return Timing(1000.0, 0.0)
        self.pools += 1
        return Timing(1000.0, 1.25 if self.pools == 1 else 0.25)


def test_rounds_know_the_first_pool() -> None:
    """Whether it was in a look or not, and before all rows are told."""
    for item_seconds in (1e-6, 10.0):  # items that take long have no look before them
        rows = [Row(Way("inline")), Row(Way("processes", 1)), Row(Way("processes", 2))]
        Rounds(
            cast(Any, FirstIsSlow()),
            Sample.take(list(range(100)), 100, ["default"]),
            rows,
            time.monotonic() + 5.0,
            in_loop=100,
            savepoints=False,
            item_seconds=item_seconds,
            waits=False,
            tell=lambda line: None,
        ).measure()
        assert [row.start_up for row in rows] == [0.0, 1.25, 1.25]


def test_the_first_pool_is_charged_once() -> None:
    """Where it was counted, too; and nothing, where there is nothing to compare it with."""
    one, two = row("processes", 100, 1), row("processes", 200, 2)
    one.fixed, two.fixed = [0.7, 0.1], [0.2, 0.2]
    charge_first_pool([(one, 0.7), (two, 0.2), (one, 0.1), (two, 0.2)])
    assert (one.start_up, two.start_up) == pytest.approx((0.7, 0.8))
    one.fixed, one.once = [0.7], 0.0
    charge_first_pool([(one, 0.7), (two, 0.2)])
    charge_first_pool([])
    assert one.start_up == 0.7


# The ways.


def labels(found: list[Way]) -> list[str]:
    return [way.label for way in found]


def test_waiting_items_are_tried_with_many_threads() -> None:
    """In doublings; computing ones with as many as processes, for comparison."""
    found = ways(10_000, 0.005, WAITING, 2)
    assert [way.workers for way in found if way.kind == "threads"] == [1, 2, 4, 8, 16, 32]
    found = ways(10_000, 0.005, COMPUTING, 2)
    assert [way.workers for way in found if way.kind == "threads"] == [1, 2, 4]
    assert [w.workers for w in found if w.kind == "processes" and w.paced] == [1, 2, 4]


def test_every_way_has_its_place() -> None:
    """A loop, inline without and with coalescing, pools; other chunk sizes in two places."""
    assert labels(ways(10_000, 0.0001, COMPUTING, 2)) == [
        "plain loop, one transaction",
        "inline, coalesce=False",
        *["inline"] * 4,
        *["1 thread", "2 threads", "4 threads"],
        *["1 process", *["2 processes"] * 4, "4 processes"],
    ]


def test_the_most_workers_may_be_given() -> None:
    """And are tried, even where they are no power of two."""
    found = ways(10_000, 0.005, WAITING, 2, workers=6)
    assert [way.workers for way in found if way.kind == "threads"] == [1, 2, 4, 6]
    assert not any(w.coalesce for w in ways(10_000, 0.005, WAITING, 2, coalesce=False))
    alone = ways(10_000, 0.005, WAITING, 4, workers=1)
    assert max(way.workers for way in alone) == 1


@given(st.integers(1, 10_000), st.floats(1e-7, 10), st.integers(1, 64), st.floats(0, 100), RATES)
def test_each_way_gets_enough_items(
    sample: int, item_seconds: float, workers: int, seconds: float, rate: float
) -> None:
    """Never more than there are; and for each worker several chunks, if the way isn't left out, as
    small as that takes, but no smaller than run() makes them."""
    way = Way("threads", workers, paced_size(item_seconds))
    items = items_for(way, seconds, rate, sample)
    assert items <= sample
    chunk = fitted(way, items).chunk_size
    least = 1 if workers == 1 else max(1, way.chunk_size // SMALLEST_SHARE)
    assert least <= chunk <= max(least, items // (4 * workers))
    if workers > 1 and fewest_for(way) <= sample:
        assert items // chunk >= 2 * workers
    assert fitted(Way("loop", 1, sample), items).chunk_size == items


@pytest.mark.parametrize(
    ("sample", "item_seconds", "most"),
    [
        (60, 0.005, 4),  # chunks of 4, of which there are 15
        (200, 0.005, 16),
        (60, 1.0, 16),  # chunks of 1, as run() makes them
        (2_000, 0.0001, 4),
        (10_000, 0.005, 32),
        (1, 0.005, 1),
    ],
)
def test_a_small_sample_is_for_few_workers(sample: int, item_seconds: float, most: int) -> None:
    """Split among many, chunks would be smaller than in any run; one worker there always is."""
    found = ways(sample, item_seconds, WAITING, 2)
    kept = [way for way in found if fewest_for(way) <= sample]
    assert max(way.workers for way in kept) == most
    assert {way.label for way in found if way.workers == 1} <= {way.label for way in kept}


def test_what_is_expected_of_ways() -> None:
    """What waits goes side by side, what computes only in processes."""
    expected = {
        (kind, shares): expected_rate(Way(kind, 8, 100), 0.01, shares, 4)
        / expected_rate(Way(kind, 1, 100), 0.01, shares, 4)
        for kind in ("threads", "processes")
        for shares in (WAITING, COMPUTING)
    }
    assert expected["threads", WAITING] > 5
    assert expected["threads", COMPUTING] < 1.2
    assert 3 < expected["processes", COMPUTING] < 5


# The clock.


def test_a_rate_is_that_of_workers_at_work() -> None:
    """From when each has had its first chunk."""
    two = [(1.0, 10), (1.0, 20), (2.0, 30), (2.0, 40), (3.0, 50), (3.0, 60)]
    assert rate_of(two, 2, 9.0) == 20
    one = [(1.0, 10), (1.5, 20), (2.0, 30)]
    assert rate_of(one, 1, 9.0) == 20


def test_a_rate_of_few_chunks_is_that_of_the_whole() -> None:
    """And never nothing, for what is divided by it."""
    assert rate_of([(1.0, 10), (2.0, 20)], 2, 4.0) == 5
    assert rate_of([], 2, 4.0) > 0
    assert rate_of([(1.0, 10), (1.0, 20)], 1, 4.0) == 5


# Passes that take long.


def test_a_pass_that_takes_long_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """For how long, how far it is, and at which line, as long as it takes."""
    monkeypatch.setattr(watching, "FIRST", 0.001)
    begun, told = threading.Event(), threading.Event()
    after: list[str] = []

    def tell(line: str) -> None:
        if begun.is_set():  # the first lines may come before the block's first
            after.append(line)
            if len(after) == 3:
                told.set()

    with watching.watched("warm-up", tell, lambda: 16):
        begun.set()
        told.wait(60)
    place = rf"at tests/unit/{Path(__file__).name}:\d+"
    for line in after[1:3]:  # what others say may have been seen before or after the block
        assert re.fullmatch(
            rf"warm-up: not through after .* s, 16 items done, {place} \(Ctrl-C ends it\)", line
        )
    assert len(after) >= 3
    assert "carpool bench" not in [thread.name for thread in threading.enumerate()]


def test_nobody_talks_of_other_passes() -> None:
    """Nor of their items, if none is done; an error passes."""
    lines: list[str] = []
    with pytest.raises(ValueError, match="oh"), watching.watched("warm-up", lines.append):
        raise ValueError("oh")
    assert lines == []


def test_what_is_around_the_function_is_not_told() -> None:
    """A thread that waits for workers is at no line of the function's; nor is one that is gone."""
    inner = frame_of("threading")
    assert watching._place(inner) is not None  # of this test
    assert watching._place(frame_of("carpool.executors.processes", "threading")) is None
    assert watching._place(frame_of("shop", "carpool.coalescing.unit")) is not None
    assert watching._place(None) is None


def test_a_look_keeps_nothing_alive() -> None:
    """What the threads have in hand goes when they let it go, not when garbage is collected."""

    class Thing:
        pass

    def work() -> weakref.ref[Thing]:
        thing = Thing()
        with ThreadPoolExecutor(1) as watcher:
            place = watcher.submit(watching.place_of, threading.get_ident()).result()
        assert place is not None
        return weakref.ref(thing)

    gc.disable()
    try:
        assert work()() is None
    finally:
        gc.enable()


# Where the time goes.


def frame_of(module: str, inner: str | None = None) -> FrameType:
    """Return a frame of a module of this name, or of one that it calls."""
    namespace: dict[str, Any] = {"__name__": inner or module, "sys": sys}
    exec("def here():\n    return sys._getframe()", namespace)
    if inner is None:
        return namespace["here"]()
    outer: dict[str, Any] = {"__name__": module, "here": namespace["here"]}
    exec("def call():\n    return here()", outer)
    return outer["call"]()


@pytest.mark.parametrize(
    ("module", "inner", "owner"),
    [
        ("shop.imports", None, "function"),
        ("__main__", None, "function"),
        ("django.db.models.base", None, "overhead"),
        ("carpool.tries", None, "overhead"),
        ("django.db.backends.utils", None, "database"),
        ("psycopg.cursor", None, "database"),
        ("shop.imports", "json.decoder", "function"),
        ("django.db.models.sql", "copy", "overhead"),
        ("django.db.models.base", "shop.receivers", "function"),
        ("shop.imports", "pydantic.main", "function"),
    ],
)
def test_whose_code_it_is(module: str, inner: str | None, owner: str) -> None:
    """By the innermost frame that tells; the standard library works for whoever called it."""
    assert owner_of(frame_of(module, inner)) == owner


def test_no_frame_is_overhead() -> None:
    """Of Python's own."""
    assert owner_of(None) == "overhead"


def compute() -> int:
    return sum(n * n for n in range(600_000))


def test_a_profile_tells_waiting_from_computing() -> None:
    """By shares, which add up."""
    profile = Profile()
    with profile.measuring():
        time.sleep(0.3)
    assert profile.shares(0.0).waiting > 0.5
    assert sum(profile.cpu.values()) < 0.15
    busy = Profile()
    with busy.measuring():
        compute()
    shares = busy.shares(0.0)
    assert shares.function > shares.overhead
    assert sum((shares.waiting, shares.computing, shares.database)) == pytest.approx(1)
    assert Profile().shares(0.0) == Shares(0.0, 0.0, 1.0, 0.0)


def test_a_profile_in_another_thread() -> None:
    """There are no signals there: all that is computed counts as the function's."""
    profile = Profile()

    def measure() -> None:
        with profile.measuring():
            compute()

    thread = threading.Thread(target=measure)
    thread.start()
    thread.join()
    assert profile.cpu.keys() == {"function"}
    assert profile.shares(0.0).function > 0.5


def test_a_profile_leaves_no_timer() -> None:
    """Nor a handler, whatever happens in it."""

    def fail() -> None:
        with Profile().measuring():
            assert signal.getsignal(signal.SIGPROF) is not signal.SIG_DFL
            compute()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGPROF) is signal.SIG_DFL


def test_statements_are_the_databases_share() -> None:
    """What the driver computes in them is not counted twice."""
    profile = Profile()
    profile.seconds = 1.0
    profile.cpu.update({"function": 0.1, "overhead": 0.2, "database": 0.15})
    shares = profile.shares(0.3)
    assert (shares.database, shares.function) == pytest.approx((0.3, 0.1))
    assert shares.waiting == pytest.approx(0.4)


# The sample.


def test_a_sample_is_the_sources_beginning() -> None:
    """No more is read; whether that was all is known."""
    source = iter(range(100))
    sample = Sample.take(source, 10, ["default"])
    assert (len(sample), sample.total, next(source)) == (10, 100, 10)
    assert len(sample.part(3)) == 3
    assert Sample.take((n for n in range(5)), 10, ["default"]).total == 5
    assert Sample.take((n for n in range(50)), 10, ["default"]).total is None


def test_each_pass_gets_the_items_as_they_came() -> None:
    """Whatever a function has made of them; what can't be copied is passed as it is."""
    sample = Sample.take([{"tags": ["a"]}, {"tags": ["b"]}], 10, ["default"])
    for item in sample.source():
        item.pop("tags").clear()
    assert sample.source() == [{"tags": ["a"]}, {"tags": ["b"]}]
    lock = threading.Lock()
    assert Sample.take([lock], 10, ["default"]).source() == [lock]


def test_a_source_that_run_refuses_is_refused() -> None:
    """By the same words."""
    with pytest.raises(ConfigurationError, match="items is 'int'"):
        Sample.take(5, 10, ["default"])  # type: ignore[arg-type]


# The table.


def test_the_table_says_what_was_measured() -> None:
    """A line for each way, what could not be run, what failed, what breaks batches."""
    figures = Figures(1000, 900, 950)
    figures.early[EarlyFlush("shop_order", "shop/imports.py:31")] = 890
    rows = pools({8: 1600}, {2: 400})
    rows[-1].retries = 2
    rows[-2].failed = 4
    none = Row(Way("processes", 4), note="can't be run in memory")  # no items, no chunks
    failure = Failure(4, {}, "builtins.ValueError", "bad\n" * 100)
    text = text_of(
        measured(
            *rows,
            none,
            coalesced=figures,
            failed=1,
            failures=(failure,),
            total=50_000,
            load=9.0,
            reading_seconds=2e-6,
        )
    )
    lines = text.splitlines()
    assert lines[0] == "up to 1,000 of 50,000 items, 3 rounds in 30 s, 4 processors"
    assert lines[1].startswith("an item takes 5 ms: 97% waiting, 1% database, 1% computing")
    assert "reading one from the source takes 2 µs more" in lines
    assert "the machine was busy before (load 9.0)" in text
    (threads,) = (line.split() for line in lines if line.startswith("8 threads  "))
    assert threads[2:7] == ["1,000", "100", "1,600", "1,568–1,632", "8.0"]
    assert threads[-2:] == ["31", "s"]
    assert "  4 processes: can't be run in memory" in lines
    assert any(line.split() == ["4", "processes", "–"] for line in lines)
    assert "  8 threads, chunks of 100: 4 items failed" in lines
    assert "  2 processes, chunks of 100: 2 transactions were tried again" in lines
    assert "  890 × shop/imports.py:31 (shop_order)" in lines
    assert any(line.startswith("  item 4: ValueError: bad bad") for line in lines)
    assert all(len(line) < 130 for line in lines[:-1])
    assert lines[-1].startswith("Recommendation: 97% of an item is waiting: 8 threads")
    assert " 1 of 500 items failed (item 4: ValueError: bad bad" in lines[-1]


def test_the_table_says_a_reason_once() -> None:
    """For all ways that have it."""
    rows = [Row(Way("threads", n), note="there is a transaction") for n in (1, 2, 4)]
    assert "  1 thread; 2 threads; 4 threads: there is a transaction" in text_of(
        measured(*rows)
    ).split("\n")


def test_one_of_something_is_singular() -> None:
    """In the table and in the sentence; and slow items have a rate."""
    rows = [row("loop", 0.5, items=1), row("inline", 0.5, items=1)]
    rows[1].failed = rows[1].retries = 1
    figures = Figures(1, 1, 1)
    figures.early[EarlyFlush("t", "a.py:1")] = 1
    one: dict[str, Any] = {
        "items": 1,
        "sample": 1,
        "profiled": 1,
        "coalesced": figures,
        "rounds": 1,
    }
    text = text_of(measured(*rows, total=1, **one))
    assert text.startswith("up to 1 item, 1 round in")
    assert "  inline, chunks of 100: 1 transaction was tried again" in text
    assert "1 write of 1 item became 1 statement; 1 early flush broke their batches" in text
    (line,) = (line.split() for line in text.splitlines() if line.startswith("inline "))
    assert line[3:5] == ["0.5", "0.49–0.51"]
    assert text.endswith("Recommendation: 1 of 1 item failed: see to them first.")
    few = advice_on(measured(row("loop", 0.5, items=1), total=None, **one))
    assert few.startswith("1 item is too few")
    fast = measured(row("loop", 5000, items=1), total=1, **one)
    assert advice_on(fast) == "A plain loop does 1 item in 200 µs: keep it."


@pytest.mark.parametrize(
    "wrong",
    [
        {"sample": True},
        {"sample": 1.5},
        {"sample": 0},
        {"seconds": "3"},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"seconds": True},
        {"workers": 2.5},
        {"workers": "2"},
        {"workers": 0},
    ],
    ids=str,
)
def test_what_is_no_number_is_refused(wrong: dict[str, Any]) -> None:
    """Before anything is read, with its name."""
    with pytest.raises(ConfigurationError, match=f"^{next(iter(wrong))}="):
        bench_of(print, iter([1]), **wrong)
