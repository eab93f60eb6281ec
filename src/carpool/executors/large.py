"""A word about items that are too large to be sent around."""

from __future__ import annotations

from carpool.types import Chunk

LARGE_ITEM = 1024 * 1024
"""Bytes, pickled. A paced chunk holds no more than this altogether."""

LARGE_CHUNK = 10 * 1024 * 1024
"""Bytes, pickled. Schedulers and brokers keep each chunk in flight in memory; Dask warns here."""


class LargeItems:
    """Looks at chunks that go to a cluster, and has a word to say once."""

    def __init__(self) -> None:
        self._said = False

    def word_on(self, chunk: Chunk) -> str | None:
        """Return the warning, if an item of the chunk, or all of it, is large."""
        if self._said:
            return None
        sizes = [0 if payload is None else len(payload) for payload in chunk.payloads]
        largest, whole = max(sizes), sum(sizes)
        if largest > LARGE_ITEM:
            index = chunk.indexes[sizes.index(largest)]
            what = f"Item {index} has {largest / 2**20:.1f} MiB"
        elif whole > LARGE_CHUNK:
            what = f"The chunk from item {chunk.indexes[0]} on has {whole / 2**20:.1f} MiB"
        else:
            return None
        self._said = True
        return (
            f"{what}, pickled, and all of it goes through the cluster's memory. Send a name, a "
            "path or a key, and let the function load the rest; or take smaller chunks "
            "(chunk_size=)."
        )
