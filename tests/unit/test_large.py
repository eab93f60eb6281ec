"""The word about items that are too large to be sent around."""

from __future__ import annotations

from carpool.executors.large import LARGE_CHUNK, LARGE_ITEM, LargeItems
from carpool.types import Chunk


def chunk(*sizes: int | None) -> Chunk:
    """Return a chunk of items that pickled have these sizes; None: one that is not sent."""
    payloads = [None if size is None else b"x" * size for size in sizes]
    return Chunk(1, list(range(100, 100 + len(sizes))), list(sizes), payloads)


def test_small_ones_pass() -> None:
    """Up to the limits nothing is said."""
    assert LargeItems().word_on(chunk(None, LARGE_ITEM)) is None
    assert LargeItems().word_on(chunk(*[LARGE_ITEM] * (LARGE_CHUNK // LARGE_ITEM))) is None


def test_the_largest_item_is_named_once() -> None:
    """By its index in the input, with its size; the next is not mentioned."""
    large = LargeItems()

    word = large.word_on(chunk(5, None, 2 * LARGE_ITEM, LARGE_ITEM + 1))
    assert word is not None
    assert word.startswith("Item 102 has 2.0 MiB, pickled")
    assert large.word_on(chunk(5 * LARGE_ITEM)) is None


def test_a_large_chunk_of_small_items() -> None:
    """With many items that are all right it is their number."""
    word = LargeItems().word_on(chunk(None, *[LARGE_ITEM // 2] * 21))
    assert word is not None
    assert word.startswith("The chunk from item 100 on has 10.5 MiB")
