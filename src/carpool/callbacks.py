"""Callbacks that items register with transaction.on_commit(): each told from the next.

They run when the chunk has committed, and its items' rows are stored. One that raises costs its
own item only; Django would drop all that come after it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from carpool.errors import describe

if TYPE_CHECKING:
    from carpool.tries import Try


def tag(its_try: Try, positions: list[int], marks: list[int]) -> None:
    """Make the callbacks that have come since ``marks`` those of the items at ``positions``.

    ``marks``: how many there were, by connection, before the items were run.
    """
    for connection, mark in zip(its_try.connections, marks, strict=True):
        # run_on_commit: (savepoint ids, callback, robust) until COMMIT. There is no public
        # way to tell whose a callback is. Checked on 5.2, 6.0, 6.1.
        registered: list[Any] = connection.run_on_commit
        if len(registered) == mark:
            continue
        if (
            connection.alias in its_try.work.own
        ):  # else they run with the transaction around the run
            for number in range(mark, len(registered)):
                savepoints, callback, robust = registered[number]
                kind = _RobustCallback if robust else _Callback
                registered[number] = (savepoints, kind(its_try, positions, callback), robust)
        if len(positions) == 1:
            its_try.registered.setdefault(positions[0], []).extend(registered[mark:])


def drop(its_try: Try, position: int) -> None:
    """Drop an item's callbacks: none of its rows has reached the database, and none will."""
    gone = {id(entry) for entry in its_try.registered.pop(position, ())}
    if gone:
        for connection in its_try.connections:
            connection.run_on_commit = [e for e in connection.run_on_commit if id(e) not in gone]


class _Callback:
    """An item's on_commit callback: if it raises, the item has failed, its neighbours have not.

    One of before_chunk's is that of all items it was called with.
    """

    def __init__(self, its_try: Try, positions: list[int], callback: Callable[[], Any]) -> None:
        self.its_try = its_try
        self.positions = positions
        self.callback = callback

    @property
    def is_void(self) -> bool:
        """Whether all of them have failed."""
        return all(position in self.its_try.faults for position in self.positions)

    def __call__(self) -> None:
        its_try = self.its_try
        if self.is_void:  # Django drops the callbacks after one that fails
            return
        try:
            if its_try.interrupted:
                raise KeyboardInterrupt("the run was interrupted before this callback")
            self.callback()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and its_try.work.interruptible:
                its_try.interrupt()
            fault = describe(error, "on_commit")
            its_try.faults = dict.fromkeys(self.positions, fault) | its_try.faults


class _RobustCallback(_Callback):
    """One registered with ``robust=True``: Django logs what it raises, and goes on."""

    def __init__(self, its_try: Try, positions: list[int], callback: Callable[[], Any]) -> None:
        super().__init__(its_try, positions, callback)
        functools.update_wrapper(self, callback)  # its name is in the log

    def __call__(self) -> None:
        if not self.is_void:
            self.callback()
