"""How many items of a chunk share a savepoint.

Note [Groups]
    A savepoint for each item costs two statements an item, most of a cheap item's time. None at
    all means that one bad item costs the chunk's work. So groups: as long as nothing fails, the
    whole chunk is one. After a failure groups of 16; with 1 % bad items that is an eighth of a
    statement an item more, and about 8 % of the items run twice. Groups that pass make the next
    ones longer.
"""

from __future__ import annotations

SMALL_GROUP = 16
"""Items a savepoint covers after a failure: see Note [Groups]."""

LARGE_GROUP = 1024
"""From here on the whole chunk is one group again."""

PASSES = 8
"""Groups that must pass before the size doubles. Fewer, and 1 % bad items would keep it swinging
between sizes that fail each time."""

CHECKED_CHUNKS = 50
"""Chunks in which deferred constraints are checked group by group after a refused COMMIT. Each
check costs a round trip a group; bad rows come in runs."""


class Grouping:
    """A worker's memory of how its last groups went."""

    def __init__(self) -> None:
        self._size: int | None = None  # None: the whole chunk
        self._passed = 0
        self._checked_chunks = 0

    def size(self, left: int) -> int:
        """Return how many of the ``left`` items the next savepoint covers."""
        return left if self._size is None else min(self._size, left)

    def group_failed(self) -> None:
        """An item made it necessary to undo a group."""
        self._size = SMALL_GROUP
        self._passed = 0

    def group_passed(self, items: int) -> None:
        """A group of so many items went through."""
        if self._size is None or items < self._size:
            return
        self._passed += 1
        if self._passed == PASSES:
            self._passed = 0
            self._size = self._size * 2 if self._size * 2 < LARGE_GROUP else None

    @property
    def checks_early(self) -> bool:
        """Whether to check deferred constraints at the end of each group, not only at COMMIT."""
        return self._checked_chunks > 0

    def commit_refused(self, *, can_check: bool) -> bool:
        """Return whether to run the chunk again, checking group by group."""
        if self.checks_early or not can_check:
            return False
        self._checked_chunks = CHECKED_CHUNKS
        return True

    def chunk_passed(self) -> None:
        """A chunk was committed."""
        self._checked_chunks = max(0, self._checked_chunks - 1)
