"""A model of the journal's protocol, and the real one beside it, in any order of steps.

Coordinators take a run, one after the other or one from the other; their chunks are worked on in
transactions on connections of their own, and are recorded, committed, undone and lost; coordinators
fold, ask, look, close and crash, and the old ones go on trying. After each step the tables are
compared with the model: every position has been committed at most once, and none is lost.

Where a step would wait for a transaction that is committing, it is taken in another thread; it must
wait indeed, until the transactions that it waits for have ended one way or the other.
"""

from __future__ import annotations

import inspect
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from django.db import IntegrityError, connection, connections
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from carpool.exceptions import RunIsTaken, TakenOver
from carpool.journal import book as book_module
from carpool.journal import recording
from carpool.journal.book import Book
from carpool.journal.marks import Marks, digest
from carpool.journal.models import Entry, Lease, Run
from carpool.journal.recording import Permit, Places, Standing
from carpool.journal.spans import Spans
from carpool.journal.states import State
from tests.app.models import Author
from tests.journal.conftest import empty
from tests.waiting import HANG

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.timeout(600),
]

POSITIONS = 16
WAITING = 0.02
"""Seconds in which a step that has to wait must not be through."""

PATIENCE = HANG


@dataclass(eq=False)
class Coordinator:
    """A process that has taken the run, as the model sees it.

    ``fence``: what it was given. ``redelivers``: its chunks may be delivered twice.
    """

    book: Book
    fence: int
    todo: list[int]
    redelivers: bool = False
    alive: bool = True
    closed: bool = False
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def acts(self) -> bool:
        return self.alive and not self.closed


@dataclass(eq=False)
class Chunk:
    """A chunk, wherever it is.

    ``at``: sent, working (its transaction is open), recorded (likewise), committed or undone.
    ``known``: what its coordinator knows of it: in flight, lost, settled, or asked: it was asked
    for, and had not committed.
    """

    owner: Coordinator
    number: int
    positions: list[int]
    faults: list[int]
    at: str = "sent"
    known: str = "in flight"
    connection: Any = None

    @property
    def is_open(self) -> bool:
        return self.at in ("working", "recorded")

    @property
    def places(self) -> Places:
        digests = [digest(f"item {n}", n) for n in self.positions]
        return Places(self.positions, self.positions, digests)

    @property
    def name(self) -> tuple[int, int]:
        """What the journal knows it by."""
        return self.owner.fence, self.number

    @property
    def failed(self) -> set[int]:
        return {self.positions[fault] for fault in self.faults}


def permit(owner: Coordinator) -> Permit:
    return Permit(
        runs={"default": (owner.book.key, owner.fence)},
        run_table=Run._meta.db_table,
        entry_table=Entry._meta.db_table,
        lease_table=Lease._meta.db_table,
    )


class Connections:
    """Connections for chunks, used again from example to example."""

    def __init__(self) -> None:
        self.idle: list[Any] = []
        self.made: list[Any] = []

    def take(self) -> Any:
        if self.idle:
            taken = self.idle.pop()
        else:
            taken = connections["default"].copy()
            self.made.append(taken)
        taken.set_autocommit(False)
        return taken

    def give_back(self, taken: Any) -> None:
        taken.set_autocommit(True)
        self.idle.append(taken)

    def close(self) -> None:
        """Close them all: one that a failure left in a transaction would hold the tables."""
        for one in self.made:
            one.close()
        self.made.clear()
        self.idle.clear()


POOL = Connections()


@pytest.fixture(autouse=True)
def pool() -> Iterator[None]:
    yield
    POOL.close()


class Protocol(RuleBasedStateMachine):
    """The model, and the tables."""

    def __init__(self) -> None:
        super().__init__()
        empty()
        self.coordinators: list[Coordinator] = []
        self.chunks: list[Chunk] = []
        self.fence = 0  # the lease's
        self.state = State.NEW
        self.wanted = ""
        self.done: set[int] = set()  # positions that have been committed
        self.failed: set[int] = set()
        self.committed: set[tuple[int, int]] = set()  # chunks
        self.given_up: set[tuple[int, int]] = set()
        self.open_coordinator(take_over=False)

    # The real thing, called so that it may wait.

    def call(
        self,
        task: Callable[[], Any],
        chunks: list[Chunk],
        ends: Callable[[Chunk], bool],
        *,
        may_know: bool = False,
    ) -> Any:
        """Call it; if open transactions are in its way, have it wait until they have ended.

        ``may_know``: it needn't wait, since the coordinator may know the answer.
        """
        if not chunks:
            return task()
        answers: list[tuple[Any, BaseException | None]] = []

        def work() -> None:
            try:
                answers.append((task(), None))
            except BaseException as error:
                answers.append((None, error))
            finally:
                connections.close_all()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join(WAITING)
        waited = thread.is_alive()
        for chunk in chunks:
            self.end(chunk, commits=chunk.at == "recorded" and ends(chunk))
        thread.join(PATIENCE)
        assert not thread.is_alive(), "it waits for ever"
        assert waited or may_know, "it did not wait for a transaction that may commit"
        ((value, error),) = answers
        if error is not None:
            raise error
        return value

    def in_the_way(self, *, of_lease: bool = False, of: Chunk | None = None) -> list[Chunk]:
        """Return the chunks whose transactions a step has to wait for."""
        if connection.vendor == "sqlite":  # one writer at a time
            return [chunk for chunk in self.chunks if chunk.is_open]
        recorded = [chunk for chunk in self.chunks if chunk.at == "recorded"]
        return [chunk for chunk in recorded if of_lease or chunk is of]

    def end(self, chunk: Chunk, *, commits: bool) -> None:
        """End a chunk's transaction."""
        assert chunk.is_open
        if commits:
            assert chunk.at == "recorded"
            chunk.connection.commit()
            assert chunk.owner.fence == self.fence, "committed by a coordinator without the lease"
            assert not self.done & set(chunk.positions), "committed twice"
            assert chunk.name not in self.committed | self.given_up, "committed after its end"
            self.committed.add(chunk.name)
            self.done |= set(chunk.positions)
            self.failed |= chunk.failed
        else:
            chunk.connection.rollback()
        chunk.at = "committed" if commits else "undone"
        POOL.give_back(chunk.connection)
        chunk.connection = None

    def some(self, data: st.DataObject, chunks: list[Any]) -> Any:
        return chunks[data.draw(st.integers(0, len(chunks) - 1))]

    def acting(self) -> list[Coordinator]:
        return [one for one in self.coordinators if one.acts]

    def chunks_that(self, *at: str, known: str = "") -> list[Chunk]:
        return [c for c in self.chunks if c.at in at and known in ("", c.known)]

    # Coordinators.

    def open_coordinator(
        self,
        *,
        take_over: bool,
        ends: Callable[[Chunk], bool] = lambda chunk: True,
        redelivers: bool = False,
    ) -> None:
        book = Book("default", "machine")
        try:
            self.call(
                lambda: book.open("index", {}, take_over=take_over),
                self.in_the_way(of_lease=True) if self.coordinators else [],
                ends,
            )
        except RunIsTaken:
            assert self.state is State.RUNNING and not take_over
            return
        assert self.state is not State.RUNNING or take_over, "two have the run"
        assert book.fence > self.fence
        self.fence = book.fence
        self.state = State.RUNNING
        self.wanted = ""
        assert book.done.settled == Spans((n, n) for n in self.done), "what is done is not known"
        left = [n for n in range(POSITIONS) if n not in self.done]
        self.coordinators.append(Coordinator(book, book.fence, left, redelivers))

    @precondition(lambda self: self.much_has_happened())
    @rule(take_over=st.booleans(), redelivers=st.booleans(), data=st.data())
    def another_coordinator(self, take_over: bool, redelivers: bool, data: st.DataObject) -> None:
        self.open_coordinator(
            take_over=take_over,
            redelivers=redelivers,
            ends=lambda chunk: data.draw(st.booleans()),
        )

    def much_has_happened(self) -> bool:
        """Tell whether it is time for another coordinator: each should come to something."""
        return not self.acting() or len(self.chunks) >= 4 * len(self.coordinators)

    @precondition(lambda self: self.acting() and self.much_has_happened())
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """A coordinator dies; its workers may go on for a while."""
        self.some(data, self.acting()).alive = False

    def told_that_it_was_taken_over(self, owner: Coordinator) -> None:
        assert owner.fence != self.fence, "nobody has taken it over"
        owner.alive = False

    @precondition(lambda self: self.acting())
    @rule(data=st.data())
    def fold(self, data: st.DataObject) -> None:
        owner = self.some(data, self.acting())
        try:
            self.call(
                lambda: owner.book.fold(closed=self.closed_below(owner)),
                self.in_the_way(of_lease=owner.redelivers and owner.fence == self.fence),
                lambda chunk: data.draw(st.booleans()),
            )
        except TakenOver:
            self.told_that_it_was_taken_over(owner)
            return
        assert owner.fence == self.fence
        done = owner.book.done
        assert done.settled == Spans((n, n) for n in self.done)
        assert done.failed == Spans((n, n) for n in self.failed)
        assert (done.succeeded, done.skipped) == (len(self.done - self.failed), 0)
        whole = Marks.of_items(1, [(n, digest(f"item {n}", n)) for n in self.done])
        assert done.marks.dumps() == whole.dumps(), "the source would be taken for another"

    def closed_below(self, owner: Coordinator) -> int | None:
        """Return the number below which all chunks of a coordinator have ended, if it matters."""
        if not owner.redelivers:
            return None
        mine = [chunk for chunk in self.chunks if chunk.owner is owner]
        going_on = [chunk.number for chunk in mine if chunk.known in ("in flight", "lost")]
        return min(going_on, default=len(mine) + 1)

    @precondition(lambda self: self.acting())
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        owner = self.some(data, self.acting())
        try:
            wanted = owner.book.look()
        except TakenOver:
            self.told_that_it_was_taken_over(owner)
        else:
            assert (wanted, owner.fence) == (self.wanted, self.fence)

    @rule(what=st.sampled_from(["cancel", "pause", "resume"]))
    @precondition(lambda self: not (connection.vendor == "sqlite" and self.in_the_way()))
    def ask_for(self, what: str) -> None:
        assert getattr(Run.objects.get(), what)() is (self.state is State.RUNNING)
        if self.state is State.RUNNING:
            self.wanted = "" if what == "resume" else what

    @precondition(lambda self: self.acting() and self.much_has_happened())
    @rule(
        data=st.data(),
        state=st.sampled_from([State.SUCCEEDED, State.FAILED, State.CANCELLED, State.INTERRUPTED]),
    )
    def close(self, data: st.DataObject, state: State) -> None:
        """A coordinator ends. Chunks that it has lost may still be at work somewhere."""
        owner = self.some(data, self.acting())
        for chunk in self.chunks:
            if chunk.owner is owner and chunk.known == "in flight":
                chunk.known = "lost"
        holds = owner.fence == self.fence
        blockers = self.in_the_way(of_lease=holds)
        try:
            self.call(
                lambda: owner.book.close(state, "", ()),
                blockers,
                lambda chunk: data.draw(st.booleans()),
            )
        except TakenOver:
            self.told_that_it_was_taken_over(owner)
            return
        assert owner.fence == self.fence
        owner.closed = True
        self.state, self.wanted = state, ""
        self.fence = Lease.objects.get().fence
        row = Run.objects.get()
        assert (row.state, row.wanted, row.succeeded) == (state, "", len(self.done - self.failed))
        assert not Entry.objects.exists()

    # Chunks.

    @precondition(lambda self: any(one.todo for one in self.acting()))
    @rule(data=st.data(), size=st.integers(1, 3))
    def send(self, data: st.DataObject, size: int) -> None:
        owner = self.some(data, [one for one in self.acting() if one.todo])
        positions, owner.todo = sorted(owner.todo[:size]), owner.todo[size:]
        faults = sorted(data.draw(st.sets(st.sampled_from(range(len(positions))), max_size=1)))
        self.chunks.append(Chunk(owner, next(owner.numbers), positions, faults))

    def work_on(self, chunk: Chunk) -> None:
        """Begin a chunk's transaction, and write what its items do."""
        chunk.connection = POOL.take()
        table = connection.ops.quote_name(Author._meta.db_table)
        with chunk.connection.cursor() as cursor:
            for position in sorted(set(chunk.positions) - chunk.failed):
                cursor.execute(
                    f"INSERT INTO {table} (name, books_written) VALUES (%s, 0)", [str(position)]
                )
            if not set(chunk.positions) - chunk.failed:
                # By the key: MariaDB 11.8 waits at rows that others insert, if it looks at all.
                cursor.execute(f"UPDATE {table} SET books_written = 0 WHERE id = -1")
        chunk.at = "working"

    def record(self, chunk: Chunk) -> None:
        """Write a chunk's entry; undo the chunk if that is refused."""
        owner = chunk.owner
        try:
            standing = recording.record(
                chunk.connection, permit(owner), chunk.number, chunk.places.note(1), chunk.faults, 0
            )
        except IntegrityError:  # its entry is there
            standing = Standing.ENDED
        if standing is Standing.ENDED:
            assert chunk.name in self.committed | self.given_up, "a chunk that goes on is refused"
            self.end(chunk, commits=False)
            if chunk.known == "in flight":
                chunk.known = "lost"  # its coordinator will ask
            return
        if standing is Standing.TAKEN_OVER:
            assert owner.fence != self.fence, "refused, though its coordinator has the run"
            self.end(chunk, commits=False)
            chunk.known = "settled"  # its coordinator will end by it
            return
        chunk.at = "recorded"

    def may_work(self) -> bool:
        return connection.vendor != "sqlite" or not self.in_the_way()

    @precondition(lambda self: self.chunks_that("sent") and self.may_work())
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.work_on(self.some(data, self.chunks_that("sent")))

    @precondition(lambda self: self.chunks_that("working"))
    @rule(data=st.data())
    def record_one(self, data: st.DataObject) -> None:
        self.record(self.some(data, self.chunks_that("working")))

    @precondition(lambda self: self.chunks_that("recorded"))
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        """A chunk commits, and its coordinator is told."""
        chunk = self.some(data, self.chunks_that("recorded"))
        self.end(chunk, commits=True)
        if chunk.known == "in flight":
            chunk.known = "settled"

    @precondition(lambda self: self.chunks_that("sent") and self.may_work())
    @rule(data=st.data(), told=st.booleans())
    def do_it_all(self, data: st.DataObject, told: bool) -> None:
        """A chunk is begun, recorded and committed without anything between."""
        chunk = self.some(data, self.chunks_that("sent"))
        self.work_on(chunk)
        self.record(chunk)
        if chunk.at == "recorded":
            self.end(chunk, commits=True)
            if chunk.known == "in flight":
                chunk.known = "settled" if told else "lost"

    @precondition(lambda self: self.chunks_that("recorded"))
    @rule(data=st.data())
    def commit_and_lose_the_answer(self, data: st.DataObject) -> None:
        chunk = self.some(data, self.chunks_that("recorded"))
        self.end(chunk, commits=True)
        if chunk.known == "in flight":
            chunk.known = "lost"

    @precondition(lambda self: self.chunks_that("working", "recorded"))
    @rule(data=st.data(), told=st.booleans())
    def undo(self, data: st.DataObject, told: bool) -> None:
        """A worker dies before COMMIT; if its coordinator is told so, the chunk is run again, by
        the same number; where it may be delivered twice, it is asked for first."""
        chunk = self.some(data, self.chunks_that("working", "recorded"))
        self.end(chunk, commits=False)
        if chunk.known == "in flight":
            if told and not chunk.owner.redelivers:
                chunk.at = "sent"
            else:
                chunk.known = "lost"

    @precondition(lambda self: self.chunks_that("sent", "working", "recorded", known="in flight"))
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """A coordinator hears no more of a chunk, whose worker goes on."""
        chunks = self.chunks_that("sent", "working", "recorded", known="in flight")
        self.some(data, chunks).known = "lost"

    def lost(self) -> list[Chunk]:
        return [c for c in self.chunks if c.known == "lost" and c.owner.acts]

    @precondition(lambda self: self.lost())
    @rule(data=st.data())
    def ask_what_became_of_it(self, data: st.DataObject) -> None:
        """A lost chunk is asked for. Only if it has not committed, and never will, it is run again,
        by another number."""
        chunk = self.some(data, self.lost())
        owner = chunk.owner
        try:
            committed = self.call(
                lambda: owner.book.has_committed(chunk.number),
                self.in_the_way(of=chunk),
                lambda blocker: data.draw(st.booleans()),
                may_know=chunk.name in self.committed,
            )
        except TakenOver:
            self.told_that_it_was_taken_over(owner)
            return
        assert committed == (chunk.name in self.committed)
        chunk.known = "settled" if committed else "asked"
        if not committed:
            self.given_up.add(chunk.name)
            owner.todo.extend(chunk.positions)

    def can_be_redelivered(self) -> list[Chunk]:
        """Return the chunks that may be delivered again now, whatever has become of them.

        Not while one is recorded: the second would wait for the first.
        """
        return [c for c in self.chunks if c.owner.redelivers and c.at != "recorded"]

    @precondition(lambda self: self.can_be_redelivered() and self.may_work())
    @rule(data=st.data(), told=st.booleans())
    def deliver_again(self, data: st.DataObject, told: bool) -> None:
        """A chunk is delivered a second time, now or long after it has ended."""
        chunk = self.some(data, self.can_be_redelivered())
        again = Chunk(chunk.owner, chunk.number, chunk.positions, chunk.faults)
        self.work_on(again)
        self.record(again)
        if again.at == "recorded":
            self.end(again, commits=True)
            if chunk.known == "in flight":
                chunk.known = "settled" if told else "lost"

    # The tables, compared with the model.

    @invariant()
    def every_position_at_most_once(self) -> None:
        effects = Counter(Author.objects.values_list("name", flat=True))
        assert not effects or max(effects.values()) == 1, f"done twice: {effects}"
        row = Run.objects.get()
        settled, failed = Spans.loads(row.settled), Spans.loads(row.failed_positions)
        succeeded = row.succeeded
        for entry in Entry.objects.all():
            done = Spans.loads(entry.done)
            assert not settled & done, "recorded twice"
            settled.update(done)
            failed.update(Spans.loads(entry.failed))
            succeeded += entry.succeeded
            assert not entry.void or not done
        assert settled == Spans((n, n) for n in self.done), "the journal and the rows differ"
        assert {int(name) for name in effects} == self.done - self.failed
        assert succeeded == len(effects)
        assert failed == Spans((n, n) for n in self.failed)

    def teardown(self) -> None:
        """Whatever has happened, one more coordinator does the rest, and all are done once."""
        try:
            for chunk in self.chunks:
                if chunk.is_open:
                    self.end(chunk, commits=False)
            self.open_coordinator(take_over=True)
            last = self.coordinators[-1]
            if last.todo:
                whole = Chunk(last, next(last.numbers), last.todo, [])
                self.chunks.append(whole)
                self.work_on(whole)
                self.record(whole)
                self.end(whole, commits=True)
            for chunk in self.chunks_that("sent"):  # those that were given up long ago
                self.work_on(chunk)
                self.record(chunk)
                assert chunk.at == "undone" or chunk.owner is last
            last.book.close(State.SUCCEEDED, "", ())
            self.every_position_at_most_once()
            assert self.done == set(range(POSITIONS))
            assert not Entry.objects.exists()
            assert Run.objects.get().settled == f"[[0,{POSITIONS - 1}]]"
        finally:
            for chunk in self.chunks:
                if chunk.connection is not None:
                    chunk.connection.rollback()
                    POOL.give_back(chunk.connection)


def explore(examples: int, steps: int = 30) -> None:
    """Have the machine try so many programs; the same ones each time."""
    run_state_machine_as_test(
        Protocol,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_each_position_is_committed_once_and_none_is_lost() -> None:
    """Whatever coordinators, workers and connections do, in whatever order."""
    explore(30)


# What the machine is worth: each of these leaves one thing out, and is caught by a program that
# passes without it. The programs are written down: random ones find them too, but by chance.


class Answers:
    """Stands in for `st.data()`: draws what was written down."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def draw(self, strategy: Any) -> Any:
        return self.answers.pop(0)


FIRST, SECOND = 0, 1
NO_FAULTS: set[int] = set()


def send(machine: Protocol, size: int = 2) -> None:
    machine.send(Answers(FIRST, NO_FAULTS), size=size)


def an_old_coordinators_chunk(machine: Protocol) -> None:
    send(machine)
    machine.another_coordinator(take_over=True, redelivers=False, data=Answers())
    machine.do_it_all(Answers(FIRST), told=True)


def a_lost_chunk_that_begins_late(machine: Protocol) -> None:
    send(machine)
    machine.lose(Answers(FIRST))
    machine.ask_what_became_of_it(Answers(FIRST))
    machine.do_it_all(Answers(FIRST), told=True)
    send(machine, size=POSITIONS)
    machine.do_it_all(Answers(FIRST), told=True)


def a_lost_chunk_that_was_folded(machine: Protocol) -> None:
    send(machine)
    machine.do_it_all(Answers(FIRST), told=False)
    machine.fold(Answers(FIRST))
    machine.ask_what_became_of_it(Answers(FIRST))


def an_old_coordinator_folds(machine: Protocol) -> None:
    send(machine)
    machine.do_it_all(Answers(FIRST), told=True)
    machine.another_coordinator(take_over=True, redelivers=False, data=Answers())
    machine.fold(Answers(FIRST))


def a_coordinator_of_a_cluster(machine: Protocol) -> None:
    machine.another_coordinator(take_over=True, redelivers=True, data=Answers())
    machine.coordinators[0].alive = False


def a_chunk_comes_again_after_its_entry_is_gone(machine: Protocol) -> None:
    a_coordinator_of_a_cluster(machine)
    send(machine)
    machine.do_it_all(Answers(FIRST), told=True)
    machine.fold(Answers(FIRST))
    machine.deliver_again(Answers(FIRST), told=True)


def a_chunk_comes_again_while_an_older_one_goes_on(machine: Protocol) -> None:
    a_coordinator_of_a_cluster(machine)
    send(machine)
    send(machine)
    machine.do_it_all(Answers(SECOND), told=True)
    machine.fold(Answers(FIRST))
    machine.deliver_again(Answers(SECOND), told=True)


def two_at_once(machine: Protocol) -> None:
    machine.another_coordinator(take_over=False, redelivers=False, data=Answers())


@dataclass(frozen=True)
class Mutant:
    """A function of `home` with a line changed, and the program that tells it from the original."""

    home: Any
    name: str
    old: str
    new: str
    program: Callable[[Protocol], None]

    def install(self, patch: pytest.MonkeyPatch) -> None:
        source = textwrap.dedent(inspect.getsource(getattr(self.home, self.name)))
        assert source.count(self.old) == 1, f"{self.name} has changed: write this mutant anew"
        module = recording if self.home is recording else book_module
        scope: dict[str, Any] = dict(vars(module))
        source = "from __future__ import annotations\n" + source.replace(self.old, self.new)
        exec(compile(source, f"<mutant of {self.name}>", "exec"), scope)
        patch.setattr(self.home, self.name, scope[self.name])


MUTANTS = {
    "a chunk is recorded whatever the fence": Mutant(
        recording,
        "record",
        "{quote('run_id')} = %s AND {quote('fence')} = %s AND {quote('closed')}",
        "{quote('run_id')} = %s AND %s IS NOT NULL AND {quote('closed')}",
        an_old_coordinators_chunk,
    ),
    "a lost chunk is only looked for": Mutant(
        Book,
        "has_committed",
        "Entry._base_manager.using(self.alias).bulk_create([entry])",
        "return self._entries().filter(fence=self.fence, chunk=chunk, void=False).exists()",
        a_lost_chunk_that_begins_late,
    ),
    "folding forgets which chunks have committed": Mutant(
        Book,
        "fold",
        "self._folded.add(entry.chunk, entry.chunk)",
        "pass",
        a_lost_chunk_that_was_folded,
    ),
    "a coordinator that was taken over may fold": Mutant(
        Book,
        "fold",
        "if not self._mine().update(beat_at=Now()):",
        "if not self._runs().update(beat_at=Now()):",
        an_old_coordinator_folds,
    ),
    "a number is never closed": Mutant(
        Book,
        "fold",
        "update(closed=closed)",
        "update(closed=0)",
        a_chunk_comes_again_after_its_entry_is_gone,
    ),
    "an entry is taken away before its number is closed": Mutant(
        Book,
        "fold",
        "(e.void or closed is not None)",
        "e.void",
        a_chunk_comes_again_while_an_older_one_goes_on,
    ),
    "a closed number may be recorded": Mutant(
        recording,
        "record",
        "AND {quote('closed')} <= %s",
        "AND %s IS NOT NULL",
        a_chunk_comes_again_after_its_entry_is_gone,
    ),
    "whoever comes takes the run": Mutant(
        Book, "open", "if not take_over:", "if False:", two_at_once
    ),
}


def play(program: Callable[[Protocol], None]) -> None:
    """Take a program's steps, compare the tables with the model, and bring the run to its end."""
    machine = Protocol()
    try:
        program(machine)
        machine.every_position_at_most_once()
    finally:
        machine.teardown()


@pytest.mark.parametrize("name", MUTANTS)
def test_a_protocol_that_leaves_something_out_is_caught(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any one of its parts the protocol fails, and the machine sees it."""
    mutant = MUTANTS[name]
    play(mutant.program)
    mutant.install(monkeypatch)
    with pytest.raises((AssertionError, IntegrityError)):
        play(mutant.program)
