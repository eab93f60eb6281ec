"""Several hosts: database, broker and coordinator on one, a worker on each of two others, of which
one is cut off for a while. Each item is stored exactly once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.acceptance.conftest import Script
from tests.celery_workers import Crew, crew
from tests.cluster.celery_cluster import PREAMBLE as ON_CELERY
from tests.cluster.celery_cluster import own_broker
from tests.cluster.conftest import ON_DASK
from tests.cluster.dask import Cluster
from tests.cluster.hosts import Host, hosts, relay, why_not
from tests.conftest import ROOT
from tests.torment.oracle import exactly_once
from tests.torment.program import all_succeeded, progress
from tests.torment.server import ALIAS, OwnServer, own_server
from tests.waiting import HANG, wait_until

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.only_on("postgresql"),  # which has a server of its own in each of these
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]

ITEMS = 2_000

FUNCTION = """
def slowly(number):
    create(number, 0.004)
    path = FOLDER / f"worker {os.getpid()}"
    if not path.exists():
        path.touch()
"""


@dataclass
class Net:
    """Three hosts. The test, and what it starts, is on the head.

    Attributes:
        environment: of workers on the others, which find the database by the head's address.
    """

    head: Host
    left: Host
    right: Host
    server: OwnServer

    def outside(self, url: str) -> str:
        return url.replace("127.0.0.1", self.head.address)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **self.server.environment,
            "CARPOOL_TEST_DATABASE_URL": self.outside(self.server.url),
        }


@pytest.fixture
def net(start: Callable[..., Script]) -> Iterator[Net]:
    """The hosts; ``start`` is asked for first, since it needs the database of all tests."""
    with ExitStack() as stack:
        head, left, right = stack.enter_context(hosts("head", "left", "right"))
        stack.enter_context(head.entered())
        server = stack.enter_context(own_server("postgresql"))
        port = urlsplit(server.url).port
        assert port is not None
        stack.enter_context(relay(head.address, port))
        yield Net(head, left, right, server)


def cut_off_for_a_while(script: Script, net: Net, folder: Path) -> None:
    """Cut one host off once both have worked; the run goes on, and ends well after it's back."""

    def workers() -> int:
        return len(list(folder.glob("worker *")))

    def has_ended() -> bool:
        return script.process.poll() is not None

    wait_until(lambda: workers() == 2 or has_ended(), lambda: f"{script.out}{script.err}")
    assert not has_ended(), f"ended too early:\n{script.out}{script.err}"
    net.left.cut()
    before = progress(script)
    wait_until(
        lambda: progress(script) >= before + ITEMS // 5 or has_ended(),
        lambda: f"it doesn't go on without the host: {script.out}{script.err}",
    )
    net.left.mend()
    script.wait(seconds=2 * HANG)
    all_succeeded(script, ITEMS)
    exactly_once(ITEMS, using=ALIAS)


def test_a_worker_of_dask_is_cut_off(
    net: Net, start: Callable[..., Script], tmp_path: Path
) -> None:
    """The scheduler takes it for dead and has its tasks run elsewhere, while it still runs them."""
    environment = {
        **os.environ,
        **net.environment,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    patience = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "3 s"}
    cluster = Cluster(tmp_path, environment, scheduler=patience, host=net.head.address)
    try:
        for host in (net.left, net.right):
            with host.entered():
                cluster.add_worker(host=host.address)
        with cluster.client():
            pass
        script = start(
            FUNCTION + f"on_dask(slowly, range({ITEMS}), chunk_size=20)",
            preamble=ON_DASK,
            environment={**net.server.environment, "DASK_FILE": os.fspath(cluster.file)},
        )
        cut_off_for_a_while(script, net, script.folder)
    finally:
        cluster.end()


def test_a_worker_of_celery_is_cut_off(
    net: Net, start: Callable[..., Script], tmp_path: Path
) -> None:
    """What it had is looked for, and given up where no worker answers that it has it."""
    with own_broker("redis") as broker:
        port = urlsplit(broker.url).port
        assert port is not None
        with relay(net.head.address, port), crew(broker.url, tmp_path) as made:
            for host in (net.left, net.right):
                with host.entered():
                    start_worker(made, net)
            script = start(
                FUNCTION
                + f'if __name__ == "__main__":\n    run(slowly, range({ITEMS}), chunk_size=20)',
                preamble=ON_CELERY,
                environment={**made.environment, **net.server.environment},
            )
            cut_off_for_a_while(script, net, script.folder)


def start_worker(crew: Crew, net: Net) -> None:
    broker = {"CARPOOL_TEST_BROKER_URL": net.outside(crew.url)}
    crew.start(size=1, environment={**net.environment, **broker})
