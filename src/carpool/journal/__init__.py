"""The journal: which items of a named run have committed, written in their own transactions.

A Django app of its own: ``INSTALLED_APPS += ["carpool.journal"]``, then ``migrate``. Without it
nothing of carpool changes; with it, ``run(…, journal="import-2026-11")`` can be stopped, killed and
called again, and runs each item exactly once.

The life of a chunk with a journal::

    coordinator                                 worker's transaction
      chunk, its positions, digests ──────────▶ BEGIN
                                                  the items …
                                                  INSERT an entry, if the fence still holds
                                                COMMIT
      lost at COMMIT? ask for the entry ◀─ ─ ─ ─  (an answer that never came)
      every few seconds: the entries become part of the run's row

The parts, each a file:

- `models`: the three tables. `Run` is what has been done so far, as ranges; `Entry` a chunk that
  has committed since; `Lease` who may write.
- `spans`, `marks`: sets of positions, and fingerprints of what was at them.
- `states`: what a run can be, and why it becomes so.
- `recording`: what a worker does. Needs no model, only the tables' names.
- `book`: the journal in one database. `journal`: of all databases of a run, and the clerk's thread
  that writes it.
- `resuming`: passes over what is done already, and notices a source that has changed.

Refused: runs inside ``atomic()``, dry runs, databases in memory, forked workers, querysets whose
key is no whole number.
"""
