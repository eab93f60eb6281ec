"""What became of each test of one run, kept as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

PASSED, FAILED, ERROR, SKIPPED = "passed", "failed", "error", "skipped"


class Outcome(NamedTuple):
    """How a test ended. ``error``: the exception's type and the first line of its message."""

    status: str
    error: str = ""


@dataclass
class Results:
    """One or several runs of Django's tests. `queued` and `sent` are what `coalesce()` counted."""

    tests: dict[str, Outcome] = field(default_factory=dict)
    seconds: float = 0.0
    queued: int = 0
    sent: int = 0

    def add(self, other: Results) -> None:
        """Add the results of other tests to these."""
        self.tests.update(other.tests)
        self.seconds += other.seconds
        self.queued += other.queued
        self.sent += other.sent

    def record(self, test: str, outcome: Outcome) -> None:
        """Note how a test, or a part of it, ended. The first error of a test stays."""
        before = self.tests.get(test)
        if before is None or before.status in {PASSED, SKIPPED}:
            self.tests[test] = outcome

    def counts(self) -> Mapping[str, int]:
        """Return how many tests ended in which way."""
        return Counter(outcome.status for outcome in self.tests.values())

    def write(self, path: Path) -> None:
        """Write the file as a whole, or not at all."""
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(asdict(self), indent=1))
        unfinished.replace(path)

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read what `write` wrote."""
        content = json.loads(path.read_text())
        tests = {test: Outcome(*outcome) for test, outcome in content.pop("tests").items()}
        return cls(tests=tests, **content)

    def __str__(self) -> str:
        counts = self.counts()
        text = (
            f"{counts[PASSED]:,} passed, {counts[FAILED] + counts[ERROR]:,} failed, "
            f"{counts[SKIPPED]:,} skipped in {self.seconds:.0f} s"
        )
        if self.queued:
            text += f"; {self.queued:,} writes became {self.sent:,} statements"
        return text
