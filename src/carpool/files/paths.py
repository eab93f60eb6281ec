"""What the caller named, as files: globs resolved, endings understood, what isn't there refused."""

from __future__ import annotations

import glob
import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

from carpool.exceptions import ConfigurationError
from carpool.files.compressions import COMPRESSIONS
from carpool.files.file import STDIN, File
from carpool.files.formats import FORMATS


def several(paths: Any) -> list[Any] | None:
    """Return a list if these are several paths; None if it's one, or what is no path at all."""
    one = isinstance(paths, str | bytes | os.PathLike) or hasattr(paths, "read")
    return None if one or not isinstance(paths, Iterable) else list(paths)


def files_of(paths: list[Any], format: str | None) -> list[File]:  # noqa: A002 -- read()'s word for it
    """Return the files that ``paths`` names, in order; those of a glob sorted by name.

    Raises:
        ConfigurationError: one isn't there, or isn't a file, or isn't said to be of a format that
            is known; a glob matches nothing; a file is named twice.
    """
    names = [name for path in paths for name in _matches(path)]
    if not names:
        raise ConfigurationError("read() was given an empty list. Name a file, or several.")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigurationError(
                f"{name!r} is named twice, so each of its items would come twice. Name it once; "
                "do two of the globs overlap?"
            )
        seen.add(name)
    return [_file(name, format) for name in names]


def _matches(path: Any) -> list[str]:
    if not isinstance(path, str | os.PathLike):
        raise ConfigurationError(
            f'{path!r} is no path. Pass a str or a Path, "-" for stdin, or a list of them. (What '
            "is open already needs no read(): pass csv.DictReader(file), for one, to run().)"
        )
    name = os.fsdecode(path)
    try:
        if name == STDIN or Path(name).exists():
            return [name]
    except OSError as error:  # a folder on the way is forbidden, or the name too long
        raise ConfigurationError(f"{name!r} can't be read: {error.strerror}.") from error
    if glob.escape(name) == name:
        raise ConfigurationError(
            f"There is no file {name!r}. Is the path right, seen from {str(Path.cwd())!r}?"
        )
    # Path.glob() takes no absolute patterns.
    found = sorted(m for m in glob.glob(name, recursive=True) if not Path(m).is_dir())  # noqa: PTH207
    if not found:
        raise ConfigurationError(
            f"No file matches {name!r}. Is the pattern right, seen from {str(Path.cwd())!r}?"
        )
    return found


def _file(name: str, format: str | None) -> File:  # noqa: A002
    kind, compression = _kind(name, format)
    if name == STDIN:
        if getattr(sys.stdin, "buffer", None) is None or sys.stdin.closed:
            raise ConfigurationError("'-' is stdin, and this process has none. Name a file.")
        return File(name, kind, compression, once=True)
    try:
        mode = Path(name).stat().st_mode
    except OSError as error:
        raise ConfigurationError(f"{name!r} can't be read: {error.strerror}.") from error
    if stat.S_ISDIR(mode):
        raise ConfigurationError(
            f"{name!r} is a folder. Name the files in it: {str(PurePath(name, '*.csv'))!r}, say."
        )
    if not os.access(name, os.R_OK):
        raise ConfigurationError(
            f"{name!r} can't be read: this process has no permission. Change the file's, or run "
            "as a user who may."
        )
    return File(name, kind, compression, once=not stat.S_ISREG(mode))


def _kind(name: str, format: str | None) -> tuple[str, str | None]:  # noqa: A002
    """Return the format and the compression that ``format``, else the name's ending, says."""
    endings = [ending[1:].lower() for ending in PurePath(name).suffixes]
    compression = endings.pop() if endings and endings[-1] in COMPRESSIONS else None
    if format is None:
        if endings and endings[-1] in FORMATS:
            return endings[-1], compression
        what = "stdin" if name == STDIN else repr(name)
        raise ConfigurationError(
            f"What is in {what} can't be told from its name. Say it, with format="
            f'"csv" or "csv.gz", for two. {_known()}'
        )
    kind, _, named = str(format).lower().removeprefix(".").partition(".")
    if kind not in FORMATS or (named and named not in COMPRESSIONS):
        raise ConfigurationError(f"format={format!r} is unknown. {_known()}")
    return kind, named or compression


def _known() -> str:
    return (
        f"Known: {', '.join(FORMATS)}; each also compressed, with one of "
        f"{', '.join('.' + ending for ending in COMPRESSIONS)} added."
    )
