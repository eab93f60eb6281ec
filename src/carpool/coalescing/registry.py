"""Which unit is at work on which connection."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

if TYPE_CHECKING:
    from carpool.coalescing.unit import Unit

_NAME = "_carpool_unit"


class _Here(threading.local):
    """The units at work in this thread, by alias."""

    def __init__(self) -> None:
        self.units: dict[str, Unit] = {}


here = _Here()
"""Quicker to ask than ``connections``, for each row. Who finds no unit here asks the connection."""


def unit_of(connection: BaseDatabaseWrapper) -> Unit | None:
    """Return the unit at work on a connection, if there is one.

    A connection belongs to a thread, and so does its unit. It is an attribute of the connection
    for the time of the block, since this is asked for each row.
    """
    return connection.__dict__.get(_NAME)


def register(connection: BaseDatabaseWrapper, unit: Unit) -> None:
    """Make it the unit at work."""
    connection.__dict__[_NAME] = unit
    if connections[connection.alias] is connection:
        here.units[connection.alias] = unit


def unregister(connection: BaseDatabaseWrapper) -> None:
    """Undo `register`."""
    unit = connection.__dict__.pop(_NAME)
    if here.units.get(connection.alias) is unit:
        del here.units[connection.alias]
