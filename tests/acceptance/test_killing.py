"""kill -9, of workers and of the caller: what can't be prepared for."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User

from tests.acceptance.conftest import Script

pytestmark = pytest.mark.usefixtures("no_connections_left")

Start = Callable[..., Script]

ITEMS = 300
KILLS = 6


@pytest.mark.parametrize("method", ["forkserver", "fork"])
def test_workers_killed_at_random(start: Start, method: str) -> None:
    """Workers killed at random moments cost no other item, and none is stored twice.

    A kill may strike during COMMIT, which nobody can judge from outside, or an item a second time
    that had been running when the first one did: such items are named, whatever became of them.
    """
    script = start(
        f"""
        def create(number):
            with (FOLDER / "pids").open("a") as file:
                file.write(f"{{os.getpid()}}\\n")
            User.objects.create(username=f"u{{number}}")
            time.sleep(0.01)

        if __name__ == "__main__":
            outcomes = carpool.stream(create, range({ITEMS}), executor="processes", workers=3,
                                      start_method="{method}", chunk_size=5, progress=False)
            print(json.dumps([[o.index, o.ok, o.failure and o.failure.stage] for o in outcomes]))
        """
    )
    chance = random.Random(method)
    for kill in range(1, KILLS + 1):
        script.wait_for("pids", 30 * kill)
        for pid in chance.sample(script.lines("pids")[-9:], 3):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
                break

    script.wait()
    outcomes = json.loads(script.out)
    assert [index for index, _, _ in outcomes] == list(range(ITEMS))
    stored = set(User.objects.values_list("username", flat=True))
    ok = {f"u{index}" for index, fine, _ in outcomes if fine}
    unknown = {f"u{index}" for index, _, stage in outcomes if stage == "unknown"}
    assert ok <= stored <= ok | unknown
    assert {stage for _, _, stage in outcomes} <= {None, "worker", "unknown"}
    assert ITEMS - len(ok) <= KILLS * 5
    assert script.err == ""


@pytest.mark.parametrize("method", ["forkserver", "fork", "spawn"])
def test_workers_of_a_killed_caller_end(start: Start, method: str) -> None:
    """When the caller is killed, its workers notice and end; what they had committed is whole."""
    script = start(
        f"""
        def create(number):
            User.objects.create(username=f"u{{number}}")
            with (FOLDER / "ran").open("a") as file:
                file.write(f"{{number}}\\n")
            time.sleep(0.01)

        if __name__ == "__main__":
            carpool.run(create, range(100_000), executor="processes", workers=3,
                        start_method="{method}", chunk_size=4, progress=False)
        """
    )
    script.wait_for("ran", 20)
    assert len(script.members()) >= 4

    script.process.kill()

    script.wait(-signal.SIGKILL)
    assert "Traceback" not in script.err
    assert User.objects.count() % 4 == 0
