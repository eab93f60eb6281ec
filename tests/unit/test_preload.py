"""What multiprocessing's fork server imports first, so that workers start in an instant."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from carpool.executors.preload import DONE_VARIABLE, PATH_VARIABLE
from tests.waiting import HANG

LOOK = """
import os
import carpool.executors.preloaded
from django.apps import apps
from django.conf import settings
print(apps.ready, {variable!r} in os.environ)
if apps.ready:
    from django.db import connections
    print([c.connection for c in connections.all(initialized_only=True)])
"""
APP = """
from django.apps import AppConfig
from carpool import read, stream  # an app may, and finds all of it there

class Config(AppConfig):
    name = "preloaded"

    def ready(self):
        from django.db import connection
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
"""
SETTINGS = """
INSTALLED_APPS = ["preloaded.Config"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "preloaded.sqlite3"}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that is on nobody's path, whose app queries when it is ready."""
    (tmp_path / "preloaded").mkdir()
    (tmp_path / "preloaded" / "__init__.py").write_text(APP)
    (tmp_path / "preloaded_settings.py").write_text(SETTINGS)
    return tmp_path


def look(project: Path, **environment: str) -> list[str]:
    """Import the module in a fresh interpreter; return what it looks like afterwards."""
    (project / "elsewhere").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOOK.replace("{variable!r}", repr(PATH_VARIABLE))],
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG,
        cwd=project / "elsewhere",
        env={"PATH": os.environ["PATH"], **environment},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_django_is_set_up_and_no_connection_is_left(project: Path) -> None:
    """The parent's path is used, an app that queries leaves nothing for workers to inherit."""
    path = json.dumps([str(project)])
    found = look(project, **{PATH_VARIABLE: path, "DJANGO_SETTINGS_MODULE": "preloaded_settings"})
    assert found == ["True False", "[None]"]


@pytest.mark.parametrize(
    ("path", "settings"),
    [("[]", "preloaded_settings"), ("nonsense", "preloaded_settings")],
    ids=["no module", "no path"],
)
def test_what_goes_wrong_is_left_to_the_workers(project: Path, path: str, settings: str) -> None:
    """They say it properly; a fork server that dies would say nothing."""
    found = look(project, **{PATH_VARIABLE: path, "DJANGO_SETTINGS_MODULE": settings})
    assert found == ["False False"]


def collector(project: Path, look: str, **environment: str) -> list[str]:
    """Import what a fork server imports in a fresh interpreter; return what gc tells then."""
    done = subprocess.run(
        [
            sys.executable,
            *("-W", "ignore", "-c"),
            f"import gc, carpool.executors.preloaded; print({look})",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=HANG,
        cwd=project,
        env={**os.environ, **environment, "DJANGO_SETTINGS_MODULE": "preloaded_settings"},
    )
    return done.stdout.split()


@pytest.mark.parametrize("asked", [True, False])
def test_what_is_imported_is_no_garbage_collectors_work(project: Path, asked: bool) -> None:
    """In the fork server, and so in its workers, where it is on again; with others, as ever."""
    path = {PATH_VARIABLE: json.dumps([str(project)])} if asked else {}
    found = collector(project, "gc.isenabled(), gc.get_freeze_count() > 10_000", **path)
    assert found == ["True", str(asked)]


def test_a_project_that_collects_no_garbage_is_left_so(project: Path) -> None:
    """Its settings may have switched the collector off, or changed how often it runs."""
    settings = project / "preloaded_settings.py"
    settings.write_text(f"import gc\ngc.disable()\ngc.set_threshold(5000, 5, 5)\n{SETTINGS}")
    path = {PATH_VARIABLE: json.dumps([str(project)])}
    found = collector(project, "gc.isenabled(), gc.get_threshold()[0]", **path)
    assert found == ["False", "5000"]


def test_it_tells_when_it_is_done(project: Path) -> None:
    """Well or not: whoever waits for it must not wait for ever."""
    for number, path in enumerate(("[]", "nonsense")):
        done = project / f"done {number}"
        look(project, **{PATH_VARIABLE: path, DONE_VARIABLE: str(done)})
        assert done.exists()


def test_a_pool_that_was_prepared_has_not_to_be_waited_for() -> None:
    """In a program of its own: the file is there as soon as a worker can be forked at once."""
    code = (
        "import multiprocessing, time\n"
        "from carpool.executors import preload\n"
        "from carpool.executors.processes import ProcessesExecutor\n"
        "from carpool.interrupts import Interrupts\n"
        "from carpool.progress import Progress\n"
        "pool = ProcessesExecutor(None, None, 1, Interrupts(), Progress())\n"
        "assert pool.is_prepared is False\n"
        "pool.prepare()\n"
        "deadline = time.monotonic() + 120\n"
        "while not pool.is_prepared and time.monotonic() < deadline: time.sleep(0.01)\n"
        "print(pool.is_prepared, preload.done_file().parent.is_dir())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=HANG
    )
    assert done.stdout.split() == ["True", "True"]


def test_without_settings_nothing_is_set_up(project: Path) -> None:
    """Where settings.configure() was called, workers call it themselves."""
    assert look(project, **{PATH_VARIABLE: "[]"}) == ["False False"]


def test_whoever_else_imports_the_module_sets_nothing_up(project: Path) -> None:
    """Only the fork server has the variable."""
    assert look(project, DJANGO_SETTINGS_MODULE="preloaded_settings") == ["False False"]
