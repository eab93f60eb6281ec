"""Waiting for what other processes and threads do: not a moment too short, and never for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

#: Seconds after which something hangs. What is waited for takes a tenth of it on a slow machine.
HANG = 180.0


def wait_until(
    condition: Callable[[], Any],
    otherwise: object = "waited in vain",
    *,
    seconds: float = HANG,
) -> Any:
    """Wait until the condition holds, and return what it gave.

    If it doesn't in time the test fails, and says ``otherwise``, or what that returns.
    """
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            pytest.fail(str(otherwise() if callable(otherwise) else otherwise))
        time.sleep(0.02)
    return result
