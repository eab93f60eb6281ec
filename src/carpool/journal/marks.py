"""Fingerprints of a source's items, in few bytes: is it still the same input?

Each item has a digest, of what it is and where. A *mark* is the sum of the digests of a stretch of
positions. Sums, since chunks complete in any order, and only what is settled counts: adding is all
that merging takes. A stretch is one position at first, so that the very item can be named; each
time there would be more than `MOST` marks, two become one. So 4,000 items are told apart exactly,
and ten million by stretches of 4,096.

Changes are noticed that happen by accident: a digest is made of a CRC of 32 bits, and takes less
than a microsecond.
"""

from __future__ import annotations

import base64
import io
import marshal
import pickle
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

from carpool.functions import dumps

MOST = 4_096
"""Marks a run keeps: some 88 KiB of text in its row."""

_MODULUS = 1 << 64
_PAIR = struct.Struct("<qQ")
_MARSHAL = 2
"""The last version of marshal's format in which it doesn't matter whether two equal strings are one
object. https://docs.python.org/3/library/marshal.html#marshal.version."""

_PICKLE = 4
"""Fixed, since a run may be taken up by another version of Python."""


def digest(item: Any, position: int) -> int:
    """Return 64 bits that are the same for equal items of the same types, in any process.

    Times the position, so that two items that have changed places give another sum.
    Whether two equal strings are one object doesn't matter. Sets are ordered first, since their
    order changes from process to process. What pickles otherwise each time (an object that holds a
    time stamp) has another digest each time.
    """
    return zlib.crc32(_bytes(item)) * (2 * position + 1) % _MODULUS


def _bytes(item: Any) -> bytes:
    try:
        data = marshal.dumps(item, _MARSHAL)
    except ValueError:  # not only plain data
        data = b""
    # What marshal writes before a set or a frozenset; or text with such a letter.
    return _pickled(item) if not data or b"<" in data or b">" in data else data


class _Pickler(pickle.Pickler):
    """Pickles without a memo, and sets in an order of their own."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, _PICKLE)
        # Deprecated by pickle's manual for what is to be read again, which this isn't.
        self.fast = True

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, set | frozenset):
            return type(value).__qualname__, sorted(map(_bytes, value))
        return None


def _pickled(item: Any) -> bytes:
    with io.BytesIO() as file:
        try:
            _Pickler(file).dump(item)
            return file.getvalue()
        except Exception:  # it refers to itself, or only cloudpickle can
            pass
    try:
        return dumps(item)
    except Exception:  # nothing can: all of its kind are the same
        kind = type(item)
        return f"{kind.__module__}.{kind.__qualname__}".encode()


class Marks:
    """Sums of digests by stretches of ``step`` positions."""

    __slots__ = ("_sums", "step")

    def __init__(self, step: int = 1) -> None:
        self.step = step
        self._sums: dict[int, int] = {}

    def copy(self) -> Marks:
        """Return marks that don't change with these."""
        marks = Marks(self.step)
        marks._sums = dict(self._sums)
        return marks

    def add(self, position: int, value: int) -> None:
        """Count an item's digest in."""
        stretch = position // self.step
        self._sums[stretch] = (self._sums.get(stretch, 0) + value) % _MODULUS
        if len(self._sums) > MOST:
            self.coarsen(self.step * 2)

    def update(self, other: Marks) -> None:
        """Count in what others have counted; the coarser step wins."""
        if other.step > self.step:
            self.coarsen(other.step)
        for stretch, value in other._sums.items():
            self.add(stretch * other.step, value)

    def coarsen(self, step: int) -> None:
        """Make stretches longer: ``step`` is the old one times a power of two."""
        factor = step // self.step
        sums: dict[int, int] = {}
        for stretch, value in self._sums.items():
            sums[stretch // factor] = (sums.get(stretch // factor, 0) + value) % _MODULUS
        self.step, self._sums = step, sums

    def of(self, position: int) -> int | None:
        """Return the sum of the stretch that a position is in, or None."""
        return self._sums.get(position // self.step)

    def stretch(self, position: int) -> tuple[int, int]:
        """Return the first and the last position of the stretch that this one is in."""
        start = position // self.step * self.step
        return start, start + self.step - 1

    def __bool__(self) -> bool:
        return bool(self._sums)

    def dumps(self) -> str:
        """Return the marks for the database: the step, then pairs of stretch and sum, as base64."""
        parts = [_PAIR.pack(self.step, len(self._sums))]
        parts += [_PAIR.pack(stretch, value) for stretch, value in sorted(self._sums.items())]
        return base64.b64encode(b"".join(parts)).decode("ascii")

    @classmethod
    def loads(cls, text: str) -> Marks:
        """Return what `dumps` has written."""
        if not text:
            return cls()
        pairs = _PAIR.iter_unpack(base64.b64decode(text))
        step, _ = next(pairs)
        marks = cls(step)
        marks._sums = dict(pairs)
        return marks

    @classmethod
    def of_items(cls, step: int, items: Iterable[tuple[int, int]]) -> Marks:
        """Return the marks of pairs of position and digest."""
        marks = cls(step)
        for position, value in items:
            marks.add(position, value)
        return marks

    @classmethod
    def of_row(cls, step: int, first: int, digests: Sequence[int]) -> Marks:
        """Return the marks of items at ``first`` and the positions after it."""
        marks = cls(step)
        start = 0
        while start < len(digests):
            end = start + step - (first + start) % step
            marks._sums[(first + start) // step] = sum(digests[start:end]) % _MODULUS
            start = end
        if len(marks._sums) > MOST:
            marks.coarsen(step * 2)
        return marks
