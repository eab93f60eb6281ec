"""The three tables: runs, leases, entries."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Run",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=190, unique=True)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("new", "new"),
                            ("running", "running"),
                            ("interrupted", "interrupted"),
                            ("succeeded", "succeeded"),
                            ("failed", "failed"),
                            ("cancelled", "cancelled"),
                        ],
                        default="new",
                        max_length=20,
                    ),
                ),
                ("reason", models.TextField(blank=True, help_text="Why it is in this state.")),
                (
                    "wanted",
                    models.CharField(
                        blank=True,
                        choices=[("", "nothing"), ("pause", "pause"), ("cancel", "cancel")],
                        help_text="What the coordinator is asked to do; it looks every second.",
                        max_length=10,
                    ),
                ),
                (
                    "positions",
                    models.CharField(
                        blank=True,
                        help_text="What positions count: an index, or a model's keys.",
                        max_length=255,
                    ),
                ),
                ("function", models.TextField(blank=True)),
                ("source", models.TextField(blank=True)),
                ("options", models.JSONField(blank=True, default=dict)),
                ("succeeded", models.BigIntegerField(default=0)),
                ("failed", models.BigIntegerField(default=0)),
                ("skipped", models.BigIntegerField(default=0)),
                ("retries", models.BigIntegerField(default=0)),
                (
                    "rate",
                    models.FloatField(
                        blank=True, help_text="Items a second, of the last call.", null=True
                    ),
                ),
                ("last_error", models.TextField(blank=True)),
                ("settled", models.TextField(default="[]")),
                ("failed_positions", models.TextField(default="[]")),
                ("marks", models.TextField(blank=True)),
                ("fence", models.BigIntegerField(default=0)),
                (
                    "beat_at",
                    models.DateTimeField(
                        blank=True, help_text="By the database's clock.", null=True
                    ),
                ),
                ("host", models.CharField(blank=True, max_length=255)),
                ("pid", models.BigIntegerField(blank=True, null=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("started_at", models.DateTimeField(blank=True, null=True)),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
                ("carpool_version", models.CharField(blank=True, max_length=50)),
                ("django_version", models.CharField(blank=True, max_length=50)),
            ],
            options={
                "ordering": ("-created_at",),
            },
        ),
        migrations.CreateModel(
            name="Lease",
            fields=[
                (
                    "run",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="lease",
                        serialize=False,
                        to="carpool_journal.run",
                    ),
                ),
                ("fence", models.BigIntegerField(default=0)),
                ("closed", models.BigIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name="Entry",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("fence", models.BigIntegerField()),
                ("chunk", models.BigIntegerField()),
                ("done", models.TextField()),
                ("failed", models.TextField()),
                ("succeeded", models.BigIntegerField()),
                ("skipped", models.BigIntegerField()),
                ("marks", models.TextField()),
                ("void", models.BooleanField(default=False)),
                (
                    "run",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="entries",
                        to="carpool_journal.run",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("run", "fence", "chunk"), name="carpool_entry_once"
                    )
                ],
            },
        ),
    ]
