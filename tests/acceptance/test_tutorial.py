"""The tutorial, followed to the letter: each file written, each command run, each output compared.

Of ``docs/tutorial.md`` these count, in their order:

- a block of ``python``: a file, whose name is the last one in **`bold code`** before the block. One
  that is there already gets the lines at its end.
- a block of ``sh``: commands for bash. They succeed, unless the output below is of a CommandError
  in the end. After ``<!-- Ctrl-C -->``: that is pressed once some lines of progress have come.
- a block of ``text``: what the commands above it print, all of it, on stdout and stderr. What
  differs between two runs is masked in both: see `VARYING`. Left out in both are lines of progress,
  in whose place a terminal may show a bar, and the hint, which a busy machine may not give.

Three commands are not run, but left out: those that make a virtual environment and install carpool,
`INSTALLING`. This test runs in an environment where that has been done.
"""

from __future__ import annotations

import difflib
import itertools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.conftest import Script
from tests.waiting import HANG, wait_until

TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"

INSTALLING = ["python3 -m venv venv", ". venv/bin/activate", "pip install django-carpool"]

VARYING = [
    (r"in [\d,.]+ s \([\d,.]+/s\)", "in … s (…/s)"),
    (r"^[\d,]+ chunks? by .*", "… chunks by …"),  # and how often the function was called again
    (r"^[\d,]+ writes? became [\d,]+ statements?.*", "… writes became … statements"),
    (r"take about .*, COMMITs", "take about …, COMMITs"),
    # Of the run that is interrupted, at a moment that nobody knows:
    (r"(?<=^Interrupted\.\n).* [\d,]+ succeeded(, [\d,]+ not run)?$", "… succeeded"),
    (r"(?<=^fee  interrupted  )[\d,]+", "…"),
    (r"^[\d,]+ (?=of them were done before)", "… "),
]
"""What depends on the machine: seconds, and so how many chunks there are, and who runs them."""

LINES_OF_PROGRESS = 20
"""After which Ctrl-C is pressed: a good part of the job is done by then, and most of it is not."""

LEFT_OUT = re.compile(r"[\d,]+( of [\d,]+)? items, .*/s(, .* left)?|hint: .*")


@dataclass
class Block:
    """A block of code.

    Attributes:
        above: the text since the block before.
        line: its number in the tutorial.
    """

    language: str
    text: str
    above: str
    line: int


def blocks(markdown: str) -> Iterator[Block]:
    parts = re.split(r"^```(.*)\n((?:.*\n)*?)```\n", markdown, flags=re.MULTILINE)
    line = 1
    for above, language, text in zip(parts[:-1:3], parts[1::3], parts[2::3], strict=True):
        line += above.count("\n")
        yield Block(language, text, above, line)
        line += text.count("\n") + 2


def masked(text: str) -> list[str]:
    lines = "\n".join(line for line in text.splitlines() if not LEFT_OUT.fullmatch(line))
    for pattern, mask in VARYING:
        lines = re.sub(pattern, mask, lines, flags=re.MULTILINE)
    return lines.splitlines()


class Reader:
    """Who follows the tutorial, in an empty folder."""

    def __init__(self, folder: Path, tools: Path) -> None:
        self.folder = folder
        self.left_out: list[str] = []
        self._tools = tools
        for name, command in {
            "python": f'exec "{sys.executable}" "$@"',
            "django-admin": f'exec "{sys.executable}" -m django "$@"',
            "pip": "echo this test installs nothing; exit 1",
        }.items():
            (tools / name).write_text(f"#!/bin/sh\n{command}\n")
            (tools / name).chmod(0o755)
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("DJANGO_SETTINGS_MODULE", "PYTHONWARNINGS")
        } | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        before = path.read_text() if path.exists() else ""
        path.write_text(before + text)

    def run(self, commands: str, *, interrupt: bool) -> tuple[int, str]:
        """Return the exit code and what was printed."""
        lines = []
        for line in commands.splitlines():
            (self.left_out if line in INSTALLING else lines).append(line)
        output = self._tools / "output"
        with output.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-e", "-c", "\n".join(lines)],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        script = Script(process, self.folder)
        try:
            if interrupt:
                wait_until(
                    lambda: (
                        output.read_bytes().count(b"\n") >= LINES_OF_PROGRESS
                        or process.poll() is not None
                    ),
                    "it shows no progress",
                )
                os.killpg(process.pid, signal.SIGINT)
            return process.wait(HANG), output.read_text()
        finally:
            script.end()


@pytest.mark.timeout(600)
@pytest.mark.only_on("sqlite")  # the new project's own
def test_the_tutorial(tmp_path: Path) -> None:
    """Whoever types what is there sees what is there."""
    folder, tools = tmp_path / "folder", tmp_path / "tools"
    folder.mkdir()
    tools.mkdir()
    reader = Reader(folder, tools)
    printed = ""
    for block, following in itertools.pairwise([*blocks(TUTORIAL.read_text()), None]):
        assert block is not None
        where = f"docs/tutorial.md, line {block.line}"
        match block.language:
            case "python":
                reader.write(re.findall(r"\*\*`(.+?)`\*\*", block.above)[-1], block.text)
            case "sh":
                interrupt = "<!-- Ctrl-C -->" in block.above
                code, printed = reader.run(block.text, interrupt=interrupt)
                expected = 130 if interrupt else int(is_refusal(following))
                assert code == expected, f"{where}: exit code {code}\n{printed}"
            case "text":
                there, here = masked(block.text), masked(printed)
                assert there == here, "\n".join([where, *difflib.ndiff(there, here)])
            case other:
                pytest.fail(f"{where}: a block of {other!r}: neither python, sh nor text")
    assert reader.left_out == INSTALLING


def is_refusal(block: Block | None) -> bool:
    """Tell whether a block is an output that ends in a CommandError."""
    if block is None or block.language != "text":
        return False
    return block.text.splitlines()[-1].startswith("CommandError: ")
