"""Which carpool this is, as journals and workers' passports say it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def carpool_version() -> str:
    """Return the version that is installed, or "" where carpool runs from a folder of sources."""
    try:
        return version("django-carpool")
    except PackageNotFoundError:
        return ""
