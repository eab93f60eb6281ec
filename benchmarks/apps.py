"""The Django app: it connects the counters and receivers in every process that sets Django up."""

from django.apps import AppConfig


class BenchmarksConfig(AppConfig):
    """Connects the counters where a project connects its receivers, and those: in ``ready()``."""

    name = "benchmarks"

    def ready(self) -> None:
        """Connect what the environment asks for (see `counters`), and the shapes' receivers."""
        from benchmarks import counters, receivers  # noqa: F401

        counters.connect()
