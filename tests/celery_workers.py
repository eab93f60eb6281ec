"""Celery workers of a test's own, as processes, on a broker that the test is given."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from django.db import connections

from tests.app.celery import app_for
from tests.conftest import ROOT
from tests.waiting import HANG, wait_until
from tools.binaries import PRODUCTS
from tools.servers import in_ci, servers


@contextlib.contextmanager
def broker(name: str) -> Iterator[str]:
    """Yield the broker's URL: the one that is given, or a server's for this block."""
    with servers([name]) as running:
        if name not in running.urls:
            reason = f"{PRODUCTS[name]}: {running.left_out[name]}"
            pytest.fail(reason) if in_ci() else pytest.skip(reason)
        yield running.urls[name]


@dataclass
class Worker:
    """A running worker: its main process leads a session."""

    process: subprocess.Popen[bytes]
    log: Path
    name: str

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, words: str) -> None:
        wait_until(
            lambda: words in self.text() or self.process.poll() is not None,
            lambda: f"the worker doesn't say {words!r}:\n{self.text()}",
        )
        assert words in self.text(), f"the worker has ended:\n{self.text()}"

    def children(self) -> list[int]:
        """Return the pool's processes."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        with contextlib.suppress(OSError):
            return [int(pid) for pid in path.read_text().split()]
        return []

    def kill(self) -> None:
        """End the whole worker, without a farewell."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Ask it to finish what it runs, and to end."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(HANG)


@dataclass
class Crew:
    """An app, and workers of it that the block's end ends.

    ``settings`` are Celery's, for the coordinator and all workers.
    """

    url: str
    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    queue: str = field(default_factory=lambda: f"tests-{uuid.uuid4().hex[:8]}")
    workers: list[Worker] = field(default_factory=list)

    @functools.cached_property
    def app(self) -> Celery:
        """The coordinator's: one for all runs, so that what a run leaves in it would show."""
        return app_for(self.url, self.queue, **json.loads(json.dumps(self.settings)))

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process see the test databases and this app."""
        names = {alias: str(connections[alias].settings_dict["NAME"]) for alias in connections}
        python_path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            **os.environ,
            "CARPOOL_TEST_NAMES": json.dumps(names),
            "CARPOOL_TEST_BROKER_URL": self.url,
            "CARPOOL_TEST_QUEUE": self.queue,
            "CARPOOL_TEST_CELERY": json.dumps(self.settings),
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "PYTHONPATH": os.pathsep.join(python_path),
        }

    def start(
        self,
        *arguments: str,
        size: int = 2,
        pool: str = "prefork",
        environment: Mapping[str, str | None] | None = None,
        app: str = "tests.app.celery",
    ) -> Worker:
        """Start a worker; wait until it takes tasks."""
        number = len(self.workers)
        name = f"w{number}-{self.queue}@here"
        log = self.folder / f"worker{number}-{self.queue}.log"
        merged = {**self.environment, **(environment or {})}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "celery", "-A", app, "worker", "-n", name),
                    *("--pool", pool, "--concurrency", str(size), "--loglevel", "INFO"),
                    *("--without-gossip", "--without-mingle", *arguments),
                ],
                cwd=self.folder,
                env={key: value for key, value in merged.items() if value is not None},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        worker = Worker(process, log, name)
        self.workers.append(worker)
        worker.wait_for(" ready.")
        return worker

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()


@contextlib.contextmanager
def crew(url: str, folder: Path, **settings: Any) -> Iterator[Crew]:
    """Yield an app on a queue of its own, without workers yet."""
    made = Crew(url, folder, settings)
    try:
        yield made
    finally:
        made.close()
