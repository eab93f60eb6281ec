"""Ctrl-C during a run: the first asks it to end, the second ends it.

While the user's code runs in the parent (the source, or the function inline), the first raises
KeyboardInterrupt there, as ever. At any other moment it only sets ``pending`` and wakes whoever
waits, so that no bookkeeping is torn apart: the chunks in flight finish or roll back, and the
report is right.

Only where Python's own handler was in place, and only in the main thread; a handler of the user's
is left alone.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupts:
    """A context manager that takes SIGINT over for a run.

    Attributes:
        pending: Ctrl-C was pressed.
        raising: user code is running in this thread: raise there.
        called: something else wants the run's attention; see `call`.
        wake: called from the signal handler; must be safe there (write to a pipe, put to a
            SimpleQueue).
    """

    def __init__(self) -> None:
        self.pending = False
        self.raising = False
        self.called = False
        self.wake: Callable[[], Any] = _nothing
        self._installed = False

    @property
    def noticed(self) -> bool:
        """Whether whoever waits should come back."""
        return self.pending or self.called

    def call(self) -> None:
        """Have the run look up from its waiting, from any thread."""
        self.called = True
        self.wake()

    def __enter__(self) -> Interrupts:
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            signal.signal(signal.SIGINT, self._handle)
            self._installed = True
        return self

    def __exit__(self, *exc_info: object) -> None:
        # The user's code, run inline, may have set a handler of its own meanwhile.
        if self._installed and signal.getsignal(signal.SIGINT) == self._handle:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._installed = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = self.pending
        self.pending = True
        if self.raising or again:
            raise KeyboardInterrupt
        self.wake()

    @contextmanager
    def in_user_code(self) -> Iterator[None]:
        """Let Ctrl-C raise at once inside this block."""
        self.raising = True
        try:
            yield
        finally:
            self.raising = False


def _nothing() -> None:
    pass
