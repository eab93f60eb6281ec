"""The shape of an INSERT that is queued: what its rows have in common, and where keys come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

from carpool.coalescing.rows import Shape
from carpool.coalescing.values import Preparer


class InsertShape(Shape):
    """A shape, and where its key comes from.

    ``reserve``: the key's field; a key is reserved. ``late``: it comes at the flush. ``given``: it
    is among the values, and Django wants it back.
    """

    def __init__(
        self,
        connection: BaseDatabaseWrapper,
        model: type[models.Model],
        fields: Sequence[Any],
        on_conflict: Any,
        *,
        reserve: Any = None,
        late: Any = None,
        given: Any = None,
    ) -> None:
        super().__init__(connection, model, fields, on_conflict)
        self.values = Preparer([f for f in fields if f is not reserve], connection, add=True)
        self.reserve = reserve
        self.late = late
        self.given = given
        field = reserve or late or given
        self._connection = connection
        self._converters: list[Any] = []
        if field is not None:
            column = field.get_col(self.table)
            self._column = column
            self._converters = [
                *connection.ops.get_db_converters(column),
                *column.get_db_converters(connection),
            ]

    def converted(self, key: Any) -> Any:
        """Return a key as reading it from the database would."""
        for converter in self._converters:
            key = converter(key, self._column, self._connection)
        return key
