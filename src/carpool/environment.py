"""What a worker elsewhere needs to be in the parent's place: settings, databases, language, zone.

Carried: the settings module (or what ``settings.configure()`` was given), every database's
settings as the parent has them now (a test database, for one), the active language and time zone.

Not carried: ``override_settings``, receivers connected by hand, caches and other state of the
parent's memory. Receivers connected in ``AppConfig.ready()`` are there, since the worker sets
Django up itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

import django
from django.apps import apps
from django.conf import Settings, UserSettingsHolder, global_settings, settings
from django.utils import timezone, translation

from carpool import databases
from carpool.exceptions import ConfigurationError

_HOLDERS = (Settings, UserSettingsHolder)


@dataclass(frozen=True, slots=True)
class Locale:
    """The language and time zone active in a thread; neither reaches another by itself."""

    language: str | None
    zone: tzinfo

    @classmethod
    def capture(cls) -> Locale:
        return cls(translation.get_language(), timezone.get_current_timezone())

    def activate(self) -> None:
        if self.language is None:
            translation.deactivate_all()
        else:
            translation.activate(self.language)
        timezone.activate(self.zone)


@dataclass(frozen=True, slots=True)
class Environment:
    """The parent's surroundings, as plain data."""

    settings_module: str | None
    configured: dict[str, Any]
    databases: dict[str, dict[str, Any]]
    locale: Locale

    @classmethod
    def capture(cls) -> Environment:
        """Return this process' surroundings."""
        # LazySettings._wrapped: the only way to what settings.configure() was given, under any
        # override_settings on top. Checked on 5.2, 6.0, 6.1.
        holder: Any = settings._wrapped  # type: ignore[misc]
        while isinstance(below := getattr(holder, "default_settings", None), _HOLDERS):
            holder = below
        module = getattr(holder, "SETTINGS_MODULE", None)
        configured = _configured(holder) if module is None else {}
        return cls(module, configured, databases.capture(), Locale.capture())

    def enter(self) -> None:
        """Make this process like it: set Django up, use its databases, language and zone.

        Raises:
            ConfigurationError: this process has been set up with other settings.
        """
        if self.settings_module is None:
            if not settings.configured:
                settings.configure(**self.configured)
        else:
            self._use_settings_module(self.settings_module)
        if not apps.ready:
            django.setup()
        databases.adopt(self.databases)
        self.locale.activate()

    def _use_settings_module(self, module: str) -> None:
        here = getattr(settings, "SETTINGS_MODULE", None) if settings.configured else None
        if here is not None and here != module:
            raise ConfigurationError(
                f"The worker has been set up with the settings {here!r}, the run uses {module!r}. "
                "If start_method is forkserver, multiprocessing's fork server was started before "
                "DJANGO_SETTINGS_MODULE changed; use start_method='spawn'."
            )
        os.environ["DJANGO_SETTINGS_MODULE"] = module


def _configured(holder: UserSettingsHolder) -> dict[str, Any]:
    """Return what ``settings.configure(default_settings, **options)`` was given, as options."""
    defaults: Any = holder.default_settings
    names = [] if defaults is global_settings else dir(defaults)
    values = {name: getattr(defaults, name) for name in names if name.isupper()} | vars(holder)
    return {name: value for name, value in values.items() if name.isupper()}
