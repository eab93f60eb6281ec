"""What is done for each item, and how many items make a run that is neither too short nor long."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

Workers = Literal["processes", "threads"] | int | None


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Workload:
    """One table's worth of work.

    `function` and `setup` are names in `benchmarks.items`: what a row calls for each item, and
    what a row that makes its objects itself calls before each.
    """

    name: str
    title: str
    function: str
    setup: str
    #: This workload's part of ``--rows``.
    share: float
    #: How many processes and threads a pool gets; 0 stands for the cores.
    processes: int = 0
    threads: int = 0

    def workers(self, wanted: Workers) -> int:
        """Return the number of workers for a row that wants processes, threads, or a number."""
        if wanted is None:
            return 1
        if isinstance(wanted, int):
            return wanted
        return getattr(self, wanted) or cores()


CHEAP = Workload("cheap", "no setup", "create_user", "no_setup", share=1)
#: Long enough that starting a pool, some 0.4 s, is a small part of each row.
CPU = Workload("cpu", "5 ms of CPU setup an item", "create_user_after_burn", "burn", share=0.25)
#: Waiting takes no core, so the pools may be larger: processes as many as the recipe has.
WAIT = Workload(
    "wait",
    "20 ms of waiting an item",
    "create_user_after_wait",
    "wait",
    share=0.05,
    processes=4,
    threads=16,
)
NO_OP = Workload("no-op", "a function that does nothing", "do_nothing", "no_setup", share=1)

WORKLOADS = {workload.name: workload for workload in (CHEAP, CPU, WAIT, NO_OP)}
