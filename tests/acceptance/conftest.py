"""Scripts of a user's, run as a user runs them: in processes of their own, in a session of its own.

A test starts a `Script`, does to it what a terminal or a murderer would, and looks at what it
printed, at the table, and at what is left of its session. Whatever is, the fixture ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connection

from tests.executors.database import transactional_db
from tests.waiting import HANG, wait_until

__all__ = ["transactional_db"]

#: Tests need no durability, and a plain loop commits each statement.
SQLITE_OPTIONS = "?init_command=PRAGMA%20synchronous%3DOFF"

#: The first lines of most scripts.
PREAMBLE = """
import json, logging, os, pathlib, signal, sys, threading, time
import django
django.setup()
import carpool
from django.contrib.auth.models import User
from django.db import connection, transaction

FOLDER = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")

def tell(report):
    counts = {n: getattr(report, n) for n in "total succeeded failed unknown executor".split()}
    counts["errors"] = sorted({f.error for f in report.failures})
    print(json.dumps(counts), flush=True)
"""


@dataclass
class Script:
    """A running script."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def out(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "stderr").read_text()

    def wait(self, code: int | None = 0, seconds: float = HANG) -> Script:
        """Wait for its end, and for that of all that it started; check its exit code."""
        try:
            found = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {seconds} s:\n{self.members()}\n{self.err}")
        assert code is None or found == code, f"exit code {found}\n{self.out}\n{self.err}"
        wait_until(lambda: not self.members(), lambda: f"processes left: {self.members()}")
        return self

    def wait_for(self, name: str, lines: int = 0) -> None:
        """Wait until a file of its is there, and has so many lines."""

        def there() -> bool:
            return (self.folder / name).exists() and len(self.lines(name)) >= lines

        wait_until(
            lambda: there() or self.process.poll() is not None,
            lambda: f"waited for {name} in vain:\n{self.err}",
        )
        assert there(), f"ended before {name} was there:\n{self.err}"

    def told(self) -> dict[str, Any]:
        """Return the counts that it told, by the preamble's ``tell``."""
        lines = [line for line in self.out.splitlines() if line.startswith('{"total"')]
        assert len(lines) == 1, f"{self.out}\n{self.err}"
        found: dict[str, Any] = json.loads(lines[0])
        return found

    def interrupt(self) -> None:
        """Do what a terminal does on Ctrl-C: signal the whole process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def members(self) -> dict[int, str]:
        """Return the living processes of its session, by id, with their command lines."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                # "pid (name) state ppid pgrp session …", where the name may hold anything.
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.process.pid and fields[0] not in "ZX":
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(folder.name)] = command.decode(errors="replace")
        return found

    def end(self) -> None:
        """Kill what is left of it."""
        while members := self.members():
            for process in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.02)
        self.process.wait()

    def lines(self, name: str) -> list[str]:
        """Return the whole lines of a file of its, or none if it isn't there yet."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / name).read_text().rpartition("\n")[0].splitlines()
        return []


@pytest.fixture
def start(
    subprocess_environment: dict[str, str], tmp_path: Path
) -> Iterator[Callable[..., Script]]:
    """Start a script: ``start(text)``, or ``start(text, how=["-c"])`` for other ways than a file.

    The text follows the preamble. Whatever is left of it at the end is killed.
    """
    scripts: list[Script] = []

    def start(
        text: str,
        *,
        how: Sequence[str] = (),
        preamble: str = PREAMBLE,
        environment: dict[str, str] | None = None,
    ) -> Script:
        folder = tmp_path / f"script{len(scripts)}"
        folder.mkdir()
        whole = preamble + textwrap.dedent(text)
        stdin: bytes | None = None
        match list(how):
            case []:
                (folder / "script.py").write_text(whole)
                command = [sys.executable, "script.py", str(folder)]
            case ["-c"]:
                command = [sys.executable, "-c", whole, str(folder)]
            case ["-"]:
                command = [sys.executable, "-", str(folder)]
                stdin = whole.encode()
            case ["shell"]:
                command = [sys.executable, "-m", "django", "shell", "-v", "0", "-c", whole]
            case _:
                raise ValueError(how)
        with (
            (folder / "stdout").open("wb") as out,
            (folder / "stderr").open("wb") as err,
        ):
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=subprocess_environment | (environment or {}),
                stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        script = Script(process, folder)
        scripts.append(script)
        if process.stdin is not None and stdin is not None:
            process.stdin.write(stdin)
            process.stdin.close()
        return script

    yield start
    for script in scripts:
        script.end()


@pytest.fixture(scope="module")
def new_database(
    django_db_setup: None,
    django_db_blocker: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[], str]]:
    """Make an empty database for an example, on the server at hand, and return its URL."""
    made: list[str] = []

    def execute(statement: str) -> None:
        with django_db_blocker.unblock(), connection.cursor() as cursor:
            cursor.execute(statement)

    def make() -> str:
        name = f"carpool_example_{os.getpid()}_{len(made)}"
        made.append(name)
        if connection.vendor == "sqlite":
            return f"sqlite:///{tmp_path_factory.mktemp('example')}/{name}.sqlite3{SQLITE_OPTIONS}"
        execute(f"CREATE DATABASE {name}")
        server = urlsplit(os.environ["CARPOOL_TEST_DATABASE_URL"])
        return server._replace(path=f"/{name}").geturl()

    yield make
    if connection.vendor != "sqlite":
        for name in made:
            execute(f"DROP DATABASE {name}")
