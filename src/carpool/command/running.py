"""A run by the command: begun, watched, and its end told by an exit code."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from carpool.command.arguments import OF_RUN, given
from carpool.command.function import function_of
from carpool.command.source import source_of
from carpool.command.watching import watch_of
from carpool.exceptions import CarpoolError, Interrupted, ItemsFailed
from carpool.report import Report
from carpool.run import run
from carpool.targets import resolve_target
from carpool.words import counted


class Exit(IntEnum):
    """The exit codes."""

    WELL = 0
    FAILED = 1
    BROKEN_OFF = 2
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class End:
    """How it ended.

    Attributes:
        code: the exit code.
        report: None if nothing was run.
        total: items that the source has, if it tells.
        message: a line for stderr; None if there is nothing to say.
        error: what ended it.
        text: for stdout, of a benchmark.
    """

    code: Exit
    report: Report | None = None
    total: int | None = None
    message: str | None = None
    error: BaseException | None = None
    text: str | None = None


def perform(options: dict[str, Any]) -> End:
    """Run what the arguments ask for. Whatever happens is in what this returns."""
    watch = watch_of(options)
    try:
        function = function_of(options)
        calls = calls_of_options(options)
        source = source_of(options, function)
        how = {"progress": watch, **calls, **given(options, OF_RUN)}
        report = run(function, source, **how)
    except KeyboardInterrupt as error:
        report_of_it = error.report if isinstance(error, Interrupted) else None
        message = None if report_of_it is not None else "Interrupted."
        return End(Exit.INTERRUPTED, report_of_it, watch.total, message, error)
    except Exception as error:
        code = Exit.FAILED if isinstance(error, ItemsFailed) else Exit.BROKEN_OFF
        found = getattr(error, "report", None)
        known = found if isinstance(found, Report) else None
        return End(code, known, watch.total, in_a_line(error, known), error)
    bad = report.failed + report.unknown
    if not bad:
        return End(Exit.WELL, report, watch.total)
    message = f"{bad:,} of {counted(report.total, 'item')} did not succeed."
    return End(Exit.FAILED, report, watch.total, message)


def calls_of_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return what is called besides the function, by `run`'s names.

    Raises:
        ConfigurationError: a name leads nowhere.
    """
    return {
        name: resolve_target(options[name])
        for name in ("setup", "before_chunk")
        if options[name] is not None
    }


def in_a_line(error: Exception, report: Report | None) -> str:
    """Return what the error says, without the report, which is on stdout."""
    text = str(error)
    if report is not None:
        text = text.replace(f"\n{report}", "")
    text = " ".join(text.split())
    return text if isinstance(error, CarpoolError) else f"{type(error).__name__}: {text}"
