"""The numbers that a worker and its parent share, and who looks at what first."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import RawArray

import pytest

from carpool.executors import slot
from carpool.executors.slot import Slot, SlotObserver, State
from carpool.observer import Stop


@pytest.fixture(params=[lambda array: array, slot.view], ids=["array", "view"])
def numbers(request: pytest.FixtureRequest) -> Slot:
    return Slot(request.param(RawArray("d", slot.SIZE)))


def test_what_the_worker_writes_is_what_the_parent_reads() -> None:
    """The worker's view and the parent's array are the same memory, both ways."""
    array = RawArray("d", slot.SIZE)
    theirs, ours = Slot(slot.view(array)), Slot(array)
    SlotObserver(theirs).item(12)
    ours.doomed = True
    assert (ours.state, ours.position, ours.since) == (State.ITEM, 12, theirs.since)
    assert theirs.doomed


def test_a_new_slot_says_that_nothing_runs(numbers: Slot) -> None:
    """A worker that dies before its first item takes none with it."""
    assert numbers.state is State.IDLE
    assert not numbers.doomed


def test_an_item_is_told_with_its_position_and_its_beginning(numbers: Slot) -> None:
    """The parent sees which item runs, and since when."""
    SlotObserver(numbers).item(7)
    assert numbers.state is State.ITEM
    assert numbers.position == 7
    assert numbers.since > 0


def test_the_steps_of_a_chunk_are_told(numbers: Slot) -> None:
    """Before, in and after COMMIT can be told apart."""
    observer = SlotObserver(numbers)
    observer.item(0)
    states = [numbers.state]
    for step in (observer.idle, observer.committing, observer.committed):
        step()
        states.append(numbers.state)
    assert states == [State.ITEM, State.IDLE, State.COMMITTING, State.COMMITTED]


@pytest.mark.parametrize("step", [lambda o: o.item(1), lambda o: o.committing()], ids=str)
def test_a_doomed_worker_rolls_back(numbers: Slot, step: Callable[[SlotObserver], None]) -> None:
    """Once doomed, neither another item nor COMMIT is begun, and the slot says idle."""
    observer = SlotObserver(numbers)
    observer.item(0)
    numbers.doomed = True
    with pytest.raises(Stop):
        step(observer)
    assert numbers.state is State.IDLE


class Watched(list[float]):
    """An array whose every read and write is noted."""

    def __init__(self) -> None:
        super().__init__([0.0] * slot.SIZE)
        self.log: list[str] = []

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        self.log.append(f"read {place}")
        return super().__getitem__(place)

    def __setitem__(self, place, value) -> None:  # type: ignore[no-untyped-def]
        self.log.append(f"write {place}")
        super().__setitem__(place, value)


def test_the_worker_says_committing_before_it_looks_for_its_doom() -> None:
    """The handshake's order: the other way round, a worker could be killed during COMMIT."""
    array = Watched()
    SlotObserver(Slot(array)).committing()
    assert array.log.index(f"write {slot._STATE}") < array.log.index(f"read {slot._DOOMED}")


def test_an_items_time_is_written_before_its_position() -> None:
    """A new item is never seen with an old time, which might be past its limit."""
    array = Watched()
    Slot(array).begin_item(1)
    assert [entry for entry in array.log if entry.startswith("write")] == [
        f"write {slot._SINCE}",
        f"write {slot._POSITION}",
        f"write {slot._STATE}",
    ]


def interleavings(one: int, other: int) -> list[str]:
    """Return all orders of so many steps of A and B."""
    if not one or not other:
        return ["A" * one + "B" * other]
    return ["A" + rest for rest in interleavings(one - 1, other)] + [
        "B" + rest for rest in interleavings(one, other - 1)
    ]


@pytest.mark.parametrize("order", interleavings(2, 2))
def test_whatever_the_order_no_worker_is_killed_in_commit(order: str) -> None:
    """Parent dooms and looks, worker commits and looks: not both go on, in any interleaving."""
    array = [0.0] * slot.SIZE
    numbers = Slot(array)
    goes_on, kills = [], []

    worker = iter(
        [
            lambda: numbers.enter(State.COMMITTING),
            lambda: goes_on.append(not numbers.doomed),
        ]
    )
    parent = iter(
        [
            lambda: setattr(numbers, "doomed", True),
            lambda: kills.append(numbers.state in (State.IDLE, State.ITEM)),
        ]
    )
    for step in order:
        next(worker if step == "A" else parent)()
    assert not (goes_on[0] and kills[0])
