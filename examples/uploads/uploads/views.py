"""No view runs an import: each returns at once, and the worker does what takes long."""

from functools import partial

from django import forms
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST

from uploads.models import Upload
from uploads.progress import progress_of
from uploads.tasks import import_contacts


class UploadForm(forms.ModelForm):
    class Meta:
        model = Upload
        fields = ["file"]


def index(request: HttpRequest) -> HttpResponse:
    form = UploadForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        with transaction.atomic():
            upload = form.save()
            enqueue(upload)
        return redirect(upload)
    return render(request, "uploads/index.html", {"form": form, "uploads": Upload.objects.all()})


@require_GET
def show(request: HttpRequest, pk: int) -> HttpResponse:
    return render(request, "uploads/show.html", {"upload": get_object_or_404(Upload, pk=pk)})


@require_GET
def progress(request: HttpRequest, pk: int) -> JsonResponse:
    return JsonResponse(progress_of(get_object_or_404(Upload, pk=pk)))


@require_POST
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    upload = get_object_or_404(Upload, pk=pk)
    # First the upload's own row: the task looks at it until its run can be told.
    Upload.objects.filter(pk=pk).update(cancelled=True, waiting=False)
    if run := upload.run:
        run.cancel()  # noticed within two seconds
    return redirect(upload)


@require_POST
def resume(request: HttpRequest, pk: int) -> HttpResponse:
    with transaction.atomic():
        # With a lock, so that the second of two clicks finds that the first has done it. SQLite has
        # none, and needs none: with IMMEDIATE one transaction at a time, see the settings.
        upload = get_object_or_404(Upload.objects.select_for_update(), pk=pk)
        if progress_of(upload)["can_resume"]:
            Upload.objects.filter(pk=pk).update(waiting=True, cancelled=False, error="", rows=None)
            enqueue(upload)
    return redirect(upload)


def enqueue(upload: Upload) -> None:
    # After the commit, whatever the queue is kept in: the worker must find the upload.
    transaction.on_commit(partial(import_contacts.enqueue, upload.pk))
