"""A rudimentary benchmark, before any concurrency: a sample through the real function, rolled back.

::

    source ──▶ Sample ──▶ warm-up: how long an item takes, how many items fit into the time
                 │
                 ├──▶ profile: one pass in this thread: where the time goes, what fails, what
                 │             breaks batches
                 │
                 └──▶ rounds: each way once a round, in turn; a plain loop, inline, threads and
                              processes, several chunk sizes
                                 │
                  table, chart ◀─┴─▶ advice: a sentence, by rules over the figures

Every pass is a dry run over the same items, each time as they came from the source. So nothing is
stored; but receivers fire, what the function does outside of the database happens each time, and
the database's sequences move on.
"""

from carpool.bench.advice import advice_on
from carpool.bench.benchmark import bench
from carpool.bench.figures import Bench, Row, Shares, Way

__all__ = ["Bench", "Row", "Shares", "Way", "advice_on", "bench"]
