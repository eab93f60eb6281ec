"""``manage.py carpool`` as a shell runs it: exit codes, stdout, stderr, and what is stored."""

from __future__ import annotations

import gzip
import json
import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.models.functions import Now

from carpool.journal.models import Run
from tests.acceptance.command.conftest import COMMAND, Command, call, names, shell, stored
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_connections_left")


# What is read, and what is called.


def test_a_file_is_read_and_the_report_is_printed(carpool: Command, rows: Any) -> None:
    """All well: exit code 0, the report on stdout, nothing on stderr."""
    rows(300)
    done = carpool("run", "shop.create", "users.csv")
    assert done.stdout.startswith("300 items in ")
    assert "300 succeeded" in done.stdout
    assert done.stderr == ""
    assert stored() == names(300)


def test_several_files_and_globs(carpool: Command, rows: Any, folder: Path) -> None:
    """Each goes by its ending, packed or not; they are one source."""
    rows(3, name="a.csv")
    rows(5, name="b-1.csv.gz")
    (folder / "b-1.csv.gz").write_bytes(gzip.compress(b"name,do\nv1,\nv2,\n"))
    (folder / "c.jsonl").write_text('{"name": "w1"}\n{"name": "w2"}\n')
    carpool("run", "shop.create", "a.csv", "b-*.csv.gz", "c.jsonl")
    assert stored() == [*names(3), "v1", "v2", "w1", "w2"]


def test_options_may_come_before_files(carpool: Command, rows: Any) -> None:
    """Or between them."""
    rows(2, name="a.csv")
    rows(4, name="b.csv")
    (options, more) = (["--workers", "1", "-v", "1"], ["--no-coalesce"])
    carpool("run", *options, "shop.create", *more, "a.csv", "--json", "b.csv", code=1)
    assert stored() == names(4)


def test_options_for_files(carpool: Command, folder: Path) -> None:
    """Encoding, delimiter and names of the columns."""
    (folder / "users.txt").write_bytes("Zo\xeb\traise not\nAnn\t\n".encode("cp1252"))
    options = ["--format", "csv", "--encoding", "cp1252", "--delimiter", "\\t"]
    carpool("run", "shop.create", "users.txt", *options, "--columns", "name,do")
    assert stored() == ["Ann", "Zoë"]


def test_stdin_is_read(carpool: Command) -> None:
    """As "-", with its format."""
    carpool("run", "shop.create", "-", "--format", "csv", input="name,do\nann,\nbob,\n")
    assert stored() == ["ann", "bob"]


def test_typed_items(carpool: Command, folder: Path) -> None:
    """Rows that don't validate are failed items."""
    (folder / "users.csv").write_text("name,visits\nann,2\nbob,many\n")
    done = carpool("run", "shop.create_typed", "users.csv", code=1)
    assert "InvalidItem" in done.stdout
    assert User.objects.get().first_name == "3"


def test_what_is_called_besides(carpool: Command, rows: Any, folder: Path) -> None:
    """--setup and --before-chunk name functions as TARGET does."""
    User.objects.create(username="u0001")
    rows(3)
    options = ["--setup", "shop.prepare", "--before-chunk", "shop.known"]
    carpool("run", "shop.create_unknown", "users.csv", *options)
    assert stored() == names(3)
    assert (folder / "prepared").exists()


def test_a_queryset(carpool: Command) -> None:
    """The rows that match, loaded by the workers."""
    for n, name in enumerate(["ann", "bob", "cid", "dan"]):
        User.objects.create(username=name, is_active=n != 1, first_name="x, y" if n else "")
    conditions = 'auth.User:is_active=true,username__in=ann|bob|cid,"first_name=x, y"'
    done = carpool("run", "shop.shout", "--queryset", conditions)
    assert "1 succeeded" in done.stdout
    assert stored() == ["CID", "ann", "bob", "dan"]
    carpool("run", "shop.shout", "--queryset", "auth.User", "--executor", "processes")
    assert stored() == ["ANN", "BOB", "CID", "DAN"]


def test_a_model_with_a_mapping(carpool: Command, folder: Path) -> None:
    """Its rows are cleaned and saved; columns that are mapped to nothing are left out."""
    (folder / "users.csv").write_text(
        "Login,password,E-mail,Remarks\nann,x,ann@example.org,?\nbob,x,nonsense,!\n"
    )
    mapping = ["--map", "Login=username", "--map", "E-mail=email", "--map", "Remarks="]
    done = carpool("run", "auth.User", "users.csv", *mapping, code=1)
    assert "'E-mail'" in done.stdout or "E-mail: " in done.stdout
    assert stored() == ["ann"]


def test_a_models_columns_are_checked_before_the_first_row(carpool: Command, folder: Path) -> None:
    """A column that is for no field is one clear refusal, and not a failure for each row."""
    (folder / "users.csv").write_text("username,password,Remarks\nann,x,?\nbob,x,!\n")
    done = carpool("run", "auth.User", "users.csv", code=2)
    assert "Remarks" in done.stderr
    assert done.stdout == ""
    assert stored() == []


# Failures.


def test_failed_items_and_a_second_pass(carpool: Command, rows: Any, folder: Path) -> None:
    """Exit code 1; the rejects are read like any file, once the cause is mended."""
    rows(40, {3: "raise", 17: "raise"})
    done = carpool("run", "shop.create", "users.csv", "--rejects", "failed.jsonl", code=1)
    assert "2 × ValueError, first at item 3: u0003 is bad" in done.stdout
    assert "2 of 40 items did not succeed" in done.stderr
    assert len(stored()) == 38
    (folder / "mended").touch()
    carpool("run", "shop.create", "failed.jsonl", "--rejects", "failed-2.jsonl")
    assert stored() == names(40)
    assert (folder / "failed-2.jsonl").read_text() == ""


def test_limits_on_failures(carpool: Command, rows: Any) -> None:
    """A run that stops because items failed has the exit code of one in which items failed."""
    rows(400, dict.fromkeys(range(400), "raise"))
    for limit in (["--max-failures", "3"], ["--on-error", "raise"]):
        done = carpool("run", "shop.create", "users.csv", *limit, "--chunk-size", "5", code=1)
        assert "Stopped" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert "items in" in done.stdout and "400 items" not in done.stdout


def cut_short(folder: Path, rows: Any) -> None:
    whole = rows(20_000, name="users.csv.gz").read_bytes()
    (folder / "users.csv.gz").write_bytes(whole[: len(whole) // 2])


def ragged(folder: Path, rows: Any) -> None:
    (folder / "users.csv.gz").write_bytes(gzip.compress(b"name,do\nann,\nbob\ncid,\n"))


def wrongly_encoded(folder: Path, rows: Any) -> None:
    (folder / "users.csv.gz").write_bytes(
        gzip.compress("name,do\nann,\nZo\xeb,\n".encode("cp1252"))
    )


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(cut_short, "end too soon", id="cut short"),
        pytest.param(ragged, "line 3: 1 field", id="ragged"),
        pytest.param(wrongly_encoded, "line 3, column 3", id="wrong encoding"),
    ],
)
def test_a_damaged_file(carpool: Command, rows: Any, folder: Path, damage: Any, words: str) -> None:
    """What comes before the damage is stored and reported; the place is named; exit code 2."""
    damage(folder, rows)
    done = carpool("run", "shop.create", "users.csv.gz", code=2)
    assert words in done.stderr
    assert "users.csv.gz" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert f"{len(stored()):,} succeeded" in done.stdout


REFUSED: list[tuple[list[str], str]] = [
    (["shop.creat", "users.csv"], "Did you mean create?"),
    (["auth.Usr", "users.csv"], "Did you mean User?"),
    (["shop.create"], "nothing to read"),
    (["shop.create", "no.csv"], "no file 'no.csv'"),
    (["shop.create", "users.what"], "users.what"),
    (["shop.create", "users.csv", "--sheet", "One"], "sheet="),
    (["shop.create", "users.csv", "--workers", "0"], "workers=0"),
    (["shop.create", "users.csv", "--workers", "many"], "invalid int value"),
    (["shop.create", "users.csv", "--executor", "magic"], "invalid choice"),
    (["shop.create", "users.csv", "--using", "nowhere"], "'nowhere'"),
    (["shop.create", "users.csv", "--map", "a=b"], "--map is for models"),
    (["auth.User", "users.csv", "--map", "nonsense"], "is not COLUMN=FIELD"),
    (["shop.create", "users.csv", "--rejects", "users.csv"], "rejects='users.csv'"),
    (["shop.create", "users.csv", "--retry-failed"], "journal"),
    (["shop.create", "users.csv", "--queryset", "auth.User"], "users.csv"),
    (["shop.shout", "--queryset", "auth.User:nonsense=1"], "nonsense"),
    (["shop.shout", "--queryset", "auth.User:id=one"], "id=one"),
    (["shop.shout", "--queryset", "auth.User:id"], "is not FIELD=VALUE"),
    (["shop.shout", "--queryset", "shop.create"], "is not a model"),
    (["auth.User", "--queryset", "auth.User"], "saves new rows"),
    (["shop.create", "users.csv", "--before-chunk", "shop.no"], "'no'"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_cannot_work_is_refused(
    carpool: Command, rows: Any, folder: Path, arguments: list[str], words: str
) -> None:
    """Exit code 2, one clear line on stderr, nothing on stdout, nothing stored."""
    rows(3)
    (folder / "users.what").touch()
    done = carpool("run", *arguments, code=2)
    assert words in done.stderr
    assert done.stdout == ""
    assert stored() == []


def test_the_traceback_is_there_if_asked_for(
    folder: Path, subprocess_environment: dict[str, str]
) -> None:
    """--traceback, before the action's name or after it; the exit code is the same."""
    for arguments in (["--traceback", "run"], ["run", "--traceback"]):
        command = [*COMMAND, *arguments, "shop.create", "no.csv"]
        done = call(command, folder, subprocess_environment)
        assert done.returncode == 2
        assert "Traceback (most recent call last)" in done.stderr
        assert "carpool.exceptions.ConfigurationError" in done.stderr


# Pipes.


def test_nobody_reads_stdout(
    rows: Any, folder: Path, subprocess_environment: dict[str, str]
) -> None:
    """The work is done, and the exit code says how it went, though the reader has gone."""
    rows(20)
    done = shell(
        'carpool run shop.create users.csv | true; echo "${PIPESTATUS[0]}"',
        folder,
        subprocess_environment,
    )
    assert (done.stdout.strip(), done.stderr) == ("0", "")
    assert stored() == names(20)
    done = shell(
        'carpool run shop.create users.csv | head -n 1; echo "${PIPESTATUS[0]}"',
        folder,
        subprocess_environment,
    )
    assert done.stdout.startswith("20 items in ")
    assert done.stdout.endswith("\n1\n")
    assert "Traceback" not in done.stderr and "Broken" not in done.stderr


def test_stdout_that_takes_not_everything(
    rows: Any, folder: Path, subprocess_environment: dict[str, str]
) -> None:
    """A full disk is told of; what an encoding doesn't have is written in ASCII."""
    rows(20, {3: "raise", 4: "raise"})
    done = shell("carpool run shop.create users.csv > /dev/full", folder, subprocess_environment)
    assert done.returncode == 1
    assert "The report can't be printed" in done.stderr
    assert "Traceback" not in done.stderr
    ascii_only = subprocess_environment | {"PYTHONIOENCODING": "ascii"}
    done = shell("carpool run shop.create users.csv", folder, ascii_only)
    assert done.returncode == 1
    assert r"2 \xd7 ValueError" in done.stdout or r"20 \xd7 IntegrityError" in done.stdout
    assert "Traceback" not in done.stderr


def test_stdin_that_is_closed(folder: Path, subprocess_environment: dict[str, str]) -> None:
    """A clear refusal."""
    done = shell("carpool run shop.create - --format csv <&-", folder, subprocess_environment)
    assert done.returncode == 2
    assert "stdin, which is closed" in done.stderr
    assert "Traceback" not in done.stderr


def test_stdin_that_ends_early(
    rows: Any, folder: Path, subprocess_environment: dict[str, str]
) -> None:
    """Whoever should have written all of it has died: what came is stored, the cut is told."""
    rows(5000, name="users.csv.gz")
    done = shell(
        "head -c 9000 users.csv.gz | carpool run shop.create - --format csv.gz",
        folder,
        subprocess_environment,
    )
    assert done.returncode == 2
    assert "stdin" in done.stderr and "end too soon" in done.stderr
    assert stored() and f"{len(stored()):,} succeeded" in done.stdout


# What is printed.


def test_json(carpool: Command, rows: Any) -> None:
    """One object: all figures, and the failures as in a rejects file."""
    rows(30, {4: "raise"})
    done = carpool("run", "shop.create", "users.csv", "--json", code=1)
    told = json.loads(done.stdout)
    assert (told["total"], told["succeeded"], told["failed"], told["unknown"]) == (30, 29, 1, 0)
    assert told["coalesced"]["queued"] >= 29
    assert told["error"] == "1 of 30 items did not succeed."
    (failure,) = told["failures"]
    assert failure["item"] == {"name": "u0004", "do": "raise"}
    assert (failure["index"], failure["error"]) == (4, "builtins.ValueError")


def test_a_dry_run_leaves_nothing(carpool: Command, rows: Any) -> None:
    """Everything is run, failures are told, and how long it would take; nothing is stored."""
    rows(200, {4: "raise"})
    done = carpool("run", "shop.create", "users.csv", "--dry-run", code=1)
    assert "dry run: all rolled back" in done.stdout
    assert "first at item 4" in done.stdout
    assert "writes became" in done.stdout
    assert "200 items would take about " in done.stdout
    assert stored() == []


def test_a_dry_run_that_stops_early_tells_of_the_whole(carpool: Command) -> None:
    """Where the source tells how long it is: a queryset does."""
    User.objects.bulk_create(User(username=name) for name in names(500))
    options = ["--dry-run", "--json", "--max-failures", "3", "--chunk-size", "5"]
    queryset = ["--queryset", "auth.User"]
    done = carpool("run", "shop.create", *queryset, *options, code=1)
    told = json.loads(done.stdout)
    assert told["total"] < 100
    assert told["foreseen_seconds"] > told["seconds"] * 2


def test_lines_of_progress(carpool: Command, rows: Any) -> None:
    """At -v 2 a line each time that chunks have ended; none with --no-progress or -v 0."""
    rows(20)
    options = ["--chunk-size", "5", "--executor", "inline", "--dry-run"]
    done = carpool("run", "shop.create", "users.csv", *options, "-v", "2")
    lines = done.stderr.splitlines()
    assert len(lines) == 4
    assert lines[-1].startswith("20 items, ")
    for quiet in (["-v", "2", "--no-progress"], ["-v", "0"]):
        assert carpool("run", "shop.create", "users.csv", *options, *quiet).stderr == ""


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["show", "--help"]], ids=str)
def test_help(carpool: Command, arguments: list[str]) -> None:
    """Each action explains itself."""
    done = carpool(*arguments)
    assert done.stderr == ""
    assert "run" in done.stdout
    if arguments[0] == "run":
        assert "exit codes: 0 all items succeeded" in done.stdout
        assert 'carpool run shop.Order orders.csv --map "Customer E-mail=' in done.stdout


# Ended from outside.


@pytest.mark.parametrize("executor", ["inline", "processes"])
def test_ctrl_c(begin: Any, rows: Any, executor: str) -> None:
    """Exit code 130; what was done is committed and told."""
    rows(9000)
    script = begin("run", "shop.create_slowly", "users.csv", "--json", "--executor", executor)
    script.wait_for("ran", 30)
    script.interrupt()
    script.wait(130)
    assert "Traceback" not in script.err
    assert "Interrupted." in script.err
    told = json.loads(script.out)
    assert told["succeeded"] == len(stored()) < 9000


def test_ctrl_c_before_it_begins(begin: Any, folder: Path) -> None:
    """While the source is not there yet: no report, but no traceback either."""
    os.mkfifo(folder / "users.csv")
    script = begin("run", "auth.User", "users.csv")
    holder = os.open(folder / "users.csv", os.O_WRONLY)
    try:
        script.interrupt()
        script.wait(130)
    finally:
        os.close(holder)
    assert "Traceback" not in script.err
    assert script.out == ""


BARE = """
from tests.settings import *
DATABASES["default"] = {{"ENGINE": "django.db.backends.sqlite3", "NAME": "bare.sqlite3"}}
INSTALLED_APPS = [app for app in INSTALLED_APPS if app != {left_out!r}]
"""


@pytest.mark.parametrize("checked", [True, False], ids=["checked", "skipped"])
@pytest.mark.parametrize(
    ("left_out", "identity", "remedy"),
    [
        pytest.param("carpool.journal", "carpool.E001", "INSTALLED_APPS", id="no app"),
        pytest.param("", "carpool.E002", "migrate carpool_journal", id="not migrated"),
    ],
)
def test_a_journal_that_is_not_there(
    folder: Path,
    rows: Any,
    subprocess_environment: dict[str, str],
    left_out: str,
    identity: str,
    remedy: str,
    checked: bool,
) -> None:
    """One line that says what to do, exit code 2, and nothing is run; with and without checks."""
    rows(3)
    (folder / "bare.py").write_text(BARE.format(left_out=left_out))
    command = [*COMMAND, "run", "shop.create", "users.csv", "--journal", "users"]
    if not checked:
        command.append("--skip-checks")
    bare = {"DJANGO_SETTINGS_MODULE": "bare"}
    done = call(command, folder, subprocess_environment | bare)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert (identity in line) is checked
    assert remedy in line


POOL = """
from tests.settings import *
DATABASES["default"].setdefault("OPTIONS", {})["pool"] = {"min_size": 1, "max_size": 3}
"""

COUNTS = """
import time
from django.db import connection

def count(row):
    time.sleep(0.05)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        with open("counted", "a") as file:
            file.write(f"{cursor.fetchone()[0]}\\n")
"""


@pytest.mark.only_on("postgresql")
def test_a_pool_is_warned_of(
    folder: Path, rows: Any, subprocess_environment: dict[str, str]
) -> None:
    """Where there may be worker processes, which have the server see more than max_size."""
    pytest.importorskip("psycopg_pool")
    rows(60)
    (folder / "pooled.py").write_text(POOL)
    (folder / "counts.py").write_text(COUNTS)
    environment = subprocess_environment | {"DJANGO_SETTINGS_MODULE": "pooled"}
    call = "carpool run counts.count users.csv --chunk-size 5 --workers"
    for how, warns in (
        ("4 --executor processes", True),
        ("4 --executor processes --start-method fork", True),
        ("2 --executor threads", False),
        ("1 --executor inline", False),
    ):
        done = shell(f"{call} {how}", folder, environment)
        assert (done.returncode, "60 succeeded" in done.stdout) == (0, True), done.stderr
        assert ("carpool.W004" in done.stderr) is warns, how
        counted = [int(line) for line in (folder / "counted").read_text().split()]
        assert (max(counted) > 3 + 1) is warns, how  # and that of the test
        (folder / "counted").unlink()


@pytest.mark.usefixtures("journal")
def test_a_killed_run_is_taken_up(begin: Any, carpool: Command, rows: Any, folder: Path) -> None:
    """The same call again, after kill -9, does what is left: each item exactly once."""
    rows(3000)
    call = ["run", "shop.create_slowly", "users.csv", "--journal", "users", "--chunk-size", "10"]
    script = begin(*call, "--executor", "processes", "--workers", "2")
    script.wait_for("ran", 60)
    os.kill(script.process.pid, signal.SIGKILL)
    script.wait(-signal.SIGKILL)
    before = len(stored())
    assert 0 < before < 3000
    Run.objects.update(beat_at=Now() + timedelta(hours=1))  # not silent yet, whatever time it takes
    assert "is being run by process" in carpool(*call, code=2).stderr
    assert "users  running" in carpool("runs").stdout
    (folder / "quick").touch()
    done = carpool(*call, "--take-over", "--json")
    told = json.loads(done.stdout)
    assert (told["succeeded"], told["already"]) == (3000, before)
    assert stored() == names(3000)
    shown = json.loads(carpool("show", "users", "--json").stdout)
    assert (shown["state"], shown["succeeded"], shown["failed"]) == ("succeeded", 3000, 0)
    assert shown["function"] == "shop.create_slowly"
    assert shown["source"] == "<carpool.read('users.csv')>"
    assert "succeeded" in carpool("show", "users").stdout


@pytest.mark.usefixtures("journal")
def test_a_killed_run_is_cancelled(begin: Any, carpool: Command, rows: Any, folder: Path) -> None:
    """Nobody hears it, which is said; the same call again goes on. Then there is nothing to ask."""
    rows(1500)
    call = ["run", "shop.create_slowly", "users.csv", "--journal", "users", "--chunk-size", "10"]
    script = begin(*call, "--executor", "inline")
    script.wait_for("ran", 30)
    os.kill(script.process.pid, signal.SIGKILL)
    script.wait(-signal.SIGKILL)
    Run.objects.update(beat_at=Now() - timedelta(minutes=1))
    said = carpool("cancel", "users").stdout
    assert f"process {script.process.pid} on " in said and "nobody notices" in said
    assert "users  running, cancel wanted" in carpool("runs").stdout
    (folder / "quick").touch()
    assert "1,500 succeeded" in carpool(*call).stdout
    assert stored() == names(1500)
    for action in ("cancel", "pause", "resume"):
        said = carpool(action, "users", code=2).stderr
        assert f"is succeeded, not running: there is nothing to {action}" in said
    assert Run.objects.get().wanted == ""


@pytest.mark.usefixtures("journal")
def test_a_run_is_paused_and_cancelled(begin: Any, carpool: Command, rows: Any) -> None:
    """By other calls of the command; a cancelled run has not come to its end."""
    rows(9000)
    call = ["run", "shop.create_slowly", "users.csv", "--journal", "users", "--chunk-size", "10"]
    script = begin(*call, "--executor", "inline")
    script.wait_for("ran", 30)
    assert "asked to pause" in carpool("pause", "users").stdout
    assert "pause wanted" in carpool("runs").stdout

    def stands_still() -> bool:
        before = len(script.lines("ran"))
        time.sleep(1)
        return len(script.lines("ran")) == before

    wait_until(stands_still)
    carpool("resume", "users")
    there = len(script.lines("ran"))
    script.wait_for("ran", there + 10)
    carpool("cancel", "users")
    script.wait(2)
    assert "The run was cancelled." in script.err
    assert "items in" in script.out
    assert json.loads(carpool("runs", "--json").stdout)[0]["state"] == "cancelled"
    assert "is cancelled, not running" in carpool("pause", "users", code=2).stderr
    assert "There are: users." in carpool("show", "other", code=2).stderr
