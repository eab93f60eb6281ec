"""Have something done by the thread that a coroutine came from.

A block belongs to a thread, and so does its connection. Under ``async_to_sync()`` the coroutine
runs in another, while the block's waits for what is to be done in it: that is where
`sync_to_async` runs the ORM. What can't be awaited, a late key that is read as an attribute, goes
the same way; the event loop stands still for the time.

Refused, after `LONGEST`: a wait for a thread that itself waits for the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from asgiref.sync import AsyncToSync

LONGEST = 30.0
"""Seconds to wait for the other thread, which may be in a long statement."""


def done_by_waiting_thread(function: Callable[[], Any]) -> bool:
    """Call the function in the thread that called ``async_to_sync()``; return whether one has.

    Raises:
        Exception: what the function raises.
    """
    executor = _executor()
    if executor is None:
        return False
    try:
        future = executor.submit(function)
    except RuntimeError:  # it has ended
        return False
    try:
        future.result(LONGEST)
    except TimeoutError:
        if future.cancel():
            return False
        future.result()  # it has just begun; or that is the function's own error
    return True


def _executor() -> Executor | None:
    """Return what SyncToAsync would use (asgiref 3.8 to 3.13; there is no public way to ask)."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    executors: Any = AsyncToSync.executors
    found: Executor | None = getattr(executors, "current", None)
    return found or AsyncToSync.loop_thread_executors.get(loop)
