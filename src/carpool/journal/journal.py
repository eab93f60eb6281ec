"""A run's journal, in each database that the run writes: what `run` talks to.

The life of it::

    open() ── Resumption ──▶ tend() … has_committed()? … failed() ──▶ close()
       │         the reader       the loop, between chunks              succeeded, failed, …
       └─ clerk: looks every second; cancel, pause, taken over are noticed there
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from django.apps import apps
from django.db import Error
from django.db.models import AutoField, BigIntegerField, IntegerField

from carpool import databases
from carpool.errors import trouble_of
from carpool.exceptions import ConfigurationError, RunFailed, TakenOver
from carpool.journal.clerk import Clerk
from carpool.journal.recording import Permit, Places
from carpool.journal.resuming import Resumption
from carpool.journal.spans import Spans
from carpool.journal.states import State

T = TypeVar("T")

FOLDING = 3.0
"""Seconds between two times that entries are made part of the run's row. A fold costs some
milliseconds, and leaves at most as many entries as chunks commit in that time."""

FOLDING_SHARE = 100
"""A fold may take at most this part of the run: where it takes longer, it is done less often."""

LONGEST_PAUSE = 30.0
"""Seconds between two folds at most: one may only have waited for a lock."""

PATIENCE = 60.0
"""Seconds that a question to the journal may take, a restart of the server included."""

LONGEST_TEXT = 10_000
"""Characters of an error that are kept."""

LONGEST_NAME = 190
"""Characters of a run's name: what MySQL's unique keys bear."""


class Journal:
    """What a run knows and writes of itself.

    Attributes:
        permit: what workers need to write entries.
        paused: somebody asked the run to wait.
        cancelled: somebody asked it to end.
    """

    permit: Permit

    def __init__(self, name: str, aliases: Sequence[str], *, notice: Callable[[], Any]) -> None:
        _refuse(name, aliases)
        from carpool.journal.book import Book  # needs the models, and so the app

        self.name = name
        self.paused = False
        self.cancelled = False
        self._books = [Book(alias, name) for alias in aliases]
        self._notice = notice
        self._taken_over: TakenOver | None = None
        self._failures: list[Places] = []
        self._folding: Future[None] | None = None
        self._next_fold = time.monotonic() + FOLDING
        self._closed = False
        self._closed_below: int | None = None
        self._clerk = Clerk(self._look)

    # At the start.

    def open(self, positions: str, about: dict[str, Any], *, take_over: bool) -> None:
        """Take the run. ``positions`` says what its positions are.

        Raises:
            ConfigurationError: there are no tables, or they can't be written; or it is another run.
            RunIsTaken: somebody else runs it.
        """
        taken: list[Any] = []
        try:
            for book in self._books:
                self._clerk.do(partial(self._open_one, book, positions, about, take_over))
                taken.append(book)
        except BaseException as error:
            with suppress(Error, RunFailed):
                for book in taken:
                    reason = _storable(f"refused in another database: {error}")
                    self._clerk.do(partial(book.close, State.INTERRUPTED, reason, []))
            self.shut()
            raise
        from carpool.journal.models import Entry, Lease, Run

        self.permit = Permit(
            {book.alias: (book.key, book.fence) for book in self._books},
            Run._meta.db_table,
            Entry._meta.db_table,
            Lease._meta.db_table,
        )
        self._clerk.start_looking()

    def _open_one(self, book: Any, positions: str, about: dict[str, Any], take_over: bool) -> None:
        try:
            self._persist(lambda: book.open(positions, about, take_over=take_over))
        except Error as error:
            if trouble_of(error) is not None:
                raise ConfigurationError(
                    f"The journal in the database {book.alias!r} can't be opened: {error}. Is the "
                    "server there, and does nobody hold a lock on the journal's tables?"
                ) from error
            raise ConfigurationError(
                f"The journal can't be written in the database {book.alias!r}: {error}. Create its "
                f"tables with manage.py migrate carpool_journal --database {book.alias}, and let "
                "this user write them."
            ) from error

    def resumption(self, *, by_key: bool, retry_failed: bool, ignore_changes: bool) -> Resumption:
        """Return what passes over all that is done now; what is done later doesn't change it."""
        first, *others = (book.done for book in self._books)
        settled, failed = first.settled, first.failed
        for done in others:
            settled = settled & done.settled
            failed = failed & done.failed
        return Resumption(
            Spans(settled),
            Spans(failed),
            first.marks.copy(),
            torn=self._torn(settled),
            marked=Spans(first.settled),
            by_key=by_key,
            succeeded=first.succeeded,
            retry_failed=retry_failed,
            ignore_changes=ignore_changes,
            stops=lambda: self.cancelled,
        )

    def _torn(self, everywhere: Spans) -> Spans:
        """Return the positions that have committed in some databases of the run and not in all."""
        anywhere = Spans()
        for book in self._books:
            anywhere.update(book.done.settled)
        return anywhere - everywhere

    @property
    def is_new(self) -> bool:
        """Whether this is the run's first call."""
        return all(book.is_new for book in self._books)

    @property
    def step(self) -> int:
        """Positions that a mark of a new chunk covers."""
        return max(book.done.marks.step for book in self._books)

    # While it runs.

    def tend(self, closed: int | None = None) -> None:
        """Have the entries folded now and then, without waiting for it.

        ``closed``: where chunks may be delivered twice, the number below which all have ended.

        Raises:
            TakenOver: somebody else runs it now.
        """
        if self._taken_over is not None:
            raise self._taken_over
        self._closed_below = closed
        if self._folding is None and time.monotonic() >= self._next_fold:
            self._folding = self._clerk.begin(self._fold_now_and_then)
        elif self._folding is not None and self._folding.done():
            folding, self._folding = self._folding, None
            folding.result()

    def _fold_now_and_then(self) -> None:
        began = time.monotonic()
        pause = FOLDING
        try:
            self._fold()
        except Error:  # another time, then: nothing is lost by waiting
            databases.close_mine()
        else:
            took = time.monotonic() - began
            pause = min(LONGEST_PAUSE, max(FOLDING, took * FOLDING_SHARE))
        self._next_fold = time.monotonic() + pause

    def _fold(self) -> None:
        failures = list(self._failures)
        for book in self._books:
            book.fold(failures, closed=self._closed_below)
        del self._failures[: len(failures)]

    def failed(self, places: Places) -> None:
        """Take note of items that failed without a transaction of their own."""
        self._failures.append(places)

    def has_committed(self, chunk: int) -> bool | None:
        """Tell whether a lost chunk has committed; None: not in every database.

        Raises:
            RunFailed: the database doesn't answer. TakenOver: somebody else runs it now.
        """
        with _asking():
            answers = {
                self._clerk.do(partial(self._persist, partial(book.has_committed, chunk)))
                for book in self._books
            }
        return answers.pop() if len(answers) == 1 else None

    def failed_among(self, places: Places) -> list[int]:
        """Return which items of a chunk that has committed have failed, by their place in it.

        Raises:
            RunFailed: as `has_committed`.
        """
        with _asking():
            self._clerk.do(partial(self._persist, self._fold))
        failed = self._books[0].done.failed
        return [number for number, end in enumerate(places.ends) if end in failed]

    def _look(self) -> None:
        """See what is wanted of the run. In the clerk's thread."""
        try:
            wanted = [book.look() for book in self._books]
        except TakenOver as error:
            self._taken_over = error
            self._notice()
        except Exception:  # whatever it is, the chunks will meet it, too
            databases.close_mine()
        else:
            before = (self.paused, self.cancelled)
            self.paused = "pause" in wanted
            self.cancelled = self.cancelled or "cancel" in wanted
            if (self.paused, self.cancelled) != before:
                self._notice()

    def _persist(self, task: Callable[[], T]) -> T:
        """Try again while the database restarts, or is locked. In the clerk's thread."""
        deadline = time.monotonic() + PATIENCE
        pause = 0.05
        while True:
            try:
                return task()
            except Error as error:
                if trouble_of(error) is None or time.monotonic() > deadline:
                    raise
                databases.close_mine()
                time.sleep(pause)
                pause = min(1.0, pause * 2)

    # At the end.

    def close(self, state: State, reason: str = "", **columns: Any) -> None:
        """Write how it ended, and stop.

        Raises:
            Error: it can't be written. The run will be found as if its process had died.
            TakenOver: somebody else runs it now.
        """
        if self._closed:
            return
        columns = {name: _storable(value) for name, value in columns.items()}
        try:
            failures = list(self._failures)
            for book in self._books:
                close = partial(book.close, state, _storable(reason), failures, **columns)
                self._clerk.do(partial(self._persist, close))
        finally:
            self.shut()

    def shut(self) -> None:
        """Leave no thread behind. May be called twice."""
        self._closed = True
        self._clerk.stop()


@contextmanager
def _asking() -> Iterator[None]:
    try:
        yield
    except Error as error:
        raise RunFailed(
            f"The journal can't be asked what of a lost chunk has committed: {error}. It can when "
            "the run is taken up again."
        ) from error


def _storable(value: Any) -> Any:
    """Return what any database takes: no NUL (PostgreSQL), nothing beyond `LONGEST_TEXT`."""
    if not isinstance(value, str):
        return value
    return value.replace("\0", "\\x00")[:LONGEST_TEXT]


def _refuse(name: Any, aliases: Sequence[str]) -> None:
    """Refuse what can't have a journal."""
    if not isinstance(name, str) or not name.strip() or len(name) > LONGEST_NAME:
        raise ConfigurationError(
            f"journal={name!r} must be the run's name, of 1 to {LONGEST_NAME} characters."
        )
    if not apps.is_installed("carpool.journal"):
        raise ConfigurationError(
            'journal= needs its tables: add "carpool.journal" to INSTALLED_APPS and run '
            "manage.py migrate."
        )
    atomic = databases.in_atomic_block()
    if atomic:
        raise ConfigurationError(
            f"journal= can't be kept inside transaction.atomic() (open on {', '.join(atomic)}): "
            "what a chunk has done would be undone with it. Call run() outside of it (in tests: "
            "TransactionTestCase)."
        )
    for alias in aliases:
        if databases.is_in_memory(alias):
            raise ConfigurationError(
                f"The database {alias!r} is SQLite in memory: a journal there is gone with this "
                "process. Use a file."
            )


def refuse_keys(queryset: Any) -> None:
    """Refuse a queryset whose rows have no place in a journal.

    Raises:
        ConfigurationError: its primary key is no whole number.
    """
    fields = queryset.model._meta.pk_fields
    kinds = (AutoField, IntegerField, BigIntegerField)
    field = fields[0]
    while field.remote_field is not None:  # an inherited model's key is its parent's
        field = field.target_field
    if len(fields) == 1 and isinstance(field, kinds):
        return
    raise ConfigurationError(
        f"journal= knows the rows of a queryset by their primary key, which of "
        f"{queryset.model._meta.label} is no whole number. Pass an iterable that gives the same "
        'items again, such as a list of keys: list(queryset.order_by("pk").values_list("pk", '
        "flat=True)), kept in a file if its filters change with the run."
    )
