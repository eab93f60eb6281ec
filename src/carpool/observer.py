"""What an executor learns of a chunk while it runs, and how it ends one."""

from __future__ import annotations

from carpool.types import ChunkResult


class Observer:
    """What an executor wants to know while a chunk runs. All of it may stay as it is.

    ``item`` and ``committing`` may raise `Stop` to have the chunk rolled back.
    """

    def item(self, position: int) -> None:
        """The function is about to be called for the item."""

    def idle(self) -> None:
        """No item is running: they are done, or the transaction waits for its next try."""

    def prepared(self, result: ChunkResult) -> None:
        """All ran. This is what will be true if the COMMIT that follows succeeds."""

    def committing(self) -> None:
        """COMMIT comes next. Not called in a dry run."""

    def committed(self) -> None:
        """COMMIT succeeded on every alias; the on_commit callbacks come next."""

    def interrupted(self) -> None:
        """Ctrl-C came too late to roll the chunk back: it is kept, and the run should end."""


class Stop(BaseException):
    """Raised by an Observer: the run is over, roll the chunk back."""
