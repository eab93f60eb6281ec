"""What a run came to: counts taken after the commits, and the failures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from carpool.coalescing.figures import Figures
from carpool.exceptions import ItemsFailed
from carpool.types import Failure, Spent
from carpool.words import a_second, counted

KEPT_FAILURES = 100
"""Failures a report holds whole; the rest are counted, and in the rejects file if there is one.
Enough to see what is wrong, few enough that a run in which all fails stays small."""


@dataclass(frozen=True, slots=True)
class Report:
    """The sum of a run. ``total == succeeded + failed + unknown``; prints as a short summary.

    Attributes:
        total: items read from the source (of a QuerySet: rows met).
        succeeded: their chunk's COMMIT has succeeded (in a dry run: would have been sent).
        failed: nothing of them is stored, except where a failure's stage is ``"on_commit"``.
        not_run: those of the failed that the run, stopping, left undone.
        unknown: their worker or connection was lost during COMMIT.
        skipped: rows of a QuerySet that were gone when their chunk was loaded; not in ``total``.
        retries: times that a chunk's transaction was undone and tried again.
        seconds: of wall-clock time, pool start-up included.
        rate: items a second, of this call.
        chunks: transactions that were ended, one way or another.
        executor: what ran it, such as ``"processes (forkserver)"``.
        workers: how many there were.
        failures: the first 100 that failed or are unknown, by when they did.
        dry_run: everything was rolled back.
        repeated: calls of the function beyond one an item, because rows had to be undone with
            those of a bad neighbour, or a transaction was tried again.
        coalesced: what queueing the rows has saved; None if nothing was queued.
        already: those of the succeeded that were done when a journal's run was taken up.
        failed_before: those of the failed that failed then, and were not tried again; they are not
            among ``failures``.
        spent: where the chunks' time went: ``seconds`` in all, of which ``cpu``, ``database`` and
            ``waiting``; of all workers together.
        hint: what would make such a run faster, in a sentence, where its figures speak clearly;
            else None. See `carpool.hints`.
    """

    total: int
    succeeded: int
    failed: int
    unknown: int
    skipped: int
    retries: int
    seconds: float
    chunks: int
    executor: str
    workers: int
    failures: tuple[Failure, ...] = ()
    rejects: str | None = None
    dry_run: bool = False
    not_run: int = 0
    repeated: int = 0
    coalesced: Figures | None = None
    already: int = 0
    failed_before: int = 0
    spent: Spent = field(default_factory=Spent)
    hint: str | None = None

    @property
    def rate(self) -> float:
        here = self.total - self.already - self.failed_before
        return here / self.seconds if self.seconds > 0 else 0.0

    def raise_for_failures(self) -> None:
        """Raise if not every item succeeded.

        Raises:
            ItemsFailed: with this report, and the first failure's story in the message.
        """
        if self.failed or self.unknown:
            bad = self.failed + self.unknown
            raise ItemsFailed(f"{bad:,} of {counted(self.total, 'item')}: {self}", self)

    def __str__(self) -> str:
        parts = [f"{self.succeeded:,} succeeded"]
        for name, count in (
            ("failed", self.failed - self.not_run),
            ("not run", self.not_run),
            ("unknown", self.unknown),
            ("skipped", self.skipped),
        ):
            if count:
                parts.append(f"{count:,} {name}")
        if self.retries:
            parts.append(f"{self.retries:,} {'retry' if self.retries == 1 else 'retries'}")
        workers = counted(self.workers, "worker")
        lines = [
            f"{counted(self.total, 'item')} in {self.seconds:.1f} s ({a_second(self.rate)}/s): "
            f"{', '.join(parts)}" + (" (dry run: all rolled back)" if self.dry_run else ""),
            f"{counted(self.chunks, 'chunk')} by {workers}, {self.executor}",
        ]
        if self.already or self.failed_before:
            were = "was" if self.already == 1 else "were"
            before = f"{self.already:,} of them {were} done before"
            if self.failed_before:
                before += f", {self.failed_before:,} had failed and not been tried again"
            lines.append(before)
        if self.repeated:
            lines[1] += f"; the function was called again {counted(self.repeated, 'time')}"
        if self.coalesced is not None and self.coalesced.queued:
            lines.append(str(self.coalesced))
        if self.hint is not None:
            lines.append(f"hint: {self.hint}")
        lines += self._failure_lines()
        return "\n".join(lines)

    def _failure_lines(self) -> list[str]:
        failures = [f for f in self.failures if f.stage != "run"]  # those have been counted above
        kinds = Counter(f.error.rpartition(".")[2] for f in failures)
        lines = []
        for kind, count in kinds.most_common(5):
            first = next(f for f in failures if f.error.rpartition(".")[2] == kind)
            times = f"{count:,} × " if count > 1 else ""
            lines.append(f"  {times}{kind}, first at item {first.index}: {_short(first.message)}")
        if self.failed + self.unknown - self.not_run - self.failed_before > len(failures):
            lines.append(f"  (of the first {len(failures)} failures; the others are not kept here)")
        if self.rejects is not None and self.failures:
            lines.append(f"  failed items are in {self.rejects}")
        return lines


def _short(text: Any, length: int = 120) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= length else line[: length - 1] + "…"
