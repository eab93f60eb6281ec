"""Celery's workers: real ones, a prefork pool of two, with Redis between.

The contract is unchanged. With a journal each run has one of its own name; `stream` has none.
"""

from __future__ import annotations

import base64
import faulthandler
import json
import multiprocessing
import os
import pickle
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from kombu.pidbox import Mailbox
from redis import ConnectionPool, Redis

import carpool
from carpool import Report
from carpool.executors import celery, on_celery
from tests.celery_workers import Crew, Worker, broker, crew
from tests.executors import functions
from tests.executors.contract import ExecutorContract
from tests.executors.database import forget_users
from tests.executors.functions import endless_rows, names, rows, stored
from tests.waiting import HANG
from tools.keeper import free_port

BARE = """
import os
from celery import Celery

app = Celery("bare", broker=os.environ["CARPOOL_TEST_BROKER_URL"], include=INCLUDE)
app.conf.task_default_queue = os.environ["CARPOOL_TEST_QUEUE"]
"""

#: Seconds after which a child that does nothing is taken to hang.
HANGS = 60.0

#: Who answers, when, and who is refused is a matter of the workers, whatever their database is.
once = pytest.mark.only_on("sqlite")

OTHER_KEY = """
from tests.settings import *

SECRET_KEY = "another"
"""


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with broker("redis") as url:
        yield url


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the parcel went along, of each message that is sent from here on."""
    sent: list[bool] = []
    publish = on_celery.CeleryExecutor._publish

    def note(self: Any, key: int, chunk: Any, *, with_parcel: bool) -> None:
        sent.append(with_parcel)
        publish(self, key, chunk, with_parcel=with_parcel)

    monkeypatch.setattr(on_celery.CeleryExecutor, "_publish", note)
    return sent


class CeleryContract(ExecutorContract):
    label = "celery"

    @pytest.fixture(scope="class")
    @classmethod
    def crew(
        cls, redis: str, django_db_setup: None, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Crew]:
        with crew(redis, tmp_path_factory.mktemp("celery")) as made:
            made.start()
            yield made

    @pytest.fixture(autouse=True)
    def use(self, crew: Crew) -> None:
        self.options = {"executor": celery(crew.app, redelivered_chunks_may_be_unknown=True)}


class TestCelery(CeleryContract):
    """Without a journal."""

    def test_a_large_function_goes_to_each_process_once(self, sent: list[bool]) -> None:
        """One that travels by value, with much data, is sent to a worker when it asks for it."""
        data = os.urandom(100_000)

        report = self.run(lambda row: functions.create(row | {"x": data}), rows(60), chunk_size=2)

        assert (report.succeeded, report.failures) == (60, ())
        assert stored() == names(range(60))
        assert sent.count(False) == 30
        # Not one a process: what brings the parcel may reach the other one, which has it, and
        # meanwhile more chunks reach the one that hasn't.
        assert 1 <= sent.count(True) < 30

    def test_a_small_one_comes_along_and_costs_no_round_trip(self, sent: list[bool]) -> None:
        """A function with an import path is sent with each chunk."""
        self.run(functions.create, rows(20), chunk_size=2)

        assert sent == [True] * 10

    def test_a_large_item_is_warned_of(self) -> None:
        """It goes through the broker; a key or a path would not."""
        items = [{"name": "large", "data": os.urandom(2 << 20)}, {"name": "small"}]

        with pytest.warns(RuntimeWarning, match=r"Item 0 has 2\.0 MiB") as warned:
            report = self.run(functions.create, items)

        assert report.succeeded == 2
        assert len(warned) == 1

    def test_nothing_stays_at_the_broker(self, crew: Crew, redis: str) -> None:
        """Neither the reply queue nor a result, whatever the project's result backend is."""
        client = Redis.from_url(redis)
        self.run(functions.create, rows(5))
        before = set(client.keys())

        self.run(functions.shout, rows(50), chunk_size=2)

        left = set(client.keys()) - before
        assert not [key for key in left if b"replies" in key or b"celery-task-meta" in key]
        assert client.llen(crew.queue) == 0
        client.close()

    def test_what_was_not_signed_is_not_run(self, crew: Crew, tmp_path: Path) -> None:
        """Who can write to the broker can't have a pickle of theirs loaded."""

        class Evil:
            def __reduce__(self) -> Any:
                return os.system, (f"touch {tmp_path}/ran",)

        body = base64.b64encode(b"p" + pickle.dumps(Evil())).decode()
        (worker,) = crew.workers
        for text in (body, f"{'0' * 64}:{body}"):
            crew.app.send_task("carpool.run_chunk", ("tests.settings", text), ignore_result=True)

        worker.wait_for("BadSeal")
        assert self.run(functions.create, rows(5)).succeeded == 5
        assert not (tmp_path / "ran").exists()


class TestCeleryWithJournal(CeleryContract):
    """With one, as it should be; a dry run can have none."""

    def run(self, function: Callable[..., Any], items: Iterable[Any], **more: Any) -> Report:
        if not more.get("dry_run"):
            more = {"journal": uuid.uuid4().hex, **more}
        return super().run(function, items, **more)


# Workers of other kinds, and those that can't take part.


@pytest.fixture
def own(redis: str, transactional_db: None, tmp_path: Path) -> Iterator[Crew]:
    with crew(redis, tmp_path) as made:
        yield made


def start_bare(own: Crew, *, include: str, settings: str | None = None) -> Worker:
    """Start a worker whose app is no Django project's."""
    (own.folder / "bare.py").write_text(BARE.replace("INCLUDE", include))
    (own.folder / "other_key.py").write_text(OTHER_KEY)
    path = own.environment["PYTHONPATH"] + os.pathsep + str(own.folder)
    environment = {"DJANGO_SETTINGS_MODULE": settings, "PYTHONPATH": path}
    return own.start(app="bare", environment=environment)


def run(own: Crew, **options: Any) -> Report:
    given: dict[str, Any] = {"journal": uuid.uuid4().hex, "progress": False, "chunk_size": 3}
    return carpool.run(functions.create, rows(60), executor=celery(own.app), **(given | options))


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_pools_of_other_kinds(own: Crew, pool: str) -> None:
    """Threads of one process, and a pool that is the worker itself."""
    own.start(pool=pool)

    report = run(own)

    assert stored() == names(range(60))
    assert (report.succeeded, report.workers) == (60, 2 if pool == "threads" else 1)


def test_a_worker_without_settings_gets_the_coordinators(own: Crew) -> None:
    """Its app names carpool's tasks; Django is set up by the run."""
    start_bare(own, include="['carpool.tasks']")

    assert run(own).succeeded == 60
    assert stored() == names(range(60))


@once
def test_workers_of_several_hosts_add_up(own: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    """The window is that of all workers of the queue, and of no other queue's."""
    monkeypatch.setattr(on_celery, "FIRST_QUIET", 2.0)
    own.start(size=1)
    own.start(size=2)
    own.start("-Q", "elsewhere", size=4)

    assert run(own).workers == 3
    assert run(own, workers=2).workers == 2


@once
def test_a_worker_that_is_slow_to_answer_is_counted_in(
    own: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run doesn't wait for it, and has a larger window once it has answered."""
    monkeypatch.setattr(on_celery, "QUIET", 5.0)  # it is asked but once
    executors: list[on_celery.CeleryExecutor] = []
    start = on_celery.CeleryExecutor.start

    def start_and_tell(executor: on_celery.CeleryExecutor) -> None:
        start(executor)
        executors.append(executor)

    monkeypatch.setattr(on_celery.CeleryExecutor, "start", start_and_tell)
    own.start(size=1)
    slow = own.start(size=2)
    slow.process.send_signal(signal.SIGSTOP)
    given = []

    def source() -> Iterator[functions.Row]:
        """Yield rows until it has been counted in, and then some."""
        assert executors[0].workers == 1
        slow.process.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + HANG
        rows = endless_rows()
        while executors[0].workers < 3:
            assert time.monotonic() < deadline
            time.sleep(0.1)
            given.append(next(rows))
            yield given[-1]
        for _ in range(20):
            given.append(next(rows))
            yield given[-1]

    report = carpool.run(
        functions.create, source(), executor=celery(own.app), journal="joins", progress=False
    )

    assert (report.succeeded, report.workers) == (len(given), 3)
    assert stored() == names(range(len(given)))


@once
def test_a_worker_that_does_not_know_the_task_is_refused(own: Crew) -> None:
    """It would drop chunks; the remedy is said."""
    start_bare(own, include="[]")

    with pytest.raises(carpool.ConfigurationError, match=r"include=\[\"carpool.tasks\"\]"):
        run(own)
    assert stored() == []


@once
def test_a_worker_with_another_key_is_refused(own: Crew) -> None:
    """Neither could read what the other sends."""
    start_bare(own, include="['carpool.tasks']", settings="other_key")

    with pytest.raises(carpool.ConfigurationError, match="another SECRET_KEY"):
        run(own)


def test_a_worker_with_another_database_is_refused(own: Crew) -> None:
    """Its rows would be stored elsewhere."""
    # One that is there: on Django 6.1 a worker's system checks ask PostgreSQL for its version.
    elsewhere = str(connections["other"].settings_dict["NAME"])
    names_of_databases = {"default": elsewhere, "other": elsewhere}
    own.start(environment={"CARPOOL_TEST_NAMES": json.dumps(names_of_databases)})

    with pytest.raises(carpool.ConfigurationError, match="the database 'default' is"):
        run(own)
    assert stored() == []


@once
def test_without_workers_the_run_says_so(own: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some seconds, with the queue's name, and those who are there for other queues."""
    monkeypatch.setattr(on_celery, "ARRIVAL", 1.0)
    other = own.start("-Q", "elsewhere", size=1)

    with pytest.raises(carpool.RunFailed, match="No Celery worker of the queue") as caught:
        run(own)

    assert own.queue in str(caught.value)
    assert f"{other.name} (elsewhere)" in str(caught.value)


@once
def test_without_a_broker_the_run_says_so(own: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some seconds, and not never."""
    monkeypatch.setattr(on_celery, "ARRIVAL", 1.0)
    own.url = f"redis://127.0.0.1:{free_port()}/0"

    with pytest.raises(carpool.RunFailed, match="broker can't be reached"):
        run(own)


@once
def test_a_worker_that_comes_late_with_another_key_ends_the_run(own: Crew) -> None:
    """It is no chunk's fault: the run ends, and nothing is lost that was stored."""
    first = own.start(size=1)

    def source() -> Iterator[functions.Row]:
        for number, row in enumerate(rows(2_000)):
            if number == 20:
                start_bare(own, include="['carpool.tasks']", settings="other_key")
                first.kill()
            yield row

    engine = celery(own.app, patience=2)
    with pytest.raises(carpool.RunFailed, match="SECRET_KEY") as caught:
        carpool.run(
            functions.create, source(), executor=engine, journal="late", chunk_size=1, workers=1
        )
    assert caught.value.report is not None
    assert caught.value.report.unknown == 0
    assert len(stored()) == caught.value.report.succeeded


@pytest.fixture
def long_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no run end by silence where a short patience is only to have chunks looked for."""
    monkeypatch.setattr(on_celery, "SILENCE", 100)


def create_slowly_at_first(row: functions.Row) -> None:
    if row["name"] == functions.name(0):
        time.sleep(4)
    functions.create(row)


@once
@pytest.mark.usefixtures("long_silence")
def test_chunks_that_wait_behind_a_slow_one_are_no_loss(own: Crew) -> None:
    """Overdue chunks are looked for: one is found at work, the others' turn has not come."""
    own.start("--prefetch-multiplier", "1", size=1)
    engine = celery(own.app, patience=0.5)

    report = carpool.run(
        create_slowly_at_first, rows(4), executor=engine, journal="slow", chunk_size=1, workers=3
    )

    assert (report.succeeded, report.chunks) == (4, 4)
    assert stored() == names(range(4))


@once
@pytest.mark.usefixtures("long_silence")
def test_a_slow_chunk_that_others_overtake_is_no_loss(own: Crew) -> None:
    """The queue is past it, and a worker has it: it is waited for."""
    own.start(size=2)
    engine = celery(own.app, patience=0.5)

    report = carpool.run(
        create_slowly_at_first, rows(40), executor=engine, journal="overtaken", chunk_size=1
    )

    assert (report.succeeded, report.chunks) == (40, 40)
    assert stored() == names(range(40))


@pytest.fixture
def fork_children(tmp_path: Path) -> Iterator[Callable[[], list[int | str]]]:
    """Give what forks processes that do nothing, and tells how each ended.

    That is an exit code; of one that hangs, and is killed, where it hung.
    """
    context = multiprocessing.get_context("fork")
    # From a file: what faulthandler writes goes to an open one, and the child has it from here.
    with (tmp_path / "stacks").open("w") as stacks:
        faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=True)

        def fork() -> list[int | str]:
            children = [context.Process(target=len, args=("",)) for _ in range(3)]
            for child in children:
                child.start()
            return [ending(child) for child in children]

        def ending(child: Any) -> int | str:
            child.join(HANGS)
            code: int | str | None = child.exitcode
            if code is None:
                before = Path(stacks.name).stat().st_size
                os.kill(child.pid, signal.SIGUSR1)
                child.join(1.0)
                code = (
                    f"hung, then {child.exitcode}:\n"
                    + Path(stacks.name).read_bytes()[before:].decode()
                )
            child.kill()
            child.join()
            return code

        yield fork
        faulthandler.unregister(signal.SIGUSR1)


# Python 3.12 and later warn of any fork where there are threads.
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_processes_can_be_forked_after_a_run(
    own: Crew, fork_children: Callable[[], list[int | str]]
) -> None:
    """Nothing is left in the app's pool that a child would wait for, or read in our place."""
    own.start(size=1)

    assert run(own).succeeded == 60
    ended = fork_children()
    assert ended == [0] * 3, "\n".join(map(str, ended))
    forget_users()
    assert run(own).succeeded == 60


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.usefixtures("long_silence")
def test_a_source_may_fork_processes(
    own: Crew, fork_children: Callable[[], list[int | str]]
) -> None:
    """Even while the workers are asked for an overdue chunk."""
    own.start("--prefetch-multiplier", "1", size=1)
    ended: list[int | str] = []

    def source() -> Iterator[functions.Row]:
        for number, row in enumerate(rows(6)):
            if number == 2:
                for _ in range(4):
                    time.sleep(0.8)
                    ended.extend(fork_children())
            yield row

    engine = celery(own.app, patience=0.5)
    report = carpool.run(
        create_slowly_at_first,
        source(),
        executor=engine,
        journal="forks",
        chunk_size=1,
        workers=3,
    )

    assert (report.succeeded, report.chunks) == (6, 6)
    assert ended == [0] * 12, "\n".join(map(str, ended))


@once
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("whose", ["of its own", "the app's"])
def test_processes_can_be_forked_while_a_thread_holds_a_pool_of_redis(
    own: Crew,
    fork_children: Callable[[], list[int | str]],
    monkeypatch: pytest.MonkeyPatch,
    whose: str,
) -> None:
    """A thread that asks the workers is stopped where redis-py has locked its connection's pool."""
    own.start(size=1)
    held, go = threading.Event(), threading.Event()
    owns_connection = ConnectionPool.owns_connection
    others: list[ConnectionPool] = []  # whatever is used by other threads; the app's is
    its_own: list[ConnectionPool] = []

    def stop(self: ConnectionPool, connection: Any) -> int:
        if not threading.current_thread().name.startswith("carpool-celery-watcher"):
            others.append(self)
        elif not held.is_set():
            if any(pool is self for pool in others):
                stopped = whose == "the app's"
            else:  # at the first use kombu's channel is still being made
                stopped = whose == "of its own" and any(pool is self for pool in its_own)
                its_own.append(self)
            if stopped:
                held.set()
                go.wait(HANG)
        return owns_connection(self, connection)

    ended: list[int | str] = []

    def source() -> Iterator[functions.Row]:
        for number, row in enumerate(rows(4)):
            if number == 2:
                assert held.wait(HANG)
                ended.extend(fork_children())
                go.set()
            yield row

    monkeypatch.setattr(ConnectionPool, "owns_connection", stop)
    try:
        report = carpool.run(
            functions.create,
            source(),
            executor=celery(own.app, patience=5.0),
            journal="held",
            chunk_size=1,
        )
    finally:
        go.set()

    assert ended == [0] * 3, "\n".join(map(str, ended))
    assert report.succeeded == 4


@once
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_processes_can_be_forked_while_a_thread_looks_up_the_pool_to_ask_by(
    own: Crew,
    fork_children: Callable[[], list[int | str]],
) -> None:
    """For which kombu has a lock, that it takes in a child of multiprocessing's, too."""
    own.start(size=1)
    assert run(own).succeeded == 60
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        with vars(Mailbox)["producer_pool"].lock:
            held.set()
            go.wait(HANG)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(HANG)
        ended = fork_children()
    finally:
        go.set()
        thread.join()

    assert ended == [0] * 3, "\n".join(map(str, ended))


def create_soon(row: functions.Row) -> None:
    time.sleep(0.4)
    functions.create(row)


@once
def test_a_source_that_pauses_is_no_silence_of_the_workers(own: Crew) -> None:
    """While nothing is out, nobody has anything to answer, however long that is."""
    own.start(size=1)

    def source() -> Iterator[functions.Row]:
        yield from rows(2)
        while stored() != names(range(2)):
            time.sleep(0.05)
        time.sleep(3.0)
        yield rows(3)[2]

    engine = celery(own.app, patience=0.5)
    report = carpool.run(
        create_soon, source(), executor=engine, journal="pauses", chunk_size=1, workers=2
    )

    assert (report.succeeded, report.unknown) == (3, 0)
