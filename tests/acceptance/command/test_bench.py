"""``manage.py carpool bench`` as a shell runs it: what it says, and that nothing is stored."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from tests.acceptance.command.conftest import COMMON, Command
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_connections_left")

#: What is told, plotted and advised is made of figures, whatever database they are of.
once = pytest.mark.only_on("sqlite")

FUNCTIONS = (
    COMMON
    + """
def create(row):
    row["name"] = row["name"] + "!"  # the next pass must not see it
    User.objects.create(username=row.pop("name"))
    if row.get("do") == "raise":
        raise ValueError("a bad row")

def create_and_tell(row):
    create(row)
    print("created")
    with open("ran", "a") as file:
        file.write("x\\n")

def wait(row):
    time.sleep(0.01)
    User.objects.create(username=row["name"])

def take_long(row):
    Path("ran").touch()
    time.sleep(1)

def hang(row):
    name = row["name"]
    create(row)
    if name == "u17":
        time.sleep(3600)

def compute(row):
    sum(n * n for n in range(100_000))

def create_and_count(row):
    User.objects.create(username=row["name"])
    User.objects.count()
"""
)

LINE_OF_COUNT = FUNCTIONS.splitlines().index("    User.objects.count()") + 1

SHORT = ["--seconds", "3", "--workers", "2"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(FUNCTIONS)
    rows(tmp_path, 300)
    return tmp_path


def rows(folder: Path, number: int, raising: tuple[int, ...] = ()) -> None:
    """Write the file with so many rows, of which some raise."""
    lines = [f"u{n},{'raise' if n in raising else ''}" for n in range(number)]
    (folder / "users.csv").write_text("\n".join(["name,do", *lines]) + "\n")


def test_a_report_and_nothing_stored(carpool: Command, folder: Path) -> None:
    """Exit code 0; the report on stdout, progress on stderr, and no row more than before."""
    done = carpool("bench", "shop.create", "users.csv", *SHORT)
    assert "plain loop, one transaction" in done.stdout
    assert "2 processes" in done.stdout and "2 threads" in done.stdout
    assert "items became" in done.stdout
    assert "Recommendation: " in done.stdout.splitlines()[-1]
    assert "outside of the database (mail, HTTP, files) happens each time" in done.stderr
    assert "round 1 took" in done.stderr
    assert not User.objects.exists()


@once
@pytest.mark.parametrize("quiet", [["-v", "0"], ["--no-progress"]], ids=str)
def test_quiet(carpool: Command, folder: Path, quiet: list[str]) -> None:
    """Without progress, stderr is empty."""
    assert carpool("bench", "shop.create", "users.csv", *SHORT, *quiet).stderr == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["shop.create_typed", "typed.csv"],
        ["shop.create_unknown", "users.csv", "--before-chunk", "shop.known"],
        ["auth.User", "models.csv", "--map", "name=username"],
        ["shop.shout", "--queryset", "auth.User:is_active=true", "--setup", "shop.prepare"],
        ["shop.create", "users.csv", "--no-coalesce", "--start-method", "spawn"],
    ],
    ids=lambda arguments: str(arguments[0]),
)
def test_what_run_takes(carpool: Command, folder: Path, arguments: list[str]) -> None:
    """Typed items, before_chunk, models, querysets, setup: all ways work, all are rolled back."""
    many = range(2000)  # enough for two workers, however fast an item is
    rows(folder, len(many))
    (folder / "models.csv").write_text("name,password\n" + "".join(f"v{n},x\n" for n in many))
    (folder / "typed.csv").write_text("name\n" + "".join(f"v{n}\n" for n in many))
    there = [f"w{n:04}" for n in many]
    User.objects.bulk_create(User(username=name) for name in there)
    told = json.loads(carpool("bench", *arguments, *SHORT, "--json").stdout)
    assert [row["note"] for row in told["rows"]] == [None] * len(told["rows"])
    assert all(row["rates"] and not row["failed"] for row in told["rows"])
    assert {row["kind"] for row in told["rows"]} == {"loop", "inline", "threads", "processes"}
    assert sorted(User.objects.values_list("username", flat=True)) == there


@once
def test_json(carpool: Command, folder: Path) -> None:
    """One object, whatever the function prints; the sample is as large as asked for."""
    done = carpool("bench", "shop.create_and_tell", "users.csv", *SHORT, "--json", "--sample", "40")
    told = json.loads(done.stdout)
    assert "created" in done.stderr
    assert (told["total"], told["failed"], told["error"]) == (None, 0, None)
    assert 16 <= told["items"] <= 40
    assert sum(told["shares"].values()) == pytest.approx(1)
    assert told["coalesced"]["queued"] == told["profiled"] <= 40
    assert told["rounds"] >= 1
    # Sixteen at least ran in each way, and in the passes before.
    assert len((folder / "ran").read_text()) // 2 >= 16 * len(told["rows"])


def test_items_that_fail(carpool: Command, folder: Path) -> None:
    """Exit code 1; they are named, and the recommendation is to see to them first."""
    rows(folder, 60, raising=(3, 5, 7, 40))
    done = carpool("bench", "shop.create", "users.csv", *SHORT, code=1)
    assert re.search(r"of \d+ items failed", done.stdout)  # a busy machine gets through fewer
    assert "item 3: ValueError: a bad row" in done.stdout
    assert "see to them first" in done.stdout
    assert " items did not succeed." in done.stderr
    assert not User.objects.exists()


@once
def test_nearly_all_items_fail(carpool: Command, folder: Path) -> None:
    """Exit code 1 with the first error, in place of a table of how fast they fail."""
    rows(folder, 60, raising=tuple(range(60)))
    done = carpool("bench", "shop.create", "users.csv", *SHORT, "--plot", "a.png", code=1)
    assert "The first: item 0: ValueError: a bad row" in done.stderr
    assert "plain loop" not in done.stdout and "see to them first" in done.stdout
    assert not (folder / "a.png").exists()


@once
def test_few_items_fail(carpool: Command, folder: Path) -> None:
    """Exit code 1, and a recommendation all the same."""
    rows(folder, 300, raising=(3,))
    done = carpool("bench", "shop.create", "users.csv", "--seconds", "15", "--workers", "1", code=1)
    last = done.stdout.splitlines()[-1]
    assert last.endswith(" items failed (item 3: ValueError: a bad row).")
    assert "see to them first" not in last


@once
def test_waiting_is_for_threads(carpool: Command, folder: Path) -> None:
    """By the share of an item's time, and by what was measured."""
    arguments = ["--seconds", "8", "--workers", "8", "--json"]
    told = json.loads(carpool("bench", "shop.wait", "users.csv", *arguments).stdout)
    assert told["shares"]["waiting"] > 0.5
    assert "of an item is waiting: " in told["recommendation"]
    assert "--executor threads --workers " in told["recommendation"]


@once
def test_computing_is_not_for_threads(carpool: Command, folder: Path) -> None:
    """Python's threads take turns at it."""
    arguments = ["--seconds", "4", "--workers", "2", "--json"]
    told = json.loads(carpool("bench", "shop.compute", "users.csv", *arguments).stdout)
    assert told["shares"]["function"] > told["shares"]["waiting"]
    assert "threads" not in told["recommendation"]


@once
def test_what_breaks_batches_is_named(carpool: Command, folder: Path) -> None:
    """By file and line, with the times."""
    done = carpool("bench", "shop.create_and_count", "users.csv", *SHORT)
    assert f" × shop.py:{LINE_OF_COUNT} (auth_user)\n" in done.stdout


@once
@pytest.mark.parametrize(("name", "begins"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml")])
def test_a_plot(carpool: Command, folder: Path, name: str, begins: bytes) -> None:
    """In the format of its ending, over what was there."""
    (folder / name).write_text("an older one")
    done = carpool("bench", "shop.create", "users.csv", *SHORT, "--plot", name)
    assert (folder / name).read_bytes().startswith(begins)
    assert "Recommendation: " in done.stdout


REFUSED: list[tuple[list[str], str]] = [
    (["shop.creat", "users.csv"], "Did you mean create?"),
    (["shop.create_and_tell"], "nothing to read"),
    (["shop.create_and_tell", "empty.csv"], "no items"),
    (["shop.create_and_tell", "users.csv", "--sample", "0"], "sample=0"),
    (["shop.create_and_tell", "users.csv", "--seconds", "0"], "seconds=0"),
    (["shop.create_and_tell", "users.csv", "--workers", "-1"], "workers=-1"),
    (["shop.create_and_tell", "users.csv", "--using", "nowhere"], "'nowhere'"),
    (["shop.create_and_tell", "users.csv", "--plot", "a.doc"], ".png or .svg"),
    (["shop.create_and_tell", "users.csv", "--plot", "no/a.png"], "no folder no"),
]


@once
@pytest.mark.parametrize(("arguments", "words"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_cannot_work_is_refused(
    carpool: Command, folder: Path, arguments: list[str], words: str
) -> None:
    """Exit code 2, the reason on stderr, nothing on stdout; no item has been run."""
    (folder / "empty.csv").write_text("name,do\n")
    done = carpool("bench", *arguments, code=2)
    assert words in done.stderr
    assert done.stdout == ""
    assert not (folder / "ran").exists()


@once
def test_a_plot_needs_matplotlib(carpool: Command, folder: Path) -> None:
    """What to install is said before anything is run; without --plot nothing needs it."""
    (folder / "matplotlib.py").write_text("raise ImportError('not here')\n")
    done = carpool("bench", "shop.create_and_tell", "users.csv", "--plot", "a.png", code=2)
    assert 'pip install "django-carpool[plot]"' in done.stderr
    assert not (folder / "ran").exists()
    carpool("bench", "shop.create", "users.csv", *SHORT)


@once
def test_items_that_take_too_long(carpool: Command, folder: Path) -> None:
    """Rather than taking an hour, it says how long it would take."""
    done = carpool("bench", "shop.take_long", "users.csv", "--seconds", "2", code=2)
    assert "An item takes 1" in done.stderr and "--seconds" in done.stderr


def test_ctrl_c(begin: Any, folder: Path) -> None:
    """Exit code 130, no report, no process, no row left."""
    script = begin("bench", "shop.create_and_tell", "users.csv", "--seconds", "60")
    script.wait_for("ran", 2000)
    script.interrupt()
    script.wait(130)
    assert "Nothing was stored." in script.err
    assert "Traceback" not in script.err
    assert script.out == ""
    assert not User.objects.exists()


@once
def test_an_item_that_never_ends(begin: Any, folder: Path) -> None:
    """It is said where, and for how long; Ctrl-C ends it, and nothing is left."""
    script = begin("bench", "shop.hang", "users.csv")
    wait_until(lambda: "not through after" in script.err)
    script.interrupt()
    script.wait(130)
    line = next(line for line in script.err.splitlines() if "not through" in line)
    place = 1 + (folder / "shop.py").read_text().splitlines().index("        time.sleep(3600)")
    assert re.match(r"warm-up: not through after \d+\.\d s", line)
    assert line.endswith(f"items done, at shop.py:{place} (Ctrl-C ends it)")
    assert "Nothing was stored." in script.err and "Traceback" not in script.err
    assert script.out == ""
    assert not User.objects.exists()


@once
def test_help(carpool: Command) -> None:
    """It explains itself."""
    done = carpool("bench", "--help")
    assert "--sample" in done.stdout and "exit codes" in done.stdout
