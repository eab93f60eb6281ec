"""run() and stream() over an executor that does what a test says: the window, limits, endings."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import carpool
from carpool.exceptions import RunFailed
from carpool.executors.base import Ended, Event, Executor, Lost, Phase
from carpool.types import Chunk, ChunkResult, Ending, Fault

MODULE = sys.modules["carpool.run"]  # the name `carpool.run` is the function
OWN = Fault("builtins.ValueError", "bad")
DIED = Fault("carpool.exceptions.WorkerDied", "died", stage="worker")
Script = Callable[[Chunk], Event]


def commit(chunk: Chunk, bad: Callable[[Any], bool] = lambda item: False) -> Event:
    faults = {p: OWN for p, item in enumerate(chunk.items) if bad(item)}
    values = dict(enumerate(chunk.items))
    return Ended(
        chunk, ChunkResult(chunk.number, Ending.COMMITTED, 1.0, faults=faults, values=values)
    )


class Scripted(Executor):
    """Ends chunks as the script says, so many at a time, the oldest or as `choose` says."""

    label = "scripted"
    alone = True

    def __init__(self, script: Script = commit, *, workers: int = 2, at_once: int = 1) -> None:
        self.script = script
        self.workers = workers
        self.at_once = at_once
        self.choose: Callable[[list[Chunk]], int] = lambda waiting: 0
        self.waiting: list[Chunk] = []
        self.log: list[str] = []

    @property
    def in_flight(self) -> int:  # type: ignore[override]
        return len(self.waiting)

    def start(self) -> None:
        self.log.append("start")

    def submit(self, chunk: Chunk) -> None:
        self.waiting.append(chunk)

    def wait(self) -> list[Event]:
        events = []
        while self.waiting and len(events) < self.at_once:
            events.append(self.script(self.waiting.pop(self.choose(self.waiting))))
        return events

    def poll(self) -> list[Event]:
        return []

    def stop(self) -> list[Event]:
        self.log.append("stop")
        stopped = [Ended(c, ChunkResult(c.number, Ending.STOPPED)) for c in self.waiting]
        self.waiting.clear()
        return list(stopped)

    def close(self) -> None:
        self.log.append("close")


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Executor], None]:
    def use(executor: Executor) -> None:
        monkeypatch.setattr(MODULE, "executor_for", lambda *args: executor)

    return use


Use = Callable[[Executor], None]


def run(items: Any, **options: Any) -> carpool.Report:
    return carpool.run(print, items, **{"chunk_size": 2, "progress": False} | options)


def stream(items: Any, **options: Any) -> Iterator[carpool.Outcome]:
    return carpool.stream(print, items, **{"chunk_size": 2, "progress": False} | options)


def counted(length: int, log: list[int]) -> Iterator[int]:
    for number in range(length):
        log.append(number)
        yield number


def test_all_items_are_run_and_everything_is_closed(use: Use) -> None:
    """The executor is started and closed, once each; nothing needs to be stopped."""
    executor = Scripted()
    use(executor)
    report = run(range(7))
    assert (report.total, report.succeeded, report.chunks) == (7, 7, 4)
    assert (report.executor, report.workers) == ("scripted", 2)
    assert executor.log == ["start", "close"]


def test_only_a_window_of_chunks_is_read_ahead(use: Use) -> None:
    """Nothing is read beyond what the executor wants."""
    read: list[int] = []
    ahead = []

    def script(chunk: Chunk) -> Event:
        ahead.append(len(read) - chunk.items[0])
        return commit(chunk)

    use(Scripted(script, workers=4))
    run(counted(100, read))
    assert max(ahead) <= 2 * (4 + 2)


@given(st.data(), st.integers(0, 40), st.integers(1, 7), st.integers(1, 6), st.integers(1, 4))
def test_outcomes_come_in_order_whatever_ends_first(
    data: st.DataObject, length: int, size: int, workers: int, at_once: int
) -> None:
    """An ordered stream has each item once, in input order, skipped rows left out."""
    gone = data.draw(st.sets(st.sampled_from(range(length)))) if length else set()

    def script(chunk: Chunk) -> Event:
        skipped = tuple(p for p, item in enumerate(chunk.items) if item in gone)
        return Ended(chunk, ChunkResult(chunk.number, Ending.COMMITTED, skipped=skipped))

    executor = Scripted(script, workers=workers, at_once=at_once)
    executor.choose = lambda waiting: data.draw(st.integers(0, len(waiting) - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODULE, "executor_for", lambda *args: executor)
        outcomes = list(stream(range(length), chunk_size=size))
    assert [outcome.item for outcome in outcomes] == [n for n in range(length) if n not in gone]
    assert [outcome.index for outcome in outcomes] == [outcome.item for outcome in outcomes]


def test_unordered_outcomes_come_as_chunks_end(use: Use) -> None:
    """ordered=False waits for nobody."""
    executor = Scripted()
    executor.choose = lambda waiting: len(waiting) - 1
    use(executor)
    items = [outcome.item for outcome in stream(range(8), ordered=False)]
    assert items != sorted(items)
    assert sorted(items) == list(range(8))


def slow_first_chunk(then: Script) -> Scripted:
    """Return an executor whose first chunk ends only when nothing else is in flight."""

    def script(chunk: Chunk) -> Event:
        return then(chunk) if 0 in chunk.indexes else commit(chunk)

    executor = Scripted(script, workers=2)
    executor.choose = lambda waiting: len(waiting) - 1
    return executor


def test_an_ordered_stream_stops_reading_behind_a_slow_item(
    use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outcomes that wait for one before them are bounded: reading pauses."""
    monkeypatch.setattr(MODULE, "MOST_WAITING", 10)
    read: list[int] = []
    seen = []

    def first(chunk: Chunk) -> Event:
        seen.append(len(read))
        return commit(chunk)

    use(slow_first_chunk(first))
    outcomes = list(stream(counted(100, read)))
    assert [outcome.item for outcome in outcomes] == list(range(100))
    assert seen[0] <= 10 + 2 * 3


def test_a_chunk_to_run_again_is_not_held_up_by_the_pause(
    use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The item that all wait for may need another try: the pause is for reading only."""
    monkeypatch.setattr(MODULE, "MOST_WAITING", 10)
    losses = iter([True, True, False, False])

    def first(chunk: Chunk) -> Event:
        return Lost(chunk, Phase.RUNNING, DIED) if next(losses) else commit(chunk)

    use(slow_first_chunk(first))
    assert [outcome.item for outcome in stream(range(100))] == list(range(100))


@pytest.mark.parametrize(
    ("options", "kind", "failed"),
    [
        ({"on_error": "raise"}, carpool.ItemsFailed, 1),
        ({"max_failures": 0}, carpool.TooManyFailures, 1),
        ({"max_failures": 3}, carpool.TooManyFailures, 4),
    ],
    ids=str,
)
def test_a_limit_on_failures_stops_the_reading(
    use: Use, options: dict[str, Any], kind: type[carpool.ItemsFailed], failed: int
) -> None:
    """Beyond the limit no more is read; what is in flight is finished and reported."""
    read: list[int] = []
    use(Scripted(lambda chunk: commit(chunk, lambda item: item % 10 == 0), workers=1))
    with pytest.raises(kind) as caught:
        run(counted(1000, read), chunk_size=1, **options)
    report = caught.value.report
    assert type(caught.value) is kind
    assert report is not None
    assert report.failed == failed
    assert report.total == len(read) <= (failed - 1) * 10 + 1 + 2


def test_as_many_failures_as_allowed_are_no_error(use: Use) -> None:
    """max_failures is how many may fail."""
    use(Scripted(lambda chunk: commit(chunk, lambda item: item < 3)))
    assert run(range(10), max_failures=3).failed == 3


def test_an_unknown_item_counts_as_a_failure(use: Use) -> None:
    """Who asked to be told of failures is told of what nobody can say."""
    use(Scripted(lambda chunk: Lost(chunk, Phase.COMMITTING, DIED)))
    for options in ({"on_error": "raise"}, {"max_failures": 1}):
        read: list[int] = []
        with pytest.raises(carpool.ItemsFailed):
            run(counted(100, read), **options)
        assert len(read) < 100


class Boom(Exception):
    pass


class Slotted(Exception):
    __slots__ = ("text",)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "report":
            raise AttributeError(name)
        super().__setattr__(name, value)


class Empty(Exception):
    """An exception that is false, as one with a length of nought is."""

    def __len__(self) -> int:
        return 0


@pytest.mark.parametrize("error", [Boom("boom"), Empty("boom"), SystemExit(3)], ids=repr)
def test_a_source_that_raises_is_heard_last(use: Use, error: BaseException) -> None:
    """What was read is finished, then the source's own error is raised with the report on it."""

    def source() -> Iterator[int]:
        yield from range(5)
        raise error

    use(Scripted())
    with pytest.raises(type(error)) as caught:
        run(source())
    assert caught.value is error
    report: Any = error.report  # type: ignore[union-attr]
    assert (report.total, report.succeeded) == (5, 5)


def test_an_error_that_takes_no_report_is_wrapped(use: Use) -> None:
    """Where .report can't be set, RunFailed carries it, and names the error as its cause."""

    def source() -> Iterator[int]:
        yield 1
        raise Slotted("boom")

    use(Scripted())
    with pytest.raises(RunFailed, match="boom") as caught:
        run(source())
    assert isinstance(caught.value.__cause__, Slotted)
    assert caught.value.report is not None
    assert caught.value.report.succeeded == 1


def raising_after(number: int, error: BaseException) -> Callable[[carpool.Snapshot], None]:
    """Return a progress callable that raises from its so-manieth call on."""
    calls = []

    def progress(snapshot: carpool.Snapshot) -> None:
        calls.append(snapshot)
        if len(calls) >= number:
            raise error

    return progress


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("error", [Boom("boom"), Empty("boom"), SystemExit(3)], ids=repr)
def test_a_progress_callable_that_raises_ends_the_run_with_a_report(
    use: Use, at_once: int, number: int, error: BaseException
) -> None:
    """Its own error is raised, and every item that was read is in the report."""
    executor = Scripted(at_once=at_once)
    use(executor)
    read: list[int] = []
    with pytest.raises(type(error)) as caught:
        run(counted(20, read), progress=raising_after(number, error))
    assert caught.value is error
    report: Any = error.report  # type: ignore[union-attr]
    assert report.total == len(read)
    assert report.succeeded + report.not_run == report.total
    assert executor.log == ["start", "stop", "close"]


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no comment")


@pytest.mark.parametrize("error", [Mute(), ValueError("\ud800")], ids=["mute", "surrogate"])
def test_an_error_that_cannot_be_put_in_words_is_raised_all_the_same(
    use: Use, error: Exception, tmp_path: Path
) -> None:
    """The reason for which items were not run is written without stumbling over it."""
    executor = Scripted()
    use(executor)
    with pytest.raises(type(error)) as caught:
        run(range(20), progress=raising_after(1, error), rejects=tmp_path / "r.jsonl")
    assert caught.value is error
    assert executor.log == ["start", "stop", "close"]
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert {line["error"] for line in lines} == {"carpool.exceptions.NotRun"}


@pytest.mark.parametrize("step", ["start", "submit", "wait", "poll"])
def test_an_executor_that_breaks_ends_the_run_with_a_report(use: Use, step: str) -> None:
    """RunFailed has the report, in which nothing that was read is missing."""
    executor = Scripted()
    original = getattr(executor, step)
    calls = []

    def broken(*args: Any) -> Any:
        calls.append(args)
        if step == "start" or len(calls) == 3:
            raise RunFailed("broken")
        return original(*args)

    setattr(executor, step, broken)
    use(executor)
    read: list[int] = []
    with pytest.raises(RunFailed, match="broken") as caught:
        run(counted(20, read))
    report = caught.value.report
    assert report is not None
    assert report.total == len(read)
    assert report.succeeded + report.not_run == report.total
    assert executor.log[-2:] == ["stop", "close"]


def test_a_chunk_that_an_executor_loses_is_not_passed_over() -> None:
    """Should there be such a bug, a report whose sum is wrong must not be given out."""

    class Forgetful(Scripted):
        def wait(self) -> list[Event]:
            return super().wait()[1:]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODULE, "executor_for", lambda *args: Forgetful())
        with pytest.raises(AssertionError, match="2 read, 0 accounted for"):
            run(range(2))


def test_leaving_a_stream_early_ends_the_run(use: Use, tmp_path: Path) -> None:
    """The executor is stopped and closed, and what was read but not run is in the rejects."""
    read: list[int] = []

    def script(chunk: Chunk) -> Event:
        if chunk.items[0] == 2:  # the first item's fate is known, the second is to be run again
            return Lost(chunk, Phase.RUNNING, DIED, 0, guilty=True)
        return commit(chunk, lambda item: item == 5)

    executor = Scripted(script, at_once=3)
    use(executor)
    outcomes = stream(counted(50, read), ordered=False, rejects=tmp_path / "r.jsonl")
    assert [next(outcomes).item for _ in range(3)] == [0, 1, 2]
    outcomes.close()  # type: ignore[attr-defined]
    assert executor.log == ["start", "stop", "close"]
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert sorted(line["item"] for line in lines) == [2, 3, *range(5, len(read))]


def test_an_error_of_the_consumers_ends_the_run(use: Use) -> None:
    """A stream that is thrown an error into ends as if its consumer had left."""
    executor = Scripted(at_once=3)
    use(executor)
    outcomes: Any = stream(range(50))
    next(outcomes)
    with pytest.raises(Boom):
        outcomes.throw(Boom("boom"))
    assert executor.log == ["start", "stop", "close"]


def test_a_stream_that_is_never_begun_costs_nothing(use: Use) -> None:
    """The run begins with the first outcome asked for."""
    executor = Scripted()
    use(executor)
    stream(range(50))
    assert executor.log == []


@pytest.mark.parametrize("step", ["submit", "wait", "poll"])
def test_ctrl_c_ends_the_run_with_a_report(
    use: Use, capsys: pytest.CaptureFixture[str], step: str
) -> None:
    """KeyboardInterrupt becomes Interrupted with the report on it, which is printed, too."""
    executor = Scripted()
    original = getattr(executor, step)
    calls = []

    def interrupted(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args)

    setattr(executor, step, interrupted)
    use(executor)
    read: list[int] = []
    with pytest.raises(carpool.Interrupted) as caught:
        run(counted(20, read))
    report = caught.value.report
    assert report is not None
    assert report.total == len(read)
    assert report.succeeded + report.not_run == report.total
    assert capsys.readouterr().err == f"Interrupted.\n{report}\n"
    assert executor.log == ["start", "stop", "close"]


def test_items_that_cannot_be_sent_fail_alone(use: Use) -> None:
    """They are reported between the others, and if there is nothing else, too."""
    use(Scripted())
    good = run([1, lambda: (yield), 2, threading.Lock()], chunk_size=10)
    assert (good.succeeded, good.failed) == (3, 1)
    assert run([threading.Lock()] * 3).failed == 3


def test_rejects_that_cannot_be_written_stop_the_run(use: Use, tmp_path: Path) -> None:
    """Not even if the last items that were read are the ones that can't be written."""
    use(Scripted())
    stopped = []
    for items in ([threading.Lock()], [1, threading.Lock()], [threading.Lock(), 1]):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("carpool.rejects.Rejects.write", _full)
            with pytest.raises(RunFailed, match="can't be written") as caught:
                run(items, rejects=tmp_path / f"{len(stopped)}.jsonl")
        stopped.append(caught.value.report)
    assert [report.failed - report.not_run for report in stopped if report] == [1, 1, 1]


def _full(*args: Any) -> None:
    raise OSError(28, "No space left on device")


def test_a_bad_call_is_refused_before_anything_is_made(use: Use, tmp_path: Path) -> None:
    """stream() refuses at the call, not at the first outcome; no file is made."""
    executor = Scripted()
    use(executor)
    with pytest.raises(carpool.ConfigurationError):
        stream(range(3), chunk_size=0, rejects=tmp_path / "r.jsonl")
    with pytest.raises(carpool.ConfigurationError):
        stream("text", rejects=tmp_path / "r.jsonl")
    assert not (tmp_path / "r.jsonl").exists()
    assert executor.log == []


def test_a_snapshot_after_each_chunk(use: Use) -> None:
    """The progress callable sees the counts grow to the total."""
    snapshots: list[carpool.Snapshot] = []
    use(Scripted(lambda chunk: commit(chunk, lambda item: item == 5)))
    run(list(range(7)), progress=snapshots.append)
    assert [snapshot.done for snapshot in snapshots] == [2, 4, 6, 7]
    assert [snapshot.failed for snapshot in snapshots] == [0, 0, 1, 1]
    assert {snapshot.total for snapshot in snapshots} == {7}
    assert all(snapshot.seconds >= 0 and snapshot.rate >= 0 for snapshot in snapshots)


def test_a_snapshot_counts_retries(use: Use) -> None:
    """Of all chunks so far, as the report does."""
    snapshots: list[carpool.Snapshot] = []
    retries = iter([2, 0, 1])

    def script(chunk: Chunk) -> Event:
        return Ended(chunk, ChunkResult(chunk.number, Ending.COMMITTED, 1.0, retries=next(retries)))

    use(Scripted(script))
    report = run(list(range(6)), progress=snapshots.append)
    assert [snapshot.retries for snapshot in snapshots] == [2, 2, 3]
    assert report.retries == 3


@given(
    st.data(),
    st.integers(0, 30),
    st.integers(1, 5),
    st.sampled_from([{}, {"on_error": "raise"}, {"max_failures": 2}]),
)
def test_the_report_adds_up_whatever_happens(
    data: st.DataObject, length: int, at_once: int, options: dict[str, Any]
) -> None:
    """Any fates, in any order, under any limit: all items read are in the report, once."""

    def script(chunk: Chunk) -> Event:
        fate = data.draw(st.sampled_from(["ok", "bad", "refused", "dies", "silent", "commit"]))
        position = data.draw(st.integers(0, len(chunk) - 1))
        if fate == "dies":
            return Lost(chunk, Phase.RUNNING, DIED, position)
        if fate == "silent":
            return Lost(chunk, Phase.RUNNING, DIED)
        if fate == "commit":
            return Lost(chunk, Phase.COMMITTING, DIED)
        if fate == "refused":
            return Ended(chunk, ChunkResult(chunk.number, Ending.REFUSED, fault=OWN))
        faults = {position: OWN} if fate == "bad" else {}
        return Ended(chunk, ChunkResult(chunk.number, Ending.COMMITTED, faults=faults))

    executor = Scripted(script, at_once=at_once)
    read: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODULE, "executor_for", lambda *args: executor)
        try:
            report: Any = run(counted(length, read), chunk_size=None, **options)
            assert report.total == length
        except carpool.ItemsFailed as error:
            report = error.report
    assert report.total == report.succeeded + report.failed + report.unknown == len(read)
    assert executor.log == ["start", "close"]
