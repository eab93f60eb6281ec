"""Starting processes so that they end when they should, and stopping them by signals."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence


def end_with_parent(number: signal.Signals) -> Callable[[], None]:
    """Return a ``preexec_fn`` by which Linux sends the child `number` when its parent has died.

    The parent is the thread that starts the child, so that must be one that lives on.
    """

    def request() -> None:
        if sys.platform == "linux":
            pr_set_pdeathsig = 1
            ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(number))

    return request


@contextlib.contextmanager
def ignored_signals(*signals: signal.Signals) -> Iterator[None]:
    """Let a second Ctrl-C not break off the tidying up; in a thread, do nothing."""
    try:
        before = {number: signal.signal(number, signal.SIG_IGN) for number in signals}
    except ValueError:  # Only the main thread may do this.
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_command(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run `command` to its end, passing on the signals that ask us to stop.

    A terminal's Ctrl-C reaches the command without us, so SIGINT is passed on only if it has no
    effect for two seconds (it was sent to us alone). The command gets 15 seconds to end.
    """
    process = subprocess.Popen(command, env=environment, preexec_fn=end_with_parent(signal.SIGTERM))
    asked: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, frame: asked.append(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    deadlines = [(2.0, None), (15.0, signal.SIGKILL)]
    since: float | None = None
    try:
        while process.poll() is None:
            if asked and since is None:
                since = time.monotonic()
                if asked[0] != signal.SIGINT:
                    process.send_signal(asked[0])
            if since is not None and deadlines and time.monotonic() - since > deadlines[0][0]:
                process.send_signal(deadlines.pop(0)[1] or asked[0])
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if asked:
        return 128 + asked[0]
    return process.returncode if process.returncode >= 0 else 128 - process.returncode
