"""Showing how far a run is."""

from __future__ import annotations

import dataclasses
import io
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from carpool.progress import BarProgress, CallableProgress, Progress, Snapshot, progress_for


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def snapshot(done: int, failed: int = 0, total: int | None = 100, retries: int = 0) -> Snapshot:
    return Snapshot(done, failed, total, 10.0, 1.0, retries)


@pytest.mark.parametrize(
    ("option", "stream", "kind"),
    [
        (None, Terminal, BarProgress),
        (None, io.StringIO, Progress),
        (None, lambda: None, Progress),
        (True, io.StringIO, BarProgress),
        (True, Terminal, BarProgress),
        (False, Terminal, Progress),
        (print, Terminal, CallableProgress),
    ],
    ids=["terminal", "no terminal", "no stderr", "yes", "yes, terminal", "no", "callable"],
)
def test_a_bar_is_shown_where_it_is_wanted_or_there_is_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
    option: Any,
    stream: Callable[[], Any],
    kind: type[Progress],
) -> None:
    """None means a bar on a terminal and nothing elsewhere; True, False and a callable hold."""
    monkeypatch.setattr(sys, "stderr", stream())
    assert type(progress_for(option)) is kind


def test_a_callable_gets_each_snapshot() -> None:
    """The user's callable is called with what the run knows, no more and no less often."""
    seen: list[Snapshot] = []
    progress = progress_for(seen.append)
    progress.start(100)
    progress.update(snapshot(10))
    progress.update(snapshot(20, 3))
    progress.close()
    assert seen == [snapshot(10), snapshot(20, 3)]


def test_a_snapshot_is_frozen() -> None:
    """A callable that keeps snapshots keeps them as they were."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        snapshot(1).done = 2  # type: ignore[misc]


def test_the_bar_shows_what_is_done_and_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    """The bar ends at the items done, and names the failed ones as soon as there are some."""
    bar = BarProgress()
    bar.start(100)
    bar.update(snapshot(40))
    assert "failed" not in capsys.readouterr().err
    bar.update(snapshot(100, 1234))
    bar.close()
    shown = capsys.readouterr().err
    assert "100/100" in shown
    assert "1,234 failed" in shown


def test_the_bar_shows_retries(capsys: pytest.CaptureFixture[str]) -> None:
    """A storm of deadlocks is seen while it rages, with what failed or without."""
    bar = BarProgress()
    bar.start(100)
    bar.update(snapshot(40))
    assert "retr" not in capsys.readouterr().err
    bar.update(snapshot(50, retries=1))
    bar.close()
    assert capsys.readouterr().err.rstrip().endswith(", 1 retry]")
    bar.start(100)
    bar.update(snapshot(60, failed=2, retries=1200))
    bar.close()
    assert capsys.readouterr().err.rstrip().endswith(", 2 failed, 1,200 retries]")


def test_the_bar_of_a_resumed_run_tells_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    """What was done before is there at once: no reason to stop moving, or to foretell the end."""
    bar = BarProgress()
    bar.start(2_000_000)
    for done in (1_000_000, 1_000_010):
        time.sleep(0.15)  # tqdm draws ten times a second at most
        bar.update(snapshot(done, total=2_000_000))
        shown = capsys.readouterr().err.rpartition("\r")[2]
        assert f"{done}/2000000" in shown
        assert "10.00 items/s" in shown
    bar.close()


def test_the_bar_does_without_a_total(capsys: pytest.CaptureFixture[str]) -> None:
    """A generator's length is unknown, and that is the normal case."""
    bar = BarProgress()
    bar.start(None)
    bar.update(snapshot(40, total=None))
    bar.close()
    assert "40 items" in capsys.readouterr().err


def test_a_bar_that_never_began_can_be_closed(capsys: pytest.CaptureFixture[str]) -> None:
    """A run that fails before its first item closes everything, and its own error is seen."""
    bar = BarProgress()
    bar.write("from a worker\n")
    bar.close()
    assert capsys.readouterr().err == "from a worker\n"


class Full(io.StringIO):
    """A file on a full disk, or a pipe that nobody reads."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        self.write("")


@pytest.mark.parametrize("stderr", [Full, lambda: None], ids=["full", "none"])
@pytest.mark.parametrize("option", [True, False], ids=["bar", "no bar"])
def test_a_stderr_that_takes_nothing_ends_no_run(
    monkeypatch: pytest.MonkeyPatch, stderr: Callable[[], Any], option: bool
) -> None:
    """Neither the bar's nor a worker's words are worth it; they are dropped."""
    monkeypatch.setattr(sys, "stderr", stderr())
    progress = progress_for(option)
    progress.start(100)
    progress.update(snapshot(40))
    progress.write("hello\n")
    progress.close()


def test_a_bar_starts_no_thread(capsys: pytest.CaptureFixture[str]) -> None:
    """tqdm's monitor thread would be there when the next worker is forked."""
    before = set(threading.enumerate())
    bar = BarProgress()
    bar.start(10)
    assert not set(threading.enumerate()) - before
    bar.close()


def test_workers_output_goes_above_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    """A line of a worker's is a line of its own, and the bar is drawn again below it."""
    bar = BarProgress()
    bar.start(10)
    bar.write("hello from a worker\n")
    bar.close()
    shown = capsys.readouterr().err
    assert "hello from a worker\n" in shown
    assert shown.index("hello") < shown.rindex("0/10")


@pytest.mark.parametrize("option", [False, lambda snapshot: None], ids=["none", "callable"])
def test_workers_output_is_relayed_as_it_is(
    capsys: pytest.CaptureFixture[str], option: Any
) -> None:
    """Without a bar the text goes to stderr unchanged."""
    progress_for(option).write("one\ntwo")
    assert capsys.readouterr().err == "one\ntwo"
