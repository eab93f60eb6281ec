"""Say what is in the database in words that do not depend on keys or on the clock.

Two runs that wrote the same things in another order, or at another time, have equal snapshots:
- a generated key is left out, and whatever points to it names the row instead;
- a time that lies close to now reads `<now>`; any other stands as it is;
- the rows of a table are sorted.
"""

from __future__ import annotations

import datetime
import re
import shutil
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.db import connections, models, transaction

from tests.app.models import SignalLog
from tests.app.models.files import FOLDER

Row = dict[str, Any]
Snapshot = dict[str, list[str]]
Log = dict[str, list[str]]
ALIASES = ("default", "other")
CLOSE = datetime.timedelta(days=1, hours=1)


def tables(alias: str) -> list[type[models.Model]]:
    """List the models of the test app that have a table of their own, through models included."""
    connection = connections[alias]
    return [
        model
        for model in apps.get_app_config("app").get_models(include_auto_created=True)
        if model._meta.managed
        and not model._meta.proxy
        and model is not SignalLog
        and connection.features.supports_stored_generated_columns
        >= ("supports_stored_generated_columns" in model._meta.required_db_features)
    ]


def plain(value: Any) -> Any:
    """Take the clock out of a value."""
    if isinstance(value, datetime.datetime):
        now = datetime.datetime.now(value.tzinfo)
        return "<now>" if abs(now - value) < CLOSE else value.isoformat()
    if isinstance(value, datetime.date):
        return "<today>" if abs(datetime.date.today() - value) < CLOSE else value.isoformat()
    if isinstance(value, datetime.time):
        return "<now>" if value.microsecond else value.isoformat()
    if isinstance(value, memoryview):
        return bytes(value)
    return value


def is_generated(field: models.Field[Any, Any]) -> bool:
    return field.primary_key and (isinstance(field, models.AutoField) or field.has_default())


class Names:
    """Name the rows of one database by what they say, not by their keys."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.models = tables(alias)
        self.rows: dict[type[models.Model], dict[Hashable, Row]] = {}
        for model in self.models:
            fields = model._meta.local_concrete_fields
            keys = [field.attname for field in model._meta.pk_fields]
            self.rows[model] = {
                tuple(row[key] for key in keys): row
                for row in model._base_manager.using(alias).values(
                    *(field.attname for field in fields)
                )
            }

    def name(self, model: type[models.Model], key: Any, depth: int = 0) -> str:
        """Name a row by its columns; follow at most a few foreign keys, as they may be circular."""
        if key is None:
            return "None"
        row = self.rows.get(model, {}).get(key if isinstance(key, tuple) else (key,))
        if row is None:
            return f"{model._meta.label}({key!r}: not there)"
        return f"{model._meta.label}({self.describe(model, row, depth + 1)})"

    def describe(self, model: type[models.Model], row: Row, depth: int = 0) -> str:
        generic = {
            field.fk_field: field.ct_field
            for field in model._meta.private_fields
            if isinstance(field, GenericForeignKey)
        }
        words = []
        for field in model._meta.local_concrete_fields:
            value = row[field.attname]
            if is_generated(field):
                continue
            if field.name in generic:
                kind = ContentType.objects.get_for_id(row[f"{generic[field.name]}_id"])
                text = self.name(kind.model_class() or models.Model, value, depth)
            elif isinstance(field, models.ForeignKey):
                target = field.related_model
                if target is ContentType:
                    text = ContentType.objects.get_for_id(value).model
                elif depth > 2:
                    continue
                else:
                    text = self.name(target, value, depth)
            else:
                text = repr(plain(value))
            words.append(f"{field.name}={text}")
        return ", ".join(words)


def take_snapshot(aliases: Iterable[str] = ALIASES) -> Snapshot:
    """Read every table of the test app, as sorted lists of rows in words."""
    snapshot: Snapshot = {}
    for alias in aliases:
        names = Names(alias)
        for model, rows in names.rows.items():
            if rows:
                snapshot[f"{alias}.{model._meta.label}"] = sorted(
                    names.describe(model, row) for row in rows.values()
                )
    return snapshot


def take_log(alias: str = "default") -> Log:
    """Read the log of signals: item → its signals in order."""
    log: Log = {}
    for entry in SignalLog.objects.using(alias).order_by("item", "position"):
        detail = ", ".join(f"{key}={value}" for key, value in sorted(entry.detail.items()))
        log.setdefault(entry.item, []).append(
            f"{entry.signal} {entry.sender} [{entry.instance}] {detail}"
        )
    return log


def plain_message(message: str) -> str:
    """Take generated keys and times out of a database's message.

    PostgreSQL prints the whole row that it refused, keys and all.
    """
    message = re.sub(r"(Failing row contains \().*(\))", r"\1…\2", message)
    return re.sub(r"(primary key )'\d+'", r"\1'…'", message)


def empty_tables(aliases: Iterable[str] = ALIASES) -> None:
    """Empty the test app's tables that hold rows, and remove the stored files."""
    for alias in aliases:
        connection = connections[alias]
        quote = connection.ops.quote_name
        emptied: list[type[models.Model]] = [*tables(alias), SignalLog]
        names = [quote(model._meta.db_table) for model in emptied]
        with connection.constraint_checks_disabled(), connection.cursor() as cursor:
            cursor.execute(
                f"SELECT {', '.join(f'EXISTS (SELECT 1 FROM {name})' for name in names)}"
            )
            with transaction.atomic(using=alias):
                for name, filled in zip(names, cursor.fetchone(), strict=True):
                    if filled:
                        cursor.execute(f"DELETE FROM {name}")
    shutil.rmtree(settings.MEDIA_ROOT / FOLDER, ignore_errors=True)


@contextmanager
def emptied_before_and_after(empty: Callable[[], None]) -> Iterator[None]:
    """Empty the tables by ``empty`` before the block and, whatever it left open, after it."""
    empty()
    yield
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:  # The test has failed in there.
            connection.close()
    empty()
