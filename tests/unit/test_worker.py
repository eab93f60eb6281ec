"""A worker: set up once, then chunk after chunk."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from carpool.exceptions import NotSendable
from carpool.functions import loads
from carpool.items import LocalItems
from carpool.types import Ending, Job
from carpool.worker import Worker, packed
from tests.app.models import Author
from tests.unit.driver_errors import lost


def job(function: Callable[[Any], Any], setup: Any = None) -> Job:
    return Job(function, setup, None, ("default",), 0, dry_run=False, keep_values=False)


def perform(worker: Worker, items: str, number: int = 1) -> Any:
    payloads = [pickle.dumps(item) for item in items]
    return worker.perform(number, len(items), LocalItems(items, payloads))


def test_setup_is_called_once_and_only_if_there_is_one() -> None:
    """What it raises is the caller's."""
    calls: list[int] = []
    Worker(job(print, lambda: calls.append(1)), pool=True).setup()
    Worker(job(print), pool=True).setup()
    assert calls == [1]
    with pytest.raises(ZeroDivisionError):
        Worker(job(print, lambda: 1 / 0), pool=True).setup()


@pytest.mark.django_db(transaction=True)
def test_what_is_learnt_from_one_chunk_holds_for_the_next() -> None:
    """After a failure the next chunk is cut in groups, so a bad item costs fewer calls."""
    calls: list[str] = []

    def function(item: str) -> None:
        calls.append(item)
        Author.objects.create(name=item)
        if item == "!":
            raise ValueError

    worker = Worker(job(function), pool=True)
    first = perform(worker, "a" * 100 + "!")
    assert first.ending is Ending.COMMITTED
    assert len(calls) == 201
    calls.clear()
    perform(worker, "a" * 100 + "!")
    assert len(calls) < 120


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("pool", "kept"), [(True, False), (False, True)])
def test_statements_that_debug_records_are_dropped_in_workers_only(pool: bool, kept: bool) -> None:
    """Nobody reads them in a pool; inline they are the caller's."""
    with override_settings(DEBUG=True):
        connection.queries_log.clear()
        perform(Worker(job(lambda item: Author.objects.count()), pool=pool), "abc")
        assert bool(connection.queries) == kept
        connection.queries_log.clear()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("pool", [True, False])
def test_a_lost_connection_is_closed_only_in_a_pools_worker(
    pool: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inline it is the caller's, who may have prepared something on it."""
    monkeypatch.setattr("carpool.attempt.time.sleep", lambda seconds: None)
    errors = [lost()]

    def function(item: str) -> None:
        if errors:
            raise errors.pop()

    connection.ensure_connection()
    before = connection.connection
    worker = Worker(replace(job(function), retries=1), pool=pool)
    assert perform(worker, "a").retries == 1
    assert (connection.connection is before) != pool


@given(st.recursive(st.none() | st.integers() | st.text() | st.binary(), st.lists))
def test_a_packed_value_comes_back(value: Any) -> None:
    """Any plain value."""
    assert loads(packed(value)) == value


class OneWay:
    """Pickles, and can't be unpickled, as many exceptions can't (unless tblib mends them)."""

    def __init__(self, one: int, other: int) -> None:
        pass

    def __reduce__(self) -> Any:
        return OneWay, ()


@pytest.mark.parametrize(
    "value", [threading.Lock(), OneWay(1, 2), [OneWay(1, 2)]], ids=["lock", "one way", "within"]
)
def test_a_value_that_would_not_arrive_is_refused_in_the_worker(value: Any) -> None:
    """Before COMMIT, where it can still fail its item, and not in the parent, where it is late."""
    with pytest.raises(NotSendable, match=r"can't be sent back.*Return plain data"):
        packed(value)
