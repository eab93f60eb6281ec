"""Benchmarks: the same rows, written in every usual way, from slow and full to fast and bare.

::

    python -m benchmarks create                       # every database that can be had
    python -m benchmarks create --database-url postgres://… --rows 20000
    python -m benchmarks update                       # rows that are there are changed and saved
    python -m benchmarks shapes                       # items that do more than one INSERT
    python -m benchmarks overhead                     # what the engine itself costs an item

How a figure comes about:

1. `measure` makes a database of its own on each server, and takes the rows of a suite in turns:
   each row once, then each row again, so that a slow minute of the machine hits all of them.
2. Each turn is a fresh process (`round`), so that no row inherits another's memory, connections
   or imports. The clock runs only while the row's own code runs; starting a pool is part of that.
3. `results` takes the median of the turns; `report`, `chart` and `claims` show it.

To add a row, write one decorated function in its suite, as in `create`::

    @suite.row("what it is called in the table", group="carpool", workers="processes")
    def its_key(task: Task) -> None:
        write(task.items(), task.function)
"""
