"""What can't have a journal is refused before the first item, with the cause and the remedy."""

from __future__ import annotations

import os
import pickle
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.db import connection, connections, transaction

import carpool
from carpool.exceptions import ConfigurationError, SourceChanged
from carpool.executors import orphans
from carpool.journal.models import Run
from carpool.report import Report
from tests.app.models import Seat, Ticket
from tests.conftest import ROOT
from tests.waiting import HANG

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

REPORT = Report(3, 2, 1, 0, 0, 0, 1.5, 2, "inline", 1)


def never(item: Any) -> None:
    raise AssertionError("was run")


def run(items: Any = (1, 2), **options: Any) -> Report:
    return carpool.run(never, items, **{"executor": "inline", "progress": False, **options})


@pytest.fixture(autouse=True)
def nothing_was_begun() -> Iterator[None]:
    """What is refused leaves no thread, and no run in the journal."""
    yield
    assert "carpool journal" not in [thread.name for thread in threading.enumerate()]
    if "carpool_journal_run" in connection.introspection.table_names():
        assert not Run.objects.filter(name="refused").exists()


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"journal": "refused", "dry_run": True}, ["dry_run=True", "Leave one of them out"]),
    (
        {"journal": "refused", "executor": "processes", "start_method": "fork"},
        ["fork", "Leave it out"],
    ),
    ({"take_over": True}, ["take_over=True", "journal="]),
    ({"retry_failed": True}, ["retry_failed=True", "journal="]),
    ({"ignore_changed_source": True}, ["ignore_changed_source=True", "journal="]),
    ({"journal": "refused", "take_over": 1}, ["take_over=1", "True or False"]),
    ({"journal": "refused", "retry_failed": "yes"}, ["retry_failed='yes'", "True or False"]),
    ({"journal": ""}, ["journal=''", "1 to 190"]),
    ({"journal": " \n"}, ["journal=", "1 to 190"]),
    ({"journal": "n" * 191}, ["journal=", "1 to 190"]),
    ({"journal": 5}, ["journal=5", "the run's name"]),
    ({"journal": b"refused"}, ["journal=b'refused'", "the run's name"]),
    ({"journal": True}, ["journal=True", "the run's name"]),
    ({"journal": "refused", "rejects": "/nowhere/r.jsonl"}, ["rejects=", "can be written"]),
]


@pytest.mark.parametrize(("options", "words"), REFUSED, ids=lambda value: str(value)[:50])
def test_what_cannot_have_a_journal_is_refused(options: dict[str, Any], words: list[str]) -> None:
    """The message has the option, what is wrong with it, and what to do instead."""
    with pytest.raises(ConfigurationError) as caught:
        run(**options)
    for word in words:
        assert word in str(caught.value)


def test_inside_atomic_it_is_refused() -> None:
    """What a chunk has done would be undone with the transaction around the run."""
    with transaction.atomic(), pytest.raises(ConfigurationError, match=r"atomic\(\).*default"):
        run(journal="refused")
    with (
        transaction.atomic(using="other"),
        pytest.raises(ConfigurationError, match=r"open on other.*TransactionTestCase"),
    ):
        run(journal="refused")


def test_a_database_in_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal there is gone with the process that should be taken over from."""
    monkeypatch.setattr(
        connections["other"], "is_in_memory_db", lambda: True, raising=connection.vendor == "sqlite"
    )
    with pytest.raises(ConfigurationError, match=r"'other'.*memory.*Use a file"):
        run(journal="refused", using=["default", "other"])


def test_without_the_app_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to add to the settings, and what to do then."""
    installed = apps.is_installed
    monkeypatch.setattr(
        apps, "is_installed", lambda name: name != "carpool.journal" and installed(name)
    )
    with pytest.raises(ConfigurationError, match=r'"carpool.journal" to INSTALLED_APPS.*migrate'):
        run(journal="refused")


def test_without_its_tables_it_is_refused() -> None:
    """A database that wasn't migrated is named, with the command that is missing."""
    with connections["other"].schema_editor() as editor:
        editor.alter_db_table(Run, Run._meta.db_table, "set_aside")
    try:
        with pytest.raises(
            ConfigurationError, match=r"'other'.*migrate carpool_journal --database other"
        ) as caught:
            run(journal="refused", using="other")
        assert caught.value.__cause__ is not None
    finally:
        with connections["other"].schema_editor() as editor:
            editor.alter_db_table(Run, "set_aside", Run._meta.db_table)


@pytest.mark.parametrize("model", [Ticket, Seat], ids=lambda model: model.__name__)
def test_a_queryset_whose_key_is_no_number_is_refused(model: Any) -> None:
    """Rows are known by their key, and of a UUID or of two columns there are no ranges."""
    with pytest.raises(ConfigurationError, match=rf"{model._meta.label} is no whole number.*list"):
        run(model.objects.all(), journal="refused")


def test_stream_has_no_journal() -> None:
    """Its consumer decides what is done, so there is nothing for a journal to say."""
    with pytest.raises(TypeError, match="journal"):
        carpool.stream(never, [1], journal="refused")  # type: ignore[call-arg]


def test_a_changed_source_travels_with_its_position() -> None:
    """SourceChanged has the same position in another process; the others are in test_exceptions."""
    there = pickle.loads(pickle.dumps(SourceChanged("what happened", REPORT, 17)))
    assert (str(there), there.report, there.position) == ("what happened", REPORT, 17)


# Rejects of a run that is taken up again.


def fail(item: Any) -> None:
    raise ValueError(f"{item} is bad")


def reject(path: Path, name: str, items: Any = (1, 2), *, forget: bool = True) -> list[str]:
    carpool.run(fail, items, executor="inline", progress=False, rejects=path, journal=name)
    if forget:
        Run.objects.filter(name=name).delete()
    return path.read_text(encoding="utf-8").splitlines()


def test_a_run_taken_up_again_adds_to_its_rejects(tmp_path: Path) -> None:
    """What failed in the first call is still in the file after the second."""
    path = tmp_path / "r.jsonl"
    assert len(reject(path, "one", forget=False)) == 2
    assert len(reject(path, "one", (1, 2, 3))) == 3


def test_a_new_run_that_adds_to_anothers_rejects_warns(tmp_path: Path) -> None:
    """By the names of both; not if the file is empty, nor when the run is taken up."""
    path = tmp_path / "r.jsonl"
    path.touch()
    assert len(reject(path, "one")) == 2
    with pytest.warns(RuntimeWarning, match=r"r\.jsonl' holds .* no earlier call of 'two'"):
        assert len(reject(path, "two", forget=False)) == 4
    assert len(reject(path, "two", (1, 2, 3))) == 5


def test_a_line_cut_short_is_ended(tmp_path: Path) -> None:
    """A run that was killed while it wrote a line doesn't spoil the next one."""
    path = tmp_path / "r.jsonl"
    reject(path, "one", forget=False)
    path.write_bytes(path.read_bytes()[:-20])
    lines = reject(path, "one", (1, 2, 3))
    assert len(lines) == 3
    assert lines[2].startswith('{"index": 2, "item": 3,')


@pytest.mark.parametrize("content", ["precious\n", "{}\n", "index\n"])
def test_another_file_is_not_added_to(tmp_path: Path, content: str) -> None:
    """A file that holds something else, this run's source say, is left as it is."""
    path = tmp_path / "r.jsonl"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match="no file of rejects"):
        run(journal="refused", rejects=path)
    assert path.read_text() == content


@pytest.mark.parametrize("way", ["", "../here/"])
def test_a_run_does_not_add_to_the_file_that_it_reads(tmp_path: Path, way: str) -> None:
    """What fails would come again, and the run never end."""
    (tmp_path / "here").mkdir()
    path = tmp_path / "here" / "r.jsonl"
    lines = reject(path, "one")
    with pytest.raises(ConfigurationError, match=r"r\.jsonl' is a file that is to be read"):
        run(carpool.read(path), journal="refused", rejects=tmp_path / "here" / way / "r.jsonl")
    assert path.read_text(encoding="utf-8").splitlines() == lines


# Workers whose parent has died.

ORPHAN = """
import os, sys, time
from multiprocessing.connection import Connection
from carpool.executors import orphans
orphans.GRACE = 0.2
{group}
pipe = Connection(int(sys.argv[1]))
orphans.end_with_parent(pipe)
print("ready", flush=True)
time.sleep(3600)
"""


@pytest.mark.skipif(not hasattr(select, "poll"), reason="there is no poll() to watch with")
@pytest.mark.parametrize("group", ["", "os.setpgid(0, 0)"], ids=["alone", "in its own group"])
def test_a_worker_ends_with_its_parent(group: str) -> None:
    """A worker in the middle of an item ends when the other end of its pipe is closed, and not
    before, whatever is sent to it."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-c", ORPHAN.format(group=group), str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    try:
        theirs.close()
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        ours.send(b"a chunk")
        time.sleep(0.5)
        assert process.poll() is None
        ours.close()
        assert process.wait(HANG) != 0
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        ours.close()


def test_grace_is_longer_than_a_paced_chunk() -> None:
    """A worker may end the chunk it is at, which takes a third of a second as a rule."""
    from carpool.pacing import TARGET

    assert orphans.GRACE > 2 * TARGET
