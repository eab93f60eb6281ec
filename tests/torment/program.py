"""The scripts that are tormented: their first lines, and what they tell at their end."""

from __future__ import annotations

import json
from typing import Any

from tests.acceptance.conftest import Script
from tests.app.models import Author
from tests.waiting import wait_until

#: Items that are left at least when a test says that there are enough.
MORE = 100

#: The first lines of every script. ``create`` is the oracle's item; ``run`` tells how it ended;
#: ``numbers`` is a source that doesn't end before the test has done what it does meanwhile.
PREAMBLE = """
import itertools, json, os, pathlib, random, signal, sys, threading, time
import django
django.setup()
import carpool
from carpool.exceptions import CarpoolError
from django.db import connection, transaction
from tests.app.models import Author, Line, Order, Profile

FOLDER = pathlib.Path(sys.argv[1])

def create(number, seconds=0):
    Author.objects.create(name=f"a{number}")
    if seconds:
        time.sleep(seconds)

def touch(name):
    (FOLDER / name).touch()

def numbers(least):
    enough = FOLDER.parent / "enough"
    number = 0
    while number < least or not enough.exists() or number < int(enough.read_text()):
        yield number
        number += 1
    (FOLDER / "given").write_text(f"{number}\\n")

def note_progress(snapshot):
    (FOLDER / "progress.new").write_text(f"{snapshot.done}\\n")
    (FOLDER / "progress.new").rename(FOLDER / "progress")

COUNTS = "total succeeded already failed failed_before not_run unknown retries chunks".split()

def run(function, items, **options):
    error = None
    options = dict(executor="processes", workers=4, journal="t", progress=note_progress) | options
    try:
        report = carpool.run(function, items, **options)
    except CarpoolError as raised:
        report, error = raised.report, raised
    told = {"raised": error and type(error).__name__, "message": str(error or "")}
    if report is not None:
        told |= {name: getattr(report, name) for name in COUNTS}
        told["failures"] = [[f.index, f.error.rpartition(".")[2], f.stage, f.message[:300]]
                            for f in report.failures]
    print("TOLD", json.dumps(told), flush=True)
"""


def enough(script: Script) -> None:
    """Have the ``numbers`` of the scripts end, a few after all that are stored by now.

    No earlier script may store any more: a run that is taken up must come past what they did.
    """
    names = Author.objects.values_list("name", flat=True)
    count = max((int(name.removeprefix("a")) + 1 for name in names), default=0) + MORE
    folder = script.folder.parent
    (folder / "enough.new").write_text(str(count))
    (folder / "enough.new").rename(folder / "enough")


def given(script: Script) -> int:
    """Return how many ``numbers`` there were in the end."""
    return int(script.lines("given")[0])


def told(script: Script) -> dict[str, Any]:
    """Return what a script has told of its only run."""
    lines = [line for line in script.out.splitlines() if line.startswith("TOLD ")]
    assert len(lines) == 1, f"{script.out}\n{script.err}"
    found: dict[str, Any] = json.loads(lines[0].removeprefix("TOLD "))
    return found


def all_succeeded(script: Script, count: int) -> dict[str, Any]:
    """Fail unless its report says that all items succeeded; return what it told."""
    found = told(script)
    whole = json.dumps(found)  # pytest would cut a dict short
    assert found["raised"] is None, whole
    assert (found["total"], found["succeeded"]) == (count, count), whole
    assert (found["failed"], found["unknown"], found["not_run"]) == (0, 0, 0), whole
    return found


def progress(script: Script) -> int:
    """Return how many items a running script has done, as far as it has said."""
    lines = script.lines("progress")
    return int(lines[0]) if lines else 0


def wait_for_progress(script: Script, items: float = 1) -> None:
    """Wait until a running script has done so many items: by default, for its first COMMIT."""
    wait_until(
        lambda: progress(script) >= items or script.process.poll() is not None,
        lambda: f"it gets no further than {progress(script)}:\n{script.out}{script.err}",
    )
    assert script.process.poll() is None, f"ended too early:\n{script.out}{script.err}"
