"""The Celery worker's side: what it refuses to run, and what it keeps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from carpool.exceptions import ConfigurationError
from carpool.executors import celery_worker
from carpool.executors.celery_messages import (
    NEEDS_PARCEL,
    NEEDS_PARCEL_AGAIN,
    REQUEST,
    Order,
    run_of,
    task_of,
)
from carpool.executors.sealed import BadSeal, seal
from carpool.functions import dumps

REQUESTED = SimpleNamespace(id="run-1", delivery_info={})


@pytest.fixture(autouse=True)
def no_parcels(monkeypatch):
    monkeypatch.setattr(celery_worker, "_parcels", type(celery_worker._parcels)())


def sealed(order, task="run-1"):
    return seal(dumps(order), REQUEST.format(task))


def order(run: str = "run", parcel: Any = None) -> Order:
    return Order(run, parcel, 1, [], None)


def test_where_django_cannot_be_set_up_no_item_is_to_blame(monkeypatch):
    """The coordinator ends the run for this error, and for no other."""

    def fail(module):
        raise ModuleNotFoundError("No module named 'shop'")

    monkeypatch.setattr(celery_worker, "set_up_django", fail)
    with pytest.raises(ConfigurationError, match="No module named 'shop'"):
        celery_worker._set_up("shop.settings")


def test_what_cannot_be_unpickled_is_no_items_fault_either():
    text = seal(b"no pickle", REQUEST.format("run-1"))
    with pytest.raises(ConfigurationError, match="can't be unpickled"):
        celery_worker._perform(REQUESTED, text)


def test_a_chunk_of_another_task_is_refused():
    """Sent again under another id by somebody who can't sign."""
    with pytest.raises(BadSeal):
        celery_worker._perform(REQUESTED, sealed(order(), task="run-2"))


def test_a_run_that_is_not_known_is_asked_for():
    assert celery_worker._perform(REQUESTED, sealed(order())) == NEEDS_PARCEL
    again = SimpleNamespace(id="run-1", delivery_info={"redelivered": True})
    assert celery_worker._perform(again, sealed(order())) == NEEDS_PARCEL_AGAIN


def test_of_runs_the_last_are_kept():
    kept: Any = celery_worker._parcel
    for number in range(celery_worker.KEPT_PARCELS + 1):
        kept(order(f"run{number}", ("parcel", number)))
    assert kept(order("run0")) is None
    assert kept(order("run1")) == ("parcel", 1)
    kept(order("new", ("parcel", -1)))
    assert kept(order("run1")) is not None
    assert kept(order("run2")) is None


def test_a_tasks_id_names_its_run():
    assert run_of(task_of("a-run", 7)) == ("a-run", "7")
    assert run_of("somebody's task") == ("", "somebody's task")
