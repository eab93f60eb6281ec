"""What the engine itself costs an item: the function does nothing, so all the time is its own."""

from __future__ import annotations

from benchmarks import create
from benchmarks.suite import Suite

suite = Suite("overhead")

suite.row("plain loop", group="reference")(create.plain_loop)
suite.row("carpool.run, inline", group="carpool", needs=["carpool"])(create.carpool_inline)
suite.row("carpool.run, threads", group="carpool", workers="threads", needs=["carpool"])(
    create.carpool_threads
)
suite.row("carpool.run, processes", group="carpool", workers="processes", needs=["carpool"])(
    create.carpool_processes
)
