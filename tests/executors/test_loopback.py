"""What every engine gets from `RemoteExecutor` and `perform_chunk`, without an engine."""

from __future__ import annotations

from tests.executors.contract import ExecutorContract
from tests.executors.loopback import Loopback


class TestLoopback(ExecutorContract):
    label = "loopback"

    @property
    def options(self) -> dict[str, Loopback]:  # type: ignore[override]
        return {"executor": Loopback()}
