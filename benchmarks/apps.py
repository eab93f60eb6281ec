"""The Django app, which exists to connect the counters in every process that sets Django up."""

from django.apps import AppConfig


class BenchmarksConfig(AppConfig):
    """Connects the counters where a project connects its receivers: in ``ready()``."""

    name = "benchmarks"

    def ready(self) -> None:
        """Connect what the environment asks for. See `counters`."""
        from benchmarks import counters

        counters.connect()
