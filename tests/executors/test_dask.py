"""Dask: a real scheduler and two worker processes, which have nothing but code and settings.

The workers have one thread each and no nanny: what the contract counts are workers, and none of
them is to be replaced. The contract holds as it is.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import pickle
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest

import carpool
from carpool.executors import on_dask
from tests.cluster.dask import (
    Cluster,
    dask_cluster,
    without_carpool,
)
from tests.executors import functions
from tests.executors.contract import ExecutorContract
from tests.executors.functions import endless_rows, name, names, rows, stored
from tests.waiting import HANG, wait_until

#: Who comes, goes and is refused is a matter of the cluster, whatever its database is.
once = pytest.mark.only_on("sqlite")


class TestDask(ExecutorContract):
    """The contract, on one cluster for all tests: what a run leaves in it would show."""

    label = "dask"

    @pytest.fixture(scope="class")
    @classmethod
    def cluster(
        cls, class_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Cluster]:
        with dask_cluster(tmp_path_factory.mktemp("dask"), class_environment) as cluster:
            yield cluster

    @pytest.fixture(scope="class")
    @classmethod
    def client(cls, cluster: Cluster) -> Iterator[Any]:
        with cluster.client() as client:
            yield client

    @pytest.fixture(autouse=True)
    def use(self, client: Any, cluster: Cluster) -> Iterator[None]:
        self.options = {"executor": client}
        yield
        print(cluster.log())  # pytest shows it for tests that fail

    def test_equal_items_are_all_run(self) -> None:
        """Chunks that are the same to the last byte are not taken for one another.

        `Client.get_executor()` does: its ``pure`` is True, and 20 equal calls ran 3 times.
        """
        for _ in range(2):
            self.run(functions.create_uniquely, [{"name": "same"}] * 20, chunk_size=1)

        assert len(stored()) == 40

    def test_nothing_is_left_at_the_scheduler(self, client: Any) -> None:
        """No task, no dataset and no plugin outlives its run, however that ends."""

        def left(dask_scheduler: Any) -> tuple[int, int, list[str]]:
            mine = [name for name in dask_scheduler.worker_plugins if "carpool" in name]
            return len(dask_scheduler.tasks), len(dask_scheduler.task_groups), mine

        self.run(functions.create, rows(60, {7: "raise"}), chunk_size=1)
        for _ in self.stream(functions.shout, endless_rows(), chunk_size=2):
            break
        with pytest.raises(carpool.ItemsFailed):
            self.run(functions.create, rows(60, {7: "duplicate"}), chunk_size=5, on_error="raise")

        wait_until(lambda: client.run_on_scheduler(left) == (0, 0, []), "something is left")
        wait_until(lambda: client.list_datasets() == (), lambda: str(client.list_datasets()))

    def test_a_chunk_that_begins_after_the_runs_end_leaves_nothing(self, client: Any) -> None:
        """It claims its chunk when the run has taken all claims away already."""
        content = pickle.dumps((1, [None], None))
        future = client.submit(on_dask._task(), "a run", "no plugin", "a claim", content)

        assert future.result() is None
        assert client.list_datasets() == ()

    def test_claims_are_taken_back_meanwhile(
        self, client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the scheduler is told of each chunk doesn't grow with the run."""
        monkeypatch.setattr("carpool.executors.on_dask.KEPT_CLAIMS", 10)
        claims = []
        for n, _ in enumerate(self.stream(functions.shout, rows(200), chunk_size=2)):
            if n % 20 == 0:
                claims.append(len(client.list_datasets()))

        assert 10 <= max(claims) <= 20 + self.window

    def test_a_large_item_is_warned_of_once(self) -> None:
        """The warning names the first of them, and what to do."""
        items = [{"name": name(n), "ballast": "x" * (n * 2**20)} for n in range(4)]

        with pytest.warns(RuntimeWarning, match=r"Item 1 has 1\.0 MiB.* Send a name") as caught:
            self.run(functions.create, items, chunk_size=1)

        assert len(caught) == 1
        assert stored() == names(range(4))

    def test_a_client_that_is_closed_is_refused(self, cluster: Cluster) -> None:
        """The message says what to make instead."""
        with cluster.client() as client:
            pass

        with pytest.raises(carpool.ConfigurationError, match=r"is closed, not connected.*Client\("):
            self.run(functions.create, rows(1), executor=client)

    def test_an_asynchronous_client_is_refused(self, cluster: Cluster) -> None:
        """Where the client's loop is the caller's, a run would wait for itself."""
        from distributed import Client

        async def call() -> None:
            async with Client(
                scheduler_file=str(cluster.file), asynchronous=True, set_as_default=False
            ) as client:
                self.run(functions.create, rows(1), executor=client)

        with pytest.raises(carpool.ConfigurationError, match="to_thread"):
            asyncio.run(call())

    def test_resources_say_which_workers(self, cluster: Cluster, client: Any) -> None:
        """A worker that doesn't offer them is not used, nor asked who it is."""
        cluster.add_worker("--resources", "django=2", threads=3)
        client.wait_for_workers(3, HANG)
        engine = carpool.executors.dask(client, resources={"django": 1})
        try:
            report = self.run(functions.create, rows(20), chunk_size=1, executor=engine)
        finally:
            cluster.kill_worker(cluster.workers[-1])
            wait_until(lambda: len(client.nthreads()) == 2, cluster.log)

        assert report.workers == 2
        assert stored() == names(range(20))


class TestDaskInThisProcess(ExecutorContract):
    """The contract on `LocalCluster(processes=False)`: two workers, each a thread of the caller's.

    Functions and items are sent all the same.
    """

    label = "dask"

    @pytest.fixture(scope="class")
    @classmethod
    def client(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
        from distributed import Client, LocalCluster

        with (
            LocalCluster(
                n_workers=2,
                threads_per_worker=1,
                processes=False,
                dashboard_address="127.0.0.1:0",  # its HTTP server has a port, too
                local_directory=str(tmp_path_factory.mktemp("dask")),
            ) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            yield client

    @pytest.fixture(autouse=True)
    def use(self, client: Any) -> None:
        self.options = {"executor": client}


@pytest.mark.usefixtures("transactional_db", "no_connections_left")
class TestBadClusters:
    """Clusters that can't take part, or lose workers, each test with its own."""

    def run(self, function: Any, items: Any, **options: Any) -> carpool.Report:
        return carpool.run(function, items, **{"progress": False, **options})

    @once
    def test_no_workers(self, class_environment: dict[str, str], tmp_path: Path) -> None:
        """A cluster without workers ends the run after a while, with the remedy."""
        with dask_cluster(tmp_path, class_environment, 0) as cluster, cluster.client() as client:
            engine = carpool.executors.dask(client, wait=0.5)
            with pytest.raises(
                carpool.RunFailed, match=r"no workers for 0\.5 seconds.*dask worker"
            ):
                self.run(functions.create, rows(3), executor=engine)

    @once
    def test_a_worker_that_comes_late_is_waited_for(
        self, class_environment: dict[str, str], tmp_path: Path
    ) -> None:
        """A run that begins before the first worker does waits for it."""
        with dask_cluster(tmp_path, class_environment, 0) as cluster, cluster.client() as client:
            cluster.add_worker()
            report = self.run(functions.create, rows(3), executor=client)

        assert (report.workers, report.succeeded) == (1, 3)

    @once
    def test_a_scheduler_needs_no_carpool(
        self, class_environment: dict[str, str], tmp_path: Path
    ) -> None:
        """The scheduler has neither carpool nor the project, and needs none."""
        bare = {"PYTHONPATH": without_carpool(tmp_path / "bare"), "DJANGO_SETTINGS_MODULE": ""}
        with (
            dask_cluster(tmp_path, class_environment, 1, scheduler=bare) as cluster,
            cluster.client() as client,
        ):
            assert self.run(functions.create, rows(9), executor=client).succeeded == 9

    @once
    def test_a_worker_without_carpool(
        self, class_environment: dict[str, str], tmp_path: Path
    ) -> None:
        """It is named before the first item."""
        path = without_carpool(tmp_path / "bare")
        with (
            dask_cluster(tmp_path, class_environment, 1, PYTHONPATH=path) as cluster,
            cluster.client() as client,
            pytest.raises(carpool.ConfigurationError, match=r"isn't installed on the worker tcp:"),
        ):
            self.run(functions.create, rows(3), executor=client)

    def test_a_worker_with_other_databases(
        self, class_environment: dict[str, str], tmp_path: Path
    ) -> None:
        """It would write elsewhere, and is refused before the first item."""
        other = json.dumps({"default": "elsewhere", "other": "elsewhere"})
        with (
            dask_cluster(tmp_path, class_environment, 1, CARPOOL_TEST_NAMES=other) as cluster,
            cluster.client() as client,
            pytest.raises(carpool.ConfigurationError, match=r"database 'default' is .*elsewhere"),
        ):
            self.run(functions.create, rows(3), executor=client)

    @once
    def test_a_bad_worker_that_joins_late_ends_the_run(
        self, class_environment: dict[str, str], tmp_path: Path
    ) -> None:
        """What others have done is counted; of its own chunk it is said that nothing is known."""
        path = without_carpool(tmp_path / "bare")
        with dask_cluster(tmp_path, class_environment, 1) as cluster, cluster.client() as client:
            added = []

            def add(snapshot: carpool.Snapshot) -> None:
                if snapshot.done >= 5 and not added:
                    added.append(cluster.add_worker(PYTHONPATH=path))

            with pytest.raises(carpool.RunFailed, match="No module named 'carpool'") as caught:
                self.run(
                    functions.create,
                    endless_rows(dict.fromkeys(range(10_000), "doze")),
                    executor=client,
                    chunk_size=5,
                    progress=add,
                )

        report = caught.value.report
        assert report is not None
        assert report.succeeded == len(stored())
        assert report.total == report.succeeded + report.failed + report.unknown

    @pytest.mark.parametrize("item", ["sigkill", "exit after commit"])
    def test_a_lost_chunk_is_not_run_twice(
        self, class_environment: dict[str, str], tmp_path: Path, item: str
    ) -> None:
        """Without a journal, a chunk whose worker dies is unknown: the next worker that Dask sends
        it to does not run it. So may be one before it, whose result nobody had fetched yet.
        """
        function = functools.partial(functions.create_noting, str(tmp_path))
        with dask_cluster(tmp_path, class_environment, 2) as cluster, cluster.client() as client:
            report = self.run(function, rows(30, {13: item}), executor=client, chunk_size=10)

        unknown = {failure.index for failure in report.failures}
        assert {*range(10, 20)} <= unknown
        assert {f.error for f in report.failures} == {"carpool.exceptions.OutcomeUnknown"}
        assert "delivered a second time" in report.failures[0].message
        assert (report.failed, report.unknown) == (0, len(unknown))
        assert report.succeeded == 30 - len(unknown)
        runs = Counter((tmp_path / "runs").read_text().split())
        assert set(runs.values()) == {1}
        committed = item == "exit after commit"
        assert stored() == [name(n) for n in range(30) if committed or not 10 <= n < 20]

    def test_what_has_not_begun_is_taken_back(
        self,
        class_environment: dict[str, str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """On Ctrl-C a chunk that waits behind a hanging one is known not to be run, and isn't."""
        monkeypatch.setattr("carpool.executors.on_dask.TAKE_BACK", HANG)

        def press_ctrl_c() -> None:
            wait_until((tmp_path / "runs").exists, "it doesn't begin")
            os.kill(os.getpid(), signal.SIGINT)

        pressing = threading.Thread(target=press_ctrl_c)
        function = functools.partial(functions.create_noting, str(tmp_path))
        with dask_cluster(tmp_path, class_environment, 1) as cluster, cluster.client() as client:
            pressing.start()
            with pytest.raises(carpool.Interrupted) as caught:
                self.run(function, rows(2, {0: "hang"}), executor=client, chunk_size=1)
        pressing.join()

        report = caught.value.report
        assert report is not None
        assert [(f.index, f.stage) for f in report.failures] == [(1, "run"), (0, "unknown")]
        assert (tmp_path / "runs").read_text().split() == [name(0)]

    @once
    def test_all_workers_lost(self, class_environment: dict[str, str], tmp_path: Path) -> None:
        """Where no worker is left, and none comes, the run ends."""
        with dask_cluster(tmp_path, class_environment, 1) as cluster, cluster.client() as client:
            engine = carpool.executors.dask(client, wait=1)
            with pytest.raises(carpool.RunFailed, match="no workers for 1 seconds") as caught:
                self.run(
                    functions.create, endless_rows({13: "sigkill"}), executor=engine, chunk_size=10
                )

        report = caught.value.report
        assert report is not None
        assert stored() == names(range(10))
        assert report.total == report.succeeded + report.failed + report.unknown
        assert (report.succeeded in (0, 10), report.unknown) == (True, 20)

    @once
    def test_a_scheduler_that_dies(self, class_environment: dict[str, str], tmp_path: Path) -> None:
        """The run ends with an error, at once; what was in flight is unknown."""
        with dask_cluster(tmp_path, class_environment, 2) as cluster:

            def kill(snapshot: carpool.Snapshot) -> None:
                if snapshot.done == 30:
                    cluster.scheduler.kill()

            with cluster.client() as client:
                with pytest.raises(carpool.RunFailed, match="lost its scheduler") as caught:
                    self.run(
                        functions.create,
                        endless_rows(),
                        executor=client,
                        chunk_size=10,
                        progress=kill,
                    )
        report = caught.value.report
        assert report is not None
        assert report.total == report.succeeded + report.failed + report.unknown
        lost = {functions.name(f.index) for f in report.failures if f.stage == "unknown"}
        assert len(set(stored()) - lost) == report.succeeded

    @once
    def test_a_scheduler_that_dies_before_there_is_a_worker(
        self, class_environment: dict[str, str], tmp_path: Path
    ) -> None:
        """Nobody can come any more, and the run says why."""
        with (
            dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
            dask_cluster(tmp_path, class_environment, 0) as cluster,
            cluster.client() as client,
        ):
            threading.Timer(0.5, cluster.scheduler.kill).start()
            engine = carpool.executors.dask(client, wait=HANG)
            with pytest.raises(carpool.RunFailed, match=r"can't be reached: .*scheduler"):
                self.run(functions.create, rows(3), executor=engine)

    def test_threads_of_a_worker(self, class_environment: dict[str, str], tmp_path: Path) -> None:
        """A worker of three threads runs three chunks at a time, each on its own connection."""
        with (
            dask_cluster(tmp_path, class_environment, 1, threads=3) as cluster,
            cluster.client() as client,
        ):
            outcomes = list(
                carpool.stream(
                    functions.whereabouts, rows(60), executor=client, chunk_size=1, progress=False
                )
            )
            report = self.run(functions.create, rows(60), executor=client, chunk_size=2)

        assert len({outcome.value for outcome in outcomes}) == 3
        assert (report.workers, report.succeeded) == (3, 60)

    @once
    def test_a_worker_that_joins_late_works(
        self,
        class_environment: dict[str, str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """It is set up like the others, and the run takes more chunks at a time."""
        from carpool.executors.on_dask import DaskExecutor

        executors: list[DaskExecutor] = []
        start = DaskExecutor.start

        def start_and_tell(executor: DaskExecutor) -> None:
            start(executor)
            executors.append(executor)

        def source() -> Iterator[functions.Row]:
            """Yield rows until the second worker has been noticed, and then some."""
            deadline = time.monotonic() + HANG
            rows = endless_rows()
            while executors[0].workers < 2:
                assert time.monotonic() < deadline
                yield next(rows)
            for _ in range(100):
                yield next(rows)

        monkeypatch.setattr(DaskExecutor, "start", start_and_tell)
        with dask_cluster(tmp_path, class_environment, 1) as cluster, cluster.client() as client:
            stream = carpool.stream(
                functions.whereabouts, source(), executor=client, chunk_size=1, progress=False
            )
            seen = {next(stream).value}
            cluster.add_worker()
            for outcome in stream:
                assert outcome.ok, outcome.failure
                seen.add(outcome.value)

        assert len(seen) == 2
