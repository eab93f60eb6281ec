"""System checks, with the tag "carpool": what makes a run on these settings less than it could be.

They are deployment checks, so that no other command talks of them: ``check --deploy`` does, and
``manage.py carpool run`` before it begins. SILENCED_SYSTEM_CHECKS silences them, as ever.

What can't work at all is not here: `run` refuses it, naming the option.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core import checks
from django.db import connections

from carpool import databases

TAG = "carpool"


def register() -> None:
    """Have Django know them."""
    checks.register(check_databases, TAG, deploy=True)
    checks.register(check_debug, TAG, deploy=True)


def check_databases(app_configs: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Warn of databases that end with the process."""
    return [
        checks.Warning(
            f"The database {alias!r} is SQLite in memory: it ends with the process, and workers "
            "can't share it.",
            hint="Use a file.",
            id="carpool.W001",
        )
        for alias in connections.settings
        if databases.is_in_memory(alias)
    ]


def check_debug(app_configs: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Warn that each statement's text is kept."""
    if not settings.DEBUG:
        return []
    return [
        checks.Warning(
            "DEBUG is True, so Django times each statement and keeps its text: runs are slower.",
            hint="Set it to False for long runs.",
            id="carpool.W002",
        )
    ]


def messages() -> list[str]:
    """Return what the checks say, a line each, but for what is silenced."""
    found = checks.run_checks(tags=[TAG], include_deployment_checks=True)
    return [
        " ".join(filter(None, [f"{message.id}: {message.msg}", message.hint]))
        for message in found
        if not message.is_silenced()
    ]
