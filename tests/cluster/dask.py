"""A Dask cluster of real processes: a scheduler and workers, each to be killed on its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.waiting import wait_until


class Cluster:
    """A scheduler and its workers, on loopback unless another host is named.

    Attributes:
        scheduler: its process.
        workers: theirs; those that a nanny restarts are not among them.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        *,
        port: int = 0,
        scheduler: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self._folder = folder
        self._environment = {
            **environment,
            "DASK_TEMPORARY_DIRECTORY": str(folder),  # of what workers spill
        }
        self.file = folder / f"scheduler-{uuid.uuid4().hex}.json"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start("scheduler", ["--port", str(port)], host, **(scheduler or {}))
        wait_until(self.file.exists, self.log)

    def _start(
        self, role: str, arguments: Sequence[str], host: str, **environment: str
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", role, "--host", host, "--no-dashboard"]
        with (self._folder / f"{role}.log").open("ab") as log:
            return subprocess.Popen(
                [*command, "--scheduler-file", str(self.file), *arguments],
                cwd=self._folder,
                env={**self._environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def add_worker(
        self,
        *arguments: str,
        threads: int = 1,
        nanny: bool = False,
        host: str = "127.0.0.1",
        **environment: str,
    ) -> subprocess.Popen[bytes]:
        """Start a worker; don't wait for it."""
        whether = "--nanny" if nanny else "--no-nanny"
        arguments = ("--nthreads", str(threads), whether, *arguments)
        self.workers.append(self._start("worker", arguments, host, **environment))
        return self.workers[-1]

    def kill_worker(self, worker: subprocess.Popen[bytes]) -> None:
        """End a worker without a farewell. Whoever has a nanny gets another."""
        self.workers.remove(worker)
        worker.kill()
        worker.wait()

    @contextmanager
    def client(self, workers: int | None = None) -> Iterator[Any]:
        """Connect to it, once so many workers are there; by default all that were started."""
        from distributed import Client

        with Client(scheduler_file=str(self.file), set_as_default=False) as client:
            wanted = len(self.workers) if workers is None else workers
            wait_until(lambda: len(client.nthreads()) >= wanted, self.log)
            yield client

    def log(self) -> str:
        """Return what all of them have said."""
        return "\n".join(path.read_text() for path in sorted(self._folder.glob("*.log")))

    def end(self) -> None:
        """End all that is left of it, nannies' workers too."""
        for process in (*self.workers, self.scheduler):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def dask_cluster(
    folder: Path,
    environment: Mapping[str, str],
    workers: int = 2,
    *,
    scheduler: Mapping[str, str] | None = None,
    **options: Any,
) -> Iterator[Cluster]:
    """Have a cluster for the block; ``options`` are of `Cluster.add_worker`."""
    cluster = Cluster(folder, environment, scheduler=scheduler)
    try:
        for _ in range(workers):
            cluster.add_worker(**options)
        yield cluster
    finally:
        cluster.end()


def without_carpool(folder: Path) -> str:
    """Return a PYTHONPATH on which there is no carpool, wherever else it may be installed."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'carpool':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
    )
    return str(folder)
