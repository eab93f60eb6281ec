"""Says what a pass is at that takes long: an item that never ends would be silence.

A thread, which sleeps meanwhile. It can't end anything, since nothing in Python ends a function
that runs in the same process; Ctrl-C can, and what it says is where to look.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from carpool.bench.profile import owner_of_module
from carpool.coalescing.figures import relative
from carpool.progress import duration
from carpool.words import counted

FIRST = 5.0
"""Seconds after which a pass is talked of, and then after as many again: 5, 10, 20, 40. Most take
three at most, so that a line means that something is slow."""

_AROUND = ("carpool.tries", "carpool.bench.", "carpool.executors.", "carpool.reading")
"""What calls the function, or reads the source: the frames around these are the caller's."""


@contextmanager
def watched(
    what: str, tell: Callable[[str], Any], done: Callable[[], int] = lambda: 0
) -> Iterator[None]:
    """Tell, while the block takes long, for how long it has, how many items are done, and where."""
    ended = threading.Event()
    began = time.monotonic()
    caller = threading.get_ident()

    def look() -> None:
        pause = FIRST
        while not ended.wait(pause):
            took = time.monotonic() - began
            items = f", {counted(done(), 'item')} done" if done() else ""
            place = place_of(caller)
            at = f", at {place}" if place is not None else ""
            tell(f"{what}: not through after {duration(took)}{items}{at} (Ctrl-C ends it)")
            pause = max(FIRST, took)

    thread = threading.Thread(target=look, name="carpool bench", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def place_of(caller: int) -> str | None:
    """Return the line of the function's code that runs now; of one thread's, if there are several.

    None: it is in workers elsewhere, or none is.
    """
    # sys._current_frames: documented, and CPython's only, on every version.
    frames = sys._current_frames()
    # With its own frame in it, this would be a cycle. It would keep what all threads have in hand
    # until it is collected as garbage, in an order that such things may not bear.
    del frames[threading.get_ident()]
    pool = [t.ident for t in threading.enumerate() if t.name.startswith("carpool-")]
    for ident in (caller, *pool):
        place = _place(frames.get(ident or 0))
        if place is not None:
            return place
    return None


def _place(frame: FrameType | None) -> str | None:
    """Return the innermost line that is the function's own, or a receiver's, or a library's."""
    while frame is not None:
        module = frame.f_globals.get("__name__") or ""
        if module.startswith(_AROUND):
            return None
        if owner_of_module(module) == "function":
            return f"{relative(frame.f_code.co_filename)}:{frame.f_lineno}"
        frame = frame.f_back
    return None
