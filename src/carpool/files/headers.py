"""The names of a table's columns: from its first row, or from ``columns=``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from carpool.exceptions import ConfigurationError, SourceError
from carpool.files.file import File


def check_columns(columns: Any) -> None:
    """Refuse ``columns`` that are no names, or none, or not different ones.

    Raises:
        ConfigurationError: with the remedy.
    """
    if columns is None:
        return
    if (
        isinstance(columns, str)
        or not isinstance(columns, Sequence)
        or not all(isinstance(name, str) for name in columns)
        or not columns
    ):
        raise ConfigurationError(
            f"columns={columns!r} must be a list of names, one for each column, or None if the "
            "first row has them."
        )
    repeated = _repeated(columns)
    if repeated is not None:
        raise ConfigurationError(f"columns names {repeated!r} twice. Each needs a name of its own.")


def check_header(names: Sequence[str], file: File, line: int) -> None:
    """Refuse names of which an item could keep only one.

    Raises:
        SourceError: two columns have the same name, or none.
    """
    repeated = _repeated(names)
    if repeated is not None:
        raise SourceError(
            f"two columns have {f'the name {repeated!r}' if repeated else 'no name'}, so one of "
            "them would be lost. Rename one, or take the header out and pass columns=[…].",
            file=str(file),
            line=line,
        )


def refuse_header(row: Sequence[Any], columns: Sequence[str] | None, file: File, line: int) -> None:
    """Refuse a first row that is what ``columns`` says.

    Raises:
        SourceError: it is.
    """
    if columns is not None and list(row) == list(columns):
        raise SourceError(
            "the first row is a header, which says the same as columns=. Leave columns out.",
            file=str(file),
            line=line,
        )


def _repeated(names: Sequence[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)
