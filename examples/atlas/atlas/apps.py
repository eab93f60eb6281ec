from django.apps import AppConfig


class AtlasConfig(AppConfig):
    name = "atlas"

    def ready(self) -> None:
        # Connected here, the receivers exist in every process that has Django set up:
        # in the web server, in the shell and in the workers of carpool.
        from atlas import receivers  # noqa: F401
