"""Item functions for every executor: importable, so that a worker of any kind finds them.

An item is a row, ``{"name": …, "do": …}``; `create` stores a user of that name and then does what
``do`` says, most of which is bad.
"""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.db import IntegrityError, OperationalError, connection, transaction
from django.utils import timezone, translation

import carpool

Row = dict[str, Any]

#: Seconds after which one side of a rendezvous gives up: far beyond any worker's start.
PATIENCE = 180.0

logger = logging.getLogger(__name__)


# The rows, and what is stored of them.


def rows(number: int, do: dict[int, str] | None = None) -> list[Row]:
    """Return so many rows; ``do`` is what some of them do, by index."""
    do = do or {}
    return [{"name": name(n), "do": do.get(n, "")} for n in range(number)]


def name(number: int) -> str:
    return f"u{number:05}"


def names(numbers: Iterable[int]) -> list[str]:
    return [name(n) for n in numbers]


def endless_rows(bad: dict[int, str] | None = None) -> Iterator[Row]:
    number = 0
    while True:
        yield {"name": name(number), "do": (bad or {}).get(number, "")}
        number += 1


def stored() -> list[str]:
    """Return the names in the table, in order."""
    return sorted(User.objects.values_list("username", flat=True))


# Functions that store their item.


def create(row: Row) -> str:
    """Store the row's user, then do what the row says; return the name in capitals."""
    if row.get("do") == "raise early":
        raise ValueError(f"{row['name']} is bad")
    User.objects.create(username=row["name"])
    match row.get("do"):
        case "raise":
            raise ValueError(f"{row['name']} is bad")
        case "duplicate":
            User.objects.create(username=row["name"])
        case "ctrl-c":
            os.kill(os.getpid(), signal.SIGINT)
        case "ctrl-c after commit":
            transaction.on_commit(press_twice)
        case "refuse at commit":
            at_commit.append("refuse")
        case "exit":
            os._exit(3)
        case "sigkill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            faulthandler.disable()  # or a forked worker tells the story in the test run's log
            ctypes.string_at(0)
        case "hang":
            time.sleep(3600)
        case "doze":
            time.sleep(0.01)
        case "exit after commit":
            transaction.on_commit(lambda: os._exit(4))
        case "exit at commit":
            at_commit.append("before")
        case "exit just after commit":
            at_commit.append("after")
    return str(row["name"]).upper()


def press_twice() -> None:
    """Press Ctrl-C, and once more: the first lets callbacks end, the second does not."""
    os.kill(os.getpid(), signal.SIGINT)
    create({"name": "a callback"})
    os.kill(os.getpid(), signal.SIGINT)
    create({"name": "never"})


def create_uniquely(row: Row) -> None:
    """Store a user of the row's name and a random number: whether equal rows are run shows."""
    create({"name": f"{row['name']} {uuid.uuid4()}"})


def create_and_empty(row: Row) -> None:
    """Do the same, and leave nothing of the row."""
    whole = dict(row)
    row.clear()
    create(whole)


def create_for(suffix: str, row: Row) -> str:
    """Store a user by a name with an ending: for partials."""
    return create(row | {"name": row["name"] + suffix})


class Creator:
    """Stores rows, as a callable object and by a method."""

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix

    def __call__(self, row: Row) -> str:
        return create_for(self.suffix, row)

    def create(self, row: Row) -> str:
        return create_for(self.suffix, row)


class Conflict(Exception):
    """What a driver raises where transactions collide, as far as carpool looks at it."""

    sqlstate = "40001"


def create_many(row: Row) -> None:
    """Store three users by a run of carpool's own, then do what the row says."""
    parts = [{"name": f"{row['name']}.{part}"} for part in "abc"]
    report = carpool.run(create, parts, progress=False)
    assert (report.executor, report.succeeded) == ("inline", 3), report
    if row["do"] == "raise":
        raise ValueError(f"{row['name']} is bad")


def rename(user: User) -> None:
    user.username = user.username.upper()
    user.save()


def create_in_conflict(folder: str, row: Row) -> None:
    """Store the row; "conflict once" collides the first time, "conflict" each time."""
    create(row)
    marker = Path(folder, row["name"])
    if row["do"] == "conflict" or (row["do"] == "conflict once" and not marker.exists()):
        marker.touch()
        raise OperationalError("could not serialize access") from Conflict()


def create_noting(folder: str, row: Row) -> None:
    """Store the row, and note outside of the database that it was run."""
    append(Path(folder, "runs"), row["name"])
    create(row)


def kill_once(folder: str, row: Row) -> None:
    """Store the row; its worker dies, but only the first time."""
    create(row)
    marker = Path(folder, row["name"])
    if row["do"] == "exit once" and not marker.exists():
        marker.touch()
        os._exit(5)


def create_and_be_killed_at_commit(folder: str, row: Row) -> None:
    """Store the row; of one, the worker's COMMIT takes a while, in which it is killed."""
    create_noting(folder, row)
    if row["name"] == "u00013":
        commit = connection._commit  # type: ignore[attr-defined]

        def commit_and_be_killed() -> None:
            threading.Timer(0.6, os.kill, (os.getpid(), signal.SIGKILL)).start()
            commit()

        connection._commit = commit_and_be_killed  # type: ignore[attr-defined]


def delete_after(key: int, user: User) -> None:
    """Delete all users with higher keys, once."""
    if user.pk == key:
        with connection.cursor() as cursor:
            cursor.execute(f"DELETE FROM {User._meta.db_table} WHERE id > %s", [key])


@dataclass
class NewUser:
    """A row as a type."""

    name: str
    joined: date
    do: str = ""


def create_typed(user: NewUser) -> str:
    assert isinstance(user, NewUser)
    create({"name": user.name, "do": user.do})
    return user.joined.isoformat()


def look_up(rows: list[Row]) -> dict[str, Any]:
    """Return the first names of the users that the rows name as friends; refuse "nobody"."""
    friends = {row["friend"] for row in rows}
    if "nobody" in friends:
        raise LookupError("there is no nobody")
    found = User.objects.filter(username__in=friends)
    return {"found": dict(found.values_list("username", "first_name")), "rows": len(rows)}


def die_for_exit(rows: list[Row]) -> int:
    """Be a before_chunk that ends its worker if one of the rows asks for it."""
    if any(row["do"] == "exit" for row in rows):
        os._exit(3)
    return len(rows)


def create_knowing(row: Row, number: int) -> None:
    create(row)


def create_with_friend(row: Row, known: dict[str, Any]) -> int:
    """Store the row with its friend's name; return how many rows were looked up together."""
    create(row)
    friend = known["found"][row["friend"]]
    User.objects.filter(username=row["name"]).update(first_name=friend)
    return int(known["rows"])


# Functions that tell something.


def shout(row: Row) -> str:
    return str(row["name"]).upper()


def whereabouts(row: Row) -> tuple[int, int]:
    """Return which process and thread this is, after long enough for others to get a share."""
    time.sleep(0.005)
    return os.getpid(), threading.get_ident()


def surroundings(row: Row) -> tuple[str | None, str]:
    return translation.get_language(), timezone.get_current_timezone_name()


def database_name(row: Row) -> str:
    return str(connection.settings_dict["NAME"])


def give_back(row: Row) -> str:
    return str(row["load"])


def echo(row: Row) -> None:
    """Print by another program, and then do what the row says."""
    subprocess.run(["echo", f"{row['name']}-by-echo"], check=True)
    create(row)


def start_program(path: str, row: Row) -> None:
    """Start a program that takes an hour, note its process id, and wait for its end."""
    program = subprocess.Popen(["sleep", "3600"])
    Path(path).write_text(str(program.pid))
    program.wait()


def give_lock(row: Row) -> Any:
    """Store the row, and return something that can't be pickled."""
    create(row)
    return threading.Lock()


def read_lock(row: Row) -> bool:
    """Use what can't be pickled in the row, if there is something."""
    create(row)
    lock = row.get("lock")
    return lock is None or not lock.locked()


def read_lock_slowly(row: Row) -> bool:
    time.sleep(0.003)
    return read_lock(row)


def count_queries(row: Row) -> int:
    """Store the row, and return how many statements DEBUG has kept so far."""
    create(row)
    return len(connection.queries_log)


def meet(folder: str, row: Row) -> int:
    """Wait for the other of a pair: both must be running at the same time, in two workers."""
    if row.get("pair") is not None:
        Path(folder, row["name"]).touch()
        other = Path(folder, row["pair"])
        deadline = time.monotonic() + PATIENCE
        while not other.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{row['name']} has waited for {row['pair']} in vain")
            time.sleep(0.01)
    create(row)
    return os.getpid()


def talk(row: Row) -> None:
    """Write a line to stdout, one to stderr and one to the log, the first two in pieces."""
    for stream, verb in ((sys.stdout, "says"), (sys.stderr, "warns")):
        print(f"{row['name']} {verb} ", end="", file=stream, flush=True)
        time.sleep(0.002)
        print("x" * 200, file=stream)
    logger.error("%s logs %s", row["name"], "x" * 200)


# For setup=.

#: What the patched COMMIT is to do, as asked for by the rows of its transaction.
at_commit: list[str] = []


def note_setup(folder: str) -> None:
    Path(folder, f"{os.getpid()} {threading.get_ident()} {uuid.uuid4()}").touch()


def obey_at_commit() -> None:
    """Make this worker's COMMIT do what rows ask for: be refused, or end the process."""
    commit = connection._commit  # type: ignore[attr-defined]

    def commit_obediently() -> None:
        asked = set(at_commit)
        at_commit.clear()
        if "before" in asked:
            os._exit(6)
        if "refuse" in asked:
            raise IntegrityError("refused at COMMIT, for reasons of its own")
        commit()
        if "after" in asked:
            os._exit(7)

    connection._commit = commit_obediently  # type: ignore[attr-defined]


def keep_queries() -> None:
    """Do to this worker's connection what DEBUG=True does."""
    connection.force_debug_cursor = True


def fail_at_setup() -> None:
    raise LookupError("no model to load")


def fail_elsewhere(home: int) -> None:
    if os.getpid() != home:
        fail_at_setup()


def die_at_setup() -> None:
    os._exit(8)


def append(path: Path, line: str) -> None:
    """Add a line to a file that several processes write."""
    with path.open("a") as file:
        file.write(line + "\n")
