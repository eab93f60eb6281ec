"""How far an import is, as plain data: from the run's row in the journal and its rejects."""

import itertools
import json
from datetime import timedelta
from typing import Any

from django.utils import timezone

from uploads.models import Upload

SILENCE = timedelta(seconds=15)
"""After so long without a sign of life, a run may be taken over by the next worker."""

SHOWN = 20
"""Failed rows that the page shows; all of them are in the file."""


def progress_of(upload: Upload) -> dict[str, Any]:
    run = upload.run
    if run is None:
        state = "failed" if upload.error else "cancelled" if upload.cancelled else "waiting"
        succeeded = failed = 0
    else:
        state, succeeded, failed = run.state, run.succeeded, run.failed
        if state == "running" and timezone.now() - run.beat_at > SILENCE:
            state = "lost"
    left = upload.rows is None or succeeded + failed < upload.rows
    return {
        "state": state,
        "reason": upload.error or (run.reason if run else ""),
        "rows": upload.rows,
        "succeeded": succeeded,  # these two are brought up to date every few seconds
        "failed": failed,
        "percent": round(100 * (succeeded + failed) / upload.rows) if upload.rows else 0,
        "rate": run.rate if run else None,  # rows a second, known at the end
        "failures": failures_of(upload),
        "can_cancel": state in ("waiting", "running"),
        "can_resume": left and state in ("cancelled", "failed", "interrupted", "lost"),
    }


def failures_of(upload: Upload) -> list[dict[str, Any]]:
    if not upload.rejects.exists():
        return []
    with upload.rejects.open() as file:
        lines = [json.loads(line) for line in itertools.islice(file, SHOWN) if line.endswith("\n")]
    return [{"row": line["index"] + 1, "error": line["message"]} for line in lines]
