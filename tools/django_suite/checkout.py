"""Get Django's tests: they are in its sdist, and nowhere in what pip installs."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path


def cache_folder(version: str) -> Path:
    """Return where the tests and the results of this version of Django are kept."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "carpool", f"django-{version}")


def tests_folder(version: str) -> Path:
    """Return the folder with this version's ``runtests.py``, downloading it the first time."""
    folder = cache_folder(version) / "tests"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    print(f"Downloading the tests of Django {version}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        subprocess.run(
            [*pip, "--no-deps", "--no-binary=django", f"--dest={temporary}", f"Django=={version}"],
            check=True,
        )
        (sdist,) = Path(temporary).glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            archive.extractall(
                temporary,
                [member for member in archive if Path(member.name).parts[1:2] == ("tests",)],
                filter="data",
            )
        (tests,) = Path(temporary).glob("*/tests")
        tests.rename(folder)
    return folder
