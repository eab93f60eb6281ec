"""Items from files, streamed: ``carpool.run(create_order, carpool.read("orders.csv.gz"))``.

::

    paths ──globs, checks──▶ File ──unpacked──▶ bytes ──decoded──▶ text ──a format──▶ items
                              each only when it is its turn, and closed when its items are used up

Formats are a table in `formats`, compressions one in `compressions`. A library that not everybody
needs is imported when its format is named, and not before.
"""

from carpool.files.files import read

__all__ = ["read"]
