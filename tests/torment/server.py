"""A database server of the test's own, to be killed and started again.

It runs with safe writes: what it has said to be committed must be there after a kill.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from django.db import connections

from tests.conftest import ROOT
from tools import keeper

#: The alias by which a test looks into its own server.
ALIAS = "tormented"

#: What ends a server at once: PostgreSQL's "immediate shutdown"; MariaDB has no such thing.
DEADLY = {"postgresql": signal.SIGQUIT, "mysql": signal.SIGKILL}


@dataclass
class OwnServer:
    """A running server, with the test project's tables."""

    vendor: str
    server: keeper.Server
    folder: Path

    @property
    def url(self) -> str:
        return self.server.url

    def kill(self) -> None:
        """End it without a farewell, and wait until it is gone."""
        self.server.process.send_signal(DEADLY[self.vendor])
        self.server.process.wait()

    def start_again(self) -> None:
        """Start it on the same data and the same port; don't wait until it answers."""
        arguments = self.server.process.args
        assert isinstance(arguments, list)
        self.server.process = keeper.launch(
            [part for part in arguments if not str(part).startswith("--init-file")],
            self.folder,
            keeper.unprivileged_account(),
            log=self.folder / "again.log",
            stop_signal=self.server.stop_signal,
        )

    @property
    def environment(self) -> dict[str, str]:
        """What makes a script work with this server."""
        return {"CARPOOL_TEST_DATABASE_URL": self.url, "CARPOOL_TEST_NAMES": "{}"}


@contextmanager
def own_server(vendor: str) -> Iterator[OwnServer]:
    """Start a server, make the tables, and let `ALIAS` be its database in this process."""
    account = keeper.unprivileged_account()
    folder = keeper.make_folder(account)
    running: list[keeper.Server] = []
    start = keeper.start_postgres if vendor == "postgresql" else keeper.start_mariadb
    try:
        own = OwnServer(vendor, start(folder, account, durable=True, running=running), folder)
        subprocess.run(
            [sys.executable, "-m", "django", "migrate", "--run-syncdb", "-v0"],
            check=True,
            cwd=ROOT,
            env={
                **os.environ,
                **own.environment,
                "DJANGO_SETTINGS_MODULE": "tests.settings",
                "PYTHONPATH": os.pathsep.join(
                    filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
                ),
            },
        )
        with alias_for(own.url):
            yield own
    finally:
        for server in running:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def alias_for(url: str) -> Iterator[None]:
    """Let `ALIAS` be the database of this URL."""
    import dj_database_url

    # ConnectionHandler.settings: what connections[alias] is made from. Checked on 5.2, 6.0, 6.1.
    like = connections.settings["default"]
    connections.settings[ALIAS] = {**like, **dj_database_url.parse(url)}
    try:
        yield
    finally:
        connections[ALIAS].close()
        del connections[ALIAS]
        del connections.settings[ALIAS]
