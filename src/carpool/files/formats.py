"""The formats, by ending: who reads them, who checks the call, and which options they take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from carpool.files.file import File
from carpool.files.options import Options

Items = Callable[[File, Options], Iterator[Any]]
"""Opens a file and yields its items."""

Check = Callable[[Options, File], None]
"""Raises ConfigurationError for what can't work, before anything is opened."""


@dataclass(frozen=True, slots=True)
class Format:
    """What `read` needs to know of a format.

    Attributes:
        load: imports its module, so that ``import carpool`` doesn't, and returns its functions.
        options: those that mean something to it.
    """

    load: Callable[[], tuple[Items, Check]]
    options: frozenset[str] = frozenset()


def _delimited() -> tuple[Items, Check]:
    from carpool.files import delimited

    return delimited.rows, delimited.check


def _lines() -> tuple[Items, Check]:
    from carpool.files import jsonl

    return jsonl.values, jsonl.check


def _array() -> tuple[Items, Check]:
    from carpool.files import array

    return array.values, array.check


def _parquet() -> tuple[Items, Check]:
    from carpool.files import parquet

    return parquet.rows, parquet.check


def _arrow() -> tuple[Items, Check]:
    from carpool.files import arrow

    return arrow.rows, arrow.check


def _xlsx() -> tuple[Items, Check]:
    from carpool.files import xlsx

    return xlsx.rows, xlsx.check


_DELIMITED = Format(
    _delimited, frozenset({"encoding", "columns", "dialect", "delimiter", "quotechar"})
)
_LINES = Format(_lines, frozenset({"encoding", "allow_nan", "unwrap_rejects"}))

FORMATS: dict[str, Format] = {
    "csv": _DELIMITED,
    "tsv": _DELIMITED,
    "jsonl": _LINES,
    "ndjson": _LINES,
    "json": Format(_array, frozenset({"encoding", "allow_nan"})),
    "parquet": Format(_parquet),
    "arrow": Format(_arrow),
    "xlsx": Format(_xlsx, frozenset({"columns", "sheet"})),
}

WITHOUT_COLUMNS = frozenset({"jsonl", "ndjson", "json"})
"""Formats in which each item may be of another kind."""
