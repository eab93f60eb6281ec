"""Programs that coordinate a run on a cluster, and the databases that they write."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import Script
from tests.cluster.dask import Cluster
from tests.torment.conftest import pytest_generate_tests, start, transactional_db
from tests.torment.program import PREAMBLE

pytest.register_assert_rewrite("tests.torment.oracle", "tests.torment.program")

__all__ = ["pytest_generate_tests", "start", "transactional_db"]

#: ``run`` on the cluster; the rest as in tests/torment.
ON_DASK = (
    PREAMBLE
    + """
from distributed import Client

def on_dask(function, items, **options):
    with Client(scheduler_file=os.environ["DASK_FILE"], set_as_default=False) as client:
        # Where all workers are killed, it may take long until one of the next ones is up.
        engine = carpool.executors.dask(client, wait=120)
        run(function, items, executor=engine, workers=None, **options)
"""
)


@pytest.fixture
def clusters(
    subprocess_environment: dict[str, str], tmp_path: Path
) -> Iterator[Callable[..., Cluster]]:
    """Start clusters: ``clusters(workers, allowed_failures="0", …)``; they end with the test.

    Other options than those of `Cluster.add_worker` are Dask's, of its scheduler.
    """
    made: list[Cluster] = []

    def make(workers: int, *, threads: int = 1, nanny: bool = False, **settings: str) -> Cluster:
        folder = tmp_path / f"dask{len(made)}"
        folder.mkdir()
        scheduler = {
            f"DASK_DISTRIBUTED__SCHEDULER__{name.upper()}": value
            for name, value in settings.items()
        }
        cluster = Cluster(folder, subprocess_environment, scheduler=scheduler)
        made.append(cluster)
        for _ in range(workers):
            cluster.add_worker(threads=threads, nanny=nanny)
        return cluster

    yield make
    for cluster in made:
        cluster.end()


@pytest.fixture
def coordinate(start: Callable[..., Script]) -> Callable[[str, Cluster], Script]:
    """Start a program that runs on a cluster."""

    def coordinate(text: str, cluster: Cluster) -> Script:
        environment = {"DASK_FILE": os.fspath(cluster.file)}
        return start(text, preamble=ON_DASK, environment=environment)

    return coordinate
