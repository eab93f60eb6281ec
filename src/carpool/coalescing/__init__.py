"""A unit of work for Django: unchanged ORM code shares its round trips.

    with carpool.coalesce():
        for row in rows:
            create_user(row)

The life of a row::

    save() ─▶ pre_save, fields' pre_save ─▶ InsertCompiler ─▶ Unit: prepared values, a key, a place
    post_save ◀─ key on the instance ◀──────────────────────  in the queue
                                                                 │
         a statement that may see the row, a savepoint, ──▶ flush: tables in the order of their
         the queue's limit, the end of the block                   foreign keys, each in one write

Everything Python can see happens at the usual moment: signals, the key on the instance, `_state`,
``on_commit``. What differs:

- A database error is raised at the flush, which is at the latest where the next savepoint, query
  on the table, or the end of the block is. (Inside ``atomic()`` Django itself forbids going on
  after a database error without a savepoint, so nobody can have relied on the rows before.)
- The database's own triggers and defaults run at the flush.
- Other connections see nothing before the commit, as ever.

`block` is what users open; `unit` has the queue and the hooks on the one connection; `compilers`
are put in place of the backend's for the time of the block; `barrier` decides which statements may
see a queued row; `keys` and `late` give the instance its key; `writers` send the rows.

This package knows nothing of chunks, workers or progress.
"""

from carpool.coalescing.block import Coalesce, coalesce
from carpool.coalescing.figures import EarlyFlush, Figures
from carpool.coalescing.flushing import RowIsGone
from carpool.coalescing.registry import unit_of
from carpool.coalescing.unit import Unit

__all__ = ["Coalesce", "EarlyFlush", "Figures", "RowIsGone", "Unit", "coalesce", "unit_of"]
