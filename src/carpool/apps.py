"""The app, for ``INSTALLED_APPS``: the command ``carpool`` and its checks. It has no models."""

from __future__ import annotations

from django.apps import AppConfig

from carpool import checks


class CarpoolConfig(AppConfig):
    """``carpool``: needed for ``manage.py carpool`` only, not for `run`."""

    name = "carpool"
    verbose_name = "Carpool"

    def ready(self) -> None:
        checks.register()
