"""Cursors that let nothing past the barrier.

Execute wrappers see ``execute()`` and ``executemany()``. What they don't see of a cursor is guarded
here: ``callproc()``, psycopg's ``copy()``, and whatever else the driver's own cursor can do.
"""

from __future__ import annotations

from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from carpool.coalescing.registry import unit_of

_HARMLESS = frozenset(
    [
        "arraysize",
        "close",
        "closed",
        "connection",
        "cursor",
        "db",
        "description",
        "fetchall",
        "fetchmany",
        "fetchone",
        "format",
        "itersize",
        "lastrowid",
        "name",
        "pgresult",
        "query",
        "rowcount",
        "rownumber",
        "scrollable",
        "statusmessage",
        "withhold",
    ]
)


class _Guard:
    """Writes the queue before a cursor does what no wrapper sees."""

    db: BaseDatabaseWrapper

    def __getattr__(self, name: str) -> Any:
        if name not in _HARMLESS and not name.startswith("__"):
            unit = unit_of(self.db)
            if unit is not None:
                unit.before_driver()
        return super().__getattr__(name)  # type: ignore[misc]

    def callproc(self, *args: Any, **kwargs: Any) -> Any:
        unit = unit_of(self.db)
        if unit is not None:
            unit.before_driver()
        return super().callproc(*args, **kwargs)  # type: ignore[misc]

    def copy(self, *args: Any, **kwargs: Any) -> Any:
        unit = unit_of(self.db)
        if unit is not None:
            unit.before_driver()
        copy = getattr(super(), "copy", None) or self.cursor.copy
        return copy(*args, **kwargs)


_guards: dict[type, type] = {}


def guarded(make: Any) -> Any:
    """Return ``make_cursor()`` with guards on what it makes."""

    def made(*args: Any, **kwargs: Any) -> Any:
        cursor = make(*args, **kwargs)
        kind = type(cursor)
        if kind not in _guards:
            _guards[kind] = type(kind.__name__, (_Guard, kind), {})
        cursor.__class__ = _guards[kind]
        return cursor

    return made
