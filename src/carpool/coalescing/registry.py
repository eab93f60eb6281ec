"""Which unit is at work on which connection."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from django.db.backends.base.base import BaseDatabaseWrapper

if TYPE_CHECKING:
    from carpool.coalescing.unit import Unit

units: WeakKeyDictionary[BaseDatabaseWrapper, Unit] = WeakKeyDictionary()
"""Kept up by `Unit.installed`. A connection belongs to a thread, and so does its unit."""


def unit_of(connection: BaseDatabaseWrapper) -> Unit | None:
    """Return the unit at work on a connection, if there is one."""
    return units.get(connection)
