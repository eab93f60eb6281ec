"""``manage.py carpool run`` on what real files, pipes, disks and terminals do to a program.

On one database: none of it is the database's.
"""

from __future__ import annotations

import codecs
import fcntl
import gzip
import json
import os
import subprocess
import sys
import termios
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from carpool.journal.models import Run
from tests.acceptance.command.conftest import Command, names, shell, stored
from tests.waiting import HANG, wait_until

pytestmark = [pytest.mark.usefixtures("no_connections_left"), pytest.mark.only_on("sqlite")]


# Files.


def test_a_byte_order_mark(carpool: Command, folder: Path) -> None:
    """As Excel writes it: no part of the first column's name, in CSV and in JSON Lines."""
    (folder / "a.csv").write_bytes(codecs.BOM_UTF8 + b"name,do\nann,\n")
    (folder / "b.csv.gz").write_bytes(gzip.compress(codecs.BOM_UTF8 + "name,do\nZoë,\n".encode()))
    (folder / "c.jsonl").write_bytes(codecs.BOM_UTF8 + b'{"name": "bob"}\n')
    carpool("run", "shop.create", "a.csv", "b.csv.gz", "c.jsonl")
    assert stored() == ["Zoë", "ann", "bob"]


def test_utf_16(carpool: Command, folder: Path) -> None:
    """Excel's other text: the refusal names the encoding, and with it the file is read."""
    (folder / "users.csv").write_bytes("name,do\nZoë,\n".encode("utf-16"))
    done = carpool("run", "shop.create", "users.csv", code=2)
    assert 'encoding="utf-16"' in done.stderr
    carpool("run", "shop.create", "users.csv", "--encoding", "utf-16")
    assert stored() == ["Zoë"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("name,do\nann,\nbob\ncid,\n", "line 3: 1 field", id="too few"),
        pytest.param("name,do\nann,\nbob,,\ncid,\n", "line 3: 3 fields", id="too many"),
        pytest.param('name,do\nann,\n"bob,\ncid,\n', "line 3", id="a quote left open"),
        pytest.param("name;do\nann;\nbob;\n", "delimiter", id="semicolons"),
    ],
)
def test_rows_that_are_none(carpool: Command, folder: Path, text: str, words: str) -> None:
    """What comes before is stored, the line is named, nothing is guessed."""
    (folder / "users.csv").write_text(text)
    done = carpool("run", "shop.create", "users.csv", code=2)
    assert "users.csv, line" in done.stderr and words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert stored() == (["ann"] if "ann," in text else [])


LINES = 2_000_000
FEW = 20_000
MOST = 20_000
"""Kilobytes that a hundred times as many lines may cost. The files have over 100,000, unpacked."""

BIG = """
import atexit, os

def nothing(row):
    pass

def tell():
    # Not getrusage(): its peak is that of the process that began this one, if that was larger.
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM:")]
    with open(f"peak-{os.getpid()}", "w") as file:
        file.write(line.split()[1])

atexit.register(tell)
"""


def numbers(count: int, pattern: str) -> Iterator[bytes]:
    for start in range(0, count, FEW):
        yield "".join(pattern % (n, n, n) for n in range(start, start + FEW)).encode()


def write_csv_gz(path: Path, count: int) -> None:
    packer = zlib.compressobj(1, wbits=31)
    with path.open("wb") as file:
        file.write(packer.compress(b"number,name,email,city\n"))
        for lines in numbers(count, "%d,name %d,user%d@example.org,Some City in the Country\n"):
            file.write(packer.compress(lines))
        file.write(packer.flush())


def write_jsonl(path: Path, count: int) -> None:
    with path.open("wb") as file:
        file.writelines(
            numbers(count, '{"number": %d, "name": "name %d", "email": "user%d@example.org"}\n')
        )


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "write", "executor"),
    [("a.csv.gz", write_csv_gz, "processes"), ("a.jsonl", write_jsonl, "inline")],
    ids=["csv.gz", "jsonl"],
)
def test_two_million_lines(
    carpool: Command, folder: Path, name: str, write: Callable[[Path, int], None], executor: str
) -> None:
    """The peak of memory is that of twenty thousand lines."""
    (folder / "big.py").write_text(BIG)
    peaks = []
    for count in (FEW, LINES):
        write(folder / name, count)
        options = ["--json", "--executor", executor]
        done = carpool("run", "big.nothing", name, *options, seconds=110)
        assert json.loads(done.stdout)["succeeded"] == count
        told = list(folder.glob("peak-*"))
        peaks.append(max(int(path.read_text()) for path in told))
        for path in told:
            path.unlink()
    few, many = peaks
    assert many - few < MOST


# A full disk.


def test_rejects_that_find_no_room(
    rows: Any, folder: Path, subprocess_environment: dict[str, str]
) -> None:
    """The run stops and says why, what it says of the rows is true, and taken up it is whole."""
    (folder / "wordy.py").write_text(
        "from shop import create\n"
        "def create_or_not(row):\n"
        "    create(row | {'do': ''})\n"
        "    if row['do']:\n"
        "        raise ValueError('x' * 9000)\n"
    )
    rows(2000, dict.fromkeys(range(0, 2000, 2), "raise"))
    call = (
        "carpool run wordy.create_or_not users.csv --rejects failed.jsonl --json "
        "--journal users --retry-failed --chunk-size 20"
    )
    limited = f"ulimit -f {ROOM}; {call}"

    done = shell(limited, folder, subprocess_environment)

    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "failed.jsonl can't be written" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    told = json.loads(done.stdout)
    assert 0 < told["succeeded"] == len(stored()) < 1000
    assert "can't be written" in told["error"]

    done = shell(call, folder, subprocess_environment)

    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert (told["succeeded"], told["failed"]) == (1000, 1000)
    assert stored() == names(2000)[1::2]
    assert indexes(folder / "failed.jsonl") == set(range(0, 2000, 2))


ROOM = 4096
"""Kilobytes that a file may have: more than the SQLite database of the test, less than the rejects,
which have each message twice."""


def indexes(path: Path) -> set[int]:
    """Return the indexes of a rejects file's lines, but for one that was cut by lack of room."""
    found = set()
    for line in path.read_text().splitlines():
        try:
            found.add(json.loads(line)["index"])
        except ValueError:
            pass
    return found


# Pipes.


@pytest.mark.usefixtures("journal")
@pytest.mark.parametrize("reader", ["head -n 1", "true"])
def test_nobody_reads_the_rest(
    rows: Any, folder: Path, subprocess_environment: dict[str, str], reader: str
) -> None:
    """A long answer into a short pipe: the exit code is that of the work, and not a word."""
    rows(900, dict.fromkeys(range(900), "raise"))
    Run._base_manager.bulk_create(
        Run(name=f"{n:04} {'x' * 90}", function="shop.create") for n in range(900)
    )
    for action, code in (
        ("run shop.create users.csv --json", 1),
        ("runs", 0),
        ("runs --json", 0),
        (f"show '{7:04} {'x' * 90}' --json", 0),
        ("run --help", 0),
    ):
        line = f"carpool {action} 2>errors | {reader}; echo ${{PIPESTATUS[0]}}"
        done = shell(line, folder, subprocess_environment)
        assert done.stdout.splitlines()[-1] == str(code), action
        errors = (folder / "errors").read_text()
        assert "Traceback" not in errors and "Broken" not in errors, action


@pytest.mark.parametrize("stderr", ["2> >(head -c 20 >&2)", "2> >(true)", "2>/dev/full", "2>&-"])
@pytest.mark.parametrize("options", ["-v 2", "--executor processes --workers 2"])
def test_nobody_reads_stderr(
    rows: Any,
    folder: Path,
    subprocess_environment: dict[str, str],
    stderr: str,
    options: str,
) -> None:
    """All the work is done, and the exit code says how it went."""
    (folder / "talking.py").write_text(
        "import time\nfrom shop import create\n"
        "def create_loudly(row):\n"
        "    print('here comes', row['name'])\n"
        "    time.sleep(0.002)\n"
        "    create(row)\n"
    )
    for count, code in ((200, 0), (220, 1)):  # the second time 200 are there already
        rows(count)
        line = f"carpool run talking.create_loudly users.csv --chunk-size 20 {options}"
        done = shell(f"{line} {stderr}", folder, subprocess_environment)
        assert done.returncode == code, done.stderr
        assert f"{count} items in" in done.stdout
        assert stored() == names(count)
    done = shell(f"carpool run shop.create no.csv {stderr}", folder, subprocess_environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_ctrl_c_while_nobody_reads_stderr(begin: Any, rows: Any, folder: Path) -> None:
    """Where the report can't be printed, the exit code and stdout are as ever."""
    rows(9000)
    script = begin("run", "shop.create_slowly", "users.csv", "--json", stderr="/dev/full")
    script.wait_for("ran", 30)
    script.interrupt()
    (folder / "stderr").touch()  # for the message, if this fails
    script.wait(130)
    assert json.loads(script.out)["succeeded"] == len(stored()) < 9000


def test_stdout_that_is_closed(
    rows: Any, folder: Path, subprocess_environment: dict[str, str]
) -> None:
    """As a service has it: the work is done, and no file gets what was meant for stdout."""
    rows(20, {3: "raise"})
    line = "carpool run shop.create users.csv --rejects failed.jsonl >&-"
    done = shell(line, folder, subprocess_environment)
    assert done.returncode == 1
    assert done.stderr == "CommandError: 1 of 20 items did not succeed.\n"
    assert len(stored()) == 19
    assert indexes(folder / "failed.jsonl") == {3}
    assert len((folder / "failed.jsonl").read_text().splitlines()) == 1
    done = shell("carpool runs >&-", folder, subprocess_environment)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("producer", "format_", "words"),
    [
        ("head -c 1204 users.csv", "csv", "line"),
        ("head -c 30000 users.jsonl", "jsonl", "was it cut short?"),
        ("gzip -c users.jsonl | head -c 5000", "jsonl.gz", "end too soon"),
        ("cat users.csv <(printf u9999; kill -9 $BASHPID)", "csv", "line 3002: 1 field"),
    ],
    ids=["csv", "jsonl", "jsonl.gz", "killed"],
)
def test_a_producer_that_dies(
    rows: Any,
    folder: Path,
    subprocess_environment: dict[str, str],
    producer: str,
    format_: str,
    words: str,
) -> None:
    """What came whole is stored, the cut is told, and the count is right."""
    rows(3000)
    (folder / "users.jsonl").write_text("".join(f'{{"name": "{n}"}}\n' for n in names(3000)))
    line = f"{producer} | carpool run shop.create - --json --format {format_}"
    done = shell(line, folder, subprocess_environment)
    assert done.returncode == 2
    assert done.stderr.startswith("CommandError: stdin, line ") and words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    found = stored()
    assert found == names(3000)[: len(found)]
    assert json.loads(done.stdout)["succeeded"] == len(found) > 0


# A stdin that never ends, and Ctrl-C.


@pytest.mark.parametrize("executor", ["inline", "processes"])
@pytest.mark.parametrize("format_", ["csv", "jsonl.gz"])
def test_ctrl_c_while_stdin_is_silent(begin: Any, executor: str, format_: str) -> None:
    """Ctrl-C ends the wait for more; what has come is either stored or named; exit code 130."""
    data = "".join(["name,do\n", *(f"{n},\n" for n in names(50))]).encode()
    if format_ == "jsonl.gz":
        data = gzip.compress("".join(f'{{"name": "{n}"}}\n' for n in names(50)).encode())
    read, write = os.pipe()
    try:
        options = ["--format", format_, "--executor", executor, "--json"]
        script = begin("run", "shop.create", "-", *options, stdin=read)
        os.write(write, data)
        wait_until(lambda: waiting_in(read) == 0, "it doesn't read")
        if format_ == "csv":  # of packed data so few bytes may be kept back until there are more
            wait_until(User.objects.exists, "nothing of what has come is stored")
        script.interrupt()
        script.wait(130)
    finally:
        os.close(read)
        os.close(write)
    assert "Traceback" not in script.err
    assert "Interrupted." in script.err
    told = json.loads(script.out)
    assert told["succeeded"] == len(stored())
    assert told["total"] == told["succeeded"] + told["not_run"]


def waiting_in(pipe: int) -> int:
    """Return the bytes in a pipe that nobody has read yet."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_ctrl_c_while_stdin_never_ends(
    begin: Any, folder: Path, subprocess_environment: dict[str, str]
) -> None:
    """Of a producer that is faster than the database, no more is read than is needed."""
    endless = "import itertools\nfor n in itertools.count(): print(f'u{n:04},')"
    producer = subprocess.Popen(
        [sys.executable, "-c", endless], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert producer.stdout is not None
    try:
        options = ["--format", "csv", "--columns", "name,do", "--json"]
        script = begin("run", "shop.create_slowly", "-", *options, stdin=producer.stdout.fileno())
        producer.stdout.close()
        script.wait_for("ran", 100)
        script.interrupt()
        script.wait(130)
        producer.wait(HANG)  # nobody reads any more: it ends by itself
    finally:
        producer.kill()
        producer.wait()
    assert "Traceback" not in script.err
    told = json.loads(script.out)
    assert told["succeeded"] == len(stored()) >= 100
    assert told["total"] == told["succeeded"] + told["failed"] < 10_000
