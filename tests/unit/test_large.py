"""The word about items that are too large to be sent around."""

from __future__ import annotations

import warnings

import pytest

from carpool.executors.large import LARGE_CHUNK, LARGE_ITEM, LargeItems
from carpool.types import Chunk


def chunk(*sizes: int | None) -> Chunk:
    """Return a chunk of items that pickled have these sizes; None: one that is not sent."""
    payloads = [None if size is None else b"x" * size for size in sizes]
    return Chunk(1, list(range(100, 100 + len(sizes))), list(sizes), payloads)


def test_small_ones_pass() -> None:
    """Up to the limits nothing is said."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LargeItems().look_at(chunk(None, LARGE_ITEM))
        LargeItems().look_at(chunk(*[LARGE_ITEM] * (LARGE_CHUNK // LARGE_ITEM)))


def test_the_largest_item_is_named_once() -> None:
    """By its index in the input, with its size; the next is not mentioned."""
    large = LargeItems()

    with pytest.warns(RuntimeWarning, match=r"^Item 102 has 2\.0 MiB, pickled") as caught:
        large.look_at(chunk(5, None, 2 * LARGE_ITEM, LARGE_ITEM + 1))
    assert len(caught) == 1

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        large.look_at(chunk(5 * LARGE_ITEM))


def test_a_large_chunk_of_small_items() -> None:
    """With many items that are all right it is their number."""
    with pytest.warns(RuntimeWarning, match=r"^The chunk from item 100 on has 10\.5 MiB"):
        LargeItems().look_at(chunk(None, *[LARGE_ITEM // 2] * 21))
