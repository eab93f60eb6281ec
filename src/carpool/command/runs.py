"""The journal's runs: listed, shown, asked to end, to wait, to go on."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db import DatabaseError, connections
from django.db.models.functions import Now

from carpool.exceptions import ConfigurationError

if TYPE_CHECKING:
    from carpool.journal.models import Run

SHOWN = (
    "name",
    "state",
    "reason",
    "wanted",
    "function",
    "source",
    "positions",
    "options",
    "succeeded",
    "failed",
    "skipped",
    "retries",
    "rate",
    "last_error",
    "host",
    "pid",
    "created_at",
    "started_at",
    "beat_at",
    "finished_at",
    "carpool_version",
    "django_version",
)
"""What is shown of a run; the rest of its row is for the next call of run()."""


def perform(action: str, options: dict[str, Any]) -> str:
    """Do what is asked for, and return what is to be printed.

    Raises:
        ConfigurationError: there is no journal, or no such run.
    """
    alias = options["database"]
    if alias not in connections.settings:
        raise ConfigurationError(
            f"--database {alias!r} is not in settings.DATABASES. There are: "
            f"{', '.join(sorted(connections.settings))}."
        )
    if not apps.is_installed("carpool.journal"):
        raise ConfigurationError(
            'There is no journal: add "carpool.journal" to INSTALLED_APPS and run '
            "manage.py migrate."
        )
    try:
        if action == "runs":
            return _list(alias, as_json=options["json"])
        run = _find(alias, options["name"])
        if action == "show":
            return _show(run, as_json=options["json"])
        return _ask(run, action, alias)
    except DatabaseError as error:
        raise ConfigurationError(
            f"The journal in {alias!r} can't be read ({type(error).__name__}: {error}). If its "
            "tables are not there, run manage.py migrate."
        ) from error


def _runs(alias: str) -> Any:
    from carpool.journal.models import Run  # needs the app

    return Run._base_manager.using(alias)


def _is_silent(run: Any) -> bool:
    """Tell whether a running run's process gives no sign of life, so that it may be taken over."""
    from carpool.journal.book import STALE  # needs the app

    return (
        run.state == "running"
        and run.beat_at is not None
        and run.now - run.beat_at > timedelta(seconds=STALE)
    )


def _find(alias: str, name: str) -> Run:
    run: Run | None = _runs(alias).filter(name=name).first()
    if run is None:
        names = _runs(alias).order_by("-created_at").values_list("name", flat=True)[:10]
        there = f"There are: {', '.join(names)}." if names else "There are none."
        raise ConfigurationError(f"There is no run {name!r} in {alias!r}. {there}")
    return run


def _list(alias: str, *, as_json: bool) -> str:
    runs = _runs(alias).order_by("-created_at")
    if as_json:
        return json.dumps([_plain(run) for run in runs])
    lines = [
        f"{run.name}  {_state(run)}  {run.succeeded:,} succeeded, {run.failed:,} failed  "
        f"{run.function}"
        for run in runs
    ]
    return "\n".join(lines) if lines else "There are no runs."


def _show(run: Run, *, as_json: bool) -> str:
    if as_json:
        return json.dumps(_plain(run))
    width = max(map(len, SHOWN))
    return "\n".join(
        f"{name:<{width}}  {value}"
        for name, value in _plain(run).items()
        if value not in ("", None, {})
    )


def _plain(run: Run) -> dict[str, Any]:
    values = {name: getattr(run, name) for name in SHOWN}
    return {
        name: value.isoformat() if hasattr(value, "isoformat") else value
        for name, value in values.items()
    }


def _state(run: Run) -> str:
    return f"{run.state}, {run.wanted} wanted" if run.wanted else run.state


def _ask(run: Run, action: str, alias: str) -> str:
    asked = getattr(run, action)()
    now = _runs(alias).annotate(now=Now()).get(pk=run.pk)  # it may have ended meanwhile
    if not asked:
        raise ConfigurationError(
            f"The run {now.name!r} is {now.state}, not running: there is nothing to {action}. To "
            "take it up again, call the same carpool run … --journal."
        )
    if _is_silent(now):
        return (
            f"{now.name}: asked to {action}; but process {now.pid} on {now.host}, which runs it, "
            "has not been heard of for a while. If it is dead, nobody notices, and the next call "
            "of the same carpool run … --journal takes the run up and goes on."
        )
    return f"{now.name}: asked to {action}; it's noticed within two seconds."
