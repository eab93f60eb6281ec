"""How many items a chunk should hold: as many as take about a third of a second.

Long enough that a round trip to a worker (0.35–1.4 ms) and a COMMIT cost nothing, short enough
that locks are held briefly, progress moves and Ctrl-C is answered. The estimate is joblib's: an
exponential moving average of a chunk's seconds, of the current size only, changed by at most ×2; or
×4, as long as even that is far below what a chunk should take.
"""

from __future__ import annotations

TARGET = 0.35
"""Seconds a chunk should take."""

IMPATIENT = 0.05
"""Seconds a chunk should take while the parent itself works and pool workers may be ready."""

LARGEST = 5_000
"""Items a chunk may hold at most. Beyond this a no-op function gains nothing, and a chunk's
bookkeeping (some 500 bytes an item at both ends) begins to show in memory."""

MOST_BYTES = 1 << 20
"""Pickled bytes a chunk may hold at most (unless one item alone is larger)."""


SMALLEST_SHARE = 16
"""Near a known end chunks become smaller, down to this part of a paced one: one worker may be idle
for so long. Smaller ones cost more, in round trips and COMMITs, than they even out."""


CAREFUL_SIZE = 16
"""Items a chunk holds after one was refused at COMMIT. A refused chunk is run again in halves, so
an item more costs that much more work; an item less costs its share of a COMMIT."""

CAREFUL_STREAK = 8
"""Chunks that must pass before such a size doubles. Fewer, and 1 % bad items would keep it
swinging between sizes that are refused each time."""


class Pacer:
    """Chooses the size of the next chunk. A fixed ``size`` is never changed."""

    def __init__(self, size: int | None = None) -> None:
        self.fixed = size is not None
        self.size = size or 1
        self._average: float | None = None
        self._careful = False
        self._streak = 0

    def observe(self, items: int, seconds: float, target: float = TARGET) -> None:
        """Learn from a finished chunk of ``items``; chunks of another size tell nothing."""
        if self.fixed or items != self.size:
            return
        if self._careful:
            self._streak += 1
            if self._streak < CAREFUL_STREAK:
                return
            self._streak = 0
            self._careful = self.size < CAREFUL_SIZE**2
        if self._average is None:
            self._average = seconds
        else:
            self._average = 0.8 * self._average + 0.2 * seconds
        if self._average < target / 2 and self.size < LARGEST:
            self._resize(self.size * (4 if self._average < target / 8 else 2))
        elif self._average > target * 1.5 and self.size > 1:
            self._resize(self.size // 2)

    def shrink(self) -> None:
        """Use small chunks: one was refused at COMMIT with no row to blame, and has to be split."""
        if not self.fixed:
            self._careful = True
            self._streak = 0
            self._resize(min(self.size, CAREFUL_SIZE))

    def _resize(self, size: int) -> None:
        self.size = max(1, min(size, LARGEST))
        self._average = None

    def limit(self, remaining: int | None, workers: int) -> int:
        """Return the size for the next chunk, smaller near a known end so that all end together.

        A source may hold more than it said; then its end is not known any more.
        """
        if self.fixed or workers < 2 or remaining is None or remaining < 1:
            return self.size
        share = max(-(-remaining // (2 * workers)), self.size // SMALLEST_SHARE)
        return max(1, min(self.size, share))
