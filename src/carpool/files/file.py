"""A file to be read, known by its name and not opened yet."""

from __future__ import annotations

from dataclasses import dataclass

STDIN = "-"


@dataclass(frozen=True, slots=True)
class File:
    """What a format's reader is given.

    Attributes:
        name: as the caller, or a glob of theirs, has it; "-" is stdin.
        format: a key of `formats.FORMATS`.
        compression: a key of `compressions.COMPRESSIONS`, or None.
        once: a pipe or the like, which gives its bytes only once.
    """

    name: str
    format: str
    compression: str | None = None
    once: bool = False

    def __str__(self) -> str:
        return "stdin" if self.name == STDIN else self.name
