"""`read`: files as an iterable of items."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from carpool.exceptions import ConfigurationError
from carpool.files.compressions import COMPRESSIONS
from carpool.files.file import STDIN, File
from carpool.files.formats import FORMATS, WITHOUT_COLUMNS
from carpool.files.options import UTF_8, Options
from carpool.files.paths import files_of, several

FilePath = str | os.PathLike[str]


def read(
    path: FilePath | Iterable[FilePath],
    *,
    format: str | None = None,  # noqa: A002 -- the word for it
    encoding: str = UTF_8,
    columns: Sequence[str] | None = None,
    dialect: Any = None,
    delimiter: str | None = None,
    quotechar: str | None = None,
    sheet: str | None = None,
    allow_nan: bool = False,
    unwrap_rejects: bool = True,
) -> Files:
    """Return the items in files, as an iterable that reads them as it goes.

        carpool.run(create_order, carpool.read("orders.csv.gz"))
        carpool.run(create_order, carpool.read("orders-*.jsonl"))
        carpool.run(create_order, carpool.read("failed.jsonl"))  # the rejects of another run

    Rows of CSV and TSV are dicts of strings, those of Parquet, Arrow and Excel dicts of Python
    values; what JSON holds comes as it is. No more than a block of a file is in memory, and one
    file at a time is open. Each ``iter()`` begins anew, except of stdin and other pipes.

    Args:
        path: a file's; its ending says what is in it: ``.csv``, ``.tsv``, ``.jsonl``, ``.ndjson``,
            ``.json`` (an array), ``.parquet``, ``.arrow``, ``.xlsx``, each also with ``.gz``,
            ``.bz2``, ``.xz`` or ``.zst`` added. Or ``"-"``, which is stdin; or a glob, whose files
            come sorted by name (``**`` for folders within folders); or several of all these.
        format: the ending to go by instead, as ``"csv"`` or ``"csv.gz"``.
        encoding: of CSV, TSV and JSON. A byte order mark is dropped.
        columns: the names of the columns of CSV, TSV and Excel, if the first row hasn't them.
        dialect: of CSV: a name or a class that the ``csv`` module knows. Quoting is always strict.
        delimiter: of CSV, between fields.
        quotechar: of CSV, around fields; ``""``: quotes are characters as any other.
        sheet: the name of Excel's sheet; default the first.
        allow_nan: take NaN, Infinity and -Infinity in JSON, as floats.
        unwrap_rejects: of a rejects file, known by its first line, yield the failed items; False:
            its lines as they are.

    Returns:
        An iterable; nothing has been opened yet. It tells its call by ``repr()``.

    Raises:
        ConfigurationError: at once: a file isn't there, a glob matches nothing, a format isn't
            known or its library not installed, an option is for another format.
        SourceError: while it's iterated: a file is damaged, cut short or not what it should be;
            with file, line and column. The items before that have been yielded.
    """
    options = Options(
        encoding=encoding,
        columns=columns,
        dialect=dialect,
        delimiter=delimiter,
        quotechar=quotechar,
        sheet=sheet,
        allow_nan=allow_nan,
        unwrap_rejects=unwrap_rejects,
    )
    paths = several(path)
    files = files_of([path] if paths is None else paths, format)
    _refuse_strange(options, files)
    for file in files:
        if file.compression:
            COMPRESSIONS[file.compression]()
        _, check = FORMATS[file.format].load()
        check(options, file)
    given = options.given() if format is None else {"format": format, **options.given()}
    call = [repr(path if paths is None else paths), *(f"{k}={v!r}" for k, v in given.items())]
    return Files(files, options, ", ".join(call))


class Files:
    """The items of files, one file after the other; made by `read`."""

    def __init__(self, files: Sequence[File], options: Options, call: str) -> None:
        self._files = files
        self._options = options
        self._call = call
        self._begun = False

    def __iter__(self) -> Iterator[Any]:
        if self._begun and self.once is not None:
            raise ConfigurationError(
                f"{self.once} has been read, or part of it, and gives its bytes only once. Save "
                "it to a file first, or keep the items in a list."
            )
        self._begun = True
        return self._items()

    @property
    def once(self) -> File | None:
        """The first that gives its bytes only once, if there is one."""
        return next((file for file in self._files if file.once), None)

    @property
    def have_columns(self) -> bool:
        """Whether each is a table, whose rows all have its columns."""
        return not any(file.format in WITHOUT_COLUMNS for file in self._files)

    def include(self, path: str | os.PathLike[str]) -> bool:
        """Tell whether a file is one of these."""
        with suppress(OSError, TypeError, ValueError):  # there is none yet, or it is no path
            here = Path(path)
            return any(here.samefile(file.name) for file in self._files if file.name != STDIN)
        return False

    def __repr__(self) -> str:
        several = f": {len(self._files)} files" if len(self._files) > 1 else ""
        return f"<carpool.read({self._call}){several}>"

    def _items(self) -> Iterator[Any]:
        for file in self._files:
            items, _ = FORMATS[file.format].load()
            yield from items(file, self._options)


def _refuse_strange(options: Options, files: Sequence[File]) -> None:
    """Refuse options that mean nothing to any of the files."""
    formats = list(dict.fromkeys(file.format for file in files))
    for name in options.given():
        if not any(name in FORMATS[format_].options for format_ in formats):
            fits = [format_ for format_, known in FORMATS.items() if name in known.options]
            raise ConfigurationError(
                f"{name}= is for {', '.join(fits)}, and what is to be read is "
                f"{', '.join(formats)}. Leave it out, or say with format= what is in the file."
            )
