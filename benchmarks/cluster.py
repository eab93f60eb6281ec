"""Clusters against the local pool: the same number of worker processes, all on this machine.

Each cluster is there before the clock runs, and has run something by then, as in life: its workers
have set Django up. An engine more is a class with three methods, and an entry in `ENGINES`.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from benchmarks.items import do_nothing
from benchmarks.suite import Suite, Task
from benchmarks.workload import cores

#: Seconds for a cluster to be there.
PATIENCE = 60.0

suite = Suite("cluster")


class Engine(ABC):
    """A cluster for one round. What it starts belongs to the round's process group, and ends so.

    Attributes:
        name: of the row, behind ``carpool_``; and what the table calls it.
        needs: packages.
    """

    name: str
    needs: tuple[str, ...]

    @abstractmethod
    def start(self, folder: Path, workers: int) -> None:
        """Start it, and wait until all its workers are there."""

    @abstractmethod
    def executor(self) -> Any:
        """Return what `carpool.run` takes as ``executor=``."""

    def close(self) -> None:  # noqa: B027  # the others end with the round
        """Disconnect."""

    def prepare(self) -> None:
        """Start it with a worker a core, and let each of them run something."""
        import carpool

        self.start(Path(tempfile.mkdtemp(prefix="carpool-cluster-")), cores())
        carpool.run(
            do_nothing, range(8 * cores()), executor=self.executor(), chunk_size=1, progress=False
        )

    def run(self, task: Task) -> None:
        """Run the task on it."""
        run_carpool(task, self.executor())
        self.close()


class Dask(Engine):
    """A scheduler and workers of one thread."""

    name = "dask"
    needs = ("distributed",)

    def start(self, folder: Path, workers: int) -> None:
        from distributed import Client

        file = folder / "scheduler.json"
        start("dask", "scheduler", *self._common(file), "--port", "0", folder=folder)
        for _ in range(workers):
            more = ("--nthreads", "1", "--no-nanny", "--local-directory", str(folder))
            start("dask", "worker", *self._common(file), *more, folder=folder)
        wait_for(file)
        self._client = Client(scheduler_file=str(file))
        self._client.wait_for_workers(workers, PATIENCE)

    @staticmethod
    def _common(file: Path) -> tuple[str, ...]:
        return "--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard"

    def executor(self) -> Any:
        return self._client

    def close(self) -> None:
        self._client.close()


class Celery(Engine):
    """A Redis, and a worker with as many children."""

    name = "celery"
    needs = ("celery", "redis")

    def start(self, folder: Path, workers: int) -> None:
        from benchmarks import on_celery

        # Left open: ending a worker takes a second, which is no part of a run.
        self._workers = on_celery.workers(workers)
        self._engine = self._workers.__enter__()

    def executor(self) -> Any:
        return self._engine


#: One of each for a round, which is a process of its own.
ENGINES: list[Engine] = [Dask(), Celery()]


def start(*command: str, folder: Path) -> None:
    """Start one of Python's modules, such as a scheduler."""
    with (folder / "log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def wait_for(file: Path) -> None:
    """Wait until a file is there."""
    deadline = time.monotonic() + PATIENCE
    while not file.exists():
        if time.monotonic() > deadline:
            with contextlib.suppress(OSError):
                print((file.parent / "log").read_text(), file=sys.stderr)
            raise TimeoutError(f"{file.name} isn't there after {PATIENCE:g} seconds")
        time.sleep(0.02)


def run_carpool(task: Task, executor: Any) -> None:
    """Run the task; an item that failed, or is unknown, is an error here."""
    import carpool

    report = carpool.run(
        task.function,
        task.items(),
        executor=executor,
        workers=None if executor == "inline" else task.workers,
        chunk_size=task.chunk_size,
        progress=False,
    )
    report.raise_for_failures()


@suite.row("carpool.run, inline", group="reference", needs=["carpool"])
def carpool_inline(task: Task) -> None:
    """Run in this process."""
    run_carpool(task, "inline")


@suite.row("carpool.run, processes", group="carpool", workers="processes", needs=["carpool"])
def carpool_processes(task: Task) -> None:
    """Run in processes of carpool's own."""
    run_carpool(task, "processes")


def add_row(engine: Engine) -> None:
    """Add an engine's row to the suite."""

    def run(task: Task) -> None:
        engine.run(task)

    run.__name__ = f"carpool_{engine.name}"
    suite.row(
        f"carpool.run, {engine.name}",
        group="carpool",
        workers="processes",
        needs=["carpool", *engine.needs],
        prepare=engine.prepare,
    )(run)


for engine in ENGINES:
    add_row(engine)
