"""How connections are counted; what servers say is asked in tests/integration/test_limits.py."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connections

from carpool import limits
from carpool.limits import Limit


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Limit]]:
    """What the servers of the aliases say."""
    said: dict[str, list[Limit]] = {}

    def limits_of(connection: Any) -> Iterator[Limit]:
        yield from said.get(connection.alias, [])

    monkeypatch.setattr(limits, "_limits_of", limits_of)
    return said


def server(name: str, allowed: int, used: int = 0) -> Limit:
    return Limit((name, "server"), "the server (max_connections)", allowed, used)


def test_a_database_without_a_server_has_no_limit() -> None:
    """SQLite is a file."""
    assert list(limits._limits_of(connections["default"])) == []


def test_servers_count_on_their_own(says: dict[str, list[Limit]]) -> None:
    """Aliases on two servers are not added up; on one they are."""
    says |= {"default": [server("a", 10)], "other": [server("b", 10)]}
    assert limits.refusal(6, ["default", "other"]) is None

    says["other"] = [server("a", 10)]
    said = limits.refusal(6, ["default", "other"])
    assert said is not None and "6 workers need 12 connections" in said


def test_one_of_something_is_singular(says: dict[str, list[Limit]]) -> None:
    """In the refusal and in the warning."""
    says["default"] = [server("a", 0)]
    assert str(limits.refusal(1, ["default"])).startswith("1 worker needs 1 connection, and")
    says["default"] = [server("a", 1, used=1)]
    with pytest.warns(RuntimeWarning, match="1 worker needs 1 connection; .* of which 1 is in use"):
        assert limits.refusal(1, ["default"]) is None


def test_the_journals_connection_is_not_counted_twice(says: dict[str, list[Limit]]) -> None:
    """It is among those in use, so that it doesn't add to what is needed now."""
    says["default"] = [server("a", 10, used=4)]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert limits.refusal(6, ["default"], more=1) is None
    with pytest.warns(RuntimeWarning, match="of which 4 are in use"):
        assert limits.refusal(7, ["default"], more=1) is None


@pytest.mark.parametrize(("pid", "through"), [(41, False), (42, True)])
def test_a_pooler_is_known_by_the_process_that_answers(pid: int, through: bool) -> None:
    """A pooler tells its client of a process that is not the server's."""
    driver = SimpleNamespace(info=SimpleNamespace(backend_pid=41))
    connection: Any = SimpleNamespace(connection=driver)

    assert limits._through_pooler(connection, pid) is through
