"""Whom to kill: the processes of a script's session, as /proc shows them."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.acceptance.conftest import Script
from tests.waiting import HANG

#: Seconds that a worker may outlive its coordinator: two at most, ten times that where all is slow.
ORPHAN_SECONDS = 20.0


def workers(script: Script) -> list[int]:
    """Return the living workers of a script: each leads a process group, in the script's session.

    A process that was killed and that nobody has waited for yet (a zombie) doesn't live.
    """
    found = []
    for pid in script.members():
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == pid != script.process.pid:
                found.append(pid)
    return sorted(found)


def kill_workers_until_it_ends(
    script: Script, chance: random.Random, every: float, *, most: int | None = None
) -> int:
    """Kill one worker, whichever, again and again, or so many at most; return how many were."""
    kills = 0
    deadline = time.monotonic() + 2 * HANG
    while script.process.poll() is None and (most is None or kills < most):
        if time.monotonic() > deadline:
            pytest.fail(f"still running after {kills} kills:\n{script.members()}\n{script.err}")
        if crew := workers(script):
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(crew), signal.SIGKILL)
                kills += 1
        time.sleep(every)
    return kills


@dataclass
class Orphanage:
    """Watches over what killed coordinators have left behind."""

    waiting: list[tuple[Script, float]] = field(default_factory=list)

    def take_in(self, script: Script) -> None:
        """Begin to count: its coordinator has just died."""
        self.waiting.append((script, time.monotonic()))

    def look(self) -> None:
        """Fail if a worker has lived too long, or anything else of the session far too long.

        The fork server, of which workers are born, may have to be through with its imports first.
        """
        left = []
        for script, died in self.waiting:
            age = time.monotonic() - died
            alive = workers(script)  # looked at after the clock
            if alive and age >= ORPHAN_SECONDS:
                pytest.fail(f"{alive} live {age:.2f} s after their coordinator: {script.members()}")
            if members := script.members():
                if age >= HANG:
                    pytest.fail(f"{age:.0f} s after their coordinator there are {members}")
                left.append((script, died))
        self.waiting = left

    def sleep(self, seconds: float) -> None:
        """Sleep, looking on."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.look()
            time.sleep(min(0.05, left))

    def close(self) -> None:
        """Wait until all are gone, or one is late."""
        while self.waiting:
            self.look()
            time.sleep(0.05)
