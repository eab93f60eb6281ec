"""The plain data that crosses processes."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpool.types import Chunk, ChunkResult, Ending, Failure, Fault, Job, Outcome


def chunk_of(number: int) -> Chunk:
    """Return a chunk of so many items, whose indexes are not their positions."""
    return Chunk(
        7,
        [100 + n for n in range(number)],
        [f"i{n}" for n in range(number)],
        [b"p%d" % n for n in range(number)],
    )


@given(st.lists(st.integers(0, 9), unique=True))
def test_a_part_keeps_items_indexes_and_payloads_together(positions: list[int]) -> None:
    """A part of a chunk has just these positions' items, each with its own index and payload."""
    part = chunk_of(10).part(8, positions)

    assert part.number == 8
    assert len(part) == len(positions)
    assert list(part.items) == [f"i{p}" for p in positions]
    assert list(part.indexes) == [100 + p for p in positions]
    assert list(part.payloads) == [b"p%d" % p for p in positions]


@pytest.mark.parametrize(
    "value",
    [
        Fault("builtins.ValueError", "no", "traceback", "23505", "commit"),
        Failure(3, {"a": 1}, "builtins.ValueError", "no"),
        Outcome(3, {"a": 1}, ok=True, value=4),
        chunk_of(3),
        ChunkResult(7, Ending.COMMITTED, 0.1, 2, {0: Fault("e", "m")}, (1,), {2: b"v"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_plain_data_travels_and_cannot_be_changed(value: Any) -> None:
    """Each is frozen, and equal to itself after a journey."""
    assert pickle.loads(pickle.dumps(value)) == value
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, dataclasses.fields(value)[0].name, None)


def test_results_do_not_share_their_collections() -> None:
    """Two results made without faults have a dictionary each."""
    one, other = ChunkResult(1, Ending.COMMITTED), ChunkResult(2, Ending.COMMITTED)
    one.faults[0] = Fault("e", "m")
    assert other.faults == {}


def test_a_failure_prints_as_one_line_with_its_index() -> None:
    """A failure says which item, what kind of error, and the message."""
    failure = Failure(12, None, "django.db.utils.IntegrityError", "duplicate key")
    assert str(failure) == "item 12: IntegrityError: duplicate key"


def test_a_job_is_frozen() -> None:
    """What all workers of a run share can't be changed by one of them."""
    job = Job(print, None, None, ("default",), 5, dry_run=False, keep_values=False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        job.retries = 6  # type: ignore[misc]
