"""Settings for Django's tests: those of Django's ``test_sqlite.py``, with our test runner.

``CARPOOL_TEST_DATABASE_URL`` chooses the server; without it both databases are SQLite in memory.
"""

from __future__ import annotations

import os
from typing import Any

import dj_database_url

#: Seconds after which a server ends a statement that waits for a lock. Tests with two connections
#: assume that the first one commits; in our block it doesn't, and the second would wait for ever.
LOCK_TIMEOUT = 5

OPTIONS = {
    "django.db.backends.postgresql": {"options": f"-c lock_timeout={LOCK_TIMEOUT}s"},
    "django.db.backends.mysql": {
        "init_command": f"SET SESSION innodb_lock_wait_timeout={LOCK_TIMEOUT}, "
        f"lock_wait_timeout={LOCK_TIMEOUT}"
    },
}


def database(alias: str) -> dict[str, Any]:
    """Return the settings of one alias. Many runs may share a server."""
    url = os.environ.get("CARPOOL_TEST_DATABASE_URL", "")
    if not url:
        return {"ENGINE": "django.db.backends.sqlite3"}
    configuration: dict[str, Any] = dict(dj_database_url.parse(url))
    configuration["NAME"] = f"django_{os.environ['CARPOOL_DJANGO_NAME']}_{alias}"
    configuration["OPTIONS"] = {
        **configuration.get("OPTIONS", {}),
        **OPTIONS[configuration["ENGINE"]],
    }
    if configuration["ENGINE"].endswith("mysql"):
        configuration["TEST"] = {"CHARSET": "utf8mb4"}
    return configuration


SECRET_KEY = "django_tests_secret_key"
USE_TZ = False
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DATABASES = {"default": database("default"), "other": database("other")}
TEST_RUNNER = "tools.django_suite.runner.Runner"
