"""Items that are poison: they end, crash, fill or hang whatever worker runs them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.acceptance.conftest import Script
from tests.torment.killing import workers
from tests.torment.oracle import exactly_once
from tests.torment.program import PREAMBLE, told
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(600)

ITEMS = 400
WORKERS = 4
ROOM = 512 * 1024**2
"""Bytes that an item may take before its worker's limit is reached."""

POISON = {23: "WorkerDied", 101: "WorkerDied", 202: "MemoryError", 303: "ItemTimeout"}
"""Items that leave, crash, eat and hang, and what is said of each."""

TEXT = f"""
import ctypes, faulthandler, resource

faulthandler.disable()  # the crash is meant

def limit_memory():
    faulthandler.disable()
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + {ROOM}
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

def leave():
    os._exit(3)

def crash():
    ctypes.string_at(0)

def eat():
    eaten = []
    while True:
        eaten.append(bytearray(16 * 1024**2))

def hang():
    while True:
        time.sleep(1)

POISON = dict(zip({sorted(POISON)}, [leave, crash, eat, hang]))

failed = 0

def count(snapshot):
    global failed
    failed = snapshot.failed

def source():
    yield from ((number, "") for number in range({ITEMS}))
    number = {ITEMS}
    while failed < len(POISON):  # until the last of them has got its due
        yield number, "slow"
        number += 1
    yield number, "last"

def taste(item):
    number, how = item
    create(number, 0.005 if how == "slow" else 0)
    if number in POISON:
        POISON[number]()
    if how == "last":  # it waits, so that the pool can be looked at
        touch("last")
        while not (FOLDER / "seen").exists():
            time.sleep(0.01)

if __name__ == "__main__":
    run(taste, source(), setup=limit_memory, timeout=15, chunk_size=8, progress=count)
"""


@pytest.mark.usefixtures("no_connections_left")
def test_poison(start: Callable[..., Script]) -> None:
    """Each item that ends its worker is named as failed, all others are stored, the pool is whole.

    One calls os._exit(), one crashes, one eats memory up to its limit, one never ends.
    """
    script = start(TEXT, preamble=PREAMBLE)
    script.wait_for("last")
    wait_until(
        lambda: len(workers(script)) == WORKERS, lambda: f"not at full strength: {workers(script)}"
    )
    (script.folder / "seen").touch()

    found = told(script.wait())
    print(found)
    assert found["raised"] is None
    assert {index: error for index, error, *_ in found["failures"]} == POISON
    count = found["total"]
    assert (found["succeeded"], found["failed"], found["unknown"]) == (count - 4, 4, 0)
    exactly_once(count, but=sorted(POISON))
