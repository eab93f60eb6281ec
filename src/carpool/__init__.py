"""Run any function once per item, with everything Django does for one object kept.

    report = carpool.run(create_user, rows)

Importable before ``django.setup()``.
"""

from carpool.coalescing import coalesce
from carpool.exceptions import (
    CarpoolError,
    ConfigurationError,
    DuringRequest,
    Interrupted,
    InvalidItem,
    ItemFailed,
    ItemsFailed,
    ItemTimeout,
    NotRun,
    NotSendable,
    OutcomeUnknown,
    RunCancelled,
    RunFailed,
    RunIsTaken,
    SourceChanged,
    SourceError,
    SourceRepeats,
    TakenOver,
    TooManyFailures,
    TransactionBroken,
    WorkerDied,
)
from carpool.files import read
from carpool.progress import Snapshot
from carpool.report import Report
from carpool.run import run, stream
from carpool.types import Failure, Outcome

__all__ = [
    "CarpoolError",
    "ConfigurationError",
    "DuringRequest",
    "Failure",
    "Interrupted",
    "InvalidItem",
    "ItemFailed",
    "ItemTimeout",
    "ItemsFailed",
    "NotRun",
    "NotSendable",
    "Outcome",
    "OutcomeUnknown",
    "Report",
    "RunCancelled",
    "RunFailed",
    "RunIsTaken",
    "Snapshot",
    "SourceChanged",
    "SourceError",
    "SourceRepeats",
    "TakenOver",
    "TooManyFailures",
    "TransactionBroken",
    "WorkerDied",
    "coalesce",
    "read",
    "run",
    "stream",
]
