"""Celery's engine as far as it needs no broker: what it refuses, and when it is imported."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from celery import Celery, current_app
from django.test import override_settings

from carpool.exceptions import ConfigurationError
from carpool.executors import celery, engine_of, on_celery
from carpool.executors.celery_messages import ANSWER, NEEDS_PARCEL_AGAIN
from carpool.executors.on_celery import CeleryExecutor
from carpool.executors.sealed import seal
from carpool.types import Chunk
from tests.unit.test_choice import choose

NOT_INSTALLED = """
import sys
sys.modules["celery"] = None
import carpool.tasks
from carpool.executors import celery
try:
    celery()
except Exception as error:
    print(type(error).__name__, error)
"""


def app(**settings):
    made = Celery("tests", broker="memory://", set_as_current=False)
    made.conf.update(settings)
    return made


def test_without_a_journal_it_is_refused_with_both_remedies():
    with pytest.raises(ConfigurationError, match="journal=") as caught:
        celery(app()).check(journal=False)
    assert "redelivered_chunks_may_be_unknown=True" in str(caught.value)


def test_with_a_journal_or_the_option_it_is_not():
    celery(app()).check(journal=True)
    celery(app(), redelivered_chunks_may_be_unknown=True).check(journal=False)


def test_an_app_that_runs_tasks_at_once_has_no_workers():
    with pytest.raises(ConfigurationError, match="task_always_eager"):
        celery(app(task_always_eager=True)).check(journal=True)


def test_nothing_can_be_signed_without_a_secret_key():
    with override_settings(SECRET_KEY=""), pytest.raises(ConfigurationError, match="SECRET_KEY"):
        celery(app()).check(journal=True)


def test_workers_that_take_no_json_are_refused():
    with pytest.raises(ConfigurationError, match="accept_content"):
        celery(app(accept_content=["pickle"])).check(journal=True)
    celery(app(accept_content=["application/json"])).check(journal=True)


def test_without_a_journal_a_chunk_delivered_again_is_not_sent_again_either():
    """A worker that lacks the parcel hasn't run it; the one that had it first may have."""
    executor = choose(executor=celery(app(), redelivered_chunks_may_be_unknown=True))
    assert isinstance(executor, CeleryExecutor)
    sent = on_celery._Sent(Chunk(1, [0], ["item"], [b""]), turn=1, at=0.0)
    executor._out[1] = sent
    answer = seal(NEEDS_PARCEL_AGAIN, ANSWER.format(executor._task(1)))

    executor._on_answer(1, sent, answer)

    back = executor._back.get_nowait()
    assert back is not None
    assert isinstance(back[1], on_celery.ChunkLost)


@pytest.mark.parametrize("somebody", [True, False])
def test_a_worker_that_is_found_at_work_is_not_silent(monkeypatch, somebody):
    """A chunk may take longer than any silence, as long as who has it answers."""
    executor = choose(executor=celery(app(), redelivered_chunks_may_be_unknown=True))
    assert isinstance(executor, CeleryExecutor)
    executor._out[1] = on_celery._Sent(Chunk(1, [0], ["item"], [b""]), turn=1, at=0.0)
    answer = {
        "queues": [executor._queue_name()],
        "has": [executor._task(1)],
        "answers_while_it_works": True,
    }
    answers = {"w@here": answer} if somebody else {}
    monkeypatch.setattr(executor, "_ask", lambda quiet, **question: answers)
    executor._heard = time.monotonic() - on_celery.SILENCE * executor._patience - 1

    executor._look_for(dict(executor._out))
    executor._notice_silence()

    assert (executor._failure is None) is somebody


def test_the_project_has_no_app(monkeypatch):
    monkeypatch.setattr("celery._state.default_app", None)
    assert current_app.main == "default"  # what Celery makes up
    with pytest.raises(ConfigurationError, match=r"set_default\(\)"):
        engine_of("celery")


def test_the_projects_app_is_the_current_one(monkeypatch):
    made = app()
    monkeypatch.setattr("celery._state.default_app", made)
    assert engine_of("celery")._app is made


def test_a_dry_run_needs_no_journal():
    """It stores nothing, so nothing can be stored twice; and it can have none."""
    assert isinstance(choose(executor=celery(app()), dry_run=True), CeleryExecutor)
    with pytest.raises(ConfigurationError, match="journal="):
        choose(executor=celery(app()))


def test_an_engine_is_itself():
    engine = celery(app())
    assert engine_of(engine) is engine


def test_celery_is_not_imported_unless_it_is_used():
    program = "import sys, carpool.run, carpool.executors; print('celery' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "False\n"


def test_where_celery_is_not_installed_that_is_said_and_its_tasks_are_empty():
    """Other task queues import each app's ``tasks``, Celery or not."""
    said = subprocess.check_output([sys.executable, "-c", NOT_INSTALLED], text=True)
    assert said.startswith("ConfigurationError Celery is not installed")
    assert "django-carpool[celery]" in said
