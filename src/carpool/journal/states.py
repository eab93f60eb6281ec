"""What a run in the journal can be, and the reason for each way from one to another.

::

             begun                  every item done
    new ──────────────▶ running ───────────────────▶ succeeded
                        │ ▲  │ └─── some failed ───▶ failed
              Ctrl-C,   │ │  └───── cancel() ──────▶ cancelled
              lost, …   ▼ │ taken up again (from any of them)
                     interrupted

A paused run is running: its coordinator holds the lease and waits.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """What a run is."""

    NEW = "new"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


EDGES: dict[tuple[State, State], str] = {
    (State.NEW, State.RUNNING): "begun",
    (State.RUNNING, State.SUCCEEDED): "every item of the source is done, and none has failed",
    (State.RUNNING, State.FAILED): "it came to an end, and items failed or it could not go on",
    (State.RUNNING, State.INTERRUPTED): "it ended before its source did, or its coordinator died",
    (State.RUNNING, State.CANCELLED): "somebody asked for it: Run.cancel()",
    (State.INTERRUPTED, State.RUNNING): "taken up again",
    (State.SUCCEEDED, State.RUNNING): "called again: there may be new items at the end",
    (State.FAILED, State.RUNNING): "taken up again",
    (State.CANCELLED, State.RUNNING): "taken up again",
}
"""Every way a run's state may change, and why it does."""


def check_edge(before: State, after: State) -> None:
    """Refuse a change that has no reason.

    Raises:
        ValueError: there is no such edge.
    """
    if (before, after) not in EDGES:
        raise ValueError(f"a run that is {before} can't become {after}")
