"""What becomes of each item: settled once, whatever happens to its chunks."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from carpool.exceptions import RunFailed
from carpool.executors.base import Ended, Event, Lost, Phase
from carpool.pacing import Pacer
from carpool.rejects import Rejects
from carpool.report import KEPT_FAILURES
from carpool.settling import Settled, Settling
from carpool.types import Chunk, ChunkResult, Ending, Failure, Fault

OWN = Fault("builtins.ValueError", "the item's own", "traceback", "23505", "function")
DIED = Fault("carpool.exceptions.WorkerDied", "the worker died", stage="worker")
LOST_AT_COMMIT = Fault("django.db.utils.OperationalError", "gone", stage="unknown")
REFUSED = Fault("django.db.utils.IntegrityError", "refused", stage="commit")
NO_DATABASE = Fault("django.db.utils.OperationalError", "no answer", stage="run")


class Memory:
    """Rejects that are kept in memory; the disk is full where it should be."""

    path = Path("rejects.jsonl")

    def __init__(self) -> None:
        self.written: list[Failure] = []
        self.full = False

    def write(self, failure: Failure) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.written.append(failure)


def chunk_of(number: int, indexes: list[int]) -> Chunk:
    items = [f"item {index}" for index in indexes]
    return Chunk(number, indexes, items, [pickle.dumps(item) for item in items])


class Fates(RuleBasedStateMachine):
    """Chunks are read, and meet every fate that an executor can report, in any order."""

    @initialize(rejects=st.booleans(), size=st.one_of(st.none(), st.integers(1, 8)))
    def begin(self, rejects: bool, size: int | None) -> None:
        self.numbers = count(1)
        self.rejects = Memory() if rejects else None
        self.settling = Settling(
            lambda: next(self.numbers),
            Pacer(size),
            cast("Rejects | None", self.rejects),
            dry_run=False,
        )
        self.read = 0
        self.stopped = False
        self.in_flight: list[Chunk] = []
        self.refused: set[int] = set()
        self.unknown: set[int] = set()
        self.outcomes: dict[int, str] = {}
        self.suspected: Counter[int] = Counter()
        self.retries = self.ended = 0

    def note(self, settled: Settled) -> None:
        """Take down the fates that were told, each of which must be new."""
        positions = dict(enumerate(settled.chunk.indexes))
        told = dict.fromkeys(positions.values(), "succeeded")
        for position in settled.result.skipped:
            told[positions[position]] = "skipped"
        for position, failure in settled.failures.items():
            assert failure.index == positions[position]
            assert failure.item == f"item {failure.index}"
            told[failure.index] = "unknown" if failure.stage == "unknown" else "failed"
        assert not told.keys() & self.outcomes.keys(), "settled twice"
        self.outcomes |= told
        outcomes = {outcome.index: outcome for outcome in settled.outcomes()}
        for index, fate in told.items():
            if fate == "skipped":
                assert index not in outcomes
                assert index in list(settled.skipped_indexes())
            else:
                assert outcomes[index].ok == (fate == "succeeded")
                assert (outcomes[index].failure is None) == outcomes[index].ok

    def tell(self, *events: Event, leave_after: int | None = None) -> None:
        """Report events; the consumer may leave after so many, and come back later."""
        generator = self.settling.events(list(events))
        try:
            for number, settled in enumerate(generator):
                self.note(settled)
                if number == leave_after:
                    break
        except RunFailed:
            assert not self.stopped
            self.stop()

    def stop(self) -> None:
        self.settling.stop("the test says so")
        self.stopped = True

    def take(self, data: st.DataObject) -> Chunk:
        return self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))

    def some(self, data: st.DataObject, chunk: Chunk) -> set[int]:
        return data.draw(st.sets(st.integers(0, len(chunk) - 1)))

    # What happens.

    @precondition(lambda self: not self.stopped)
    @rule(length=st.integers(1, 40))
    def read_a_chunk(self, length: int) -> None:
        indexes = list(range(self.read, self.read + length))
        self.read += length
        self.in_flight.append(chunk_of(next(self.numbers), indexes))

    @precondition(lambda self: not self.stopped)
    @rule(length=st.integers(1, 3))
    def read_items_that_cannot_be_sent(self, length: int) -> None:
        indexes = range(self.read, self.read + length)
        self.read += length
        self.refused |= set(indexes)
        self.settling.refuse((index, f"item {index}", OWN, None) for index in indexes)

    @rule(all_of_them=st.booleans())
    def settle_items_that_cannot_be_sent(self, all_of_them: bool) -> None:
        for settled in self.settling.unsendable():
            self.note(settled)
            self.refused -= set(settled.chunk.indexes)
            if not all_of_them:
                break

    @precondition(lambda self: self.settling.again and not self.stopped)
    @rule()
    def submit_again(self) -> None:
        self.in_flight.append(self.settling.again.popleft())

    def committed(self, data: st.DataObject, chunk: Chunk) -> ChunkResult:
        bad = self.some(data, chunk)
        skipped = self.some(data, chunk) - bad
        self.retries += 1
        return ChunkResult(
            chunk.number,
            Ending.COMMITTED,
            0.1,
            1,
            dict.fromkeys(bad, OWN),
            tuple(sorted(skipped)),
            {p: chunk.indexes[p] for p in range(len(chunk))},
        )

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), leave_after=st.none() | st.integers(0, 2))
    def several_commit(self, data: st.DataObject, leave_after: int | None) -> None:
        events = []
        for _ in range(data.draw(st.integers(1, len(self.in_flight)))):
            chunk = self.take(data)
            events.append(Ended(chunk, self.committed(data, chunk)))
            self.ended += 1
        self.tell(*events, leave_after=leave_after)
        self.tell()  # whoever left early comes back
        for event in events:
            for position, index in enumerate(event.chunk.indexes):
                fate = (
                    "failed"
                    if position in event.result.faults
                    else "skipped"
                    if position in event.result.skipped
                    else "succeeded"
                )
                assert self.outcomes[index] == fate

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def one_is_refused_at_commit(self, data: st.DataObject) -> None:
        chunk = self.take(data)
        self.ended += 1
        self.tell(Ended(chunk, ChunkResult(chunk.number, Ending.REFUSED, fault=REFUSED)))
        if len(chunk) == 1:
            assert self.outcomes[chunk.indexes[0]] == "failed"
        elif not self.stopped:
            assert not set(chunk.indexes) & self.outcomes.keys()
            assert all(
                len(part) < len(chunk)
                for part in self.settling.again
                if set(part.indexes) <= set(chunk.indexes)
            )

    @precondition(lambda self: self.in_flight)
    @rule(
        data=st.data(), ending=st.sampled_from([Ending.UNKNOWN, Phase.COMMITTING, Phase.NOT_TOLD])
    )
    def one_is_lost_at_commit(self, data: st.DataObject, ending: Any) -> None:
        chunk = self.take(data)
        self.ended += 1
        bad: set[int] = set()
        if isinstance(ending, Ending):
            bad = self.some(data, chunk)
            result = ChunkResult(
                chunk.number, ending, faults=dict.fromkeys(bad, OWN), fault=LOST_AT_COMMIT
            )
            self.tell(Ended(chunk, result))
        else:
            self.tell(Lost(chunk, ending, LOST_AT_COMMIT))
        for position, index in enumerate(chunk.indexes):
            assert self.outcomes[index] == ("failed" if position in bad else "unknown")
            self.unknown.add(index)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def one_is_lost_after_commit(self, data: st.DataObject) -> None:
        chunk = self.take(data)
        self.ended += 1
        self.tell(Lost(chunk, Phase.COMMITTED, DIED, prepared=self.committed(data, chunk)))

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), guilty=st.booleans())
    def one_is_lost_with_a_suspect(self, data: st.DataObject, guilty: bool) -> None:
        chunk = self.take(data)
        self.ended += 1
        suspect = data.draw(st.integers(0, len(chunk) - 1))
        index = chunk.indexes[suspect]
        alone = len(chunk) == 1
        stopped = self.stopped
        self.tell(Lost(chunk, Phase.RUNNING, DIED, suspect, guilty))
        if not stopped:
            others = set(chunk.indexes) - {index}
            assert not others & self.outcomes.keys(), "a neighbour was settled"
            second_time = self.suspected[index] > 0
            assert (index in self.outcomes) == (guilty or second_time)
            if index in self.outcomes and not guilty:
                assert alone, "the suspect failed without having been run alone"
        self.suspected[index] += not guilty

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def one_is_lost_in_silence(self, data: st.DataObject) -> None:
        chunk = self.take(data)
        self.ended += 1
        self.tell(Lost(chunk, Phase.RUNNING, DIED))
        if not self.stopped and len(chunk) > 1:
            assert not set(chunk.indexes) & self.outcomes.keys()

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def one_was_stopped(self, data: st.DataObject) -> None:
        chunk = self.take(data)
        self.ended += 1
        self.tell(Ended(chunk, ChunkResult(chunk.number, Ending.STOPPED)))
        assert (chunk.indexes[0] in self.outcomes) == self.stopped

    @precondition(lambda self: self.in_flight and not self.stopped)
    @rule(data=st.data())
    def one_finds_no_database(self, data: st.DataObject) -> None:
        """The run ends, after the other events at hand have been settled."""
        chunk = self.take(data)
        events: list[Event] = [
            Ended(chunk, ChunkResult(chunk.number, Ending.UNAVAILABLE, fault=NO_DATABASE))
        ]
        self.ended += 1
        if self.in_flight:
            other = self.take(data)
            events.append(Ended(other, self.committed(data, other)))
            self.ended += 1
        self.tell(*events)
        assert self.stopped
        for event in events:
            assert set(event.chunk.indexes) <= self.outcomes.keys()

    @precondition(lambda self: not self.stopped)
    @rule()
    def the_run_is_stopped(self) -> None:
        self.stop()

    # What must hold.

    @invariant()
    def every_item_is_somewhere_once(self) -> None:
        places = [
            list(self.outcomes),
            list(self.refused),
            *(list(chunk.indexes) for chunk in [*self.in_flight, *self.settling.again]),
        ]
        assert Counter(index for place in places for index in place) == Counter(range(self.read))

    @invariant()
    def the_counts_are_the_fates(self) -> None:
        fates = Counter(self.outcomes.values())
        settling = self.settling
        assert fates == Counter(
            succeeded=settling.succeeded,
            failed=settling.failed,
            unknown=settling.unknown,
            skipped=settling.skipped,
        )
        assert settling.done == len(self.outcomes)
        assert settling.not_run <= settling.failed
        assert settling.chunks == self.ended
        assert settling.retries == self.retries

    @invariant()
    def what_may_be_stored_is_never_run_again(self) -> None:
        for chunk in [*self.in_flight, *self.settling.again]:
            assert not self.unknown & set(chunk.indexes)

    @invariant()
    def failures_are_kept_and_written(self) -> None:
        bad = {index for index, fate in self.outcomes.items() if fate in ("failed", "unknown")}
        kept = [failure.index for failure in self.settling.failures]
        assert len(kept) == min(len(bad), KEPT_FAILURES)
        assert set(kept) <= bad
        if self.rejects is not None:
            assert sorted(failure.index for failure in self.rejects.written) == sorted(bad)

    @invariant()
    def chunks_to_run_again_have_numbers_of_their_own(self) -> None:
        numbers = [chunk.number for chunk in [*self.in_flight, *self.settling.again]]
        assert len(set(numbers)) == len(numbers)

    def teardown(self) -> None:
        """The run ends: what is in flight is given back, the rest abandoned."""
        if not hasattr(self, "settling"):
            return
        self.stop()
        self.ended += len(self.in_flight)
        self.tell(
            *(Ended(c, ChunkResult(c.number, Ending.STOPPED)) for c in self.in_flight),
        )
        self.in_flight.clear()
        for settled in self.settling.abandon():
            self.note(settled)
        self.refused.clear()
        assert sorted(self.outcomes) == list(range(self.read)), "lost"
        self.the_counts_are_the_fates()
        self.failures_are_kept_and_written()


def test_every_item_is_settled_exactly_once() -> None:
    """Whatever happens, in whatever order: one fate an item, and counts that add up."""
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Fates, settings=settings(max_examples=150, stateful_step_count=40, deadline=None)
    )


def settling_with(rejects: Any = None) -> Settling:
    numbers = count(100)
    return Settling(lambda: next(numbers), Pacer(), rejects, dry_run=False)


def run_out(settling: Settling, chunk: Chunk, is_bad: Any) -> int:
    """Run a chunk, and what comes of it, where a bad item makes COMMIT refuse; count the runs."""
    runs = 0
    queue = [chunk]
    while queue:
        one = queue.pop(0)
        runs += 1
        refused = any(map(is_bad, one.indexes))
        ending = Ending.REFUSED if refused else Ending.COMMITTED
        result = ChunkResult(one.number, ending, fault=REFUSED if refused else None)
        list(settling.events([Ended(one, result)]))
        queue += settling.again
        settling.again.clear()
    return runs


@pytest.mark.parametrize("length", [1, 2, 3, 16, 17, 100, 1000])
@pytest.mark.parametrize("bad", [{0}, {0, 1}, {999}, set()], ids=str)
def test_a_refused_chunk_is_narrowed_down_to_the_items_to_blame(length: int, bad: set[int]) -> None:
    """Where COMMIT refuses and blames no row, exactly the bad items fail in the end."""
    settling = settling_with()
    runs = run_out(settling, chunk_of(1, list(range(length))), bad.__contains__)
    expected = sorted(bad & set(range(length)))
    assert sorted(failure.index for failure in settling.failures) == expected
    assert settling.succeeded == length - len(expected)
    assert runs <= 1 + length // 16 + 1 + 10 * len(expected)


def test_after_a_refused_commit_chunks_are_small() -> None:
    """The next chunks may hold a row that COMMIT refuses, too; one of a single item tells all."""
    for items, small in ((64, True), (1, False)):
        pacer = Pacer()
        while pacer.size < 64:
            pacer.observe(pacer.size, 0.0)
        settling = Settling(count(9).__next__, pacer, None, dry_run=False)
        refused = ChunkResult(1, Ending.REFUSED, fault=REFUSED)
        list(settling.events([Ended(chunk_of(1, list(range(items))), refused)]))
        assert (pacer.size < 64) == small


def test_a_chunk_lost_in_silence_is_narrowed_down_too() -> None:
    """If workers keep dying with no item running, it ends: each single item has its chances."""
    settling = settling_with()
    queue = [chunk_of(1, list(range(20)))]
    runs: Counter[int] = Counter()
    while queue:
        one = queue.pop()
        runs.update(one.indexes)
        list(settling.events([Lost(one, Phase.RUNNING, DIED)]))
        queue += settling.again
        settling.again.clear()
    assert settling.failed == 20
    assert max(runs.values()) <= 12


def test_a_suspect_is_run_alone_before_it_fails() -> None:
    """Its neighbours are run again without it; it fails if it kills a second worker, alone."""
    settling = settling_with()
    lost = Lost(chunk_of(1, [5, 6, 7]), Phase.RUNNING, DIED, suspect=1)
    assert list(settling.events([lost])) == []
    others, alone = settling.again
    assert (list(others.indexes), list(alone.indexes)) == ([5, 7], [6])
    (settled,) = settling.events([Lost(alone, Phase.RUNNING, DIED, suspect=0)])
    assert [failure.index for failure in settled.failures.values()] == [6]
    assert settling.failed == 1


def test_what_is_to_run_alone_does_so_whatever_becomes_of_it() -> None:
    """Its last try counts against it only if nothing else was out."""
    settling = settling_with()
    chunk = replace(chunk_of(1, [5]), alone=True)
    assert list(settling.events([Lost(chunk, Phase.RUNNING, DIED, suspect=0)])) == []
    (again,) = settling.again
    assert again.alone


def test_who_is_known_to_be_guilty_fails_at_once() -> None:
    """An item past its time limit needs no second try."""
    settling = settling_with()
    lost = Lost(chunk_of(1, [5, 6]), Phase.RUNNING, DIED, suspect=1, guilty=True)
    (settled,) = settling.events([lost])
    assert [failure.index for failure in settled.failures.values()] == [6]
    assert [list(chunk.indexes) for chunk in settling.again] == [[5]]


def test_a_worker_lost_in_silence_once_costs_nothing() -> None:
    """The chunk is simply run again, whole."""
    settling = settling_with()
    chunk = chunk_of(1, [5, 6])
    assert list(settling.events([Lost(chunk, Phase.RUNNING, DIED)])) == []
    assert list(settling.again) == [chunk]


def test_retries_are_counted_whatever_became_of_the_chunk() -> None:
    """Tries that were undone count, also where the worker died after COMMIT."""
    settling = settling_with()
    chunk = chunk_of(1, [5])
    result = ChunkResult(1, Ending.COMMITTED, retries=2)
    list(settling.events([Lost(chunk, Phase.COMMITTED, DIED, prepared=result)]))
    assert settling.retries == 2


def test_rows_that_were_gone_are_skipped_also_where_the_others_are_unknown() -> None:
    """A row that could not be loaded was not touched, whatever became of COMMIT."""
    settling = settling_with()
    result = ChunkResult(1, Ending.UNKNOWN, skipped=(1,), fault=LOST_AT_COMMIT)
    list(settling.events([Ended(chunk_of(1, [5, 6]), result)]))
    assert (settling.unknown, settling.skipped) == (1, 1)


def test_an_unknown_item_says_so() -> None:
    """Its failure names OutcomeUnknown, whatever error was met, and repeats the message."""
    settling = settling_with()
    list(settling.events([Lost(chunk_of(1, [5]), Phase.COMMITTING, LOST_AT_COMMIT)]))
    (failure,) = settling.failures
    assert failure.error == "carpool.exceptions.OutcomeUnknown"
    assert failure.stage == "unknown"
    assert failure.message == "stored or not, nobody can say: gone"


def test_an_item_not_run_says_why() -> None:
    """NotRun carries the reason: the error that ended the run, or the stop."""
    settling = settling_with()
    ended = Ended(chunk_of(1, [5]), ChunkResult(1, Ending.UNAVAILABLE, fault=NO_DATABASE))
    with pytest.raises(RunFailed, match="no answer"):
        list(settling.events([ended]))
    settling.stop("the run was interrupted")
    list(settling.events([Ended(chunk_of(2, [6]), ChunkResult(2, Ending.STOPPED))]))
    first, second = settling.failures
    assert first.error == second.error == "carpool.exceptions.NotRun"
    assert "no answer" in first.message
    assert "the run was interrupted" in second.message
    assert settling.not_run == 2


def test_a_failed_item_is_the_one_that_the_source_gave() -> None:
    """A function of this process may have changed the item; its failure has it as it was."""
    item = {"tags": [1]}
    chunk = Chunk(1, [0], [item], [pickle.dumps(item)])
    item.clear()
    settling = settling_with()
    list(settling.events([Ended(chunk, ChunkResult(1, Ending.COMMITTED, faults={0: OWN}))]))
    assert settling.failures[0].item == {"tags": [1]}


def test_values_come_back_as_they_were_returned() -> None:
    """Values that travelled are unpickled; those of this process are the very objects."""
    chunk = chunk_of(1, [0, 1])
    value = object()
    here = ChunkResult(1, Ending.COMMITTED, values={0: value, 1: b"bytes"})
    (settled,) = settling_with().events([Ended(chunk, here)])
    assert [outcome.value for outcome in settled.outcomes()] == [value, b"bytes"]
    there = ChunkResult(
        1,
        Ending.COMMITTED,
        values={0: pickle.dumps([1]), 1: pickle.dumps(b"bytes")},
        values_are_packed=True,
    )
    (settled,) = settling_with().events([Ended(chunk, there)])
    assert [outcome.value for outcome in settled.outcomes()] == [[1], b"bytes"]


@pytest.mark.parametrize("how", ["ended", "unsendable"])
def test_rejects_that_cannot_be_written_end_the_run(how: str) -> None:
    """A full disk is no reason to lose failed items quietly: the run ends and says so."""
    rejects = Memory()
    rejects.full = True
    settling = settling_with(rejects)
    if how == "ended":
        result = ChunkResult(1, Ending.COMMITTED, faults={0: OWN})
        settled = settling.events([Ended(chunk_of(1, [0, 1]), result)])
    else:
        settling.refuse([(0, "item 0", OWN, None)])
        settled = settling.unsendable()
    assert len([next(settled)]) == 1
    with pytest.raises(RunFailed, match=r"rejects\.jsonl can't be written.*No space left"):
        next(settled)
    assert settling.failed == 1


def test_once_stopped_a_full_disk_does_not_hide_why() -> None:
    """While the run ends for another reason, the rest is settled all the same."""
    rejects = Memory()
    rejects.full = True
    settling = settling_with(rejects)
    settling.stop()
    settling.refuse([(0, "item 0", OWN, None)])
    settling.again.append(chunk_of(1, [1, 2]))
    assert len(list(settling.abandon())) == 2
    assert settling.failed == 3
