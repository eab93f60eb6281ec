"""What a worker process says: no more than is true, no more than its pipe takes."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import pytest

from carpool.executors import child, slot
from carpool.executors.child import SMALL, Prepared, ShippedJob, _Teller
from carpool.executors.slot import Slot, State
from carpool.types import ChunkResult, Ending, Fault, Job

FAULT = Fault("builtins.ValueError", "no")


@pytest.fixture
def pipe() -> Iterator[tuple[Connection, Connection]]:
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def teller(pipe: tuple[Connection, Connection]) -> _Teller:
    return _Teller(Slot(multiprocessing.RawArray("d", slot.SIZE)), pipe[1])


Pipe = tuple[Connection, Connection]


def committed(*, length: int = 0, **changes: Any) -> ChunkResult:
    return ChunkResult(1, Ending.COMMITTED, values={0: b"x" * length}, **changes)


def test_a_small_result_is_told_before_commit_and_not_again(pipe: Pipe, teller: _Teller) -> None:
    """After COMMIT it still holds, if nothing has changed."""
    teller.prepared(committed())
    assert pipe[0].recv() == Prepared(committed())
    assert teller.holds(committed())


CHANGES: list[dict[str, Any]] = [
    {"faults": {0: FAULT}},
    {"ending": Ending.UNKNOWN},
    {"ending": Ending.REFUSED},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_what_has_changed_in_commit_is_told_again(teller: _Teller, change: dict[str, Any]) -> None:
    """A callback that raised, or a COMMIT that was refused, is news."""
    teller.prepared(committed())
    assert not teller.holds(ChunkResult(1, **{"ending": Ending.COMMITTED} | change))


def test_a_large_result_is_not_told_while_the_transaction_is_open(
    pipe: Pipe, teller: _Teller
) -> None:
    """The pipe may be full, and the parent busy: only a word of no size is sent."""
    teller.prepared(committed(length=SMALL))
    assert pipe[0].recv() == Prepared(None)
    assert not teller.holds(committed(length=SMALL))


def test_what_was_told_of_another_try_or_chunk_does_not_hold(pipe: Pipe, teller: _Teller) -> None:
    """A large result after a small one must be sent, even if no item was run in between."""
    teller.prepared(committed())
    teller.prepared(committed(length=SMALL))
    assert not teller.holds(committed(length=SMALL))
    pipe[0].recv()
    assert pipe[0].recv() == Prepared(None)


def test_a_pipe_takes_what_counts_as_small(pipe: Pipe, teller: _Teller) -> None:
    """Telling never waits for a parent that doesn't read."""
    overhead = len(pickle.dumps(Prepared(committed()), pickle.HIGHEST_PROTOCOL))
    teller.prepared(committed(length=SMALL - overhead - 16))
    prepared: Any = pipe[0].recv()
    assert prepared.result is not None


def add(item: int) -> int:
    return item + 1


def prepare() -> None:
    pass


def test_a_job_travels_in_parts_and_is_put_together_again() -> None:
    """Everything of the job arrives, the callables and the queryset from their own pickles."""
    job = Job(add, prepare, "queryset", ("default", "other"), 3, True, True, True, lock=True)
    rest = replace(job, function=print, setup=None, queryset=None)
    shipped = ShippedJob(pickle.dumps(add), pickle.dumps(prepare), pickle.dumps("queryset"), rest)
    assert pickle.loads(pickle.dumps(shipped)).open() == job
    shipped = replace(shipped, convert=pickle.dumps(add), before_chunk=pickle.dumps(prepare))
    whole = replace(job, convert=add, before_chunk=prepare)  # type: ignore[arg-type]
    assert pickle.loads(pickle.dumps(shipped)).open() == whole


def test_the_slot_is_kept_while_results_are_told(teller: _Teller) -> None:
    """Telling is no step of the chunk's."""
    teller.item(2)
    teller.prepared(committed())
    assert teller._slot.state is State.ITEM
    assert child.SMALL < 65536
