"""Locks on the rows of a QuerySet run: ``SELECT … FOR UPDATE``, and what can't be locked so.

A row is locked when its chunk loads it, and until the chunk's transaction ends: what others write
in between waits, and what they wrote before is loaded. Rows are locked in key order, so that two
who both do so never wait for each other in a circle.
"""

from __future__ import annotations

from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model, QuerySet

from carpool.exceptions import ConfigurationError


def refuse_unlockable(queryset: QuerySet[Any], connection: BaseDatabaseWrapper) -> None:
    """Refuse what has no row locks, and querysets whose rows are not those of a table.

    Asked without connecting.

    Raises:
        ConfigurationError: with the cause and the remedy.
    """
    if not connection.features.has_select_for_update:
        raise ConfigurationError(
            "lock=True needs SELECT … FOR UPDATE, which the database "
            f"{connection.alias!r} ({connection.display_name}) doesn't have"
            f"{_instead_of_row_locks(connection)}"
        )
    query = queryset.query
    if query.distinct:
        what = "uses distinct()"
    # True, or the expressions, where an annotation aggregates. Checked on 5.2, 6.0, 6.1.
    elif query.group_by is not None:
        what = "aggregates (a Count, a Sum … in annotate())"
    else:
        return
    raise ConfigurationError(
        f"The queryset {what}, and SELECT … FOR UPDATE can't lock rows that were merged. Lock the "
        'rows that it finds: pass Model.objects.filter(pk__in=queryset.values("pk")), and compute '
        "aggregates in a Subquery or in the function."
    )


def _instead_of_row_locks(connection: BaseDatabaseWrapper) -> str:
    if hasattr(connection, "is_in_memory_db"):  # SQLite
        return (
            ": SQLite has no row locks, only one lock for all writers. Leave lock out, and pass "
            "coalesce=False: a chunk then takes that lock before it loads its rows, so that nobody "
            "else writes until it has committed."
        )
    return (
        ". Leave lock out, and have the database compute what others may have changed, by F() "
        "expressions."
    )


def locked(queryset: QuerySet[Any]) -> QuerySet[Any]:
    """Return the queryset with its rows locked in key order.

    A ``select_for_update(…)`` of its own is kept as it is. Else only rows of the model and its
    parents are locked, and not those of other tables that are joined: they are not the chunk's, and
    PostgreSQL refuses to lock what an outer join may not find (the null of a ``select_related()``).
    Where FOR UPDATE can't name tables, as on MariaDB, all that are joined are locked.
    """
    queryset = queryset.order_by("pk")
    if queryset.query.select_for_update:
        return queryset
    names_tables = connections[queryset.db].features.has_select_for_update_of
    return queryset.select_for_update(of=_own_tables(queryset.model) if names_tables else ())


def _own_tables(model: type[Model]) -> list[str]:
    """Return the tables of the model and all its parents, as select_for_update(of=…) takes them.

    Django leaves a parent out of which the query has no column (``only()``, ``defer()``).
    """
    paths: dict[type[Model], str] = {}

    def climb(model: type[Model], path: str) -> None:
        # Options.parents: the links to parents by model, None to a proxy's own; public is only
        # the list of models. Checked on 5.2, 6.0, 6.1.
        for parent, link in (model._meta.concrete_model or model)._meta.parents.items():
            if link is not None and parent not in paths:  # at the top of a diamond: once
                paths[parent] = f"{path}{link.name}"
                climb(parent, f"{paths[parent]}__")

    climb(model, "")
    return ["self", *paths.values()]
