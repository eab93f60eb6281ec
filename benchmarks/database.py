"""A database of the benchmark's own on each server, so that nobody's rows are ever touched."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dj_database_url
from django.core.management import call_command
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from benchmarks import machine

#: Where the servers' URLs come from, if no other is given. `tools/servers.py` sets them.
URL_VARIABLES = ("CARPOOL_TEST_POSTGRES_URL", "CARPOOL_TEST_MYSQL_URL")

LOCAL_HOSTS = ("", "localhost", "127.0.0.1", "::1")

#: The settings that decide how safe, and so how slow, a commit is.
SHOWN_SETTINGS = {
    "sqlite": ("journal_mode", "synchronous"),
    "postgresql": ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "ssl"),
    "mysql": (
        "innodb_flush_log_at_trx_commit",
        "innodb_doublewrite",
        "innodb_buffer_pool_size",
        "log_bin",
        "sync_binlog",
    ),
}


def default_urls(folder: Path) -> list[str]:
    """Return SQLite in a file in `folder`, and the servers that the environment names."""
    servers = [os.environ[name] for name in URL_VARIABLES if os.environ.get(name)]
    return [f"sqlite:///{folder / 'benchmark.sqlite3'}", *servers]


def settings_from_urls(urls: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return Django's DATABASES for the URLs, each with a name of its own for our database.

    Refuses SQLite in memory, which other processes can't see, and a file that exists.
    """
    databases = {}
    for number, url in enumerate(urls):
        settings: dict[str, Any] = dict(dj_database_url.parse(url))
        name = str(settings["NAME"])
        if "sqlite" in settings["ENGINE"]:
            if name in ("", ":memory:"):
                raise SystemExit(
                    "SQLite in memory can't be shared with other processes. Name a file: "
                    "sqlite:///benchmark.sqlite3"
                )
            if Path(name).exists():
                raise SystemExit(
                    f"{name} exists. The benchmark makes a file of its own and deletes it at the "
                    "end: name one that doesn't exist."
                )
            ours = name
        else:
            ours = f"carpool_benchmarks_{os.getpid()}"
        # Tables straight from the models: the benchmark's own app has no migrations, and an app
        # without may not refer to one that has some.
        settings["TEST"] = {"NAME": ours, "MIGRATE": False}
        databases["default" if not number else f"database{number}"] = settings
    return databases


@contextlib.contextmanager
def created(alias: str) -> Iterator[dict[str, Any]]:
    """Create our database with its tables; yield the settings for a process; drop it at the end."""
    connection = connections[alias]
    name_before = connection.settings_dict["NAME"]
    connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
    try:
        connection.close()
        keys = ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS")
        yield {key: connection.settings_dict[key] for key in keys}
    finally:
        connection.creation.destroy_test_db(name_before, verbosity=0)


def empty(connection: BaseDatabaseWrapper) -> None:
    """Empty every table, and leave no garbage that the next round would have to step over."""
    call_command("flush", verbosity=0, interactive=False, inhibit_post_migrate=True)
    tidy(connection)


def tidy(connection: BaseDatabaseWrapper) -> None:
    """Remove garbage, and let the database know how many rows there are."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("VACUUM")
        elif connection.vendor == "postgresql":
            cursor.execute("VACUUM ANALYZE")


def describe(connection: Any) -> dict[str, Any]:
    """Return the server's product and version, its driver, and its settings for safe writes."""
    vendor = connection.vendor
    with connection.cursor() as cursor:

        def shown(name: str) -> str | None:
            queries = {
                "sqlite": f"PRAGMA {name}",
                "postgresql": f"SHOW {name}",
                "mysql": f"SHOW GLOBAL VARIABLES LIKE '{name}'",
            }
            cursor.execute(queries[vendor])
            row = cursor.fetchone()
            return None if row is None else str(row[-1])

        settings = {name: shown(name) for name in SHOWN_SETTINGS[vendor]}
    if vendor == "sqlite":
        levels = {"0": "OFF", "1": "NORMAL", "2": "FULL", "3": "EXTRA"}
        settings["synchronous"] = levels.get(settings["synchronous"] or "")
    products = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mysql": "MySQL"}
    product = products[vendor]
    if vendor == "mysql" and connection.mysql_is_mariadb:
        product = "MariaDB"
    version = ".".join(map(str, connection.get_database_version()))
    driver = {"MySQLdb": "mysqlclient", "sqlite3.dbapi2": "sqlite3"}.get(
        connection.Database.__name__, connection.Database.__name__
    )
    host = str(connection.settings_dict["HOST"])
    return {
        "vendor": vendor,
        "product": product,
        "version": version,
        "driver": f"{driver} {machine.version(driver) or ''}".strip(),
        "on_this_machine": host in LOCAL_HOSTS or host.startswith("/"),
        "settings": {name: value for name, value in settings.items() if value is not None},
    }


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder for the SQLite file and the counters."""
    with tempfile.TemporaryDirectory(prefix="carpool-benchmarks-") as folder:
        yield Path(folder)
