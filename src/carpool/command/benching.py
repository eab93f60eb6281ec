"""``carpool bench``: a benchmark by the command, its report as text or JSON, its picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carpool.bench import Bench, Row, advice_on, bench
from carpool.bench.advice import in_a_line as shortened
from carpool.bench.table import text_of
from carpool.command.arguments import OF_BENCH, given
from carpool.command.function import function_of
from carpool.command.output import plain_figures
from carpool.command.running import End, Exit, calls_of_options, in_a_line
from carpool.command.source import source_of
from carpool.exceptions import ConfigurationError
from carpool.rejects import line_of
from carpool.words import counted

if TYPE_CHECKING:
    from types import ModuleType

ENDINGS = (".png", ".svg")


def perform(options: dict[str, Any], tell: Callable[[str], Any]) -> End:
    """Measure what the arguments ask for; ``text`` is for stdout.

    Whatever happens is in what this returns. ``tell`` gets lines of progress.
    """
    try:
        plot = None if options["plot"] is None else Path(options["plot"])
        chart = None if plot is None else _chart_for(plot)
        function = function_of(options)
        calls = calls_of_options(options)
        measured = bench(
            function,
            source_of(options, function),
            tell=tell,
            **calls,
            **given(options, OF_BENCH),
        )
    except KeyboardInterrupt as error:
        message = "Interrupted: there is no benchmark. Nothing was stored."
        return End(Exit.INTERRUPTED, message=message, error=error)
    except Exception as error:
        return End(Exit.BROKEN_OFF, message=in_a_line(error, None), error=error)
    end = _end_of(measured)
    if chart is not None and measured.rows:
        try:
            chart.draw(measured, plot, options["target"])
        except OSError as error:
            end = End(Exit.BROKEN_OFF, message=f"{plot} can't be written: {error}", error=error)
    text = json_of(measured, end.message) if options["json"] else text_of(measured)
    return End(end.code, message=end.message, error=end.error, text=text)


def _end_of(measured: Bench) -> End:
    if measured.failed:
        message = f"{measured.failed:,} of {counted(measured.profiled, 'item')} did not succeed."
        if not measured.rows:
            message += f" The first: {shortened(str(measured.failures[0]))}"
        return End(Exit.FAILED, message=message)
    if not any(row.is_measured for row in measured.rows):
        return End(Exit.BROKEN_OFF, message="Nothing could be measured; the report says why.")
    if measured.worst_failed:
        return End(
            Exit.FAILED, message=f"{counted(measured.worst_failed, 'item')} did not succeed."
        )
    return End(Exit.WELL)


def _chart_for(plot: Path) -> ModuleType:
    """Return what draws, before anything is run.

    Raises:
        ConfigurationError: it can't be imported, or can't write such a file, or not there.
    """
    if plot.suffix.lower() not in ENDINGS:
        raise ConfigurationError(f"--plot {plot}: name a file that ends in {' or '.join(ENDINGS)}.")
    if not plot.parent.is_dir():
        raise ConfigurationError(f"--plot {plot}: there is no folder {plot.parent}.")
    try:
        from carpool.bench import chart
    except ImportError as error:
        raise ConfigurationError(
            f"--plot is drawn with matplotlib, which can't be imported ({error}). Install it: "
            'pip install "django-carpool[plot]"'
        ) from error
    return chart


def json_of(measured: Bench, error: str | None) -> str:
    """Return one object with all figures."""
    whole: dict[str, Any] = {
        name: getattr(measured, name)
        for name in Bench.__slots__
        if name not in ("shares", "coalesced", "failures", "rows")
    }
    whole["shares"] = asdict(measured.shares)
    whole["coalesced"] = plain_figures(measured.coalesced)
    whole["rows"] = [_plain(row) for row in measured.rows]
    whole["recommendation"] = advice_on(measured)
    whole["error"] = error
    whole["failures"] = [line_of(failure) for failure in measured.failures]
    return json.dumps(whole)


def _plain(row: Row) -> dict[str, Any]:
    values = asdict(row)
    way = values.pop("way")
    del values["expected"], values["overhead"]
    rate, start_up = (row.rate, row.start_up) if row.is_measured else (None, None)
    return {"label": row.way.label, **way, "rate": rate, "start_up": start_up, **values}
