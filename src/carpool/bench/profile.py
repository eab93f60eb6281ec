"""Where an item's time goes: one pass in this thread, apart from the passes that are timed.

=========  ==================================================================================
database   between sending a statement and its result, by the wrapper that counts statements
computing  processor time of this thread, statements aside, and by whose code it is:
 function  the innermost frame that is no part of Django, carpool or the standard library
 overhead  there is none nearer than one of Django's or carpool's
waiting    what is left of the wall clock; on Linux, turns at a busy processor aside
=========  ==================================================================================

Whose code computes is sampled: a timer of the process' own processor time interrupts it, and what
was used since the last time is put down to the frame that it finds. So the frames aren't slowed
down, as by a profiler that is called for each, and a C call that can't be interrupted counts whole.
Signals need the main thread; elsewhere all of it counts as the function's.

The time that a busy machine let this thread wait for a processor is nobody's, and left out where
the kernel tells of it.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Literal

from carpool.bench.figures import Shares

EVERY = 0.004
"""Seconds of processor time between two looks: the kernel's own tick, as a rule."""

Owner = Literal["function", "overhead", "database"]

_SCHEDSTAT = Path("/proc/thread-self/schedstat")

_OURS = frozenset({"django", "carpool", "asgiref", "cloudpickle", "tqdm"})
_DRIVERS = frozenset({"psycopg", "psycopg_binary", "psycopg_c", "psycopg2", "MySQLdb", "sqlite3"})
_STATEMENT = ("django.db.backends.", "carpool.probe")


class Profile:
    """Measures a pass.

    Attributes:
        seconds: of the wall clock, but for `delay`.
        delay: seconds that this thread was ready, and another had the processor.
        cpu: of this thread's processor time, by owner.
    """

    def __init__(self) -> None:
        self.seconds = self.delay = 0.0
        self.cpu: defaultdict[Owner, float] = defaultdict(float)
        self._last = 0.0

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Measure the block."""
        samples = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGPROF) is signal.SIG_DFL
        )
        began, cpu, delay = time.perf_counter(), time.thread_time(), _run_delay()
        self._last = cpu
        if samples:
            signal.signal(signal.SIGPROF, self._look)
            signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)
        try:
            yield
        finally:
            if samples:
                signal.setitimer(signal.ITIMER_PROF, 0)
                # A last signal may be on its way, and its default is to end the process.
                signal.signal(signal.SIGPROF, signal.SIG_IGN)
                signal.signal(signal.SIGPROF, signal.SIG_DFL)
            self.delay = _run_delay() - delay
            self.seconds = max(0.0, time.perf_counter() - began - self.delay)
            self._spread(time.thread_time() - cpu)

    def _spread(self, cpu: float) -> None:
        """Make the owners' parts add up to what was used."""
        seen = sum(self.cpu.values())
        if not seen:
            self.cpu["function"] = cpu
            return
        for owner in self.cpu:
            self.cpu[owner] *= cpu / seen

    def _look(self, number: int, frame: FrameType | None) -> None:
        now = time.thread_time()
        self.cpu[owner_of(frame)] += now - self._last
        self._last = now

    def shares(self, database: float) -> Shares:
        """Return where the time went, given the seconds in statements."""
        function, overhead = self.cpu["function"], self.cpu["overhead"]
        waiting = max(0.0, self.seconds - database - function - overhead)
        whole = waiting + database + function + overhead
        if whole <= 0:
            return Shares(0.0, 0.0, 1.0, 0.0)
        return Shares(waiting / whole, database / whole, function / whole, overhead / whole)


def _run_delay() -> float:
    """Return the seconds that this thread has waited for a processor; 0 where nobody tells.

    https://docs.kernel.org/scheduler/sched-stats.html, "/proc/<pid>/schedstat"
    """
    try:
        return int(_SCHEDSTAT.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def owner_of(frame: FrameType | None) -> Owner:
    """Return whose code a frame is, or the nearest around it that tells."""
    while frame is not None:
        owner = owner_of_module(frame.f_globals.get("__name__") or "")
        if owner is not None:
            return owner
        frame = frame.f_back
    return "overhead"


@lru_cache(maxsize=4096)
def owner_of_module(module: str) -> Owner | None:
    """Return whose code a module is; None of the standard library: whoever called it."""
    first = module.partition(".")[0]
    if first in _DRIVERS or f"{module}.".startswith(_STATEMENT):
        return "database"
    if first in _OURS:
        return "overhead"
    if first in sys.stdlib_module_names and first != "__main__":
        return None
    return "function"
