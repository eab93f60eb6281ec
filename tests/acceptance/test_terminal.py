"""In a terminal: the bar, the workers' words above it, and the Ctrl-C of a keyboard."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import termios
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import User

from tests.acceptance.conftest import PREAMBLE, Script
from tests.waiting import HANG

pytestmark = pytest.mark.usefixtures("no_connections_left")

WIDTH = 100


class Terminal:
    """A terminal with a script in it, or a command of Django's that uses what is in the script."""

    def __init__(self, text: str, folder: Path, environment: dict[str, str], *command: str) -> None:
        arguments = ["-m", "django", *command] if command else ["script.py", str(folder)]
        (folder / "script.py").write_text(PREAMBLE + textwrap.dedent(text))
        self.data = b""
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (30, WIDTH))
        try:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=folder,
                env=environment | {"TERM": "xterm"},
                preexec_fn=lambda: os.login_tty(theirs),
                close_fds=False,
            )
        finally:
            os.close(theirs)
        self.script = Script(process, folder)

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def read(self, until: str | None = None) -> None:
        """Read until the text comes, or to the end."""
        deadline = time.monotonic() + HANG
        while until is None or until not in self.data.decode(errors="replace"):
            ready, _, _ = select.select([self._ours], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                pytest.fail(f"nothing more came:\n{self.data.decode(errors='replace')}")
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # EIO: nobody has it open any more
                data = b""
            if not data:
                assert until is None, self.data.decode(errors="replace")
                return
            self.data += data

    def rows(self) -> list[str]:
        """Return what is to be seen, row by row: a carriage return goes back and writes over."""
        screen = []
        for line in self.data.decode().split("\n"):
            row: list[str] = []
            for part in re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line).split("\r"):
                row[: len(part)] = part
            screen.append("".join(row).rstrip())
        return screen

    def end(self) -> None:
        self.script.end()
        os.close(self._ours)


@pytest.fixture
def terminals(tmp_path: Path, subprocess_environment: dict[str, str]) -> Iterator[list[Terminal]]:
    """A list for the terminals of a test, which are ended after it."""
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.end()


@pytest.mark.parametrize("method", ["forkserver", "fork"])
def test_workers_talk_above_the_bar(
    terminals: list[Terminal],
    tmp_path: Path,
    subprocess_environment: dict[str, str],
    method: str,
) -> None:
    """What workers print and log stands in lines of its own, whole; the bar goes on below."""
    terminal = Terminal(
        f"""
        def create(number):
            User.objects.create(username=f"u{{number}}")
            print(f"<{{number}} says ", end="", flush=True)
            time.sleep(0.005)
            print("x" * 30 + ">")
            logging.getLogger("script").warning("<%s logs %s>", number, "y" * 30)
            if number == 50:
                raise ValueError("bad")

        if __name__ == "__main__":
            report = carpool.run(create, range(120), executor="processes", workers=3,
                                 start_method="{method}", chunk_size=6)
            print("the end")
        """,
        tmp_path,
        subprocess_environment,
    )
    terminals.append(terminal)

    terminal.read()

    terminal.script.wait()
    rows = terminal.rows()
    said = {row for row in rows if row.startswith("<")}
    assert said == {f"<{n} says {'x' * 30}>" for n in range(120)} | {
        f"<{n} logs {'y' * 30}>" for n in range(120)
    }
    (bar,) = [row for row in rows if row and not row.startswith("<") and row != "the end"]
    assert re.match(r"100%\|█+\| 120/120 \[.* items/s, 1 failed\]", bar), bar
    assert rows.index("the end") == rows.index(bar) + 1
    assert len(re.findall(r"\d+/120", terminal.data.decode())) > 3, "the bar moved"
    assert User.objects.count() == 119


UNLUCKY = """
    from tests.unit.driver_errors import deadlock

    def shout(user):
        user.first_name = "!"
        user.save()
        if user.username == "u0050":
            raise ValueError("bad")
        if user.username in ("u0030", "u0090") and not os.path.exists(user.username):
            pathlib.Path(user.username).touch()
            raise deadlock()
        time.sleep(0.01)
    """

BAR = re.compile(
    r"(?P<percent>\d+)%\|[^\r]*\| (?P<done>\d+)/120 "
    r"\[[\d:]+<(?P<left>[\d:?]+), +(?P<rate>[\d.?]+) ?items/s(?P<troubles>[^]]*)\]"
)


@pytest.mark.parametrize("executor", ["inline", "processes"])
def test_the_bar_of_the_command(
    terminals: list[Terminal],
    tmp_path: Path,
    subprocess_environment: dict[str, str],
    executor: str,
) -> None:
    """Rate, time left, failures and retries, as soon as there are some; the report below it."""
    User.objects.bulk_create(User(username=f"u{n:04}") for n in range(120))
    options = ["--executor", executor, "--workers", "1", "--chunk-size", "5"]
    command = ["carpool", "run", "script.shout", "--queryset", "auth.User", *options]
    terminal = Terminal(UNLUCKY, tmp_path, subprocess_environment, *command)
    terminals.append(terminal)

    terminal.read()

    terminal.script.wait(code=1)
    bars = list(BAR.finditer(terminal.data.decode()))
    assert len({bar["done"] for bar in bars}) > 3, "the bar moved"
    assert any(re.fullmatch(r"00:\d\d", bar["left"]) and bar["done"] != "120" for bar in bars)
    by_done = {int(bar["done"]): bar["troubles"] for bar in bars}
    assert by_done[120] == ", 1 failed, 2 retries"
    assert {said for done, said in by_done.items() if done < 30} == {""}
    assert ", 1 retry" in by_done.values()
    assert all(float(bar["rate"]) > 0 for bar in bars if bar["done"] == "120")
    # A run that took long enough ends with a hint.
    rows = [row for row in terminal.rows() if row and not row.startswith("hint: ")]
    assert BAR.match(rows[0]), rows
    assert rows[1].startswith("120 items in "), rows
    assert "119 succeeded, 1 failed, 2 retries" in rows[1]
    assert len(rows) == 5 + (rows[2].count("called again")), rows


def test_ctrl_c_of_a_keyboard(
    terminals: list[Terminal], tmp_path: Path, subprocess_environment: dict[str, str]
) -> None:
    """Ctrl-C in a terminal ends the bar, prints the report and one traceback, and ends the run."""
    terminal = Terminal(
        """
        def create(number):
            User.objects.create(username=f"u{number}")
            time.sleep(0.005)

        if __name__ == "__main__":
            carpool.run(create, range(100_000), executor="processes", workers=3, chunk_size=6)
        """,
        tmp_path,
        subprocess_environment,
    )
    terminals.append(terminal)
    terminal.read(until="| 6")

    terminal.type(b"\x03")
    terminal.read()

    terminal.script.wait(code=1)
    text = terminal.data.decode()
    assert text.count("Traceback (most recent call last)") == 1, text
    assert "Interrupted." in terminal.rows()
    found = re.search(r"([\d,]+) items in .*: ([\d,]+) succeeded", text)
    assert found, text
    assert int(found[2].replace(",", "")) == User.objects.count() > 0
