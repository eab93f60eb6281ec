"""What a worker elsewhere must have in common with its coordinator, and what it says if not."""

from __future__ import annotations

import os
import platform
from copy import deepcopy
from typing import Any

import django
import pytest

from carpool.environment import Environment
from carpool.exceptions import ConfigurationError
from carpool.executors import remote
from carpool.executors.child import ShippedJob
from carpool.executors.remote import (
    Parcel,
    check_workers,
    differences,
    parcel_of,
    passport,
    passport_for,
    perform_chunk,
)
from carpool.functions import dumps, loads, ship
from carpool.types import ChunkResult, Ending, Job

HOME: dict[str, Any] = {
    "python": "3.12.4",
    "django": "5.2.1",
    "carpool": "0.2.0",
    "databases": {"default": ["postgresql", "shop"]},
}


def worker_with(**other: Any) -> dict[str, Any]:
    return {**deepcopy(HOME), **other}


def nothing(item: object) -> None:
    pass


def parcel(**other: Any) -> Parcel:
    """Return what is sent for a job that does nothing; not from this process."""
    job = Job(
        function=nothing,
        setup=None,
        queryset=None,
        using=("default",),
        retries=0,
        dry_run=False,
        keep_values=False,
    )
    shipped = ShippedJob(ship("function", nothing), dumps(None), dumps(None), job)
    made = parcel_of("a run", shipped, Environment.capture())
    return made._replace(**{"home": ("another host", os.getpid()), "run": "a run", **other})


def test_the_same_is_fine() -> None:
    assert differences(HOME, worker_with()) == ([], [])


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"python": "3.11.9"}, "python 3.11.9, and the coordinator's is 3.12.4"),
        ({"django": "6.0.1"}, "django 6.0.1, and the coordinator's is 5.2.1"),
        ({"carpool": "0.2.1"}, "carpool 0.2.1, and the coordinator's is 0.2.0"),
        ({"databases": {"default": ["postgresql", "test_shop"]}}, "postgresql test_shop"),
        ({"databases": {"default": ["sqlite", "shop"]}}, "sqlite shop"),
        ({"databases": {}}, "the database 'default' is none"),
    ],
)
def test_what_forbids_to_take_part(other: dict[str, Any], words: str) -> None:
    """Another minor version, another version of carpool, another database."""
    forbidden, said = differences(HOME, worker_with(**other))

    assert (len(forbidden), said) == (1, [])
    assert words in forbidden[0]
    with pytest.raises(ConfigurationError, match=r"The worker left .*Give workers the coord"):
        list(check_workers(HOME, {"left": worker_with(**other)}))


def test_what_is_only_said() -> None:
    """Patch versions of Python and Django."""
    workers = {"left": worker_with(python="3.12.7"), "right": worker_with(django="5.2.9")}

    assert list(check_workers(HOME, workers)) == [
        "The worker left has python 3.12.7, and the coordinator's is 3.12.4.",
        "The worker right has django 5.2.9, and the coordinator's is 5.2.1.",
    ]


def test_a_worker_that_cannot_set_django_up_says_why() -> None:
    with pytest.raises(ConfigurationError, match=r"left can't set Django up: .*No module"):
        list(check_workers(HOME, {"left": {"error": "ModuleNotFoundError: No module named 'x'"}}))


def test_the_passport_of_this_process() -> None:
    """What a worker is asked for, here, where Django is set up."""
    here = passport_for({**HOME, "databases": {"default": ["", ""]}}, None)

    assert here == passport(["default"])
    assert (here["python"], here["django"]) == (platform.python_version(), django.get_version())
    assert passport(["of nobody"])["databases"] == {"of nobody": ["none", ""]}


def test_a_worker_refuses_a_run_of_another_kind() -> None:
    """One that has come later, and was not asked at the start, refuses its first chunk."""
    other = {**passport(["default"]), "carpool": "99.0"}
    answer = loads(perform_chunk("r1", lambda: parcel(passport=other), 7, [dumps(1)], None))

    assert isinstance(answer, ChunkResult)
    assert (answer.number, answer.ending) == (7, Ending.UNAVAILABLE)
    assert answer.fault is not None
    assert "and the coordinator's is 99.0" in answer.fault.message


def test_a_worker_without_settings_gets_the_coordinators(monkeypatch: pytest.MonkeyPatch) -> None:
    """But only the name of a module: what settings.configure() was given doesn't travel."""

    class Bare:
        configured = False

    monkeypatch.setattr(remote, "settings", Bare)
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE")
    with pytest.raises(ConfigurationError, match=r"no Django settings.*settings\.configure\(\)"):
        remote.set_up_django(None)

    remote.set_up_django("shop.settings")
    assert os.environ["DJANGO_SETTINGS_MODULE"] == "shop.settings"


@pytest.mark.django_db(transaction=True)
def test_jobs_are_opened_once_and_the_oldest_forgotten() -> None:
    """A worker asks for a run's parcel once, as long as it is among the last few."""
    asked: list[str] = []

    def ask(run: str) -> Parcel:
        asked.append(run)
        return parcel(run=run)

    def perform(run: str) -> None:
        answer = loads(perform_chunk(run, lambda: ask(run), 1, [dumps(1)], None))
        assert answer.ending is Ending.COMMITTED, answer.fault

    runs = [f"run {n}" for n in range(remote.KEPT_RUNS)]
    for run in runs + runs:
        perform(run)
    assert asked == runs
    perform("one more")
    perform(runs[0])
    assert asked == [*runs, "one more", runs[0]]
    remote._here.runs.clear()
