"""What was measured, and the figures made from it. Plain data: nothing here runs anything."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Round:
    """One timed turn of a row."""

    seconds: float
    signals: int | None
    peak_kib: int


@dataclass(frozen=True)
class Result:
    """A row with its rounds, and an error for each round that failed.

    One that could not run at all says why in `note`. `statements` and `savepoints` are for each
    thousand rows; None where they weren't counted.
    """

    key: str
    label: str
    group: str
    workers: int
    rows: int
    rounds: Sequence[Round] = ()
    statements: float | None = None
    savepoints: float | None = None
    errors: Sequence[str] = ()
    note: str = ""

    @property
    def rates(self) -> list[float]:
        """Rows a second, for each round."""
        return [self.rows / round_.seconds for round_ in self.rounds]

    @property
    def costs(self) -> list[float]:
        """Microseconds for each item, for each round."""
        return [1e6 / rate for rate in self.rates]

    @property
    def rate(self) -> float | None:
        """The median of the rounds' rows a second."""
        return statistics.median(self.rates) if self.rounds else None

    @property
    def spread(self) -> float | None:
        """How far the fastest round is from the slowest, as a part of the median."""
        return (max(self.rates) - min(self.rates)) / self.rate if self.rate else None

    @property
    def microseconds(self) -> float | None:
        """The median of the rounds' microseconds for each item."""
        return statistics.median(self.costs) if self.rounds else None

    @property
    def instead(self) -> str:
        """What is said in place of the figures, where there are none."""
        return self.note or ("failed" if self.errors else "not measured")

    @property
    def signals(self) -> int | None:
        """The signals received in a round; the median, should the rounds differ."""
        counts = [round_.signals for round_ in self.rounds if round_.signals is not None]
        return round(statistics.median(counts)) if counts else None

    @property
    def peak_mib(self) -> float | None:
        """The median of the peak memory of the process that coordinates, in MiB."""
        if not self.rounds:
            return None
        return statistics.median(round_.peak_kib for round_ in self.rounds) / 1024


@dataclass(frozen=True)
class Table:
    """All rows of a suite for one workload on one database."""

    database: dict[str, Any]
    workload: str
    title: str
    rows: int
    results: Sequence[Result]

    @property
    def in_microseconds(self) -> bool:
        """Whether what counts is the time an item takes, and nothing is written."""
        return self.workload in ("no-op", "chunks")

    def result(self, key: str) -> Result | None:
        """Return a row's result by its key, or None."""
        return next((result for result in self.results if result.key == key), None)

    def rate(self, key: str) -> float | None:
        """Return a row's rate by its key, or None if it has none."""
        result = self.result(key)
        return result.rate if result else None

    def ratio(self, result: Result) -> float | None:
        """Return a row's rate relative to the first row's."""
        first = self.results[0].rate
        return result.rate / first if first and result.rate else None


@dataclass(frozen=True)
class Claim:
    """Something that the run must show, with what it showed."""

    text: str
    required: str
    measured: str
    verdict: str


@dataclass(frozen=True)
class Benchmark:
    """One run of a command: everything that its report, its chart and its JSON are made from."""

    command: str
    when: str
    rounds: int
    machine: dict[str, Any]
    tables: Sequence[Table] = ()
    claims: Sequence[Claim] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """Return the run as data for JSON, the figures made from the rounds with it."""
        data = asdict(self)
        data["must_show"] = data.pop("claims")
        for table, table_data in zip(self.tables, data["tables"], strict=True):
            for result, result_data in zip(table.results, table_data["results"], strict=True):
                result_data.update(
                    rate=result.rate,
                    ratio=table.ratio(result),
                    spread=result.spread,
                    microseconds=result.microseconds,
                    signals=result.signals,
                    peak_mib=result.peak_mib,
                )
        return data
