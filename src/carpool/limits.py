"""How many connections the database servers allow, asked before the workers need them.

Each worker holds a connection to each alias. A server that has no more left refuses the next one in
the middle of the run ("too many clients already", "Too many connections"); here that is said before
the first item. Where the server doesn't tell, or is hidden by a pooler, nothing is said.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from carpool.words import needed


@dataclass(frozen=True, slots=True)
class Limit:
    """How many connections may be open at a time.

    Attributes:
        scope: of what: connections of the same scope count together.
        name: what an administrator calls it.
        allowed: at most so many, of us and of others.
        used: how many there are now, but for the one that asks, as far as the server tells.
    """

    scope: tuple[str, ...]
    name: str
    allowed: int
    used: int


def refusal(workers: int, aliases: Iterable[str], *, more: int = 0) -> str | None:
    """Return why there can't be so many workers, with the remedy, or None.

    ``more``: connections to each alias that the run has besides its workers'. Warns if there could
    be so many workers, but others have too many connections now.
    """
    lasting: Counter[tuple[str, ...]] = Counter()  # connections that are ours, but no worker's
    new: Counter[tuple[str, ...]] = Counter()
    limits: dict[tuple[str, ...], Limit] = {}
    for alias in aliases:
        connection = connections[alias]
        for limit in _limits_of(connection):
            limits[limit.scope] = limit
            new[limit.scope] += workers
            lasting[limit.scope] += more + (connection.connection is not None)
    for scope, limit in limits.items():
        if new[scope] + lasting[scope] > limit.allowed:
            return (
                f"{needed(workers, 'worker', new[scope])}, and the run itself has "
                f"{lasting[scope]}; {limit.name} allows {limit.allowed}. {_REMEDY}"
            )
    for scope, limit in limits.items():
        if new[scope] > limit.allowed - limit.used:
            warnings.warn(
                f"{needed(workers, 'worker', new[scope])}; {limit.name} allows {limit.allowed}, "
                f"of which {limit.used} {'is' if limit.used == 1 else 'are'} in use now. Some "
                f"workers may find none left. {_REMEDY}",
                RuntimeWarning,
                stacklevel=2,
            )
    return None


_REMEDY = (
    "Use fewer workers (workers=), raise the limit, or put a pooler such as pgbouncer before the "
    "server."
)


def _limits_of(connection: BaseDatabaseWrapper) -> Iterator[Limit]:
    """Yield a server's limits; none if it has none, or can't or won't tell.

    Asked on a connection of its own: the caller's may be in any state, and what is counted or
    wrapped there is the caller's. It is closed, so that no fork inherits it.
    """
    ask = _ASKED.get(connection.vendor)
    if ask is None:
        return
    settings = connection.settings_dict
    server = (connection.vendor, str(settings["HOST"]), str(settings["PORT"]))
    # BaseDatabaseWrapper.copy: another connection with the same settings, in nobody's hands. A pool
    # would open more than one. Checked on 5.2, 6.0, 6.1.
    asking = connection.copy()
    asking.settings_dict["OPTIONS"].pop("pool", None)
    try:
        with asking.temporary_connection() as cursor:
            found = list(ask(cursor, asking))
    except Error:
        return  # the run will find out itself, and say it in the database's own words
    for limit in found:
        yield replace(limit, scope=(*server, *limit.scope))


def _of_postgresql(cursor: Any, connection: BaseDatabaseWrapper) -> Iterator[Limit]:
    """https://www.postgresql.org/docs/current/runtime-config-connection.html"""
    cursor.execute(
        """
        SELECT pg_backend_pid(),
               current_setting('max_connections')::int,
               current_setting('superuser_reserved_connections')::int,
               -- from 16 on; NULL before
               COALESCE(current_setting('reserved_connections', true), '0')::int,
               r.rolname, r.rolsuper, r.rolconnlimit, d.datname, d.datconnlimit,
               a.everybody, a.role, a.database
        FROM pg_roles r, pg_database d,
             -- those of clients (others' kinds are hidden from some), but for this one
             (SELECT COUNT(*) AS everybody,
                     COUNT(*) FILTER (WHERE usename = session_user) AS role,
                     COUNT(*) FILTER (WHERE datname = current_database()) AS database
              FROM pg_stat_activity
              WHERE datname IS NOT NULL AND pid <> pg_backend_pid()
                    AND COALESCE(backend_type, 'client backend') = 'client backend') a
        WHERE r.rolname = session_user AND d.datname = current_database()
        """
    )
    pid, most, for_superusers, reserved, role, is_superuser, *rest = cursor.fetchone()
    role_limit, database, database_limit, everybody, of_role, in_database = rest
    if _through_pooler(connection, pid):
        return
    if not is_superuser:
        most -= for_superusers + reserved
    yield Limit(("server",), "the server (max_connections)", most, everybody)
    if is_superuser:
        return
    if role_limit >= 0:
        name = f"the role {role!r} (CONNECTION LIMIT)"
        yield Limit(("role", role), name, role_limit, of_role)
    if database_limit >= 0:
        name = f"the database {database!r} (CONNECTION LIMIT)"
        yield Limit(("database", database), name, database_limit, in_database)


def _through_pooler(connection: BaseDatabaseWrapper, pid: int) -> bool:
    """Tell whether a pooler is in between: the process it names is not the one that answers."""
    driver = connection.connection
    if hasattr(driver, "info"):  # psycopg, and psycopg2 from 2.8 on
        return bool(driver.info.backend_pid != pid)
    return False


def _of_mysql(cursor: Any, connection: BaseDatabaseWrapper) -> Iterator[Limit]:
    """https://mariadb.com/kb/en/server-system-variables/#max_user_connections

    The session's value is the account's own limit, or else the one for all accounts; 0 is none.
    """
    cursor.execute("SELECT @@max_connections, @@session.max_user_connections, USER()")
    most, most_of_user, user = cursor.fetchone()
    cursor.execute("SHOW GLOBAL STATUS LIKE 'Threads_connected'")
    used = int(cursor.fetchone()[1]) - 1
    yield Limit(("server",), "the server (max_connections)", int(most), used)
    if int(most_of_user) > 0:
        name = user.partition("@")[0]
        cursor.execute(
            "SELECT COUNT(*) FROM information_schema.processlist WHERE user = %s", [name]
        )
        its = int(cursor.fetchone()[0]) - 1
        yield Limit(
            ("user", name), f"the user {name!r} (max_user_connections)", int(most_of_user), its
        )


_ASKED: dict[str, Callable[[Any, BaseDatabaseWrapper], Iterator[Limit]]] = {
    "postgresql": _of_postgresql,
    "mysql": _of_mysql,
}
