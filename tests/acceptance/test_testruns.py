"""A test suite of a user's: its rows land in the test database, and never in the real one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from tests.acceptance.conftest import Script

Start = Callable[..., Script]

SETTINGS = """
import json, os
DATABASES = {"default": json.loads(os.environ["REAL_DATABASE"])}
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
MIGRATION_MODULES = {"auth": None, "contenttypes": None}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
SECRET_KEY = "tests only"
USE_TZ = True
"""

FUNCTIONS = """
from django.contrib.auth.models import User

def create(number):
    User.objects.create(username=f"u{number}")
"""

TESTS = """
import carpool
import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import TestCase, TransactionTestCase
from my_functions import create

class Inside(TestCase):
    def test_auto_stays_inline(self):
        report = carpool.run(create, range(300), progress=False)
        assert (report.executor, report.succeeded) == ("inline", 300), report
        assert User.objects.count() == 300

    def test_a_pool_is_refused(self):
        for executor in ("threads", "processes"):
            with self.assertRaisesRegex(carpool.ConfigurationError, "TransactionTestCase"):
                carpool.run(create, range(3), executor=executor, progress=False)
        assert User.objects.count() == 0

class Outside(TransactionTestCase):
    def run_with(self, **options):
        report = carpool.run(create, range(60), progress=False, **options)
        assert report.failures == (), report
        assert User.objects.count() == 60

    if not IN_MEMORY:
        def test_forkserver(self):
            self.run_with(executor="processes", workers=2)

        def test_fork(self):
            self.run_with(executor="processes", workers=2, start_method="fork")

        def test_spawn(self):
            self.run_with(executor="processes", workers=2, start_method="spawn")

        def test_threads(self):
            self.run_with(executor="threads", workers=2)
    else:
        def test_a_pool_is_refused(self):
            for executor in ("threads", "processes"):
                with self.assertRaisesRegex(carpool.ConfigurationError, "in memory"):
                    carpool.run(create, range(3), executor=executor, progress=False)
            assert User.objects.count() == 0

    def test_auto(self):
        self.run_with()
"""


@pytest.fixture
def real_database(transactional_db: None, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The settings of a new database on the server at hand, for the project of the script."""
    settings = dict(connection.settings_dict)
    settings.pop("TEST")
    name = f"carpool_real_{os.getpid()}"
    if connection.vendor == "sqlite":
        yield settings | {"NAME": str(tmp_path / "real.sqlite3")}
        return
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {name}")
        cursor.execute(f"CREATE DATABASE {name}")
    yield settings | {"NAME": name}
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {name}")


@pytest.mark.parametrize(
    "in_memory", [False, pytest.param(True, marks=pytest.mark.only_on("sqlite"))], ids=["", "mem"]
)
def test_the_real_database_stays_empty(
    start: Start, real_database: dict[str, Any], tmp_path: Path, in_memory: bool
) -> None:
    """In a project's own tests, workers write to the test database whatever their start method."""
    settings = real_database
    if connection.vendor == "sqlite" and not in_memory:
        settings = settings | {"TEST": {"NAME": str(tmp_path / "test.sqlite3")}}
    project = tmp_path / "project"
    project.mkdir()
    (project / "my_settings.py").write_text(SETTINGS)
    (project / "my_functions.py").write_text(FUNCTIONS)
    (project / "test_run.py").write_text(TESTS.replace("IN_MEMORY", str(in_memory)))
    script = start(
        """
        import os, sys
        os.chdir(sys.argv[1] + "/../project")
        sys.path.insert(0, os.getcwd())
        import django
        from django.core.management import call_command
        django.setup()
        call_command("migrate", run_syncdb=True, verbosity=0)
        call_command("test", "test_run", interactive=False)
        from django.contrib.auth.models import User
        print("in the real database:", User.objects.count())
        """,
        preamble="",
        environment={
            "DJANGO_SETTINGS_MODULE": "my_settings",
            "REAL_DATABASE": json.dumps(settings),
        },
    ).wait()

    assert script.out.splitlines()[-1] == "in the real database: 0", script.out
    assert f"Ran {4 if in_memory else 7} tests" in script.err
    assert "\nOK\n" in script.err
