"""The formats, by ending: who reads them, who checks the call, and which options they take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from carpool.files import array, arrow, delimited, jsonl, parquet, xlsx
from carpool.files.file import File
from carpool.files.options import Options


@dataclass(frozen=True, slots=True)
class Format:
    """What `read` needs to know of a format.

    Attributes:
        items: opens the file and yields its items.
        check: raises ConfigurationError for what can't work, before anything is opened.
        options: those that mean something to it.
    """

    items: Callable[[File, Options], Iterator[Any]]
    check: Callable[[Options, File], None]
    options: frozenset[str] = frozenset()


_DELIMITED = Format(
    delimited.rows,
    delimited.check,
    frozenset({"encoding", "columns", "dialect", "delimiter", "quotechar"}),
)
_LINES = Format(jsonl.values, jsonl.check, frozenset({"encoding", "allow_nan", "unwrap_rejects"}))

FORMATS: dict[str, Format] = {
    "csv": _DELIMITED,
    "tsv": _DELIMITED,
    "jsonl": _LINES,
    "ndjson": _LINES,
    "json": Format(array.values, array.check, frozenset({"encoding", "allow_nan"})),
    "parquet": Format(parquet.rows, parquet.check),
    "arrow": Format(arrow.rows, arrow.check),
    "xlsx": Format(xlsx.rows, xlsx.check, frozenset({"columns", "sheet"})),
}
