"""The backend's SQL compilers, made to ask the unit first.

``connection.ops.compiler(name)`` is where Django gets a compiler from; for the time of the block
the one connection's ``ops`` returns these subclasses. A compiler marks its statement as the ORM's
(`Unit.statement`), so that the barrier can look at the query instead of guessing from its text.

Somebody's patch of what writes rows wants to be called for each: a cache of queries' results
(django-cachalot) learns there that they are outdated. Then every INSERT and UPDATE is executed at
its place (`Unit.writes_as_django`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models.sql.compiler import SQLCompiler

from carpool.coalescing.originals import is_djangos

if TYPE_CHECKING:
    from carpool.coalescing.unit import Unit

    _Compiler = SQLCompiler
else:
    _Compiler = object


class _Marked(_Compiler):
    """Any compiler: tells the unit whose statement is being executed."""

    unit: Unit
    query: Any

    def execute_sql(self, *args: Any, **kwargs: Any) -> Any:
        unit = self.unit
        before, unit.statement = unit.statement, self
        try:
            return super().execute_sql(*args, **kwargs)
        finally:
            unit.statement = before


class _Select(_Marked):
    """A SELECT: tells the unit what it has found."""

    def execute_sql(self, *args: Any, **kwargs: Any) -> Any:
        result = super().execute_sql(*args, **kwargs)
        self.unit.learn(self, result)
        return result


class _Insert(_Marked):
    """Queues the row; or executes the INSERT, with the values that pre_save() has already given."""

    given: dict[tuple[int, int], Any] | None = None

    def execute_sql(self, returning_fields: Any = None) -> Any:  # type: ignore[override]
        inserts, query = self.unit.inserts, self.query
        if inserts.given_up is None and self.unit.writes_as_django:
            returned = inserts.take(
                query.model,
                query.objs,
                query.fields,
                returning_fields,
                raw=query.raw,
                on_conflict=query.on_conflict,
            )
            if returned is not None:
                return returned
        self.given, inserts.given_up = inserts.given_up, None
        return super().execute_sql(returning_fields)

    def pre_save_val(self, field: Any, obj: Any) -> Any:
        if self.given is not None:
            key = id(field), id(obj)
            if key in self.given:
                return self.given[key]
        return super().pre_save_val(field, obj)  # type: ignore[misc]


class _Update(_Marked):
    """Changes rows that are still queued; or executes the UPDATE.

    A queryset's ``update()`` is meant here: it returns how many rows it has changed, and only of
    rows that are still to be inserted is that known. ``save()`` comes by `saving`.
    """

    def execute_sql(self, result_type: Any) -> Any:  # type: ignore[override]
        if self.unit.writes_as_django:
            changed = self.unit.changes.take(self, result_type)
            if changed is not None:
                return changed
        return super().execute_sql(result_type)

    def execute_returning_sql(self, returning_fields: Any) -> Any:  # Django 6.0 and later
        unit = self.unit
        before, unit.statement = unit.statement, self
        try:
            return super().execute_returning_sql(returning_fields)  # type: ignore[misc]
        finally:
            unit.statement = before


_MIXINS = {
    "SQLCompiler": _Select,
    "SQLInsertCompiler": _Insert,
    "SQLUpdateCompiler": _Update,
}


class Compilers:
    """In place of ``ops.compiler``.

    Attributes:
        are_djangos: whether INSERTs and UPDATEs are executed by Django's own methods.
    """

    def __init__(self, unit: Unit, original: Any) -> None:
        self._unit = unit
        self._original = original
        self._made: dict[str, type] = {}
        self.are_djangos = all(
            is_djangos(method)
            for name in ("SQLInsertCompiler", "SQLUpdateCompiler")
            for method in _executing(original(name))
        )

    def __call__(self, name: str) -> type:
        if name not in self._made:
            base = self._original(name)
            self._made[name] = type(name, (_MIXINS.get(name, _Marked), base), {"unit": self._unit})
        return self._made[name]


def _executing(compiler: Any) -> list[Any]:
    # execute_returning_sql: the UPDATEs' from Django 6.0 on.
    names = ("execute_sql", "execute_returning_sql")
    return [getattr(compiler, name) for name in names if hasattr(compiler, name)]
