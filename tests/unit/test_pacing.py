"""The size of the next chunk: in bounds, without jumps, near the target time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpool.pacing import CAREFUL_SIZE, IMPATIENT, LARGEST, SMALLEST_SHARE, TARGET, Pacer

seconds = st.floats(0, 100, allow_nan=False)
targets = st.sampled_from([TARGET, IMPATIENT])
observations = st.lists(st.tuples(seconds, targets), max_size=60)


def grown(size: int) -> Pacer:
    """Return a pacer that has arrived at a size (a power of two, or `LARGEST`)."""
    pacer = Pacer()
    while pacer.size < size:
        pacer.observe(pacer.size, TARGET / 4)
    assert pacer.size == size
    return pacer


def sizes_with(seconds_an_item: float, chunks: int, target: float = TARGET) -> Iterator[int]:
    """Run so many chunks of items that all take the same time; yield the sizes chosen."""
    pacer = Pacer()
    for _ in range(chunks):
        yield pacer.size
        pacer.observe(pacer.size, pacer.size * seconds_an_item, target)


@given(observations)
def test_the_size_stays_in_bounds_and_changes_at_most_by_two_or_four(
    steps: list[tuple[float, float]],
) -> None:
    """Whatever chunks take, the next holds 1 to LARGEST items, at most twice or half as many.

    Four times, if four times as long is still half of the target at most.
    """
    pacer = Pacer()
    for took, target in steps:
        before = pacer.size
        pacer.observe(pacer.size, took, target)
        assert 1 <= pacer.size <= LARGEST
        most = 4 if took < target / 8 else 2
        assert before // 2 <= pacer.size <= before * most


@given(st.lists(st.one_of(st.just("shrink"), seconds), max_size=80))
def test_the_size_stays_in_bounds_with_refused_chunks_between(steps: list[float | str]) -> None:
    """A chunk refused at COMMIT never makes the next one larger, nor smaller than one item."""
    pacer = Pacer()
    for step in steps:
        before = pacer.size
        if isinstance(step, float):
            pacer.observe(pacer.size, step)
        else:
            pacer.shrink()
            assert pacer.size <= min(before, CAREFUL_SIZE)
        assert 1 <= pacer.size <= LARGEST


@given(st.floats(1e-6, 10), targets)
def test_constant_items_are_brought_near_the_target(item: float, target: float) -> None:
    """For items of constant time a chunk comes to take half to one and a half of the target."""
    size = list(sizes_with(item, 40, target))[-1]

    assert size == LARGEST or size * item >= target / 2
    assert size == 1 or size * item <= target * 1.5


@given(st.floats(1e-6, 10))
def test_the_size_settles(item: float) -> None:
    """For items of constant time the size does not swing for ever."""
    assert len(set(list(sizes_with(item, 60))[40:])) == 1


def test_an_item_of_no_time_gives_the_largest_chunks() -> None:
    """A function that does nothing is given LARGEST items, never more."""
    assert max(sizes_with(0.0, 40)) == LARGEST


def test_one_slow_chunk_does_not_shrink_the_next() -> None:
    """A single slow chunk among quick ones is averaged away."""
    pacer = grown(64)
    for took in (TARGET, TARGET, TARGET * 2):
        pacer.observe(64, took)
    assert pacer.size == 64


def test_chunks_of_another_size_tell_nothing() -> None:
    """A short last chunk, or one submitted before the size changed, is not learnt from."""
    pacer = grown(64)
    for items, took in ((63, 0.0), (32, 100.0), (65, 0.0)):
        pacer.observe(items, took)
        assert pacer.size == 64


@given(st.integers(1, 10**6), observations, st.integers(0, 10**6), st.integers(1, 64))
def test_a_fixed_size_never_changes(
    size: int, steps: list[tuple[float, float]], remaining: int, workers: int
) -> None:
    """A chunk_size that the user gave holds, whatever happens."""
    pacer = Pacer(size)
    for took, target in steps:
        pacer.observe(size, took, target)
        pacer.shrink()
    assert pacer.size == size
    assert pacer.limit(remaining, workers) == size


@given(
    st.sampled_from([1, 2, 64, 4096, LARGEST]),
    st.one_of(st.none(), st.integers(-5, 10**6)),
    st.integers(1, 64),
)
def test_a_limit_is_never_beyond_the_size(size: int, remaining: int | None, workers: int) -> None:
    """Near the end chunks become smaller, never larger, and never empty."""
    assert 1 <= grown(size).limit(remaining, workers) <= size


@given(st.integers(1, 10**6), st.integers(2, 64))
def test_near_the_end_there_is_a_chunk_for_every_worker(remaining: int, workers: int) -> None:
    """What is left is cut so that every worker gets a part, if there is enough of it."""
    limit = grown(LARGEST).limit(remaining, workers)
    assert -(-remaining // limit) >= min(remaining // (LARGEST // SMALLEST_SHARE), workers)


def test_slow_items_are_shared_out_one_by_one() -> None:
    """Where a chunk is a few items, each of them is worth a worker."""
    assert grown(8).limit(3, 4) == 1


@pytest.mark.parametrize("remaining", [0, -1, -10_000])
def test_a_total_that_was_too_low_is_as_good_as_none(remaining: int) -> None:
    """Where a source holds more than it said, chunks don't shrink to one item for the rest."""
    assert grown(64).limit(remaining, 2) == 64


def test_after_a_refusal_the_size_grows_again_slowly() -> None:
    """After a refused COMMIT chunks are small, and grow back when a streak of them has passed."""
    pacer = grown(4096)
    pacer.shrink()
    assert pacer.size == CAREFUL_SIZE
    pacer.observe(CAREFUL_SIZE, 0.0)
    assert pacer.size == CAREFUL_SIZE
    for _ in range(200):
        pacer.observe(pacer.size, 0.0)
    assert pacer.size == LARGEST
