"""``manage.py carpool`` in a process of its own: a folder with functions and files, and a shell."""

from __future__ import annotations

import csv
import gzip
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from carpool.journal.models import Entry, Lease, Run
from tests.acceptance.conftest import Script
from tests.waiting import HANG

#: The module that commands find their functions in begins with these.
COMMON = """
import time
from dataclasses import dataclass
from pathlib import Path

from django.contrib.auth.models import User

@dataclass
class NewUser:
    name: str
    visits: int = 0

def create_typed(user: NewUser):
    User.objects.create(username=user.name, first_name=str(user.visits + 1))

def known(rows):
    return set(User.objects.values_list("username", flat=True))

def create_unknown(row, known):
    if row["name"] not in known:
        User.objects.create(username=row["name"])

def shout(user):
    user.username = user.username.upper()
    user.save()

def prepare():
    open("prepared", "a").close()
"""

FUNCTIONS = (
    COMMON
    + """
def create(row):
    User.objects.create(username=row["name"])
    if row.get("do") == "raise" and not Path("mended").exists():
        raise ValueError(f"{row['name']} is bad")

def create_slowly(row):
    create(row)
    with open("ran", "a") as file:
        file.write(row["name"] + "\\n")
    if not Path("quick").exists():
        time.sleep(0.01)
"""
)

COMMAND = [sys.executable, "-m", "django", "carpool"]

Command = Callable[..., subprocess.CompletedProcess[str]]


def stored() -> list[str]:
    return sorted(User.objects.values_list("username", flat=True))


def names(number: int) -> list[str]:
    return [f"u{n:04}" for n in range(number)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that commands are run in."""
    (tmp_path / "shop.py").write_text(FUNCTIONS)
    return tmp_path


@pytest.fixture
def rows(folder: Path) -> Callable[..., Path]:
    """Write a CSV file of so many rows; ``do`` is what some of them do, by index."""

    def rows(number: int, do: dict[int, str] | None = None, name: str = "users.csv") -> Path:
        path = folder / name
        opened: Any = gzip.open if name.endswith(".gz") else open
        with opened(path, "wt", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["name", "do"])
            writer.writerows([n, (do or {}).get(i, "")] for i, n in enumerate(names(number)))
        return path

    return rows


def call(
    command: Sequence[str],
    folder: Path,
    environment: dict[str, str],
    seconds: float = HANG,
    **more: Any,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever its exit code."""
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
        timeout=seconds,
        **more,
    )


@pytest.fixture
def carpool(folder: Path, subprocess_environment: dict[str, str]) -> Command:
    """Run the command to its end; ``carpool("run", …, code=1)`` also checks its exit code."""

    def run(
        *arguments: str, code: int = 0, seconds: float = HANG, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        if "input" not in more:
            more = {"stdin": subprocess.DEVNULL} | more
        done = call([*COMMAND, *arguments], folder, subprocess_environment, seconds, **more)
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def begin(folder: Path, subprocess_environment: dict[str, str]) -> Iterator[Callable[..., Script]]:
    """Begin the command in a session of its own, with nothing in stdin unless that is given."""
    scripts = []

    def begin(*arguments: str, stdin: int = subprocess.DEVNULL, stderr: str = "stderr") -> Script:
        with (folder / "stdout").open("wb") as out, (folder / stderr).open("wb") as err:
            process = subprocess.Popen(
                [*COMMAND, *arguments],
                cwd=folder,
                env=subprocess_environment,
                stdin=stdin,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        scripts.append(Script(process, folder))
        return scripts[-1]

    yield begin
    for script in scripts:
        script.end()


@pytest.fixture
def journal(transactional_db: None) -> Iterator[None]:
    yield
    for model in (Entry, Lease, Run):
        model._base_manager.all().delete()


def shell(line: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a line of bash to its end; ``carpool`` in it is the command."""
    return call(["bash", "-c", line.replace("carpool", " ".join(COMMAND))], folder, environment)
