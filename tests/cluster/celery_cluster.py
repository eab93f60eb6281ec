"""Brokers of a test's own, to be killed and started again, and scripts that use Celery."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.conftest import Script
from tests.celery_workers import Crew
from tests.torment.program import PREAMBLE as TORMENT
from tests.waiting import HANG
from tools import keeper
from tools.binaries import PRODUCTS, ServerError, provide_binaries
from tools.servers import in_ci

#: The first lines of every script: ``run`` uses Celery, with a short patience.
PREAMBLE = (
    TORMENT.replace('executor="processes", workers=4', "executor=ENGINE")
    + """
from carpool.executors import celery
from tests.app.celery import app

ENGINE = celery(app, patience=2)
"""
)

#: What RabbitMQ does differently doesn't depend on the database, so it is tried on one.
BROKERS = ["redis", pytest.param("rabbitmq", marks=pytest.mark.only_on("postgresql"))]


@dataclass
class OwnBroker:
    """A running broker. What it has in memory is lost with it."""

    server: keeper.Server
    running: list[keeper.Server]
    folder: Path

    @property
    def url(self) -> str:
        return self.server.url

    def kill(self) -> None:
        """End it without a farewell, and wait until it is gone."""
        os.killpg(self.server.process.pid, signal.SIGKILL)
        self.server.process.wait()

    def start_again(self) -> None:
        """Start it on the same port; wait until it accepts connections."""
        old = self.server
        arguments = old.process.args
        assert isinstance(arguments, list)
        old.process = keeper.launch(
            arguments,
            self.folder,
            keeper.unprivileged_account(),
            log=self.folder / "again.log",
            stop_signal=old.stop_signal,
            variables=old.variables,
        )
        port = int(old.url.rpartition("@")[2].partition("/")[0].partition(":")[2])
        keeper.wait_until_ready(old, lambda: keeper.accepts(port), self.folder / "again.log")


@contextlib.contextmanager
def own_broker(name: str) -> Iterator[OwnBroker]:
    """Start a broker for this block."""
    try:
        provide_binaries(name)
    except ServerError as error:
        pytest.fail(str(error)) if in_ci() else pytest.skip(f"{PRODUCTS[name]}: {error}")
    account = keeper.unprivileged_account()
    folder = keeper.make_folder(account)
    running: list[keeper.Server] = []
    try:
        server = keeper.STARTERS[name](folder, account, durable=False, running=running)
        yield OwnBroker(server, running, folder)
    finally:
        for server in reversed(running):
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def kill_children_until_it_ends(
    script: Script, crew: Crew, chance: random.Random, every: float
) -> int:
    """Kill one process of a pool, whichever, again and again; return how many were."""
    kills = 0
    deadline = time.monotonic() + 2 * HANG
    while script.process.poll() is None:
        if time.monotonic() > deadline:
            pytest.fail(f"still running after {kills} kills:\n{script.err}\n{logs(crew)}")
        if children := [child for worker in crew.workers for child in worker.children()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(children), signal.SIGKILL)
                kills += 1
        time.sleep(every)
    return kills


def logs(crew: Crew) -> str:
    """Return the ends of the workers' logs."""
    return "\n".join(worker.text()[-3000:] for worker in crew.workers)
