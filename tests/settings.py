"""Settings of the test project: one database server, two databases on it.

``CARPOOL_TEST_DATABASE_URL`` chooses the server; without it both databases are SQLite files, with
Django's default options. Files and not memory, since worker processes open them too.

A subprocess that a test starts reads this module again. Two variables make it see what the test
sees; the fixture `subprocess_environment` sets them:

- ``CARPOOL_TEST_FOLDER``: the folder of this run's files;
- ``CARPOOL_TEST_NAMES``: JSON, the names of the test databases, in place of the real ones.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import dj_database_url

#: Made and removed by tests/conftest.py, since whoever else reads the settings, mypy for one,
#: needs no files.
FOLDER = Path(
    os.environ.get("CARPOOL_TEST_FOLDER")
    or Path(tempfile.gettempdir(), f"carpool-tests-{os.getpid()}")
)


def database(alias: str) -> dict[str, Any]:
    """Return the settings of one alias: the database the URL names, or its sibling ``…_other``."""
    url = os.environ.get("CARPOOL_TEST_DATABASE_URL", "")
    names = json.loads(os.environ.get("CARPOOL_TEST_NAMES", "{}"))
    if not url or url.startswith("sqlite:"):
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": names.get(alias, str(FOLDER / f"real_{alias}.sqlite3")),
            "TEST": {"NAME": str(FOLDER / f"test_{alias}.sqlite3")},
        }
    configuration: dict[str, Any] = dict(dj_database_url.parse(url))
    if alias != "default":
        configuration["NAME"] = f"{configuration['NAME']}_{alias}"
    configuration["NAME"] = names.get(alias, configuration["NAME"])
    return configuration


SECRET_KEY = "tests only"
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "carpool",
    "carpool.journal",
    "tests.app",
]
DATABASES = {"default": database("default"), "other": database("other")}
DATABASE_ROUTERS = ["tests.app.router.Router"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
MEDIA_ROOT = FOLDER / "media"
# The real ones take 100 ms a user, by design.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
