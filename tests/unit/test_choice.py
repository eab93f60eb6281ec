"""From the options to an executor, or to the reason why there can be none."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Executor as Pool
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections, transaction

from carpool import databases
from carpool.exceptions import ConfigurationError
from carpool.executors.auto import AutoExecutor
from carpool.executors.base import Executor, window
from carpool.executors.choice import executor_for
from carpool.executors.futures import FuturesExecutor
from carpool.executors.inline import InlineExecutor
from carpool.executors.processes import ProcessesExecutor
from carpool.executors.threads import ThreadsExecutor
from carpool.interrupts import Interrupts
from carpool.options import Options
from carpool.progress import Progress
from carpool.types import Job
from tests.app.models import Author
from tests.unit.test_options import DEFAULTS

# Loaded with the executors, since the name `choice` is not carpool's alone.
choice = sys.modules["carpool.executors.choice"]


class Plain(Pool):
    """An executor that doesn't say how many workers it has."""


def work(item: Any) -> None:
    pass


def choose(function: Any = work, queryset: Any = None, **changes: Any) -> Executor:
    options = Options(**DEFAULTS | changes)
    options.check(function)
    job = Job(function, options.setup, queryset, options.aliases, 0, False, False)
    return executor_for(options, job, Interrupts(), Progress())


@pytest.fixture(autouse=True)
def four_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "usable_cpus", lambda: 4)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as pool:
        yield pool


CHOICES: list[tuple[dict[str, Any], type[Executor], int]] = [
    ({}, AutoExecutor, 1),
    ({"workers": 1}, InlineExecutor, 1),
    ({"timeout": 5}, ProcessesExecutor, 4),
    ({"start_method": "fork"}, ProcessesExecutor, 4),
    ({"start_method": "spawn"}, AutoExecutor, 1),
    ({"executor": "inline"}, InlineExecutor, 1),
    ({"executor": "threads"}, ThreadsExecutor, 4),
    ({"executor": "threads", "workers": 9}, ThreadsExecutor, 9),
    ({"executor": "processes"}, ProcessesExecutor, 4),
    ({"executor": "processes", "workers": 1}, ProcessesExecutor, 1),
]


@pytest.mark.parametrize(("options", "kind", "workers"), CHOICES, ids=str)
def test_the_executor_that_was_asked_for(
    options: dict[str, Any], kind: type[Executor], workers: int
) -> None:
    """By name; "auto" by what the run needs."""
    executor = choose(**options)
    assert type(executor) is kind
    assert executor.workers == workers


def test_an_executor_of_the_users_says_how_many_workers_it_has(pool: ThreadPoolExecutor) -> None:
    """Its own number, or else the processors; workers= goes before either."""
    assert type(choose(executor=pool)) is FuturesExecutor
    assert choose(executor=pool).workers == 3
    assert choose(executor=pool, workers=2).workers == 2
    assert choose(executor=Plain()).workers == 4


def test_labels_name_the_executor(pool: ThreadPoolExecutor) -> None:
    """The report says what ran it, and how its workers are started."""
    assert choose(executor="processes", start_method="spawn").label == "processes (spawn)"
    assert choose(executor="processes").label == "processes (forkserver)"
    assert choose(executor=pool).label == "ThreadPoolExecutor"


def test_where_there_is_no_fork_server_workers_are_spawned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never forked by default: an open connection would be in every child."""
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn", "fork"])
    assert choose(executor="processes").label == "processes (spawn)"


POOLS: list[dict[str, Any]] = [
    {"executor": "threads"},
    {"executor": "processes"},
    {"executor": Plain()},
    {"timeout": 5},
]


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
@pytest.mark.parametrize("alias", ["default", "other"])
@pytest.mark.parametrize("options", POOLS, ids=str)
def test_a_pool_inside_atomic_is_refused(options: dict[str, Any], alias: str) -> None:
    """Also on an alias that the run does not cover: its workers could wait for it."""
    with transaction.atomic(using=alias), pytest.raises(ConfigurationError) as caught:
        choose(**options)
    for word in ("transaction.atomic()", alias, "for ever", 'executor="inline" without a timeout'):
        assert word in str(caught.value)


@pytest.mark.django_db
def test_inside_atomic_auto_stays_inline() -> None:
    """A test case, or a view with ATOMIC_REQUESTS, works without a word."""
    assert type(choose()) is InlineExecutor
    assert type(choose(executor="inline")) is InlineExecutor


@pytest.mark.parametrize("options", POOLS, ids=str)
def test_a_pool_on_a_database_in_memory_is_refused(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other connection would see it."""
    monkeypatch.setattr(databases, "is_in_memory", lambda alias: alias == "other")
    with pytest.raises(ConfigurationError) as caught:
        choose(using=["default", "other"], **options)
    for word in ("'other'", "in memory", "Use a file", 'executor="inline"'):
        assert word in str(caught.value)
    choose(using="default", **options)


def test_on_a_database_in_memory_auto_stays_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to ask the user."""
    monkeypatch.setattr(databases, "is_in_memory", lambda alias: True)
    assert type(choose()) is InlineExecutor


def test_a_daemonic_process_may_use_threads_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Celery prefork worker may not have children; "auto" stays inline there."""
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError) as caught:
        choose(executor="processes")
    for word in ("daemonic", 'executor="threads"', "--pool=threads"):
        assert word in str(caught.value)
    assert type(choose()) is InlineExecutor
    assert type(choose(executor="threads")) is ThreadsExecutor


SMALL_POOLS: list[tuple[Any, dict[str, Any], int | None]] = [
    (True, {}, 3),
    (True, {"workers": 3}, None),
    (True, {"workers": 3, "journal": "a"}, 2),
    (True, {"workers": 2, "journal": "a"}, None),
    ({"min_size": 2, "max_size": 5}, {}, None),
    ({"min_size": 2, "max_size": 5}, {"workers": 5}, 4),
    ({"min_size": 9}, {"workers": 8}, None),
    (False, {"workers": 60}, None),
]


@pytest.mark.parametrize(("pool", "options", "most"), SMALL_POOLS, ids=str)
def test_threads_that_a_pool_of_connections_is_too_small_for_are_refused(
    pool: Any, options: dict[str, Any], most: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would wait for each other, and for the caller, until they time out."""
    monkeypatch.setitem(connections["other"].settings_dict, "OPTIONS", {"pool": pool})
    options = {"using": ["default", "other"], "executor": "threads", **options}
    if most is None:
        choose(**options)
        return
    with pytest.raises(ConfigurationError) as caught:
        choose(**options)
    for word in ("'other'", f"workers={most},", "max_size", 'executor="processes"'):
        assert word in str(caught.value)
    choose(**options | {"workers": most})
    choose(**options | {"using": "default"})
    choose(**options | {"executor": "processes"})


def test_a_pool_for_the_caller_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no number of threads for it."""
    monkeypatch.setitem(connections["default"].settings_dict, "OPTIONS", {"pool": {"max_size": 1}})
    with pytest.raises(ConfigurationError, match=r"has 1\. Enlarge its max_size"):
        choose(executor="threads", workers=1)


LOCK = threading.Lock()


@pytest.mark.parametrize("options", [{}, {"executor": "processes"}, {"executor": Plain()}], ids=str)
def test_what_cannot_be_sent_is_refused_before_the_first_item(options: dict[str, Any]) -> None:
    """The function, setup, the queryset and the settings: each names itself."""

    def holds_a_lock(item: Any = None) -> None:
        with LOCK, lock:
            pass

    lock = threading.Lock()
    with pytest.raises(ConfigurationError, match=r"The function can't be sent.*'lock'"):
        choose(holds_a_lock, **options)
    with pytest.raises(ConfigurationError, match=r"The setup can't be sent.*'lock'"):
        choose(setup=holds_a_lock, **options)
    queryset = Author.objects.filter(name=lock)
    with pytest.raises(ConfigurationError, match=r"The queryset can't be sent.*plain values"):
        choose(queryset=queryset, **options)


@pytest.mark.parametrize("options", [{}, {"executor": "processes"}, {"executor": Plain()}], ids=str)
def test_settings_that_cannot_be_sent_are_refused_before_the_first_item(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock in a database's OPTIONS, say; the message says where settings go, and a remedy."""
    settings = connections["other"].settings_dict
    monkeypatch.setitem(settings, "OPTIONS", {"ssl_context": LOCK})
    with pytest.raises(ConfigurationError) as caught:
        choose(**options)
    for word in ("settings can't be sent", "DATABASES", "lock", 'executor="threads"'):
        assert word in str(caught.value)
    choose(executor="threads")


def test_threads_and_the_parent_take_anything() -> None:
    """Nothing travels there."""

    def holds_a_lock(item: Any) -> None:
        with lock:
            pass

    lock = threading.Lock()
    choose(holds_a_lock, executor="threads")
    choose(holds_a_lock, executor="inline")


def test_the_window_is_a_chunk_each_and_some_more() -> None:
    """Whoever finishes first finds the next chunk ready, and not much more is read ahead."""
    assert [window(workers) for workers in (1, 2, 3, 4, 8, 60)] == [2, 3, 4, 6, 12, 90]
