"""Fingerprints of a source's items, in few bytes: is it still the same input?

Each item has a digest. A *mark* is the sum of the digests of a stretch of positions. Sums, since
chunks complete in any order, and only what is settled counts: adding is all that merging takes. A
stretch is one position at first, so that the very item can be named; each time there would be more
than `MOST` marks, two become one. So 4,000 items are told apart exactly, and ten million by
stretches of 4,096.

Changes are noticed that happen by accident. A digest has 64 bits and no secret.
"""

from __future__ import annotations

import base64
import hashlib
import io
import pickle
import struct
from collections.abc import Iterable
from typing import Any

from carpool.functions import dumps

MOST = 4_096
"""Marks a run keeps: some 88 KiB of text in its row."""

PROTOCOL = 4
"""Of pickle: fixed, since a run may be taken up by another version of Python."""

_MODULUS = 1 << 64
_PAIR = struct.Struct("<qQ")
_SETS = (b"\x8f", b"\x91")  # pickle's opcodes EMPTY_SET and FROZENSET
_PLAIN = (str, int, float, bytes, bool, type(None))


def digest(item: Any) -> int:
    """Return 64 bits that are the same for equal items of the same types, in any process.

    Items are pickled without a memo: whether two equal strings are one object must not matter.
    Sets are ordered first, since their order changes from process to process. What pickles
    otherwise each time (an object that holds a time stamp) has another digest each time.
    """
    data = _bytes(item)
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _bytes(item: Any) -> bytes:
    if type(item) in _PLAIN:
        return pickle.dumps(item, PROTOCOL)
    file = io.BytesIO()
    pickler = pickle.Pickler(file, PROTOCOL)
    # Deprecated by pickle's manual for writing what is to be read again, which this isn't.
    pickler.fast = True
    try:
        pickler.dump(item)
    except Exception:  # it refers to itself, or only cloudpickle can
        return dumps(item)
    data = file.getvalue()
    if any(opcode in data for opcode in _SETS):  # or bytes that look like it, which costs time only
        ordered = _ordered(item)
        if ordered is not item:
            return _bytes(ordered)
    return data


def _ordered(value: Any) -> Any:
    """Return plain containers with their sets as sorted lists; anything else as it is."""
    if isinstance(value, set | frozenset):
        return [type(value).__name__, sorted(_bytes(_ordered(part)) for part in value)]
    if type(value) is dict:
        parts = {key: _ordered(part) for key, part in value.items()}
        return parts if any(parts[key] is not value[key] for key in value) else value
    if type(value) in (list, tuple):
        ordered = [_ordered(part) for part in value]
        changed = any(a is not b for a, b in zip(ordered, value, strict=True))
        return type(value)(ordered) if changed else value
    return value


class Marks:
    """Sums of digests by stretches of ``step`` positions."""

    __slots__ = ("_sums", "step")

    def __init__(self, step: int = 1) -> None:
        self.step = step
        self._sums: dict[int, int] = {}

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
