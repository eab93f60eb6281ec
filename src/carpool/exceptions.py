"""What carpool raises.

::

    Exception
    └── CarpoolError                 has .report (None when nothing was run)
        ├── ConfigurationError       refused before the first item: fix the call, don't catch it
        │   └── RunIsTaken           another process has the run of this name in hand
        ├── ItemsFailed              items failed and you asked to be told by an exception
        │   └── TooManyFailures      more items failed than max_failures allows
        ├── SourceError              a file that read() reads is damaged: .file, .line, .column
        ├── RunFailed                the run can't go on: no worker starts, no database answers
        │   ├── TakenOver            another process has taken the run of this name over
        │   ├── SourceChanged        an item is not what it was when the run was there before
        │   └── SourceRepeats        a queryset gives a row twice, which a journal can't tell apart
        ├── RunCancelled             somebody asked the run to end, by its row in the journal
        └── (for one item; found as a Failure's `error`, never raised by run())
            ItemFailed
            ├── InvalidItem          is not what the function's annotation, or the model, asks for
            ├── ItemTimeout          took longer than timeout= and was ended
            ├── WorkerDied           its worker died while it ran
            ├── OutcomeUnknown       the connection or the worker was lost during COMMIT
            ├── NotRun               was read, but the run stopped before it was done
            ├── NotSendable          it, or what the function returned, can't be pickled
            └── TransactionBroken    left the chunk's transaction unusable for the items after it
    KeyboardInterrupt
    └── Interrupted                  Ctrl-C; has .report
    RuntimeWarning
    └── DuringRequest                a warning: workers were started while a request was answered

Every one pickles: all arguments go to ``super().__init__``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from carpool.report import Report


class CarpoolError(Exception):
    """Base of all that carpool raises; ``report`` tells what had been done by then.

    ``report`` is None where nothing was run.
    """

    def __init__(self, message: str, report: Report | None = None) -> None:
        super().__init__(message, report)
        self.message = message
        self.report = report

    def __str__(self) -> str:
        return self.message


class ConfigurationError(CarpoolError):
    """The call can't work as it stands; no item was run. The message names the remedy."""


class RunIsTaken(ConfigurationError):
    """Another process has the run of this name in hand; the message says who, and until when."""


class ItemsFailed(CarpoolError):
    """At least one item failed. Raised by ``on_error="raise"`` and ``Report.raise_for_failures()``.

    Everything that succeeded is committed; ``report.failures`` names what did not.
    """


class TooManyFailures(ItemsFailed):
    """More items failed than ``max_failures``; the chunks in flight were finished, no more read."""


class RunFailed(CarpoolError):
    """The run can't go on: workers don't start, a database doesn't answer, an executor broke.

    What was committed stays so and is counted in ``report``; items that were read but not done
    are among its failures as ``NotRun``.
    """


class TakenOver(RunFailed):
    """Another process has taken the run over; nothing more of this one's can be committed."""


class SourceChanged(RunFailed):
    """The source doesn't give the items it gave before, so positions don't mean the same any more.

    ``position`` is where that was noticed. Nothing from there on was run.
    """

    def __init__(self, message: str, report: Report | None = None, position: int = -1) -> None:
        super().__init__(message, report)
        self.args = (message, report, position)
        self.position = position


class SourceRepeats(RunFailed):
    """The queryset gives a row twice."""


class RunCancelled(CarpoolError):
    """Somebody asked the run to end. Chunks in flight were finished, no more read."""


class SourceError(CarpoolError):
    """A file that `carpool.read` reads is damaged, cut short, or not what it should be.

    The items before the place were yielded, and what `run` made of them is in ``report``. Mend the
    file; there is nothing to catch.

    Attributes:
        file: its path, or "stdin".
        line: the line, or the row of a table that has no lines, counted from 1; or None.
        column: the character in the line, counted from 1; or a column's number or name; or None.
    """

    def __init__(
        self,
        message: str,
        report: Report | None = None,
        file: str | None = None,
        line: int | None = None,
        column: int | str | None = None,
    ) -> None:
        super().__init__(message, report)
        self.args = (message, report, file, line, column)
        self.file = file
        self.line = line
        self.column = column

    def __str__(self) -> str:
        places = [
            self.file,
            None if self.line is None else f"line {self.line}",
            None if self.column is None else f"column {self.column}",
        ]
        place = ", ".join(part for part in places if part is not None)
        return f"{place}: {self.message}" if place else self.message


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run. A KeyboardInterrupt, so that ``except Exception`` lets it pass."""

    def __init__(self, message: str, report: Report | None = None) -> None:
        super().__init__(message, report)
        self.message = message
        self.report = report

    def __str__(self) -> str:
        return self.message


class ItemFailed(CarpoolError):
    """Base of the reasons for which carpool itself, not your function, fails an item."""


class InvalidItem(ItemFailed):
    """The item is not what the function's annotation, or the model to be saved, asks for.

    The message is the validator's own; its exception, where it raised one, is the ``__cause__``.
    """


class ItemTimeout(ItemFailed):
    """The item took longer than ``timeout`` seconds; its worker was ended, its rows rolled back."""


class WorkerDied(ItemFailed):
    """The worker died while it ran this item, also when it was given the item once more alone."""


class OutcomeUnknown(ItemFailed):
    """The worker or the connection was lost during COMMIT: stored or not, nobody can say.

    Look before you run the item again.
    """


class NotRun(ItemFailed):
    """The item had been read from the source when the run stopped; nothing of it is stored."""


class NotSendable(ItemFailed):
    """The item, or what the function returned for it, can't be pickled."""


class TransactionBroken(ItemFailed):
    """The function returned, but left the chunk's transaction in a state that can't be committed.

    The usual cause: it caught a database error without ``transaction.atomic()`` around the
    statement (https://docs.djangoproject.com/en/stable/topics/db/transactions/, "Avoid catching
    exceptions inside atomic!"). Others: it closed the connection or called ``set_rollback(True)``.
    """


class DuringRequest(RuntimeWarning):
    """Workers were started during a request, for which a task is the place.

    A category for ``warnings.filterwarnings()``; shown once for each line that calls a run.
    """
