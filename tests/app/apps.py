from __future__ import annotations

from django.apps import AppConfig


class TestAppConfig(AppConfig):
    """Connect the receivers, as any project does, so that a spawned worker has them too."""

    name = "tests.app"
    label = "app"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from tests.app import reactions, receivers

        receivers.connect()
        reactions.connect()
