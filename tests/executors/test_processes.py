"""Processes of carpool's own: under each start method, and what happens when they die."""

from __future__ import annotations

import errno
import functools
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection

import carpool
from carpool.executors import processes
from tests.executors import functions
from tests.executors.contract import ExecutorContract
from tests.executors.functions import endless_rows, name, names, rows, stored
from tests.waiting import wait_until

DIED = "carpool.exceptions.WorkerDied"
UNKNOWN = "carpool.exceptions.OutcomeUnknown"


class ProcessesContract(ExecutorContract):
    """The contract, and what must hold where a worker can die without taking the parent along."""

    def test_a_worker_that_dies_costs_one_item(self) -> None:
        """Items that end their process, one way or another, fail; all others are stored, once."""
        killers = {5: "exit", 23: "sigkill", 24: "segfault", 49: "exit"}

        report = self.run(functions.create, rows(50, killers), chunk_size=10)

        assert {failure.index: failure.error for failure in report.failures} == dict.fromkeys(
            killers, DIED
        )
        messages = {failure.index: failure.message for failure in report.failures}
        assert "exit code 3" in messages[5]
        assert "SIGKILL" in messages[23]
        assert "SIGSEGV" in messages[24]
        assert {failure.stage for failure in report.failures} == {"worker"}
        assert (report.succeeded, report.unknown) == (46, 0)
        assert stored() == [name(n) for n in range(50) if n not in killers]

    def test_a_worker_that_dies_before_a_chunk_costs_one_item(self) -> None:
        """The chunk goes to others, whole and then in halves, down to the row to blame."""
        report = self.run(
            functions.create_knowing,
            rows(20, {7: "exit"}),
            before_chunk=functions.die_for_exit,
            chunk_size=8,
        )

        assert [(f.index, f.error) for f in report.failures] == [(7, DIED)]
        assert (report.succeeded, report.unknown) == (19, 0)
        assert stored() == [name(n) for n in range(20) if n != 7]

    @pytest.mark.only_on("postgresql", "mysql")
    def test_a_dead_worker_is_replaced(self, tmp_path: Path) -> None:
        """After deaths there are as many workers as before: two items can wait for one another.

        (Not so on SQLite, where chunks have to wait for one another's write lock.)
        """
        items = rows(12, {1: "exit", 2: "sigkill"})
        items[8]["pair"], items[9]["pair"] = name(9), name(8)

        report = self.run(
            functools.partial(functions.meet, str(tmp_path)), items, chunk_size=1, workers=2
        )

        assert sorted(failure.index for failure in report.failures) == [1, 2]

    def test_workers_have_the_callers_databases(self) -> None:
        """Workers write where the caller would, which in a test is not what the settings say."""
        outcomes = list(self.stream(functions.database_name, rows(4)))

        assert {outcome.value for outcome in outcomes} == {str(connection.settings_dict["NAME"])}


class TestForkserver(ProcessesContract):
    """The default."""

    options = {"executor": "processes", "workers": 2, "start_method": "forkserver"}
    label = "processes (forkserver)"


@pytest.mark.only_on("postgresql")  # each start costs a second, and none depends on the database
class TestSpawn(ProcessesContract):
    """The only one where there is no fork."""

    options = {"executor": "processes", "workers": 1, "start_method": "spawn"}
    label = "processes (spawn)"
    workers = 1


# Python 3.12 and later warn of any fork where there are threads, such as the one with which
# faulthandler watches over the tests.
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
class TestFork(ProcessesContract):
    options = {"executor": "processes", "workers": 2, "start_method": "fork"}
    label = "processes (fork)"


pytestmark = pytest.mark.usefixtures("transactional_db", "no_connections_left")


def run(function: Any, items: Any, **options: Any) -> carpool.Report:
    """Run in two processes of the default start method."""
    return carpool.run(
        function, items, **{"executor": "processes", "workers": 2, "progress": False, **options}
    )


# Deaths.


def test_an_item_that_was_only_there_is_given_another_chance(tmp_path: Path) -> None:
    """A worker's death may be no fault of the item that was running: alone, it succeeds."""
    function = functools.partial(functions.kill_once, str(tmp_path))

    report = run(function, rows(30, {4: "exit once", 21: "exit once"}), chunk_size=10)

    assert report.failures == ()
    assert stored() == names(range(30))


def test_many_killers_in_one_run() -> None:
    """Killers side by side and in a row, at the ends of chunks too, cost themselves only."""
    kinds = ["exit", "sigkill", "segfault"]
    killers = {n: kinds[n % 3] for n in (0, 1, 2, 9, 10, 19, 33, 34, 58, 59)}

    report = run(functions.create, rows(60, killers), chunk_size=10)

    assert {failure.index for failure in report.failures} == killers.keys()
    assert stored() == [name(n) for n in range(60) if n not in killers]


def test_a_death_after_commit_is_none_for_the_rows() -> None:
    """A worker that dies in an on_commit callback has stored its chunk, and it counts as stored."""
    report = run(functions.create, rows(30, {13: "exit after commit"}), chunk_size=10)

    assert stored() == names(range(30))
    assert (report.succeeded, report.failed, report.unknown) == (30, 0, 0)


@pytest.mark.parametrize(("moment", "there"), [("before", False), ("just after", True)])
def test_a_death_at_commit_is_unknown(tmp_path: Path, moment: str, there: bool) -> None:
    """Of a chunk whose worker dies in COMMIT nobody can say; it is said so, and not run again."""
    action = {"before": "exit at commit", "just after": "exit just after commit"}[moment]
    function = functools.partial(functions.create_noting, str(tmp_path))

    report = run(function, rows(30, {13: action}), chunk_size=10, setup=functions.obey_at_commit)

    assert (report.succeeded, report.failed, report.unknown) == (20, 0, 10)
    assert [failure.index for failure in report.failures] == list(range(10, 20))
    assert {(failure.error, failure.stage) for failure in report.failures} == {(UNKNOWN, "unknown")}
    assert sorted((tmp_path / "runs").read_text().split()) == names(range(30))
    assert stored() == [name(n) for n in range(30) if there or not 10 <= n < 20]


@pytest.mark.only_on("postgresql")
def test_a_worker_killed_while_the_server_commits(tmp_path: Path) -> None:
    """A worker killed while it waits for the server's answer to COMMIT leaves its chunk unknown."""
    holder = connection.copy()  # of a lock that COMMIT waits for, so that it lasts long enough
    with holder.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(13)")
    with connection.cursor() as cursor:
        cursor.execute(
            """
            CREATE FUNCTION slow_commit() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_advisory_xact_lock(13); RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON auth_user
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
                WHEN (NEW.username = 'u00013') EXECUTE FUNCTION slow_commit();
            """
        )
    try:
        report = run(
            functools.partial(functions.create_and_be_killed_at_commit, str(tmp_path)),
            rows(30),
            chunk_size=10,
        )
    finally:
        holder.close()
        # The server goes on, whether or not anyone waits; this waits until it has come to an end.
        with connection.cursor() as cursor:
            cursor.execute("DROP TRIGGER slow_commit ON auth_user; DROP FUNCTION slow_commit")

    assert (report.succeeded, report.failed, report.unknown) == (20, 0, 10)
    assert [failure.index for failure in report.failures] == list(range(10, 20))
    there = set(stored())
    assert there in ({*names(range(30))}, {*names(range(10)), *names(range(20, 30))})


# Time limits.


def test_a_hanging_item_costs_itself_only(tmp_path: Path) -> None:
    """An item past its time limit fails with ItemTimeout; the others, and the pool, are whole."""
    items = rows(20, {3: "hang", 4: "hang"})
    timeout = 6
    if connection.vendor != "sqlite":  # where only one of the two could be running
        items[14]["pair"], items[15]["pair"] = name(15), name(14)
        timeout = 20  # the first of them may have to wait for a worker to start

    report = run(
        functools.partial(functions.meet, str(tmp_path)), items, chunk_size=1, timeout=timeout
    )

    assert {(f.index, f.error) for f in report.failures} == {
        (n, "carpool.exceptions.ItemTimeout") for n in (3, 4)
    }
    assert all(f"timeout={timeout:g} seconds" in failure.message for failure in report.failures)
    assert stored() == [name(n) for n in range(20) if n not in (3, 4)]


def test_a_hanging_item_in_a_chunk_of_many() -> None:
    """The time limit is an item's, not a chunk's: its neighbours are run again and stored."""
    items = rows(60, dict.fromkeys(range(60), "doze") | {35: "hang"})

    report = run(functions.create, items, chunk_size=30, timeout=6)

    assert [failure.index for failure in report.failures] == [35]
    assert stored() == [name(n) for n in range(60) if n != 35]


def test_a_program_that_hangs(tmp_path: Path) -> None:
    """An item past its time limit is ended with the programs that it has started."""
    program = tmp_path / "program"

    report = run(functools.partial(functions.start_program, str(program)), rows(1), timeout=6)

    assert [failure.error for failure in report.failures] == ["carpool.exceptions.ItemTimeout"]
    process = Path("/proc", program.read_text(), "stat")
    wait_until(
        lambda: not process.exists() or process.read_text().rpartition(")")[2].split()[0] == "Z",
        "it lives on",
    )


# Ends that are broken off.


def test_ctrl_c_while_workers_are_dismissed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second Ctrl-C may strike when all is done but the farewell: nobody is left behind then."""
    dismissed = []

    def dismiss(worker: Any) -> None:
        dismissed.append(worker)
        if len(dismissed) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("carpool.executors.processes._Worker.dismiss", dismiss)

    with pytest.raises(KeyboardInterrupt):
        run(functions.create, rows(30), workers=3, chunk_size=1)

    assert multiprocessing.active_children() == []
    assert stored() == names(range(30))


# Starts that fail.


def test_a_setup_that_ends_the_process() -> None:
    """Workers that die at their start, without a word, end the run after a few of them."""
    with pytest.raises(carpool.RunFailed, match=r"died at their start \(exit code 8\)") as caught:
        run(functions.create, endless_rows(), setup=functions.die_at_setup)

    assert caught.value.report is not None
    assert (caught.value.report.succeeded, stored()) == (0, [])


def test_a_worker_that_cannot_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run says so, and what had ended by then is in its report."""
    hire = processes.ProcessesExecutor._hire
    hired = []

    def hire_two(executor: processes.ProcessesExecutor) -> None:
        if len(hired) == 2:
            raise OSError(errno.EMFILE, "Too many open files")
        hire(executor)
        hired.append(executor)

    monkeypatch.setattr(processes.ProcessesExecutor, "_hire", hire_two)
    with pytest.raises(carpool.RunFailed, match=r"no other can be started: .*Too many") as caught:
        run(functions.create, rows(30, {5: "exit"}), workers=2, chunk_size=3)

    report = caught.value.report
    assert report is not None
    assert report.total == report.succeeded + report.failed + report.unknown
    assert len(stored()) == report.succeeded


# What workers say.


def test_output_reaches_the_callers_stderr_in_whole_lines(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """stdout, stderr and logging of the workers come out on stderr, no line torn by another."""
    run(functions.talk, rows(80), workers=3, chunk_size=3)

    out, err = capfd.readouterr()
    assert out == ""
    verbs = ["says", "warns", "logs"]
    expected = [f"{name(n)} {verb} {'x' * 200}" for n in range(80) for verb in verbs]
    assert sorted(err.splitlines()) == sorted(expected)


def test_output_of_a_workers_own_children(capfd: pytest.CaptureFixture[str]) -> None:
    """What programs print that a function starts reaches stderr as well, and so do last words."""
    run(functions.echo, rows(6, {3: "exit"}), chunk_size=2)

    lines = set(capfd.readouterr().err.split())
    assert {f"{n}-by-echo" for n in names(range(6))} <= lines


def test_debug_does_not_pile_up_statements() -> None:
    """What DEBUG=True keeps of each statement is dropped after each chunk."""
    outcomes = carpool.stream(
        functions.count_queries,
        rows(200),
        executor="processes",
        workers=1,
        chunk_size=10,
        setup=functions.keep_queries,
        progress=False,
    )

    kept = [outcome.value for outcome in outcomes]
    assert min(kept) > 0
    assert max(kept) < 60


# Large things.


def test_items_and_values_larger_than_a_pipe() -> None:
    """Items and values of megabytes pass, both ways at once."""
    items = [{"name": name(n), "load": "x" * 3_000_000} for n in range(12)]

    outcomes = list(
        carpool.stream(functions.give_back, items, executor="processes", workers=2, progress=False)
    )

    assert [len(outcome.value) for outcome in outcomes] == [3_000_000] * 12


def test_many_failures_in_one_chunk_are_told_after_commit() -> None:
    """A result too large to be told before COMMIT is told after it, whole."""
    bad = dict.fromkeys(range(0, 3000, 2), "raise early")

    report = run(functions.create, rows(3000, bad), chunk_size=1500)

    assert (report.succeeded, report.failed) == (1500, 1500)
    assert User.objects.count() == 1500


def test_a_chunk_in_which_all_rows_are_gone() -> None:
    """Rows deleted before their chunk is loaded are skipped, however many there are."""
    User.objects.bulk_create(User(username=name(n)) for n in range(24_000))
    first = User.objects.order_by("pk")[11_999].pk

    report = carpool.run(
        functools.partial(functions.delete_after, first),
        User.objects.all(),
        executor="processes",
        workers=1,
        chunk_size=12_000,
        progress=False,
    )

    assert (report.succeeded, report.skipped, report.failed) == (12_000, 12_000, 0)
