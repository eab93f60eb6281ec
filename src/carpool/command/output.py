"""A run's report on stdout, for people and for machines."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

from carpool.coalescing.figures import Figures
from carpool.hints import as_arguments
from carpool.progress import duration
from carpool.rejects import line_of
from carpool.report import Report
from carpool.words import counted


def text_of(report: Report, total: int | None) -> str:
    """Return the report; of a dry run, with the time that the real one would take."""
    foreseen = foreseen_of(report, total)
    report = in_our_words(report)
    if foreseen is None:
        return str(report)
    number = max(total or 0, report.total)
    items = counted(number, "item")
    return f"{report}\n{items} would take about {duration(foreseen)}, COMMITs not counted"


def in_our_words(report: Report) -> Report:
    """Return the report with a hint that names the command's options."""
    return report if report.hint is None else replace(report, hint=as_arguments(report.hint))


def json_of(report: Report, total: int | None, error: str | None) -> str:
    """Return one object: the report's figures, and its failures as the rejects file has them."""
    report = in_our_words(report)
    whole: dict[str, Any] = {
        name: getattr(report, name)
        for name in Report.__slots__
        if name not in ("failures", "coalesced", "spent")
    }
    whole["rate"] = report.rate
    whole["coalesced"] = plain_figures(report.coalesced)
    whole["spent"] = asdict(report.spent) | {"waiting": report.spent.waiting}
    whole["error"] = error
    if report.dry_run:
        whole["foreseen_seconds"] = foreseen_of(report, total)
    whole["failures"] = [line_of(failure) for failure in report.failures]
    return json.dumps(whole)


def plain_figures(figures: Figures | None) -> dict[str, Any] | None:
    """Return what coalescing has saved, as JSON has it."""
    if figures is None:
        return None
    return {
        "queued": figures.queued,
        "flushes": figures.flushes,
        "sent": figures.sent,
        "early": [{**flush._asdict(), "times": n} for flush, n in figures.early.most_common()],
    }


def foreseen_of(report: Report, total: int | None) -> float | None:
    """Return the seconds that a dry run foretells for all its items; None if it can't."""
    done = report.total - report.not_run
    if not report.dry_run or not done or (report.not_run and total is None):
        return None
    return max(total or 0, report.total) / done * report.seconds
