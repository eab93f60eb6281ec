"""A unit of work for Django: unchanged ORM code shares its round trips.

    with carpool.coalesce():
        for row in rows:
            create_user(row)

The life of a row::

    save() ─▶ pre_save, fields' pre_save ─▶ Model._save_table ─▶ Unit: prepared values, a key,
    post_save ◀─ key on the instance; "updated" ◀──────────────  a place in the queue
                                                                    │
         a statement that may see the row, a savepoint that ──▶ flush: new rows in the order of
         might have to undo it, the queue's limit, the end             their foreign keys, then
         of the block                                                  changes; each set at once

Everything Python can see happens at the usual moment: signals, the key on the instance, `_state`,
``on_commit``. What differs:

- A database error is raised at the flush, which is at the latest where the next savepoint, query
  on the table, or the end of the block is. (Inside ``atomic()`` Django itself forbids going on
  after a database error without a savepoint, so nobody can have relied on the rows before.)
- The database's own triggers and defaults run at the flush.
- Other connections see nothing before the commit, as ever.

`block` is what users open; `unit` has the hooks on the one connection, and flushes; `queue` holds
the rows, `transaction` the savepoints that were not sent yet; `saving` and `compilers` bring what
Django is about to send, `inserts` and `changes` put it into the queue; `barrier` decides which
statements may see a queued row, `knowledge` what the block knows of rows that are there; `keys` and
`late` give the instance its key; `flushing` brings the queue into an order, `writers` and
`updating` send it.

This package knows nothing of chunks, workers or progress.
"""

from carpool.coalescing.block import Coalesce, coalesce
from carpool.coalescing.figures import EarlyFlush, Figures
from carpool.coalescing.flushing import RowIsGone
from carpool.coalescing.registry import unit_of
from carpool.coalescing.saving import kept
from carpool.coalescing.unit import Unit

__all__ = [
    "Coalesce",
    "EarlyFlush",
    "Figures",
    "RowIsGone",
    "Unit",
    "coalesce",
    "kept",
    "unit_of",
]
