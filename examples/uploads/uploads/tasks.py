"""What the worker of the queue does: `manage.py db_worker`, in a process of its own."""

from collections.abc import Iterable
from typing import Any

import carpool
from django.db.models import QuerySet
from django.db.models.functions import Now

from uploads.imports import create_contact
from uploads.models import Upload

try:
    from django.tasks import task
except ImportError:  # Django 5.2
    from django_tasks import task

SIGN_OF_LIFE = 20_000
"""Rows counted between two signs of life: one UPDATE each, several times a second."""


class Cancelled(Exception):
    """Somebody wants the import to end, and its run has not begun."""


@task()
def import_contacts(upload_id: int) -> str:
    """Import a file, or what is left of it: enqueue it again after whatever ended it."""
    upload = Upload.objects.get(pk=upload_id)
    this = Upload.objects.filter(pk=upload_id)

    def pass_on(snapshot: carpool.Snapshot) -> None:
        # Called when rows are done. A wish from before the run was taken up is known only here;
        # the view tells the run of later ones.
        if this.filter(cancelled=True).exists() and (run := upload.run):
            run.cancel()

    try:
        go_on(this, waiting=False, error="")
        rows = carpool.read(upload.file.path)
        # Gone through once to count them, so that a damaged file is refused as a whole.
        go_on(this, rows=count(this, rows))
        report = carpool.run(
            create_contact,
            rows,
            journal=upload.run_name,
            rejects=upload.rejects,
            progress=pass_on,
        )
    except Cancelled:
        return "cancelled before it began"
    except carpool.RunCancelled as cancelled:
        return str(cancelled.report)
    except (carpool.RunIsTaken, carpool.TakenOver) as other:
        return str(other)  # another worker has it: no error of the upload's
    except Exception as error:
        # The queue logs it, and keeps its traceback. Here are words for whoever uploaded the file.
        this.update(error=words_for(error))
        raise
    return str(report)


def count(this: QuerySet[Upload], rows: Iterable[Any]) -> int:
    number = 0
    for number, _ in enumerate(rows, start=1):
        if number % SIGN_OF_LIFE == 0:
            go_on(this)
    return number


def go_on(this: QuerySet[Upload], **values: Any) -> None:
    """Say that the worker lives, by the database's clock as its run will; unless it is to end."""
    if not this.filter(cancelled=False).update(heard_at=Now(), **values):
        raise Cancelled


def words_for(error: Exception) -> str:
    """Say what went wrong, without the server's paths and advice for its developers."""
    if isinstance(error, carpool.SourceError) and error.line is not None:
        return (
            f"line {error.line} can't be read: is it a CSV file in UTF-8, with commas, and has "
            "each row as many fields as the first?"
        )
    return "something is wrong on the server, whose log says what"
