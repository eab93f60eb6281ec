"""read("-"): stdin and other pipes, which give what they have only once."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import carpool
from carpool.exceptions import ConfigurationError
from tests.unit.source_files import until_error, written
from tests.waiting import HANG

ENDLESS = "for n in __import__('itertools').count(): print(n, n + 1, sep=',')"


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> io.BytesIO:
    """Put bytes into stdin."""
    stream = io.BytesIO(data)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(stream)))  # type: ignore[arg-type]
    return stream


def pipe(producer: str, consumer: str) -> subprocess.CompletedProcess[str]:
    """Run ``producer | consumer``, both Python; the consumer where a file left open is an error."""
    first = subprocess.Popen(
        [sys.executable, "-c", producer], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        return subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-c", consumer],
            stdin=first.stdout,
            capture_output=True,
            text=True,
            check=False,
            timeout=HANG,
        )
    finally:
        assert first.stdout is not None
        first.stdout.close()
        first.wait(HANG)  # nobody reads any more: it ends by itself


def test_stdin_is_read_to_its_end() -> None:
    """A program's stdin is a source, in the format that the call names."""
    done = pipe(
        "for n in range(50_000): print('{\"n\": %d}' % n)",
        "import carpool\nprint(sum(row['n'] for row in carpool.read('-', format='jsonl')))",
    )
    assert (done.stdout, done.stderr) == (f"{sum(range(50_000))}\n", "")


def test_leaving_stdin_early_ends_the_pipe() -> None:
    """Who stops after three items is done, without a word, and what writes to the pipe ends."""
    done = pipe(
        ENDLESS,
        "import carpool, itertools\n"
        "rows = carpool.read('-', format='csv', columns=['a', 'b'])\n"
        "print([row['b'] for row in itertools.islice(rows, 3)])",
    )
    assert (done.stdout, done.stderr, done.returncode) == ("['1', '2', '3']\n", "", 0)


def test_whoever_reads_the_output_may_leave_early(tmp_path: Path) -> None:
    """With ``… | head``, the program gets its BrokenPipeError as ever, and the file is closed."""
    path = tmp_path / "a.csv"
    path.write_text("a\n" + "1\n" * 100_000)
    program = (
        "import carpool, os, sys\n"
        "try:\n"
        f"    for row in carpool.read({str(path)!r}):\n"
        "        print(row)\n"
        "except BrokenPipeError:\n"
        "    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)\n"
        "    print('left', file=sys.stderr)\n"
    )
    first = subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert first.stdout is not None
    assert first.stderr is not None
    assert first.stdout.readline() == b"{'a': '1'}\n"
    first.stdout.close()
    assert first.stderr.read() == b"left\n"
    first.stderr.close()
    assert first.wait(HANG) == 0


def test_stdin_is_not_read_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second iter() would find nothing and say so by silence; it's refused instead."""
    stdin(monkeypatch, b"a\n1\n2\n")
    rows = carpool.read("-", format="csv")
    assert next(iter(rows)) == {"a": "1"}
    with pytest.raises(ConfigurationError, match="stdin has been read, or part of it"):
        iter(rows)


def test_stdin_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """It isn't ours to close."""
    stream = stdin(monkeypatch, b"a\n1\n")
    assert list(carpool.read("-", format="csv")) == [{"a": "1"}]
    assert not sys.stdin.closed
    assert not stream.closed


def test_a_process_without_stdin_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon has none; neither has who closed it."""
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ConfigurationError, match="has none"):
        carpool.read("-", format="csv")
    stdin(monkeypatch, b"")
    sys.stdin.close()
    with pytest.raises(ConfigurationError, match="has none"):
        carpool.read("-", format="csv")


def test_nothing_in_stdin_is_no_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """``… </dev/null`` is an empty file."""
    stdin(monkeypatch, b"")
    assert list(carpool.read("-", format="csv")) == []


@pytest.mark.parametrize("format_", ["csv", "jsonl", "json", "jsonl.gz"])
def test_stdin_that_ends_too_soon_is_an_error(
    format_: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What writes to the pipe may die: what came before is there, then an error."""
    rows = [{"a": str(n), "b": os.urandom(9).hex()} for n in range(20_000)]
    data = written(tmp_path, format_, rows).read_bytes()
    stdin(monkeypatch, data[: data.index(b"\n", len(data) // 2) + 3])
    seen, error = until_error(carpool.read("-", format=format_))
    assert (error.file, error.line is None) == ("stdin", False)
    assert seen
    assert seen == rows[: len(seen)]


@pytest.mark.parametrize("format_", ["parquet", "arrow", "xlsx", "parquet.gz"])
def test_what_needs_seeking_is_spooled(
    format_: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Parquet, Arrow and Excel come through a pipe, too."""
    rows = [{"a": str(n)} for n in range(10)]
    stdin(monkeypatch, written(tmp_path, format_, rows).read_bytes())
    assert list(carpool.read("-", format=format_)) == rows


def test_a_named_pipe_is_read_once(tmp_path: Path) -> None:
    """What isn't a regular file is as stdin: a shell's ``<(command)``, for one."""
    path = tmp_path / "pipe.csv"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=("a\n1\n",))
    writer.start()
    rows = carpool.read(path)
    assert list(rows) == [{"a": "1"}]
    writer.join()
    with pytest.raises(ConfigurationError, match="gives its bytes only once"):
        iter(rows)


def test_items_come_as_they_are_written() -> None:
    """An item is there when its line is, not when a block is full."""
    program = (
        "import carpool\nfor item in carpool.read('-', format='jsonl'): print(item, flush=True)"
    )
    done = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert done.stdin is not None
    assert done.stdout is not None
    for number in range(3):
        done.stdin.write(b"%d\n" % number)
        done.stdin.flush()
        assert done.stdout.readline() == b"%d\n" % number
    done.stdin.close()
    assert done.wait(HANG) == 0
    done.stdout.close()
