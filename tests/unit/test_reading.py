"""Taking chunks from a source: each item once, in order, and never more than asked for."""

from __future__ import annotations

import pickle
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpool import reading
from carpool.interrupts import Interrupts
from carpool.pacing import MOST_BYTES
from carpool.reading import LONGEST_GATHERING, Reader, Taken
from carpool.sources import IterableSource


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(reading, "time", clock)
    return clock


def reader_of(items: Any) -> Reader:
    return Reader(IterableSource(items), Interrupts())


def read_all(reader: Reader, sizes: Iterator[int] | int, *, local: bool = False) -> list[Taken]:
    """Take chunks of these sizes until there are no more."""
    chunks = []
    while not reader.exhausted:
        size = sizes if isinstance(sizes, int) else next(sizes)
        chunks.append(reader.take(size, local=local))
    return chunks


class Unsendable:
    def __reduce__(self) -> Any:
        raise TypeError("not me")


good = st.integers() | st.text(max_size=5) | st.binary(max_size=5)


@given(
    st.lists(good | st.builds(Unsendable), max_size=60),
    st.lists(st.integers(1, 20), min_size=1, max_size=10),
    st.booleans(),
)
def test_every_item_comes_out_once_in_order_with_its_index(
    items: list[Any], sizes: list[int], local: bool
) -> None:
    """Whatever the sizes: all items, in order, the ones that can't be sent beside the chunk."""

    def endless() -> Iterator[int]:
        while True:
            yield from sizes

    reader = reader_of(iter(items))
    found: list[tuple[int, Any]] = []
    numbers = []
    for taken, size in zip(read_all(reader, endless(), local=local), endless(), strict=False):
        together = list(taken.unsendable)
        assert len(together) + (len(taken.chunk) if taken.chunk else 0) <= size
        found += [(index, item) for index, item, _, _ in together]
        for _, item, fault, _ in together:
            assert isinstance(item, Unsendable)
            assert not local
            assert fault.stage == "item"
        if taken.chunk is not None:
            assert len(taken.chunk) > 0
            numbers.append(taken.chunk.number)
            found += zip(taken.chunk.indexes, taken.chunk.items, strict=True)
            assert list(taken.chunk.indexes) == sorted(taken.chunk.indexes)
    found.sort(key=lambda pair: pair[0])
    assert found == list(enumerate(items))
    assert reader.read == len(items)
    assert reader.exhausted
    assert reader.error is None
    assert len(set(numbers)) == len(numbers)


@given(st.lists(good, max_size=40), st.integers(1, 50))
def test_payloads_are_the_items(items: list[Any], size: int) -> None:
    """What is sent to a worker is what the source gave."""
    for taken in read_all(reader_of(items), size):
        if taken.chunk is not None:
            for item, payload in zip(taken.chunk.items, taken.chunk.payloads, strict=True):
                assert payload is not None
                assert pickle.loads(payload) == item


@given(st.integers(0, 50), st.lists(st.integers(1, 9), max_size=8))
def test_no_more_is_read_than_asked_for(length: int, sizes: list[int]) -> None:
    """The source is read lazily: after taking n items it has given n, and is asked for no more."""
    given_out = []

    def source() -> Iterator[int]:
        for number in range(length):
            given_out.append(number)
            yield number

    reader = reader_of(source())
    assert given_out == []
    for taken_so_far in range(len(sizes)):
        if reader.exhausted:
            break
        reader.take(sizes[taken_so_far], local=False)
        assert len(given_out) == min(length, sum(sizes[: taken_so_far + 1]))


def test_the_source_is_iterated_once() -> None:
    """iter() is taken at the first item and never again: a second one would begin anew."""
    taken = []

    class Source:
        def __iter__(self) -> Iterator[int]:
            taken.append(1)
            return iter(range(5))

    reader = reader_of(Source())
    assert taken == []
    read_all(reader, 2)
    assert taken == [1]


def test_a_chunk_is_bound_in_bytes() -> None:
    """Large items make small chunks; an item larger than the bound goes alone."""
    reader = reader_of([b"x" * (MOST_BYTES // 3)] * 7 + [b"x" * (2 * MOST_BYTES), b"y"])
    lengths = [len(taken.chunk) for taken in read_all(reader, 1000) if taken.chunk]
    assert lengths == [3, 3, 2, 1]


def test_a_chunk_is_bound_in_time(clock: Clock) -> None:
    """A slow source is not waited for until the chunk is full."""

    def slow() -> Iterator[int]:
        for number in range(6):
            clock.now += LONGEST_GATHERING * 0.4
            yield number

    chunks = read_all(reader_of(slow()), 1000)
    assert [len(taken.chunk) for taken in chunks if taken.chunk] == [3, 3]


def test_items_that_cannot_be_sent_are_bound_in_time_too(clock: Clock) -> None:
    """A slow source of nothing but unsendable items is reported as it goes."""

    def slow() -> Iterator[Unsendable]:
        for _ in range(6):
            clock.now += LONGEST_GATHERING * 0.4
            yield Unsendable()

    assert [len(taken.unsendable) for taken in read_all(reader_of(slow()), 1000)][:2] == [3, 3]


class Boom(BaseException):
    pass


@pytest.mark.parametrize("error", [ValueError("boom"), Boom("boom"), SystemExit(3)], ids=repr)
@pytest.mark.parametrize("after", [0, 1, 4, 5])
def test_a_source_that_raises_ends_there(error: BaseException, after: int) -> None:
    """What was read before is a chunk as ever; the error is kept, whatever it is."""

    def source() -> Iterator[int]:
        yield from range(after)
        raise error

    reader = reader_of(source())
    chunks = read_all(reader, 4)
    items = [item for taken in chunks if taken.chunk for item in taken.chunk.items]
    assert items == list(range(after))
    assert reader.read == after
    assert reader.error is error


def test_a_source_that_cannot_begin_ends_there() -> None:
    """An error of iter() itself is the source's as well."""

    class Source:
        def __iter__(self) -> Iterator[int]:
            raise ValueError("no beginning")

    reader = reader_of(Source())
    assert reader.take(3, local=False).chunk is None
    assert str(reader.error) == "no beginning"


def test_ctrl_c_in_the_source_ends_it_and_is_no_error() -> None:
    """Ctrl-C while the source runs is raised in it, and the run is asked to end."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Interrupts() as interrupts:

            def source() -> Iterator[int]:
                yield 1
                signal.raise_signal(signal.SIGINT)
                yield 2

            reader = Reader(IterableSource(source()), interrupts)
            taken = reader.take(5, local=False)
            assert taken.chunk is not None
            assert list(taken.chunk.items) == [1]
            assert interrupts.pending
            assert not interrupts.raising
            assert reader.exhausted
            assert reader.error is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_is_only_raised_while_the_source_runs() -> None:
    """Between items nothing of the user's runs, also after an error of the source."""
    interrupts = Interrupts()
    seen = []

    def source() -> Iterator[int]:
        seen.append(interrupts.raising)
        yield 1
        raise ValueError

    reader = Reader(IterableSource(source()), interrupts)
    reader.take(5, local=False)
    assert seen == [True]
    assert not interrupts.raising


def test_an_item_that_cannot_be_sent_says_why_and_what_to_do() -> None:
    """The fault names the item's class, pickle's complaint and the remedy."""
    reader = reader_of([threading.Lock()])
    ((index, _, fault, _),) = reader.take(1, local=False).unsendable
    assert index == 0
    assert fault.error == "carpool.exceptions.NotSendable"
    for word in ("_thread.lock", "can't be sent", 'executor="threads"'):
        assert word in fault.message


def test_an_item_that_cannot_be_pickled_stays_in_this_process() -> None:
    """Inline and in threads such an item is no problem: it is handed over itself."""
    lock = threading.Lock()
    chunk = reader_of([lock]).take(1, local=True).chunk
    assert chunk is not None
    assert chunk.items[0] is lock
    assert chunk.payloads == [None]


def test_numbers_are_never_given_twice() -> None:
    """Chunks that are made to run items again get numbers of their own."""
    reader = reader_of(range(3))
    numbers = [reader.number()]
    for taken in read_all(reader, 1):
        if taken.chunk:
            numbers += [taken.chunk.number, reader.number()]
    assert len(set(numbers)) == len(numbers) == 7
