"""What a worker elsewhere needs to be in the parent's place."""

from __future__ import annotations

import pickle
import subprocess
import sys
from datetime import UTC
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.conf import settings
from django.db import connections
from django.test import override_settings
from django.utils import timezone, translation

from carpool import databases
from carpool.environment import Environment, Locale
from carpool.exceptions import ConfigurationError
from carpool.functions import dumps, loads
from tests.waiting import HANG


def python(code: str, *arguments: Any, cwd: Path | None = None) -> str:
    """Run code in a fresh interpreter; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG,
        cwd=cwd,
        env={"PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_settings_module_is_carried() -> None:
    """A worker sets Django up by the same module."""
    environment = Environment.capture()
    assert environment.settings_module == "tests.settings"
    assert environment.configured == {}


def test_override_settings_is_not_carried_nor_in_the_way() -> None:
    """Under overrides, also nested ones, the settings module is still found."""
    with override_settings(DEBUG=True), override_settings(SECRET_KEY="other"):
        environment = Environment.capture()
    assert environment.settings_module == "tests.settings"
    assert environment.configured == {}


def test_the_databases_are_those_in_use_now() -> None:
    """In a test run these are the test databases, whatever the settings module names."""
    environment = Environment.capture()
    for alias in ("default", "other"):
        assert environment.databases[alias] == connections[alias].settings_dict


def test_what_is_captured_does_not_change_any_more() -> None:
    """A database's settings that change after the capture are not carried along."""
    environment = Environment.capture()
    name = connections["default"].settings_dict["NAME"]
    connections["default"].settings_dict["NAME"] = "changed"
    try:
        assert environment.databases["default"]["NAME"] == name
    finally:
        connections["default"].settings_dict["NAME"] = name


@pytest.mark.parametrize("language", ["de", "pt-br", None], ids=str)
@pytest.mark.parametrize("zone", [ZoneInfo("Asia/Kathmandu"), UTC], ids=str)
def test_language_and_zone_are_carried(language: str | None, zone: Any) -> None:
    """What is active in the parent's thread is active in the worker's."""
    with translation.override(language), timezone.override(zone):
        locale = pickle.loads(pickle.dumps(Locale.capture()))
    with translation.override("fr"), timezone.override(ZoneInfo("Europe/Paris")):
        locale.activate()
        assert translation.get_language() == language
        assert timezone.get_current_timezone() == zone


def test_an_environment_travels() -> None:
    """It is plain data."""
    environment = Environment.capture()
    assert loads(dumps(environment)) == environment


CONFIGURE = """
import sys
from pathlib import Path
from types import SimpleNamespace
from django.conf import settings
{configure}
import django
django.setup()
from django.test import override_settings
from carpool.environment import Environment
from carpool.functions import dumps
with override_settings(DEBUG=True):
    environment = Environment.capture()
assert environment.settings_module is None
Path(sys.argv[1]).write_bytes(dumps(environment))
"""
ENTER = """
import sys
from pathlib import Path
from django.conf import settings
from carpool.functions import loads
loads(Path(sys.argv[1]).read_bytes()).enter()
from django.apps import apps
from django.db import connections
print(apps.ready, settings.TIME_ZONE, settings.MINE, settings.DEBUG,
      connections["default"].settings_dict["NAME"])
"""
CONFIGURED = {
    "keywords": "settings.configure(TIME_ZONE='Asia/Tokyo', MINE=[1, 2], DATABASES={"
    "'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': 'x.sqlite3'}})",
    "defaults of one's own": "from django.conf import global_settings\n"
    "mine = SimpleNamespace(**{k: getattr(global_settings, k) for k in dir(global_settings)"
    " if k.isupper()})\n"
    "mine.TIME_ZONE, mine.MINE = 'Asia/Tokyo', None\n"
    "settings.configure(default_settings=mine, MINE=[1, 2], DATABASES={"
    "'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': 'x.sqlite3'}})",
}


@pytest.mark.parametrize("configure", CONFIGURED.values(), ids=CONFIGURED)
def test_settings_without_a_module_are_carried(tmp_path: Path, configure: str) -> None:
    """What settings.configure() was given, and its defaults, hold in another process."""
    python(CONFIGURE.format(configure=configure), tmp_path / "environment")
    assert python(ENTER, tmp_path / "environment") == "True Asia/Tokyo [1, 2] False x.sqlite3\n"


def test_entering_activates_language_and_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker process begins with neither."""
    monkeypatch.setattr(databases, "adopt", lambda databases: None)
    with translation.override("de"), timezone.override(ZoneInfo("Asia/Tokyo")):
        environment = Environment.capture()
    with translation.override("fr"), timezone.override(UTC):
        environment.enter()
        assert translation.get_language() == "de"
        assert timezone.get_current_timezone_name() == "Asia/Tokyo"


def test_another_settings_module_is_refused() -> None:
    """A worker that is already set up for another project says so, with the remedy."""
    environment = Environment("other.settings", {}, {}, Locale.capture())
    with pytest.raises(ConfigurationError, match=r"'tests.settings'.*'other.settings'.*spawn"):
        environment.enter()


def test_entering_uses_the_databases_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """After enter() a connection is made from the parent's settings, not from this process'."""
    before = {alias: connections.settings[alias] for alias in connections}
    seen: dict[str, Any] = {}
    monkeypatch.setattr(databases, "discard_inherited", lambda: seen.update(connections.settings))
    changed = {"default": dict(before["default"], NAME="elsewhere.sqlite3")}
    try:
        Environment("tests.settings", {}, changed, Locale.capture()).enter()
        assert seen["default"]["NAME"] == "elsewhere.sqlite3"
        assert settings.DATABASES["default"]["NAME"] == "elsewhere.sqlite3"
    finally:
        databases.adopt(before)
