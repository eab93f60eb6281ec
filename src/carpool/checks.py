"""System checks, with the tag "carpool": what makes a run on these settings less than it could be.

They are deployment checks, so that no other command talks of them: ``check --deploy`` does, and
``manage.py carpool run`` before it begins. SILENCED_SYSTEM_CHECKS silences them, as ever.

What can't work at all is mostly not here: `run` refuses it, naming the option. Of the journal,
which needs an app and tables, the checks know as well: see `journal_errors`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.db import Error, connections

from carpool import databases

TAG = "carpool"

OF_POOLS = "carpool.W004"
"""The one that says nothing of a run without worker processes."""

_MIGRATE = "Run manage.py migrate carpool_journal --database {}."


def register() -> None:
    """Have Django know them."""
    checks.register(check_databases, TAG, deploy=True)
    checks.register(check_debug, TAG, deploy=True)
    checks.register(check_pools, TAG, deploy=True)
    checks.register(check_journal, TAG, checks.Tags.database, deploy=True)


def check_databases(app_configs: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Warn of databases that end with the process."""
    return [
        checks.Warning(
            f"The database {alias!r} is SQLite in memory: it ends with the process, and workers "
            "can't share it.",
            hint="Use a file.",
            id="carpool.W001",
        )
        for alias in connections.settings
        if databases.is_in_memory(alias)
    ]


def check_debug(app_configs: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Warn that each statement's text is kept."""
    if not settings.DEBUG:
        return []
    return [
        checks.Warning(
            "DEBUG is True, so Django times each statement and keeps its text: runs are slower.",
            hint="Set it to False for long runs.",
            id="carpool.W002",
        )
    ]


def check_pools(app_configs: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Warn of psycopg's pools, which bound one process' connections, and don't survive a fork.

    Carpool's own workers are safe, since they drop a pool that they inherit: see `databases`.
    """
    return [
        checks.Warning(
            f'The database {alias!r} has a connection pool (OPTIONS["pool"]), which worker '
            "processes don't share: each has a connection of its own beside the pool's, so its "
            "max_size doesn't bound what the server sees.",
            hint=(
                "Bound it by the number of workers, or run in threads. Code of your own that "
                "forks while the pool is open must call connection.close_pool() before."
            ),
            id=OF_POOLS,
        )
        for alias in connections.settings
        if connections[alias].vendor == "postgresql" and databases.pool_size(alias) is not None
    ]


def check_journal(
    app_configs: Any = None, databases: Iterable[str] | None = None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """Warn of databases without the journal's tables, of those that may be asked.

    By Django's tag for such checks: ``manage.py check --deploy --database default``.
    """
    return [
        checks.Warning(
            f"The journal has no tables in the database {alias!r}: no run with a journal can "
            "write there.",
            hint=_MIGRATE.format(alias),
            id="carpool.W003",
        )
        for alias in databases or ()
        if _has_no_journal(alias)
    ]


def _has_no_journal(alias: str) -> bool:
    if not apps.is_installed("carpool.journal"):
        return False
    from carpool.journal.models import Entry, Lease, Run  # they need the app

    connection = connections[alias]
    was_open = connection.connection is not None
    try:
        there = set(connection.introspection.table_names())
    except Error:  # no server, no rights: not for this check to tell
        return False
    finally:
        if not was_open:
            connection.close()
    return not {model._meta.db_table for model in (Entry, Lease, Run)} <= there


def journal_errors(aliases: Iterable[str]) -> list[str]:
    """Return why a run with a journal can't begin, a line each, but for what is silenced.

    That there is to be a journal, and where, is known to the command only.
    """
    if not apps.is_installed("carpool.journal"):
        missing = checks.Error(
            '--journal is given, and "carpool.journal" is not in INSTALLED_APPS.',
            hint="Add it, and run manage.py migrate.",
            id="carpool.E001",
        )
        return _lines([missing])
    return _lines(
        checks.Error(
            f"--journal is given, and the journal has no tables in the database {alias!r}.",
            hint=_MIGRATE.format(alias),
            id="carpool.E002",
        )
        for alias in aliases
        if alias in connections.settings and _has_no_journal(alias)
    )


def messages(*, processes: bool = True) -> list[str]:
    """Return what the checks say, a line each, but for what is silenced.

    ``processes``: there may be worker processes.
    """
    # Without databases=[] Django 6.0 and 6.1 have them all asked; 5.2 has none.
    found = checks.run_checks(tags=[TAG], include_deployment_checks=True, databases=[])
    return _lines(message for message in found if processes or message.id != OF_POOLS)


def _lines(found: Iterable[checks.CheckMessage]) -> list[str]:
    return [
        " ".join(filter(None, [f"{message.id}: {message.msg}", message.hint]))
        for message in found
        if not message.is_silenced()
    ]
