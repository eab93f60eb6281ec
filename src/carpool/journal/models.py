"""The journal's tables: what is done, what was done since, and who may write.

Note [Fence]
    Each coordinator that takes a run up adds one to its fence. A chunk's transaction inserts its
    entry only if the lease still has the fence that its coordinator was given, and holds a shared
    lock on the lease until COMMIT. Whoever takes the run over changes the lease, and so waits for
    the chunks that are committing; after that no chunk of the old coordinator can commit. The run's
    own row has a copy of the fence, for what coordinators write: beats there don't wait for chunks.

Note [Closed]
    Where chunks travel by a broker or a scheduler, one may be delivered twice, the second time long
    after the first. Its entry is unique, so it can't commit twice; and what has been given up has a
    void entry. Entries are folded, though. Before one is taken away its number is closed: the lease
    says below which number all chunks have ended, and no chunk below it is recorded. Until then a
    void entry stays in its place.

Note [Wanted]
    What is wanted is asked of the coordinator that has the run now, not of the name: only a running
    run can be asked, in one statement with that condition, and whoever takes a run up begins with
    nothing wanted. So a cancel that nobody heard, since the process was dead already, does not end
    the call by which somebody starts the run again. Who must not lose a wish in the time between
    two coordinators keeps it elsewhere, and asks again once the run runs.
"""

from __future__ import annotations

from typing import Any

from django.db import models

from carpool.journal.states import State


class Run(models.Model):
    """A run by its name: how far it is, and how it got there.

    ``settled`` are the positions whose items are done or have failed, ``failed_positions`` the
    failed ones, as `spans.Spans` writes them; ``marks`` is what `marks.Marks` writes. Chunks that
    have committed since this row was written are in `Entry`.
    """

    name = models.CharField(max_length=190, unique=True)
    state = models.CharField(
        max_length=20, default="new", choices=[(state.value, state.value) for state in State]
    )
    reason = models.TextField(blank=True, help_text="Why it is in this state.")
    wanted = models.CharField(
        max_length=10,
        blank=True,
        choices=[("", "nothing"), ("pause", "pause"), ("cancel", "cancel")],
        help_text="What the coordinator is asked to do; it looks every second.",
    )

    positions = models.CharField(
        max_length=255, blank=True, help_text="What positions count: an index, or a model's keys."
    )
    function = models.TextField(blank=True)
    source = models.TextField(blank=True)
    options = models.JSONField(default=dict, blank=True)

    succeeded = models.BigIntegerField(default=0)
    failed = models.BigIntegerField(default=0)
    skipped = models.BigIntegerField(default=0)
    retries = models.BigIntegerField(default=0)
    rate = models.FloatField(null=True, blank=True, help_text="Items a second, of the last call.")
    last_error = models.TextField(blank=True)

    settled = models.TextField(default="[]")
    failed_positions = models.TextField(default="[]")
    marks = models.TextField(blank=True)

    fence = models.BigIntegerField(default=0)
    beat_at = models.DateTimeField(null=True, blank=True, help_text="By the database's clock.")
    host = models.CharField(max_length=255, blank=True)
    pid = models.BigIntegerField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    carpool_version = models.CharField(max_length=50, blank=True)
    django_version = models.CharField(max_length=50, blank=True)

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"{self.name}: {self.state}"

    def cancel(self) -> bool:
        """Ask whoever runs it to end: chunks in flight finish, no more are read.

        Noticed within two seconds. Its call of ``run()`` raises `carpool.RunCancelled`. Returns
        whether it is running; else nothing is asked, and a later call runs: Note [Wanted].
        """
        return self._ask("cancel")

    def pause(self) -> bool:
        """Ask whoever runs it to wait: chunks in flight finish, no more are begun."""
        return self._ask("pause")

    def resume(self) -> bool:
        """Ask whoever runs it to go on after a `pause`."""
        return self._ask("")

    def _ask(self, wanted: str) -> bool:
        # Not save(): this row is the coordinator's, and it may be writing it now.
        rows = type(self)._base_manager.using(self._state.db)
        if not rows.filter(pk=self.pk, state=State.RUNNING).update(wanted=wanted):
            return False
        self.wanted = wanted
        return True


class Lease(models.Model):
    """Who may write a run's entries, and of which chunks: see Note [Fence], Note [Closed]."""

    run = models.OneToOneField(Run, models.CASCADE, primary_key=True, related_name="lease")
    fence = models.BigIntegerField(default=0)
    closed = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.run_id}: {self.fence}"


class Entry(models.Model):
    """A chunk that has committed, and is not part of its run's row yet.

    ``done`` are its settled positions, ``failed`` the failed ones among them. ``void``: nobody has
    committed it, and nobody will; see `Book.has_committed`.
    """

    run: Any = models.ForeignKey(
        Run, models.CASCADE, related_name="entries", db_constraint=False, db_index=False
    )
    fence = models.BigIntegerField()
    chunk = models.BigIntegerField()
    done = models.TextField()
    failed = models.TextField()
    succeeded = models.BigIntegerField()
    skipped = models.BigIntegerField()
    marks = models.TextField()
    void = models.BooleanField(default=False)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("run", "fence", "chunk"), name="carpool_entry_once"),
        )

    def __str__(self) -> str:
        return f"{self.run_id}: chunk {self.chunk} of coordinator {self.fence}"
