"""Functions that meet one another: at locks, in time, in the language of the one who asked."""

from __future__ import annotations

import datetime
import threading
import time
from pathlib import Path
from typing import Any

from django.db import OperationalError, connection, connections, models, transaction
from django.db.models import F
from django.utils import timezone, translation
from django.utils.translation import gettext

from tests.app.functions.trouble import troubled
from tests.app.models import Account, Author, Tag

SUMMER = datetime.datetime(2020, 7, 1, 12, tzinfo=datetime.UTC)


@troubled
def lock_in_turn(item: dict[str, Any]) -> None:
    """Change two shared rows in the item's own order, with a pause between: a deadlock's recipe."""
    first, second = item["words"]
    Tag.objects.filter(word=first).update(uses=F("uses") + 1)
    time.sleep(0.05)
    Tag.objects.filter(word=second).update(uses=F("uses") + 1)
    Author.objects.create(name=item["key"])


@troubled
def lock_in_turn_and_catch(item: dict[str, Any]) -> None:
    """The same, and shrug an error off within a savepoint, after which the item looks done."""
    first, second = item["words"]
    Author.objects.create(name=item["key"])
    Tag.objects.filter(word=first).update(uses=F("uses") + 1)
    time.sleep(0.05)
    try:
        with transaction.atomic():
            Tag.objects.filter(word=second).update(uses=F("uses") + 1)
    except OperationalError:
        pass


@troubled
def read_then_write(item: dict[str, Any]) -> None:
    """Read, let others write, then write: what SQLite refuses without BEGIN IMMEDIATE."""
    seen = Author.objects.count()
    time.sleep(0.002)
    Author.objects.create(name=item["key"], books_written=min(seen, 0))


def surroundings(item: Any) -> list[str]:
    """Tell the language and the time zone, and translate a word of Django's own."""
    return [
        str(translation.get_language()),
        timezone.get_current_timezone_name(),
        gettext("January"),
        timezone.localtime(SUMMER).isoformat(),
    ]


def where(item: Any) -> list[str]:
    """Tell the databases that this worker uses."""
    return [str(connections[alias].settings_dict["NAME"]) for alias in ("default", "other")]


def whoami(item: Any) -> str:
    """Tell the thread."""
    return threading.current_thread().name


def is_atomic(item: Any) -> list[bool]:
    """Tell on which databases a transaction is open."""
    return [connections[alias].in_atomic_block for alias in ("default", "other")]


@troubled
def lock_rows(item: dict[str, Any]) -> None:
    """Lock a row for update, which is only allowed within a transaction."""
    account, _ = Account.objects.get_or_create(
        email=f"{item['key']}@example.org", defaults={"name": item["key"], "region": item["key"]}
    )
    queryset = Account.objects.filter(pk=account.pk)
    if connection.features.has_select_for_update:
        queryset = queryset.select_for_update()
    queryset.get()


@troubled
def lose_connection(item: dict[str, Any]) -> None:
    """Write, have the server end the connection if the item says so, and write again.

    `once` is the path of a file that tells whether it has happened.
    """
    Author.objects.create(name=item["key"])
    once = item.get("once")
    if item.get("lose") or (once and not Path(once).exists()):
        if once:
            Path(once).touch()
        end_this_connection()
    Author.objects.create(name=f"{item['key']} again")


def end_this_connection() -> None:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        else:
            cursor.execute("SELECT connection_id()")
            cursor.execute(f"KILL {cursor.fetchone()[0]}")


def count_up(item: dict[str, Any]) -> None:
    """Read a shared number, and write it one higher: lost updates, unless SERIALIZABLE."""
    tag = Tag.objects.get(word="shared")
    time.sleep(0.01)
    tag.uses += 1
    tag.save()
    Author.objects.create(name=item["key"])


def number_from_all(item: dict[str, Any]) -> None:
    """Write what a count of all rows says: write skew, which only COMMIT can refuse."""
    count = Author.objects.count()
    time.sleep(0.01)
    Author.objects.create(name=f"{count:03}")


def serialize_transactions() -> None:
    """Make the worker's transactions SERIALIZABLE."""
    connection.ensure_connection()
    from psycopg import IsolationLevel

    connection.connection.isolation_level = IsolationLevel.SERIALIZABLE


def have_no_patience() -> None:
    """Let the worker wait for a lock only as short as the database can."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET lock_timeout = '100ms'")
        else:
            cursor.execute("SET SESSION innodb_lock_wait_timeout = 1")


def add_use(item: dict[str, Any]) -> None:
    """Write a row of one's own, then one that may be locked."""
    Author.objects.create(name=item["key"])
    Tag.objects.filter(word="shared").update(uses=F("uses") + 1)


def add_beside_another(row: models.Model, field: str, patience: float) -> None:
    """Add one in Python and save; between load and save, have another connection add one, too.

    Wait so many seconds for the other one, which may itself have to wait for this one's COMMIT.
    """
    owner = row._meta.get_field(field).model

    def add_one() -> None:
        try:
            owner._base_manager.filter(pk=row.pk).update(**{field: F(field) + 1})
        finally:
            connection.close()

    other = threading.Thread(target=add_one)
    other.start()
    transaction.on_commit(other.join)
    other.join(patience)
    setattr(row, field, getattr(row, field) + 1)
    row.save()


@troubled
def define_table(item: dict[str, Any]) -> None:
    """Write a row, and if the item says so run DDL, with which MySQL commits on its own."""
    Author.objects.create(name=item["key"])
    if item.get("define"):
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS app_never_made")


def write_word(item: dict[str, Any]) -> None:
    """Write a row and a tag, at which a trigger may take offence."""
    Author.objects.create(name=item["key"])
    Tag.objects.create(word=item["word"])
