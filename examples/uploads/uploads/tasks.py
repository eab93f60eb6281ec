"""What the worker of the queue does: `manage.py db_worker`, in a process of its own."""

import carpool

from uploads.imports import create_contact
from uploads.models import Upload

try:
    from django.tasks import task
except ImportError:  # Django 5.2
    from django_tasks import task


@task()
def import_contacts(upload_id: int) -> str:
    """Import a file, or what is left of it: enqueue it again after whatever ended it."""
    upload = Upload.objects.get(pk=upload_id)
    this = Upload.objects.filter(pk=upload_id)
    if upload.cancelled:
        return "cancelled before it began"
    rows = carpool.read(upload.file.path)
    try:
        # Gone through once to count them, so that a damaged file is refused as a whole.
        this.update(rows=sum(1 for _ in rows), error="")
        report = carpool.run(
            create_contact,
            rows,
            journal=upload.run_name,
            rejects=upload.rejects,
            progress=False,
        )
    except carpool.RunCancelled as cancelled:
        report = cancelled.report
    except carpool.CarpoolError as error:
        this.update(error=str(error))
        raise
    return str(report)
