"""One row, once, in a fresh process: ``python -m benchmarks.round`` is called by `measure` only.

Note [Peak memory]
    Linux hands a process' ``ru_maxrss`` down through fork *and* exec, so in a fresh process it is
    at least what its parent had. VmHWM starts anew with the program; ``getrusage`` is only for
    systems without it.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any


def peak_kib() -> int:
    """Return the most memory that this process has had at once, in KiB. See Note [Peak memory]."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak // 1024 if sys.platform == "darwin" else peak
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def run(order: dict[str, Any]) -> dict[str, Any]:
    """Do what the order says, and return what it cost."""
    import django

    django.setup()
    from django.apps import apps
    from django.db import connection
    from django.utils.module_loading import import_string

    from benchmarks import counters, database
    from benchmarks.suite import Suite, Task
    from benchmarks.workload import WORKLOADS

    suite: Suite = importlib.import_module(f"benchmarks.{order['suite']}").suite
    workload = WORKLOADS[order["workload"]]
    task = Task(
        function=import_string(workload.function),
        setup=import_string(workload.setup),
        source=import_string(workload.source),
        rows=order["rows"],
        workers=order["workers"],
        chunk_size=workload.chunk_size,
    )
    row = suite.rows[order["row"]]
    for name in row.needs:
        importlib.import_module(name)
    database.empty(connection)
    import_string(workload.prepare)()
    if workload.fill:
        import_string(workload.fill)(task.rows)
        database.tidy(connection)
    if row.prepare:
        row.prepare()
    counters.reset_statements()
    start = time.perf_counter()
    row.run(task)
    seconds = time.perf_counter() - start
    statements = counters.read_statements()
    count = import_string(workload.count)
    for label, rows in workload.writes.items():
        written, wanted = count(apps.get_model(label)), rows * task.rows
        if written != wanted:
            raise SystemExit(f"wrote {written:,} of {wanted:,} rows of {label}")
    connection.close()
    return {
        "seconds": seconds,
        "signals": counters.read_signals(workload.writes),
        "peak_kib": peak_kib(),
        "statements": statements and statements[0],
        "savepoints": statements and statements[1],
    }


if __name__ == "__main__":
    order = json.loads(sys.argv[1])
    Path(order["answer"]).write_text(json.dumps(run(order)))
