"""The machine and the versions that a result was measured on. No names, no paths."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from benchmarks.workload import cores

PACKAGES = (
    "Django",
    "django-carpool",
    "psycopg",
    "mysqlclient",
    "mpire",
    "django-pgbulk",
    "django-fast-update",
    "SQLAlchemy",
    "distributed",
)


def describe(folder: Path) -> dict[str, Any]:
    """Return the machine's description; `folder` is where the SQLite file lies.

    The load average tells whether the machine was quiet, if this is called before the first round.
    """
    return {
        "cores": cores(),
        "cpu": cpu_model(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": system(),
        "sqlite_file_system": file_system(folder),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def version(package: str) -> str | None:
    """Return an installed package's version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_model() -> str:
    """Return the CPU's name, or its architecture where Linux does not tell it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def system() -> str:
    """Return the system's name and version."""
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return f"{platform.system()} {platform.release()}"


def file_system(folder: Path) -> str:
    """Return the type of the file system that holds a folder: on tmpfs a commit costs nothing."""
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return "unknown"
    folder = folder.resolve()
    found, depth = "unknown", -1
    for mount in mounts:
        _, point, kind, *_ = mount.split()
        if folder.is_relative_to(point) and len(Path(point).parts) > depth:
            found, depth = kind, len(Path(point).parts)
    return found
