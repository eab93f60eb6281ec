"""A file that somebody uploaded, and what is made of its rows."""

from pathlib import Path

from carpool.journal.models import Run
from django.core.validators import FileExtensionValidator
from django.db import models
from django.urls import reverse


class Upload(models.Model):
    """A file and its import. How far that is, the journal knows: see `run`."""

    file = models.FileField(upload_to="uploads/", validators=[FileExtensionValidator(["csv"])])
    uploaded_at = models.DateTimeField(auto_now_add=True)
    # A task has been enqueued, and no worker has begun it.
    waiting = models.BooleanField(default=True, editable=False)
    # Known when a worker has counted them. While it counts, it says now and then that it lives;
    # after that, the run's row in the journal does.
    rows = models.PositiveIntegerField(null=True, editable=False)
    heard_at = models.DateTimeField(null=True, editable=False)
    # Somebody wants it to end: kept here, since the run's row may not be there yet.
    cancelled = models.BooleanField(default=False, editable=False)
    # Why the last task could not do its work, in words for whoever uploaded the file.
    error = models.TextField(editable=False)

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return Path(self.file.name).name

    def get_absolute_url(self) -> str:
        return reverse("show", args=[self.pk])

    @property
    def run_name(self) -> str:
        """The run's name in the journal: a task that is enqueued again does what is left of it."""
        return f"upload {self.pk}"

    @property
    def run(self) -> Run | None:
        """The run's row, once a worker has begun it."""
        return Run.objects.filter(name=self.run_name).first()

    @property
    def rejects(self) -> Path:
        """The file of the rows that failed, each with its error; no other upload has its name."""
        return Path(f"{self.file.path}.{self.pk}.rejects.jsonl")


class Contact(models.Model):
    name = models.CharField(max_length=100)
    email = models.EmailField(unique=True)

    def __str__(self) -> str:
        return f"{self.name} <{self.email}>"

    def save(self, **kwargs) -> None:
        self.email = self.email.lower()
        super().save(**kwargs)
