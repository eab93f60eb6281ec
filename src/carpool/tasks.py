"""What a Celery worker loads: the task that runs a chunk, and the command that tells who it is.

``app.autodiscover_tasks()`` finds this module where ``"carpool"`` is in INSTALLED_APPS; else
``Celery(…, include=["carpool.tasks"])`` names it.

Other task queues look for modules of this name, too, so without Celery it is empty.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("celery") is not None:
    from carpool.executors.celery_worker import carpool_worker, run_chunk

    __all__ = ["carpool_worker", "run_chunk"]
