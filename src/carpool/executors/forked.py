"""Processes that are forked while one of carpool's threads talks to Redis.

A thread that holds a lock at a fork does not exist in the child, where nobody will ever release it.
But whatever process multiprocessing forks first closes kombu's channels, each of which takes the
lock of its redis-py pool; and Celery forgets the pool of its remote control, for which kombu takes
a lock, too. The child hangs before it has begun. So such a lock that a lost thread holds is
replaced, in the child, before anything can wait for it.
"""

from __future__ import annotations

import os
import threading
from multiprocessing import util
from typing import Any

from kombu.pidbox import Mailbox


def keep_children_free() -> None:
    """From now on, have the locks replaced in whatever is forked."""
    global _kept
    if not _kept:
        _kept = True
        os.register_at_fork(after_in_child=_replace_locks)


_kept = False


def _replace_locks() -> None:
    # All of kombu's channels, also the app's, which the run's threads send by. Nothing here is
    # documented; checked on kombu 5.7, redis-py 8.1, Python 3.11 and 3.13. Elsewhere it may find
    # nothing, and does nothing.
    for channel in list(getattr(util, "_afterfork_registry", {}).values()):
        attributes = getattr(channel, "__dict__", {})
        _replace(attributes.get("_pool"), "_lock")
        _replace(attributes.get("_async_pool"), "_lock")
    # The property's, which all mailboxes have in common.
    _replace(vars(Mailbox).get("producer_pool"), "lock")


def _replace(owner: Any, name: str) -> None:
    lock = getattr(owner, name, None)
    if not isinstance(lock, _LOCKS):
        return
    # This thread is the only one here: a lock that it can't have, nobody has.
    if lock.acquire(blocking=False):
        lock.release()
    else:
        setattr(owner, name, threading.RLock())


_LOCKS = (type(threading.RLock()), type(threading.Lock()))
