"""The app, for ``INSTALLED_APPS``."""

from __future__ import annotations

from django.apps import AppConfig


class JournalConfig(AppConfig):
    """``carpool.journal``: three small tables in each database that runs with a journal write."""

    name = "carpool.journal"
    label = "carpool_journal"
    verbose_name = "Carpool's journal"
    default_auto_field = "django.db.models.BigAutoField"
