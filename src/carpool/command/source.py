"""Where the items come from, by the arguments."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from carpool.command.arguments import OF_READ, given
from carpool.command.querysets import queryset_of
from carpool.exceptions import ConfigurationError
from carpool.files import read
from carpool.files.files import Files
from carpool.savers import ModelSaver


def source_of(options: dict[str, Any], function: Any) -> Iterable[Any]:
    """Return the files' items, or the queryset.

    Raises:
        ConfigurationError: there is nothing to read, or it can't be; or, for a model, the columns
            are not the model's.
        SourceError: the first row, which is read for that, is damaged.
    """
    reading = given(options, OF_READ)
    if options["queryset"] is not None:
        if options["sources"] or reading:
            raise ConfigurationError(
                "--queryset is the source, so there can be neither files nor options for them "
                f"({', '.join([*options['sources'], *reading])})."
            )
        if isinstance(function, ModelSaver):
            raise ConfigurationError(
                "A model in the place of the function saves new rows, and --queryset gives rows "
                "that are there. Name a function that takes one of them."
            )
        using = options["using"]
        return queryset_of(options["queryset"], using[0] if using and len(using) == 1 else None)
    if not options["sources"]:
        raise ConfigurationError(
            'There is nothing to read. Name files ("-" is stdin), or --queryset.'
        )
    if "-" in options["sources"] and sys.stdin is None:
        raise ConfigurationError('"-" is stdin, which is closed.')
    if "columns" in reading:
        reading["columns"] = reading["columns"].split(",")
    if "delimiter" in reading:
        reading["delimiter"] = reading["delimiter"].replace("\\t", "\t")
    sources = options["sources"]
    files = read(sources[0] if len(sources) == 1 else sources, **reading)
    if isinstance(function, ModelSaver) and files.have_columns:
        return _checked(files, function)
    return files


def _checked(files: Files, saver: ModelSaver) -> Iterable[Any]:
    """Return the files if their columns, by the first row, are the model's."""
    rows = iter(files)
    first = list(itertools.islice(rows, 1))
    for row in first:
        if isinstance(row, Mapping):
            saver.check(list(row))
    return itertools.chain(first, rows) if files.once else files
