"""The test project's Celery app, as a project has one; the environment says of which broker.

``celery -A tests.app.celery worker`` starts a worker of it.
"""

from __future__ import annotations

import json
import os
from typing import Any

from celery import Celery


def app_for(broker: str | None, queue: str, **settings: Any) -> Celery:
    """Return an app that sends to this queue of this broker."""
    app = Celery("tests", broker=broker, set_as_current=False)
    app.conf.update(
        task_default_queue=queue,
        worker_hijack_root_logger=False,
        # kombu's sweep for what was not acknowledged in time: each second, not each 100.
        broker_transport_options={
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            **settings.pop("broker_transport_options", {}),
        },
        **settings,
    )
    app.autodiscover_tasks()
    return app


app = app_for(
    os.environ.get("CARPOOL_TEST_BROKER_URL"),
    os.environ.get("CARPOOL_TEST_QUEUE", "tests"),
    **json.loads(os.environ.get("CARPOOL_TEST_CELERY", "{}")),
)
