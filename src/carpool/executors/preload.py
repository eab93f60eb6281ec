"""What multiprocessing's fork server does first: it sets Django up once, for all its workers.

A worker then starts in about 20 ms instead of 300. Whatever goes wrong here (no settings yet, a
module that can't be imported) is left for the worker, which says so properly.

Starting a process waits for the fork server, and so for this. A parent that has something better
to do looks whether `done_file` is there.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
from multiprocessing import util
from pathlib import Path

PATH_VARIABLE = "CARPOOL_PRELOAD_PATH"
"""The parent's sys.path as JSON. The fork server has another one until it serves its first
process (and, before Python 3.13, no way to be told)."""

DONE_VARIABLE = "CARPOOL_PRELOAD_DONE"
"""Name of the file to make when all is done."""


def variables() -> dict[str, str]:
    """Return what the fork server must find in its environment."""
    return {PATH_VARIABLE: json.dumps(sys.path), DONE_VARIABLE: str(done_file())}


def done_file() -> Path:
    """Return the file that this process' fork server makes when it has preloaded.

    It is in multiprocessing's own temporary folder, which goes with the process.
    """
    # util.get_temp_dir: undocumented, and as it is since 2.6. Checked on Python 3.11 to 3.14.
    return Path(util.get_temp_dir()) / "carpool-preloaded"


def preload() -> None:
    """Do what each worker would do first, as far as it is the same for all."""
    for entry in json.loads(os.environ.pop(PATH_VARIABLE, "[]")):
        if entry not in sys.path:
            sys.path.append(entry)
    import carpool.executors.child  # noqa: F401  # what a worker runs

    if "DJANGO_SETTINGS_MODULE" in os.environ:
        import django
        from django.db import connections

        django.setup()
        # A ready() that queries would leave a connection for every worker to inherit.
        connections.close_all()


def preload_if_asked() -> None:
    """Do it in the fork server only, not for whoever imports `preloaded`."""
    if PATH_VARIABLE not in os.environ:
        return
    done = os.environ.pop(DONE_VARIABLE, None)
    # What is imported stays: collecting garbage meanwhile only costs, a tenth of the time; and
    # afterwards no worker's collector needs walk over it, which would copy its pages. Not by
    # gc.disable(): the project's settings may do that, for good.
    before = gc.get_threshold()
    gc.set_threshold(0)
    with contextlib.suppress(Exception):
        preload()
    gc.freeze()
    if gc.get_threshold()[0] == 0:  # else it is the project's
        gc.set_threshold(*before)
    if done is not None:
        with contextlib.suppress(OSError):
            Path(done).touch()
