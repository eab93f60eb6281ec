"""Begin in the parent, hand over to processes: nothing is lost on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from carpool.exceptions import RunFailed
from carpool.executors import auto
from carpool.executors.auto import (
    ENOUGH_TO_TELL,
    LONGEST_PREPARATION,
    PATIENCE,
    AutoExecutor,
)
from carpool.executors.base import Ended, Event, Executor
from carpool.types import Chunk, ChunkResult, Ending


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(auto, "time", clock)
    return clock


class Fake(Executor):
    """Ends each chunk when it is asked for events; a pool becomes ready when it is told to."""

    def __init__(self, label: str, workers: int, *, local: bool) -> None:
        self.label, self.workers, self.local = label, workers, local
        self.seconds = 0.0  # that an item takes
        self.chunks: list[Chunk] = []
        self.ran: list[int] = []
        self.log: list[str] = []
        self.all_ready = False
        self.is_prepared = True
        self.error: Exception | None = None

    @property
    def in_flight(self) -> int:  # type: ignore[override]
        return len(self.chunks)

    def start(self) -> None:
        self.log.append("start")
        if self.error is not None:
            raise self.error

    def prepare(self) -> None:
        self.log.append("prepare")

    def submit(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)

    def poll(self) -> list[Event]:
        if self.error is not None:
            raise self.error
        events = [
            Ended(c, ChunkResult(c.number, Ending.COMMITTED, seconds=self.seconds * len(c)))
            for c in self.chunks
        ]
        self.ran += [chunk.number for chunk in self.chunks]
        self.chunks.clear()
        return list(events)

    wait = poll

    def stop(self) -> list[Event]:
        self.log.append("stop")
        events = [Ended(c, ChunkResult(c.number, Ending.STOPPED)) for c in self.chunks]
        self.chunks.clear()
        return list(events)

    def close(self) -> None:
        self.log.append("close")


class Setting:
    """An AutoExecutor with its two fakes."""

    def __init__(self) -> None:
        self.inline = Fake("inline", 1, local=True)
        self.pool = Fake("pool", 4, local=False)
        self.made = 0
        self.executor = AutoExecutor(self.inline, self.make)  # type: ignore[arg-type]

    def make(self) -> Any:
        self.made += 1
        return self.pool

    def run(self, number: int, *, local: bool | None = None, items: int = 1) -> list[Event]:
        local = self.executor.local if local is None else local
        chunk = Chunk(number, [number] * items, ["item"] * items, [b""] * items, local)
        self.executor.submit(chunk)
        return self.executor.poll()


@pytest.fixture
def setting() -> Setting:
    setting = Setting()
    setting.executor.start()
    return setting


def test_a_short_run_never_makes_a_pool(setting: Setting, clock: Clock) -> None:
    """Before the patience is over everything runs in the parent."""
    clock.now += PATIENCE * 0.9
    assert len(setting.run(1)) == 1
    assert setting.made == 0
    assert (setting.executor.label, setting.executor.workers) == ("inline", 1)


def test_the_patience_begins_with_the_run(clock: Clock) -> None:
    """A stream whose first outcome is asked for late has not been running before."""
    setting = Setting()
    clock.now += PATIENCE * 10
    setting.executor.start()
    setting.run(1)
    assert setting.made == 0


@pytest.mark.parametrize(
    ("total", "items", "seconds", "long"),
    [
        (100_000, ENOUGH_TO_TELL, 0.0001, True),
        (100_000, ENOUGH_TO_TELL - 1, 0.0001, False),
        (1_000, ENOUGH_TO_TELL, 0.0001, False),
        (1_000, ENOUGH_TO_TELL, 0.01, True),
        (ENOUGH_TO_TELL, ENOUGH_TO_TELL, 1.0, False),
        (None, ENOUGH_TO_TELL, 1.0, False),
    ],
)
def test_a_run_that_will_be_long_is_not_waited_for(
    setting: Setting, total: int | None, items: int, seconds: float, long: bool
) -> None:
    """What the source says is left, at the pace of the last chunk, tells; if it is known."""
    setting.inline.seconds = seconds
    setting.executor.expect(total)
    setting.run(1, items=items)
    assert setting.made == long


def test_a_pool_is_started_when_that_takes_no_waiting(setting: Setting, clock: Clock) -> None:
    """Preparing takes a third of a second, in which the parent has better things to do."""
    setting.pool.is_prepared = False
    clock.now += PATIENCE * 2
    setting.run(1)
    setting.run(2)
    assert setting.pool.log == ["prepare"]
    setting.pool.is_prepared = True
    setting.run(3)
    assert setting.pool.log == ["prepare", "start"]


def test_a_pool_whose_preparation_nobody_tells_of_is_started(
    setting: Setting, clock: Clock
) -> None:
    """Somebody else's fork server, which was there before, doesn't know how to tell."""
    setting.pool.is_prepared = False
    clock.now += PATIENCE * 2
    setting.run(1)
    clock.now += LONGEST_PREPARATION * 1.1
    setting.run(2)
    assert setting.pool.log == ["prepare", "start"]


def test_the_parent_works_on_until_all_workers_are_ready(setting: Setting, clock: Clock) -> None:
    """No moment without work: the pool starts beside it, and takes over when it can."""
    clock.now += PATIENCE * 2
    setting.run(1)
    assert setting.pool.log == ["prepare"]
    setting.run(2)
    assert setting.pool.log == ["prepare", "start"]
    setting.run(3)
    assert setting.inline.ran == [1, 2, 3]
    setting.pool.all_ready = True
    setting.run(4)
    setting.run(5)
    assert setting.inline.ran == [1, 2, 3, 4]
    assert setting.pool.ran == [5]
    assert (setting.executor.label, setting.executor.workers) == ("pool", 4)
    assert not setting.executor.local
    assert setting.made == 1


def test_what_was_read_for_the_parent_stays_there(setting: Setting, clock: Clock) -> None:
    """A chunk to run again may hold items that can't be sent."""
    clock.now += PATIENCE * 2
    setting.run(1)
    setting.run(2)
    setting.pool.all_ready = True
    setting.run(3)
    assert len(setting.run(4, local=True)) == 1
    assert len(setting.run(5)) == 1
    assert setting.inline.ran == [1, 2, 3, 4]
    assert setting.pool.ran == [5]


@pytest.mark.parametrize("error", [RunFailed("no"), OSError("no memory")], ids=repr)
@pytest.mark.parametrize("moment", ["when it starts", "while it starts"])
def test_a_pool_that_fails_costs_no_chunk_that_has_ended(
    setting: Setting, clock: Clock, error: Exception, moment: str
) -> None:
    """The events at hand are given first, then the error is raised."""
    clock.now += PATIENCE * 2
    setting.run(1)
    if moment == "while it starts":
        setting.run(2)
    setting.pool.error = error
    assert len(setting.run(3)) == 1
    with pytest.raises(type(error)):
        setting.executor.wait()


@pytest.mark.parametrize("step", [Executor.wait, Executor.poll], ids=["wait", "poll"])
def test_a_pool_that_fails_with_nothing_at_hand_is_told_at_once(
    setting: Setting, clock: Clock, step: Callable[[Executor], list[Event]]
) -> None:
    """There is nothing to wait for."""
    clock.now += PATIENCE * 2
    setting.executor.poll()
    setting.pool.error = RunFailed("no")
    with pytest.raises(RunFailed):
        getattr(setting.executor, step.__name__)()


def test_both_are_stopped_and_closed(setting: Setting, clock: Clock) -> None:
    """Whatever is in flight in either is given back, and neither is left behind."""
    clock.now += PATIENCE * 2
    setting.run(1)
    setting.inline.submit(Chunk(2, [2], ["item"], [b""], True))
    setting.pool.submit(Chunk(3, [3], ["item"], [b""]))
    assert setting.executor.in_flight == 2
    assert [event.chunk.number for event in setting.executor.stop()] == [2, 3]
    setting.executor.close()
    assert setting.inline.log[-2:] == setting.pool.log[-2:] == ["stop", "close"]
