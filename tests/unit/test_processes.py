"""The parent's side of the worker processes, with made-up processes: verdicts, limits, leaks."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from carpool.environment import Environment
from carpool.exceptions import RunFailed
from carpool.executors import child, processes, slot
from carpool.executors.base import Ended, Event, Lost, Phase
from carpool.executors.child import CannotBegin, Finished, Prepared, Ready
from carpool.executors.processes import DEATHS_AT_START, ProcessesExecutor, _Worker
from carpool.executors.slot import State
from carpool.interrupts import Interrupts
from carpool.progress import Progress
from carpool.types import Chunk, ChunkResult, Ending, Fault, Job

FAULT = Fault("builtins.ValueError", "no")


class Process:
    """What ProcessesExecutor sees of a process."""

    def __init__(self, worker_ends: list[Connection]) -> None:
        self.sentinel, self._alive = os.pipe()
        self._worker_ends = worker_ends
        self.exitcode: int | None = None
        self.pid = None
        self.kills = 0

    def end(self, exitcode: int) -> None:
        """End as a process does: its ends of all pipes are closed."""
        if self.exitcode is None:
            self.exitcode = exitcode
            os.close(self._alive)
            for end in self._worker_ends:
                end.close()

    def kill(self) -> None:
        self.kills += 1
        self.end(-9)

    def join(self, timeout: float | None = None) -> None:
        pass

    def close(self) -> None:
        self.end(0)
        os.close(self.sentinel)


class Shown(Progress):
    def __init__(self) -> None:
        self.text = ""
        self.error: Exception | None = None

    def write(self, text: str) -> None:
        if self.error is not None:
            raise self.error
        self.text += text


class Crew:
    """A ProcessesExecutor whose workers are hired here, and say what the test says."""

    def __init__(self, workers: int = 1, timeout: float | None = None) -> None:
        self.shown = Shown()
        self.interrupts = Interrupts()
        shipped = child.ShippedJob(b"", b"", b"", Job(print, None, None, (), 0, False, False))
        self.executor = ProcessesExecutor(
            Environment.capture(), shipped, 0, self.interrupts, self.shown, timeout=timeout
        )
        self.executor._hire = self.hire  # type: ignore[method-assign]
        self.executor.start()
        self.executor.workers = workers
        self.workers: list[_Worker] = []
        self.theirs: list[tuple[Connection, Connection]] = []
        for _ in range(workers):
            self.hire()
        for number in range(workers):
            self.say(Ready(), number)

    def hire(self) -> None:
        ours, theirs = multiprocessing.Pipe()
        output, their_output = multiprocessing.Pipe(duplex=False)
        process = Process([theirs, their_output])
        numbers = multiprocessing.RawArray("d", slot.SIZE)
        worker = _Worker(process, ours, output, slot.Slot(numbers))
        self.workers.append(worker)
        self.theirs.append((theirs, their_output))
        self.executor._crew.append(worker)

    def say(self, message: Any, number: int = 0) -> None:
        self.theirs[number][0].send(message)

    def print(self, text: bytes, number: int = 0) -> None:
        os.write(self.theirs[number][1].fileno(), text)

    def slot(self, number: int = 0) -> slot.Slot:
        return self.workers[number].slot

    def die(self, exitcode: int = -9, number: int = 0) -> None:
        self.workers[number].process.end(exitcode)

    def close(self) -> None:
        for worker in self.workers:
            worker.process.end(0)
        self.executor.close()
        self.executor.close()
        for worker in self.workers:
            worker.process.close()
            worker.connection.close()
            worker.output.close()
        self.workers.clear()


@pytest.fixture
def make() -> Iterator[type[Crew]]:
    crews: list[Crew] = []

    class Made(Crew):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            crews.append(self)

    yield Made
    for crew in crews:
        crew.close()


def descriptors() -> set[str]:
    """Return the numbers of this process' open files."""
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def chunk(number: int, length: int = 3) -> Chunk:
    return Chunk(number, range(length), list("abcdefghij"[:length]), [b""] * length)


def committed(number: int, **changes: Any) -> ChunkResult:
    return ChunkResult(number, Ending.COMMITTED, **changes)


Make = type[Crew]


def only(events: list[Event]) -> Any:
    (event,) = events
    return event


def test_a_chunk_goes_to_an_idle_worker_and_comes_back(make: Make) -> None:
    """What the worker is sent is the chunk's number, its items and what the journal will say.

    Its word is the result.
    """
    crew = make()
    crew.executor.poll()
    crew.executor.submit(chunk(5))
    assert crew.theirs[0][0].recv() == (5, [b"", b"", b""], None)
    crew.say(Finished(committed(5, retries=2)))
    event = only(crew.executor.wait())
    assert isinstance(event, Ended)
    assert event.result == committed(5, retries=2)
    assert crew.executor.in_flight == 0


def test_what_was_prepared_holds_if_nothing_else_is_said(make: Make) -> None:
    """A result told before COMMIT is not sent twice."""
    crew = make()
    crew.executor.poll()
    crew.executor.submit(chunk(5))
    crew.say(Prepared(committed(5, faults={1: FAULT})))
    crew.say(Finished(None))
    assert only(crew.executor.wait()).result.faults == {1: FAULT}


STATES = [
    (State.IDLE, False, Phase.RUNNING, None),
    (State.ITEM, False, Phase.RUNNING, 2),
    (State.IDLE, True, Phase.RUNNING, None),
    (State.COMMITTING, False, Phase.COMMITTING, None),
    (State.COMMITTING, True, Phase.COMMITTING, None),
    (State.COMMITTED, True, Phase.COMMITTED, None),
    (State.COMMITTED, False, Phase.COMMITTING, None),
]


@pytest.mark.parametrize(("state", "prepared", "phase", "suspect"), STATES)
def test_the_slot_tells_what_a_death_means(
    make: Make, state: State, prepared: bool, phase: Phase, suspect: int | None
) -> None:
    """Before COMMIT it is undone, in it unknown, after it the word from before COMMIT is true."""
    crew = make()
    crew.executor.poll()
    crew.executor.submit(chunk(5))
    crew.slot().begin_item(2)
    crew.slot().enter(state)
    if prepared:
        crew.say(Prepared(committed(5)))
    crew.die()
    event = only(crew.executor.wait())
    assert isinstance(event, Lost)
    assert (event.phase, event.suspect) == (phase, suspect)
    told = prepared and phase is not Phase.RUNNING
    assert event.prepared == (committed(5) if told else None)
    assert event.killed == (phase is Phase.RUNNING)
    assert "SIGKILL; the system may be out of memory" in event.fault.message
    assert len(crew.workers) == 2, "the dead worker was not replaced"


def test_the_last_words_of_a_dead_worker_are_heard(make: Make) -> None:
    """A worker that dies right after its result is no loss."""
    crew = make()
    crew.executor.poll()
    crew.executor.submit(chunk(5))
    crew.slot().enter(State.COMMITTED)
    crew.say(Finished(committed(5)))
    crew.die()
    assert isinstance(only(crew.executor.wait()), Ended)


def test_the_last_words_are_heard_also_if_the_death_is_noticed_first(make: Make) -> None:
    """The system may tell of a process' end before it tells of what is in its pipe."""
    crew = make()
    crew.executor.poll()
    crew.executor.submit(chunk(5))
    crew.slot().enter(State.COMMITTED)
    crew.say(Finished(committed(5)))
    crew.die()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "wait", lambda *args: [crew.workers[0].process.sentinel])
        assert isinstance(only(crew.executor.poll()), Ended)


def test_a_death_that_no_pipe_tells_of_is_noticed(make: Make) -> None:
    """A program that the item has forked may hold the worker's pipes open for hours."""
    crew = make()
    crew.executor.poll()
    crew.executor.submit(chunk(5))
    crew.slot().begin_item(1)
    crew.workers[0].process.exitcode = 1
    event = only(crew.executor.wait())
    assert (event.phase, event.suspect) == (Phase.RUNNING, 1)
    crew.workers[0].process.exitcode = None  # for the clean-up


def test_a_chunk_that_was_just_given_is_not_taken_for_the_one_before_it(make: Make) -> None:
    """A worker that dies between two chunks has not begun the second, which is run again."""
    crew = make()
    crew.executor.poll()
    crew.executor.submit(chunk(5))
    crew.slot().enter(State.COMMITTED)
    crew.say(Finished(committed(5)))
    crew.executor.submit(chunk(6))
    assert only(crew.executor.wait()).chunk.number == 5
    crew.die()
    event = only(crew.executor.wait())
    assert isinstance(event, Lost)
    assert event.chunk.number == 6
    assert (event.phase, event.suspect) == (Phase.RUNNING, None)


def test_the_word_of_one_chunk_is_not_that_of_the_next(make: Make) -> None:
    """A chunk of which nothing was told before COMMIT is unknown, whatever was told before it."""
    crew = make()
    crew.executor.poll()
    crew.executor.submit(chunk(5))
    crew.say(Prepared(committed(5)))
    crew.say(Finished(None))
    crew.executor.wait()
    crew.executor.submit(chunk(6))
    crew.slot().enter(State.COMMITTED)
    crew.die()
    event = only(crew.executor.wait())
    assert (event.chunk.number, event.phase) == (6, Phase.COMMITTING)


def test_a_word_that_no_longer_holds_is_forgotten(make: Make) -> None:
    """A second try that tells nothing takes back what the first one told before its COMMIT."""
    crew = make()
    crew.executor.poll()
    crew.executor.submit(chunk(5))
    crew.say(Prepared(committed(5)))
    crew.say(Prepared(None))
    crew.slot().enter(State.COMMITTED)
    crew.die()
    assert only(crew.executor.wait()).phase is Phase.COMMITTING


# Time limits.


class Scripted(slot.Slot):
    """A slot in which something happens at the moment when the worker is doomed."""

    then: Any = staticmethod(lambda: None)

    @property
    def doomed(self) -> bool:
        return bool(self.array[slot._DOOMED])

    @doomed.setter
    def doomed(self, value: bool) -> None:
        self.array[slot._DOOMED] = value
        if value:
            self.then()


def overdue(crew: Crew, then: Any = lambda: None) -> Scripted:
    """Give the worker a chunk whose item 1 runs past its time limit."""
    crew.executor.poll()
    crew.executor.submit(chunk(5))
    state = Scripted(crew.slot().array)
    state.then = then
    crew.workers[0].slot = state
    state.begin_item(1)
    state.array[slot._SINCE] -= 100
    return state


def test_an_item_past_its_time_is_ended_with_its_worker(make: Make) -> None:
    """The item is guilty, and the worker is gone."""
    crew = make(timeout=10)
    overdue(crew)
    event = only(crew.executor.wait())
    assert crew.workers[0].process.kills == 1
    assert (event.phase, event.suspect, event.guilty) == (Phase.RUNNING, 1, True)
    assert event.fault.error == "carpool.exceptions.ItemTimeout"
    assert "timeout=10 seconds" in event.fault.message


def test_an_item_within_its_time_is_left_alone(make: Make) -> None:
    """Only what runs past the limit is ended."""
    crew = make(timeout=1000)
    overdue(crew)
    assert crew.executor.poll() == []
    assert crew.workers[0].process.kills == 0


@pytest.mark.parametrize("state", [State.COMMITTING, State.COMMITTED])
def test_no_worker_is_ended_in_its_commit(make: Make, state: State) -> None:
    """If COMMIT was first, the item had just enough time."""
    crew = make(timeout=10)
    slot_ = overdue(crew, then=lambda: slot_.enter(state))
    assert crew.executor.poll() == []
    assert crew.workers[0].process.kills == 0
    crew.say(Finished(committed(5)))
    assert isinstance(only(crew.executor.wait()), Ended)
    assert not slot_.doomed


def test_a_worker_that_rolls_back_by_itself_blames_the_item_that_was_too_slow(
    make: Make,
) -> None:
    """A worker that sees its doom before it is ended changes nothing: the slow item fails."""
    crew = make(timeout=10)

    def roll_back() -> None:
        slot_.enter(State.IDLE)
        crew.say(Finished(ChunkResult(5, Ending.STOPPED)))

    slot_ = overdue(crew, then=roll_back)
    event = only(crew.executor.wait())
    assert (event.suspect, event.guilty) == (1, True)


def test_a_worker_that_was_through_a_moment_before_its_time_is_not_blamed(make: Make) -> None:
    """If COMMIT is over and told, the chunk counts, whatever happens to its worker."""
    crew = make(timeout=10)

    def get_through() -> None:
        slot_.enter(State.IDLE)
        crew.say(Finished(committed(5)))

    slot_ = overdue(crew, then=get_through)
    event = only(crew.executor.wait())
    assert isinstance(event, Ended)
    assert event.result.ending is Ending.COMMITTED


def test_a_doomed_worker_does_not_hang_in_its_next_item(make: Make) -> None:
    """If the next item had begun, its worker is ended at once: nobody would look again."""
    crew = make(timeout=10)
    slot_ = overdue(crew, then=lambda: slot_.begin_item(2))
    event = only(crew.executor.wait())
    assert crew.workers[0].process.kills == 1
    assert (event.suspect, event.guilty) == (1, True)


# Starting.


def test_a_worker_that_cannot_begin_ends_the_run(make: Make) -> None:
    """Its reason is in the message, with the traceback."""
    crew = make()
    crew.say(CannotBegin(Fault("builtins.ImportError", "no module", "the traceback")))
    crew.die(0)
    with pytest.raises(RunFailed, match=r"could not begin: builtins.ImportError: no module\nthe t"):
        crew.executor.wait()


def test_workers_that_die_at_their_start_are_replaced_some_times(make: Make) -> None:
    """The system may be short of memory for a moment, but a run must not try for ever."""
    crew = make(workers=0)
    crew.hire()
    for number in range(DEATHS_AT_START):
        crew.die(number=number)
        if number < DEATHS_AT_START - 1:
            assert crew.executor.poll() == []
    with pytest.raises(RunFailed, match=rf"{DEATHS_AT_START} worker processes in a row died"):
        crew.executor.wait()
    assert len(crew.workers) == DEATHS_AT_START


def test_a_death_at_the_start_of_one_that_comes_after_a_good_one_begins_the_count(
    make: Make,
) -> None:
    """Only deaths one after another count."""
    crew = make(workers=0)
    for number in range(DEATHS_AT_START * 2):
        crew.hire()
        if number % 2:
            crew.say(Ready(), len(crew.workers) - 1)
            crew.executor.poll()
        crew.die(number=len(crew.workers) - 1)
        crew.executor.poll()


def test_a_worker_that_is_gone_when_it_is_given_a_chunk_costs_nothing(make: Make) -> None:
    """The chunk stays in the queue, and the next worker gets it."""
    crew = make()
    crew.executor.poll()
    crew.die()
    crew.executor.submit(chunk(5))
    assert crew.executor.poll() == []
    crew.say(Ready(), 1)
    crew.executor.poll()
    assert crew.theirs[1][0].recv()[0] == 5
    assert crew.executor.in_flight == 1


# Output.


def test_workers_output_is_shown_line_by_line(make: Make) -> None:
    """Half a line waits for its other half, also of several bytes' characters."""
    crew = make()
    crew.print("one\ntwö".encode()[:-1])
    crew.executor.poll()
    assert crew.shown.text == "one\n"
    crew.print("twö\n".encode()[-2:])
    crew.executor.poll()
    assert crew.shown.text == "one\ntwö\n"


def test_the_last_output_of_a_dead_worker_is_shown_whole(make: Make) -> None:
    """Also without a newline at the end, and whatever bytes it is made of."""
    crew = make()
    crew.executor.poll()
    crew.print(b"Fatal \xff error")
    crew.die()
    crew.executor.poll()
    assert crew.shown.text == "Fatal \\xff error"


@pytest.mark.parametrize("error", [BrokenPipeError(), ValueError("closed"), OSError(28, "full")])
def test_output_that_cannot_be_shown_costs_no_result(make: Make, error: Exception) -> None:
    """`script 2>&1 | head` must not lose chunks that have ended."""
    crew = make()
    crew.executor.poll()
    crew.shown.error = error
    crew.executor.submit(chunk(5))
    crew.print(b"hello\n")
    crew.say(Finished(committed(5)))
    events: list[Event] = []
    while not events:
        events = crew.executor.wait()
    assert isinstance(only(events), Ended)


def test_a_worker_that_closes_its_output_does_not_keep_the_parent_awake(make: Make) -> None:
    """An output at its end would be readable for ever, and waiting a loop without a pause."""
    crew = make()
    crew.executor.poll()
    crew.theirs[0][1].close()
    crew.executor.poll()
    waited = []
    wait = processes.wait

    def counting(things: list[Any], timeout: float | None = None) -> list[Any]:
        waited.append(wait(things, 0))
        return waited[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "wait", counting)
        crew.executor.poll()
    assert waited == [[]]


# Ending.


def test_stop_gives_everything_back(make: Make) -> None:
    """What is in the queue, what runs, and what was finished meanwhile: each chunk once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "GRACE", 0.01)
        crew = make(workers=3)
        crew.executor.poll()
        for number in range(5):
            crew.executor.submit(chunk(number))
        crew.slot(0).begin_item(1)
        crew.slot(1).enter(State.COMMITTING)
        crew.say(Finished(committed(2)), 2)
        events = {event.chunk.number: event for event in crew.executor.stop()}
    assert len(events) == 5
    endings = {n: e.result.ending for n, e in events.items() if isinstance(e, Ended)}
    assert endings == {
        0: Ending.STOPPED,
        2: Ending.COMMITTED,
        3: Ending.STOPPED,
        4: Ending.STOPPED,
    }
    lost: Any = events[1]
    assert lost.phase is Phase.COMMITTING
    assert crew.executor.in_flight == 0
    assert len(crew.workers) == 3, "a worker was replaced although the run is over"


def test_close_may_be_called_twice_and_leaves_no_descriptor(make: Make) -> None:
    """The second time nothing is closed that may belong to someone else by then."""
    crew = make()
    before = descriptors()
    crew.close()
    ours = before - descriptors()
    assert ours
    theirs = [os.dup(0) for _ in range(len(ours) + 2)]  # take the same numbers
    try:
        crew.executor.close()
        crew.interrupts.wake()
        for descriptor in theirs:
            os.fstat(descriptor)
    finally:
        for descriptor in theirs:
            os.close(descriptor)


def test_an_executor_that_is_never_started_holds_nothing() -> None:
    """A stream that nobody asks for its first outcome leaves no descriptor open."""
    before = descriptors()
    shipped = child.ShippedJob(b"", b"", b"", Job(print, None, None, (), 0, False, False))
    executor = ProcessesExecutor(Environment.capture(), shipped, 2, Interrupts(), Progress())
    assert descriptors() == before
    executor.close()


def test_ctrl_c_wakes_the_waiting_parent(make: Make) -> None:
    """wait() returns, with nothing, so that the run can end."""
    crew = make()
    crew.executor.poll()
    crew.executor.submit(chunk(5))
    crew.interrupts.pending = True
    crew.interrupts.wake()
    assert crew.executor.wait() == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exit code 0"),
        (3, "exit code 3"),
        (None, "exit code None"),
        (-9, "SIGKILL; the system may be out of memory"),
        (-11, "SIGSEGV"),
        (-250, "signal 250"),
    ],
)
def test_an_exit_code_is_put_in_words(code: int | None, words: str) -> None:
    """What ended a worker is named."""
    assert processes._how(code) == words
