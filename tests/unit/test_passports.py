"""What must be the same in a worker elsewhere as at the coordinator's, and what is only said."""

from __future__ import annotations

from typing import Any

import pytest

from carpool.exceptions import ConfigurationError
from carpool.executors.remote import Passport, check_workers, differences, passport

HOME: Passport = {
    "python": "3.12.4",
    "django": "5.2.19",
    "carpool": "1.2.3",
    "databases": {"default": ["postgresql", "shop"]},
}


def here(**changes: Any) -> Passport:
    return HOME | changes


def test_the_same_is_nothing_to_talk_about() -> None:
    """A worker like the coordinator takes part."""
    assert differences(HOME, here()) == ([], [])
    assert list(check_workers(HOME, {"tcp://a": here()})) == []


@pytest.mark.parametrize(
    "change",
    [
        {"python": "3.13.4"},
        {"django": "6.0.19"},
        {"carpool": "1.2.4"},
        {"databases": {"default": ["postgresql", "other"]}},
        {"databases": {"default": ["sqlite", "shop"]}},
        {"databases": {}},
        {"error": "ImproperlyConfigured: no settings"},
    ],
    ids=["python", "django", "carpool", "name", "vendor", "alias", "settings"],
)
def test_what_a_worker_must_not_be(change: dict[str, Any]) -> None:
    """It is refused, by its name."""
    with pytest.raises(ConfigurationError, match="The worker tcp://b can't"):
        list(check_workers(HOME, {"tcp://a": here(), "tcp://b": here(**change)}))


@pytest.mark.parametrize("change", [{"python": "3.12.5"}, {"django": "5.2.20"}], ids=str)
def test_what_is_only_said(change: dict[str, Any]) -> None:
    """The last figure of Python's and Django's versions may differ."""
    (said,) = check_workers(HOME, {"tcp://b": here(**change)})

    assert said.startswith(f"The worker tcp://b has {next(iter(change))} ")


def test_a_passport_tells_which_file() -> None:
    """On SQLite, a database is its file, wherever the process is."""
    databases = passport(["default", "no such alias"])["databases"]

    assert databases["default"][0] == "sqlite"
    assert databases["default"][1].startswith("/")
    assert databases["no such alias"] == ["none", ""]
