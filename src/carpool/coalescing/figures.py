"""What a block of `coalesce()` has saved, and what has broken its batches."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from carpool.words import counted

_PACKAGES = ("django.", "carpool.", "contextlib", "asgiref.", "importlib.")
"""Modules whose frames are not the caller's own code."""


class EarlyFlush(NamedTuple):
    """Why rows had to be written before the end of the block.

    ``table``: one with queued rows that a statement might have seen; or what else made it
    necessary: "a savepoint", "SQL of your own". ``place``: the innermost line
    outside of Django, as file:line.
    """

    table: str
    place: str

    def __str__(self) -> str:
        return f"{self.place} ({self.table})"


@dataclass(slots=True)
class Figures:
    """Counts of one block, or of a whole run.

    ``queued``: writes that were put off (INSERTs, and UPDATEs of rows still queued). ``flushes``:
    times the queue was written. ``sent``: statements that took, keys and savepoints for bad rows
    included. ``early``: flushes before the end, by reason; not those of a queue that was full.
    """

    queued: int = 0
    flushes: int = 0
    sent: int = 0
    early: Counter[EarlyFlush] = field(default_factory=Counter)

    @property
    def saved(self) -> int:
        """Statements that were not sent."""
        return max(0, self.queued - self.sent)

    def add(self, other: Figures) -> None:
        """Add another block's figures to these."""
        self.queued += other.queued
        self.flushes += other.flushes
        self.sent += other.sent
        self.early.update(other.early)

    def __str__(self) -> str:
        text = f"{counted(self.queued, 'write')} became {counted(self.sent, 'statement')}"
        if self.early:
            reason, most = self.early.most_common(1)[0]
            of_them = "" if most == self.early.total() else f", {most:,} of them"
            text += f"; early flushes: {self.early.total():,}{of_them} at {reason}"
        return text


def place() -> str:
    """Return the innermost line of the caller's own code, as file:line."""
    # sys._getframe: walking the stack without building a traceback. CPython's, on every version.
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_not_the_callers(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    return f"{relative(frame.f_code.co_filename)}:{frame.f_lineno}"


@lru_cache(maxsize=1024)
def _is_not_the_callers(module: str) -> bool:
    return f"{module}.".startswith(_PACKAGES)


@lru_cache(maxsize=1024)
def relative(filename: str) -> str:
    """Return the path as one would type it: relative to the current folder where it is below."""
    try:
        return str(Path(filename).relative_to(Path.cwd()))
    except ValueError:
        return filename
