"""The items in a rejects file, the one that ``run(…, rejects="failed.jsonl")`` has written.

It is known by its first line, which has the keys that `carpool.rejects` writes, no other, and in
them what it writes.
"""

from __future__ import annotations

from typing import Any

from carpool.exceptions import SourceError
from carpool.files.file import File

_KEYS = {
    "index": int,
    "item": object,
    "error": str,
    "message": str,
    "sqlstate": str | None,
    "stage": str,
    "traceback": str,
}


def is_reject(value: Any) -> bool:
    """Tell whether a line is one of a rejects file's."""
    if type(value) is not dict:
        return False
    keys = {**_KEYS, "item_is_repr": bool} if "item_is_repr" in value else _KEYS
    return value.keys() == keys.keys() and all(
        isinstance(value[key], kind) for key, kind in keys.items()
    )


def item_of(value: Any, file: File, line: int) -> Any:
    """Return the item that failed.

    Raises:
        SourceError: the line is another's, or the item itself was not kept.
    """
    if not is_reject(value):
        raise SourceError(
            "this isn't a failed item, as the first line is. Is it two files in one? "
            "unwrap_rejects=False gives each line as it is.",
            file=str(file),
            line=line,
        )
    if value.get("item_is_repr"):
        shown = value["item"] if len(value["item"]) <= 60 else f"{value['item'][:60]}…"
        raise SourceError(
            f"of the failed item {value['index']} only its repr was kept, since JSON can't hold "
            f"it: {shown}. Take the line out, and run that item again from where it came from: it "
            f"was number {value['index']} there, counted from 0.",
            file=str(file),
            line=line,
        )
    return value["item"]
