"""Celery for the benchmark of clusters: a Redis, a worker with N children, and the engine.

::

    with workers(4) as engine:
        carpool.run(function, items, executor=engine)

Run in a process that has the benchmark's environment (`benchmarks.measure.environment`), which the
worker inherits. Redis is the one that CARPOOL_TEST_REDIS_URL names, or one of the block's own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from celery import Celery

from carpool.engine import Engine
from carpool.executors import celery
from tools.servers import servers

#: Seconds for a worker to start.
PATIENCE = 60.0

#: What the worker's process is told by.
BROKER, QUEUE = "CARPOOL_BENCHMARKS_BROKER", "CARPOOL_BENCHMARKS_QUEUE"


def app_for(broker: str, queue: str) -> Celery:
    """Return the app of the coordinator, and of the worker."""
    app = Celery("benchmarks", broker=broker, include=["carpool.tasks"], set_as_current=False)
    app.conf.update(
        task_default_queue=queue,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
    )
    return app


# What ``celery -A benchmarks.on_celery`` finds.
app = app_for(os.environ.get(BROKER, "memory://"), os.environ.get(QUEUE, "benchmarks"))


@contextlib.contextmanager
def workers(count: int, *, journal: bool = False) -> Iterator[Engine]:
    """Start a worker with so many children; yield the engine that sends chunks there.

    ``journal``: each run will have one.
    """
    with (
        servers(["redis"]) as running,
        tempfile.TemporaryDirectory(prefix="carpool-benchmarks-") as folder,
    ):
        if "redis" not in running.urls:
            raise RuntimeError(running.left_out["redis"])
        broker, queue = running.urls["redis"], f"benchmarks-{uuid.uuid4().hex[:8]}"
        log = Path(folder, "worker.log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "celery", "-A", "benchmarks.on_celery", "worker"),
                    *("--concurrency", str(count), "-n", f"{queue}@here", "--loglevel", "INFO"),
                    *("--without-gossip", "--without-mingle", "--without-heartbeat"),
                ],
                cwd=Path(__file__).resolve().parent.parent,
                env={**os.environ, BROKER: broker, QUEUE: queue},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until_ready(process, log)
            yield celery(app_for(broker, queue), redelivered_chunks_may_be_unknown=not journal)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the worker takes tasks; raise with what it said if it doesn't."""
    deadline = time.monotonic() + PATIENCE
    while b" ready." not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"Celery's worker doesn't start:\n{log.read_text()[-2000:]}")
        time.sleep(0.05)
