"""A few numbers that a worker process and its parent share, and that survive the worker's death.

They answer the two questions that a message can't: which item was running when the worker died,
and was it before, in or after COMMIT?

Note [Doom]
    A worker that has to be ended (an item past its time limit, Ctrl-C) must not be killed in the
    middle of COMMIT: nobody could say whether its chunk is stored. So the parent first sets
    ``doomed`` and then looks; the worker first says "committing" and then looks at ``doomed``. One
    of the two sees the other's word (Dekker's handshake), so either the parent leaves the worker
    alone or the worker rolls back.
"""

from __future__ import annotations

import time
from enum import IntEnum
from typing import Any

from carpool.observer import Observer, Stop

_STATE, _POSITION, _SINCE, _DOOMED, SIZE = range(5)


class State(IntEnum):
    """What the worker is doing."""

    IDLE = 0  # between items, or waiting for its next try: nothing is running
    ITEM = 1
    COMMITTING = 2
    COMMITTED = 3


_IDLE, _ITEM = float(State.IDLE), float(State.ITEM)  # an enum's member is converted each time


def view(array: Any) -> Any:
    """Return the same numbers of a shared array, for who writes some for each item.

    Each takes a ctypes array three times as long.
    """
    return memoryview(array).cast("B").cast("d")


class Slot:
    """One worker's numbers, seen from both sides.

    ``array`` is a shared array of `SIZE` doubles, or a `view` of it; each is written whole.
    """

    def __init__(self, array: Any) -> None:
        self.array = array

    # The worker's side.

    def begin_item(self, position: int) -> None:
        array = self.array
        array[_SINCE] = time.monotonic()  # before the position: never an old time with a new item
        array[_POSITION] = position
        array[_STATE] = _ITEM

    def enter(self, state: State) -> None:
        self.array[_STATE] = state

    # The parent's side.

    @property
    def state(self) -> State:
        return State(int(self.array[_STATE]))

    @property
    def position(self) -> int:
        return int(self.array[_POSITION])

    @property
    def since(self) -> float:
        """When the item began, on the system's monotonic clock, which all processes share."""
        return float(self.array[_SINCE])

    # Both.

    @property
    def doomed(self) -> bool:
        return bool(self.array[_DOOMED])

    @doomed.setter
    def doomed(self, value: bool) -> None:
        self.array[_DOOMED] = value


class SlotObserver(Observer):
    """Keeps a slot true while a chunk runs, and stops the chunk when it is doomed."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._array = slot.array

    # The next two run for each item, so they do by themselves what the slot could do for them.

    def item(self, position: int) -> None:
        if self._array[_DOOMED]:
            self._slot.enter(State.IDLE)
            raise Stop
        self._slot.begin_item(position)

    def idle(self) -> None:
        self._array[_STATE] = _IDLE

    def committing(self) -> None:
        self._slot.enter(State.COMMITTING)
        if self._slot.doomed:
            self._slot.enter(State.IDLE)
            raise Stop

    def committed(self) -> None:
        self._slot.enter(State.COMMITTED)
