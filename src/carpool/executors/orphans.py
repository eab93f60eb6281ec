"""A worker whose parent has died ends, too, whatever its item is doing.

Between chunks it notices by itself: its pipe is at an end. Within one, a thread does, which waits
for the other end of the pipe to be closed and for nothing else.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from multiprocessing.connection import Connection

GRACE = 1.0
"""Seconds that a worker has to end its chunk when its parent is gone: a paced chunk takes a third
of one. What it commits then, a journal knows."""


def end_with_parent(connection: Connection) -> None:
    """Watch the pipe to the parent from now on.

    Where there is no ``poll()`` (Windows), a worker goes on to the end of its chunk.
    """
    if hasattr(select, "poll"):
        watch = threading.Thread(target=_watch, args=(connection.fileno(),), daemon=True)
        watch.name = "carpool orphan watch"
        watch.start()


def _watch(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, 0)  # POLLHUP comes unasked, and nothing else is waited for
    while not poll.poll():
        pass
    time.sleep(GRACE)
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)  # with the programs that its item has started
    os._exit(1)
