"""How far an import is, as plain data: from the run's row in the journal and its rejects."""

import itertools
import json
from datetime import datetime, timedelta
from typing import Any

from carpool.journal.models import Run
from django.utils import timezone

from uploads.models import Upload

SILENCE = timedelta(seconds=15)
"""After so long without a sign of life, a run may be taken over by the next worker."""

SHOWN = 20
"""Failed rows that the page shows; all of them are in the file."""


def progress_of(upload: Upload) -> dict[str, Any]:
    run = upload.run
    succeeded, failed = (run.succeeded, run.failed) if run else (0, 0)
    state = state_of(upload, run)
    return {
        "state": state,
        "words": f"{state}, {rows_of(failed)} failed" if failed else state,
        "reason": upload.error,
        "rows": upload.rows,
        "succeeded": succeeded,  # these two are brought up to date every few seconds
        "failed": failed,
        "percent": round(100 * (succeeded + failed) / upload.rows) if upload.rows else 0,
        "rate": run.rate if run else None,  # rows a second, known at the end
        "failures": failures_of(upload),
        "can_cancel": state in ("waiting", "counting", "running"),
        "can_resume": state in ("cancelled", "failed", "interrupted", "lost"),
    }


def state_of(upload: Upload, run: Run | None) -> str:
    """Say what it is: by its run, unless that rests and a task has been heard of since."""
    running = run is not None and run.state == "running"
    if running and not is_silent(run.beat_at):
        return "running"
    if upload.waiting:
        return "waiting"
    if upload.error:
        return "failed"
    if run is None or run.beat_at is None or is_later(upload.heard_at, run.beat_at):
        if upload.cancelled:
            return "cancelled"
        return "lost" if is_silent(upload.heard_at) else "counting"
    if running:
        return "lost"
    # The journal calls it failed, too, when all is done and some rows have failed.
    done = run.succeeded + run.failed
    if run.state == "succeeded" or (run.state == "failed" and done == upload.rows):
        return "done"
    return run.state


def rows_of(number: int) -> str:
    return "1 row" if number == 1 else f"{number:,} rows"


def is_later(heard_at: datetime | None, beat_at: datetime) -> bool:
    return heard_at is not None and heard_at > beat_at


def is_silent(heard_at: datetime | None) -> bool:
    return heard_at is None or timezone.now() - heard_at > SILENCE


def failures_of(upload: Upload) -> list[dict[str, Any]]:
    if not upload.rejects.exists():
        return []
    with upload.rejects.open() as file:
        lines = [json.loads(line) for line in itertools.islice(file, SHOWN) if line.endswith("\n")]
    return [{"row": line["index"] + 1, "error": line["message"]} for line in lines]
