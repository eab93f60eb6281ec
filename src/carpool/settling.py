"""What becomes of each item: counted once, after its COMMIT, or run again.

The fates of a chunk::

    committed ─────────────────▶ each item succeeded, failed or was skipped
    refused at COMMIT ─────────▶ parts of 16, then halves, down to the one item to blame
    worker lost, an item running ▶ the others again; the suspect alone, until it is to blame
    worker lost, none running ──▶ again; if that happens twice, in halves
    lost during COMMIT, or delivered twice
                       ─────────▶ unknown, and never run again; with a journal it is asked, and the
                                  chunk is either committed or run again, the second time in halves,
                                  and an item, before it is to blame, when nothing else is out
    rolled back, the run over ──▶ failed, as not run
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from carpool.coalescing.figures import Figures
from carpool.errors import error_name, fault_of
from carpool.exceptions import (
    ItemFailed,
    NotRun,
    OutcomeUnknown,
    RunFailed,
    TakenOver,
    WorkerDied,
)
from carpool.executors.base import Event, Lost, Phase
from carpool.functions import loads
from carpool.journal.journal import Journal
from carpool.journal.recording import Places
from carpool.pacing import CAREFUL_SIZE, TARGET, Pacer
from carpool.rejects import Rejects
from carpool.report import KEPT_FAILURES
from carpool.types import Chunk, ChunkResult, Ending, Failure, Fault, Outcome, Spent

MOST_DEATHS = 2
"""Workers that an item may die with until it is to blame: the second time it runs alone."""

MOST_KILLS = 4
"""The same, for workers that were ended by SIGKILL. It comes from outside: from the system, short
of memory because of this item or of another, or from somebody who ends processes."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A chunk whose items' fates are known."""

    chunk: Chunk
    result: ChunkResult
    failures: dict[int, Failure]

    def outcomes(self) -> Iterator[Outcome]:
        """Yield each item's outcome, but none for skipped rows."""
        skipped = set(self.result.skipped)
        for position, index in enumerate(self.chunk.indexes):
            if position in skipped:
                continue
            item = self.chunk.items[position]
            failure = self.failures.get(position)
            if failure is not None:
                yield Outcome(index, item, ok=False, failure=failure)
            else:
                value = self.result.values.get(position)
                if self.result.values_are_packed and value is not None:
                    value = loads(value)
                yield Outcome(index, item, ok=True, value=value)

    def skipped_indexes(self) -> Iterator[int]:
        for position in self.result.skipped:
            yield self.chunk.indexes[position]


class Settling:
    """Turns events into fates, and keeps the counts.

    Attributes:
        again: chunks to be submitted before anything more is read. With executors that may deliver
            a chunk twice, none of them has a number that was sent before.
        failures: the first `KEPT_FAILURES`.
        succeeded, failed (not_run among them), unknown, skipped: items.
        retries, chunks, repeated: as in `Report`.
        figures: what coalescing has saved; None if nothing was coalesced.
        spent: where the chunks' time went.
    """

    def __init__(
        self,
        number: Callable[[], int],
        pacer: Pacer,
        rejects: Rejects | None,
        *,
        dry_run: bool,
        journal: Journal | None = None,
        redelivers: bool = False,
    ) -> None:
        self._number = number
        self._pacer = pacer
        self._rejects = rejects
        self._dry_run = dry_run
        self._journal = journal
        self._redelivers = redelivers
        self._suspects: Counter[int] = Counter()  # by index, how many workers have died with it
        self._undone: Counter[tuple[int, int]] = Counter()  # by first index and length, at COMMIT
        self._silent_losses: set[int] = set()  # numbers of chunks lost with no item running
        self._stopped: str | None = None
        self._fatal: RunFailed | None = None  # raised once the events at hand are settled
        self._refused: deque[tuple[int, Any, Fault, Places | None]] = deque()
        self._events: deque[Event] = deque()
        self.again: deque[Chunk] = deque()
        self.failures: list[Failure] = []
        self.succeeded = self.failed = self.not_run = self.unknown = self.skipped = 0
        self.retries = self.chunks = self.repeated = 0
        self.figures: Figures | None = None
        self.spent = Spent()

    @property
    def done(self) -> int:
        """Items whose fate is known."""
        return self.succeeded + self.failed + self.unknown + self.skipped

    def stop(self, reason: str = "the run was ended by its consumer") -> None:
        """The run is over: what is not done from here on is not run."""
        self._stopped = reason

    def refuse(self, unsendable: Iterable[tuple[int, Any, Fault, Places | None]]) -> None:
        """Take in items that can't be sent to a worker."""
        self._refused.extend(unsendable)

    def unsendable(self) -> Iterator[Settled]:
        """Settle what was refused.

        Raises:
            RunFailed: the rejects file can't be written.
        """
        while self._refused:
            index, item, fault, places = self._refused.popleft()
            chunk = Chunk(self._number(), [index], [item], [None], places=places)
            yield self._fail(chunk, fault)
        self._raise_fatal()

    def abandon(self) -> Iterator[Settled]:
        """Settle, as not run, whatever is still waiting to be run."""
        yield from self.unsendable()
        while self.again:
            yield self._not_run(self.again.popleft())

    def events(self, events: Sequence[Event], target: float = TARGET) -> Iterator[Settled]:
        """Settle what can be settled. If something ends the run, the rest is settled first.

        Whoever takes not all of what this yields (an error of the consumer's, say) gets the rest
        from the next call.

        Raises:
            RunFailed: a worker found that no transaction can be begun, or the rejects file can't
                be written.
        """
        self._events.extend(events)
        while self._events:
            event = self._events.popleft()
            if isinstance(event, Lost):
                yield from self._lost(event)
                continue
            chunk, result = event.chunk, event.result
            self._add_counts(result)
            self.chunks += 1
            if self._committed_another_time(chunk, result):
                fault = fault_of(OutcomeUnknown, "it was delivered twice", "unknown")
                result = ChunkResult(chunk.number, Ending.DELIVERED_TWICE, fault=fault)
            match result.ending:
                case Ending.COMMITTED:
                    self._pacer.observe(len(chunk), result.seconds, target)
                    yield self._settle(chunk, result)
                case Ending.REFUSED:
                    yield from self._refused_at_commit(chunk, result)
                case Ending.UNKNOWN:
                    assert result.fault is not None
                    yield from self._lost_at_commit(chunk, result.fault, result)
                case Ending.UNAVAILABLE:
                    assert result.fault is not None
                    self._fatal = self._fatal or _cannot_go_on(result.fault)
                    yield self._not_run(chunk, result.fault)
                case Ending.TAKEN_OVER:
                    assert result.fault is not None
                    self._fatal = self._fatal or TakenOver(result.fault.message)
                    yield self._not_run(chunk, result.fault)
                case Ending.DELIVERED_TWICE:
                    assert result.fault is not None
                    yield from self._lost_at_commit(chunk, result.fault, None)
                case Ending.STOPPED if self._redelivers:
                    everything = range(len(chunk))
                    yield from self._run_again(chunk.part(self._number(), everything))
                case Ending.STOPPED:
                    # Without a stop: its worker had been told to end, and was told otherwise.
                    yield from self._run_again(chunk)
        self._raise_fatal()

    def _committed_another_time(self, chunk: Chunk, result: ChunkResult) -> bool:
        """Tell whether a chunk that has not committed has, where it may have been delivered twice.

        If not, it can't any more, so that it may be run again under another number.
        """
        if not self._redelivers or self._journal is None or chunk.places is None:
            return False
        if result.ending not in (Ending.REFUSED, Ending.STOPPED, Ending.UNAVAILABLE):
            return False
        try:
            return self._journal.has_committed(chunk.number) is not False
        except RunFailed as error:
            self._fatal = self._fatal or error
            return True

    def _add_counts(self, result: ChunkResult) -> None:
        self.retries += result.retries
        self.repeated += result.repeated
        self.spent += result.spent
        if result.figures is not None:
            if self.figures is None:
                self.figures = Figures()
            self.figures.add(result.figures)

    def _raise_fatal(self) -> None:
        if self._fatal is not None and self._stopped is None:
            raise self._fatal

    # The fates.

    def _run_again(self, chunk: Chunk) -> Iterator[Settled]:
        if self._stopped is None:
            self.again.append(chunk)
        else:
            yield self._not_run(chunk)

    def _refused_at_commit(self, chunk: Chunk, result: ChunkResult) -> Iterator[Settled]:
        assert result.fault is not None
        if len(chunk) == 1:
            yield self._fail(chunk, result.fault)
            return
        self._pacer.shrink()
        for part in self._split(chunk, max(2, -(-len(chunk) // CAREFUL_SIZE))):
            yield from self._run_again(part)

    def _split(self, chunk: Chunk, parts: int) -> Iterator[Chunk]:
        size = -(-len(chunk) // parts)
        for start in range(0, len(chunk), size):
            stop = min(start + size, len(chunk))
            yield chunk.part(self._number(), range(start, stop))

    def _lost(self, lost: Lost) -> Iterator[Settled]:
        chunk = lost.chunk
        self.chunks += 1
        match lost.phase:
            case Phase.COMMITTED:
                assert lost.prepared is not None
                self._add_counts(lost.prepared)
                yield self._settle(chunk, lost.prepared)
            case Phase.COMMITTING | Phase.NOT_TOLD:
                yield from self._lost_at_commit(chunk, lost.fault, lost.prepared)
            case Phase.RUNNING if lost.suspect is None:
                yield from self._lost_in_silence(chunk, lost.fault)
            case Phase.RUNNING:
                yield from self._lost_with_a_suspect(chunk, lost)

    def _lost_with_a_suspect(self, chunk: Chunk, lost: Lost) -> Iterator[Settled]:
        assert lost.suspect is not None
        others = [p for p in range(len(chunk)) if p != lost.suspect]
        if others:
            yield from self._run_again(chunk.part(self._number(), others))
        alone = chunk.part(self._number(), [lost.suspect])
        index = alone.indexes[0]
        self._suspects[index] += 1
        deaths = MOST_KILLS if lost.killed else MOST_DEATHS
        if lost.guilty or self._suspects[index] >= deaths:
            yield self._fail(alone, lost.fault)
        else:
            # It may only have been running when something else ended the worker.
            yield from self._run_again(alone)

    def _lost_in_silence(self, chunk: Chunk, fault: Fault) -> Iterator[Settled]:
        if chunk.number not in self._silent_losses:
            self._silent_losses.add(chunk.number)
            yield from self._run_again(chunk)
        elif len(chunk) == 1:
            yield self._fail(chunk, fault)
        else:
            for part in self._split(chunk, 2):
                yield from self._run_again(part)

    def _lost_at_commit(
        self, chunk: Chunk, fault: Fault, before: ChunkResult | None
    ) -> Iterator[Settled]:
        """Settle a chunk that may have committed; ``before`` is what it said just before COMMIT."""
        committed = None
        if self._journal is None or chunk.places is None:
            yield self._unknown(chunk, fault, before)
            return
        try:
            committed = self._journal.has_committed(chunk.number)
            if committed and before is None:  # what failed in it is in the journal only
                faults = dict.fromkeys(self._journal.failed_among(chunk.places), _lost_error())
                before = ChunkResult(chunk.number, Ending.COMMITTED, faults=faults)
        except RunFailed as error:  # the others are settled first
            self._fatal = self._fatal or error
        if committed is None or (committed and before is None):
            yield self._unknown(chunk, fault, before)
        elif committed:
            assert before is not None
            yield self._settle(chunk, replace(before, ending=Ending.COMMITTED, fault=None))
        else:
            yield from self._undone_at_commit(chunk, fault)

    def _undone_at_commit(self, chunk: Chunk, fault: Fault) -> Iterator[Settled]:
        """Run a chunk again that was lost at COMMIT, and isn't stored, as the journal says.

        Under another number: under the old one it can't commit any more.
        """
        self._undone[chunk.indexes[0], len(chunk)] += 1
        times = self._undone[chunk.indexes[0], len(chunk)]
        if len(chunk) > 1:
            for part in self._split(chunk, min(times, 2)):
                yield from self._run_again(part)
        elif times < MOST_KILLS:
            # Others may have been lost with it each time, and no one knows by whose fault.
            last = times == MOST_KILLS - 1
            yield from self._run_again(replace(chunk.part(self._number(), [0]), alone=last))
        else:
            # Not unknown any more: nothing of it is stored.
            if fault.error == error_name(OutcomeUnknown):
                fault = replace(fault, error=error_name(WorkerDied), stage="worker")
            else:
                fault = replace(fault, stage="commit")
            yield self._fail(chunk, fault)

    def _fail(self, chunk: Chunk, fault: Fault) -> Settled:
        """Settle a chunk that failed as a whole, and so has not been written into the journal."""
        if self._journal is not None and chunk.places is not None:
            self._journal.failed(chunk.places)
        return self._settle(chunk, _all_failed(chunk, fault))

    def _unknown(self, chunk: Chunk, fault: Fault, before: ChunkResult | None = None) -> Settled:
        """Settle a chunk that may be stored or not; ``before`` is what was known by then."""
        faults = {} if before is None else before.faults
        skipped = () if before is None else before.skipped
        unknown = replace(
            fault,
            error=error_name(OutcomeUnknown),
            message=f"stored or not, nobody can say: {fault.message}",
            stage="unknown",
        )
        faults = {p: faults.get(p, unknown) for p in range(len(chunk)) if p not in skipped}
        result = ChunkResult(chunk.number, Ending.UNKNOWN, faults=faults, skipped=skipped)
        return self._settle(chunk, result)

    def _not_run(self, chunk: Chunk, cause: Fault | None = None) -> Settled:
        why = self._stopped or "no worker could run it"
        if cause is not None:
            why = f"{cause.error}: {cause.message}"
        fault = fault_of(NotRun, f"not run, or rolled back: {why}", "run")
        return self._settle(chunk, _all_failed(chunk, fault))

    def _settle(self, chunk: Chunk, result: ChunkResult) -> Settled:
        """Count a chunk's items. Every item of the run passes here exactly once."""
        failures = {}
        for position, fault in sorted(result.faults.items()):
            failure = _failure(chunk, position, fault)
            failures[position] = failure
            if fault.stage == "unknown":
                self.unknown += 1
            else:
                self.failed += 1
                self.not_run += fault.stage == "run"
            if len(self.failures) < KEPT_FAILURES:
                self.failures.append(failure)
        self.skipped += len(result.skipped)
        self.succeeded += len(chunk) - len(result.faults) - len(result.skipped)
        if self._rejects is not None:
            self._reject(failures.values())
        return Settled(chunk, result, failures)

    def _reject(self, failures: Iterable[Failure]) -> None:
        assert self._rejects is not None
        try:
            for failure in failures:
                self._rejects.write(failure)
        except OSError as error:
            rejects, self._rejects = self._rejects, None
            self._fatal = RunFailed(
                f"The rejects file {rejects.path} can't be written: {error}. The run was stopped "
                "so that no failed item goes unnoticed; the report names the first ones."
            )


def _cannot_go_on(fault: Fault) -> RunFailed:
    return RunFailed(f"A worker can't go on: {fault.error}: {fault.message}\n{fault.traceback}")


def _all_failed(chunk: Chunk, fault: Fault) -> ChunkResult:
    faults = dict.fromkeys(range(len(chunk)), fault)
    return ChunkResult(chunk.number, Ending.COMMITTED, faults=faults)


def _lost_error() -> Fault:
    message = "it failed, and its error was lost with its worker; its neighbours are stored"
    return fault_of(ItemFailed, message, "function")


def _failure(chunk: Chunk, position: int, fault: Fault) -> Failure:
    return Failure(
        index=chunk.indexes[position],
        item=_original(chunk, position),
        error=fault.error,
        message=fault.message,
        traceback=fault.traceback,
        sqlstate=fault.sqlstate,
        stage=fault.stage,
    )


def _original(chunk: Chunk, position: int) -> Any:
    """Return the item as the source gave it, whatever a function in this process made of it."""
    payload = chunk.payloads[position]
    if payload is None:
        return chunk.items[position]
    try:
        return loads(payload)
    except Exception:
        return chunk.items[position]
