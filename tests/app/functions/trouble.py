"""Every way in which an item can go wrong, chosen by the item's data.

An item is a mapping with a `key`, and `bad` names its trouble, if any: see `TROUBLES`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any

from django.db import IntegrityError, connection, transaction
from django.db.models import Max

from tests.app.models import Account, Author, Book

type_of_item = Mapping[str, Any]
NOBODY = 999_999_999


class Awkward(Exception):
    """An exception that does not survive pickling, since it drops its arguments (gotcha 29)."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__()
        self.text = f"{first} and {second}"

    def __str__(self) -> str:
        return self.text


class Mute(Exception):
    """An exception that can't even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no comment")


def raise_value(item: type_of_item) -> None:
    raise ValueError(f"{item['key']} is bad")


def raise_awkward(item: type_of_item) -> None:
    raise Awkward(item["key"], "its trouble")


def raise_mute(item: type_of_item) -> None:
    raise Mute


def raise_local(item: type_of_item) -> None:
    class Local(Exception):
        """A class that no other process can import."""

    raise Local(item["key"])


def raise_chained(item: type_of_item) -> None:
    try:
        raise KeyError(item["key"])
    except KeyError as error:
        raise LookupError(f"{item['key']} has a cause") from error


def raise_stop_iteration(item: type_of_item) -> None:
    next(iter(()))


def recurse(item: type_of_item) -> None:
    recurse(item)


def leave(item: type_of_item) -> None:
    sys.exit(f"{item['key']} has had enough")


def break_unique(item: type_of_item) -> None:
    Account.objects.create(name=item["key"], email=f"twice-{item['key']}", number=NOBODY)
    Account.objects.create(
        name=item["key"], email=f"twice-{item['key']}", number=NOBODY, region="south"
    )


def break_not_null(item: type_of_item) -> None:
    nothing: Any = None
    Account.objects.create(name=nothing, email=f"null-{item['key']}", region=item["key"])


def break_check(item: type_of_item) -> None:
    Account.objects.create(
        name=item["key"], email=f"check-{item['key']}", region=item["key"], balance=-1
    )


def break_foreign_key(item: type_of_item) -> None:
    """Point to nobody: refused at COMMIT where constraints can wait, else at once."""
    Book(name=f"orphan {item['key']}", author_id=NOBODY, pages=-1).save_base(raw=True)


def write_nonsense(item: type_of_item) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT nothing FROM nowhere")


def save_unsaved_parent(item: type_of_item) -> None:
    Book.objects.create(name=item["key"], author=Author(name="never saved"))


def ask_for_durability(item: type_of_item) -> None:
    with transaction.atomic(durable=True):
        Author.objects.create(name=item["key"])


def fail_in_on_commit(item: type_of_item) -> None:
    def callback() -> None:
        raise ValueError(f"{item['key']} is bad after its commit")

    transaction.on_commit(callback)


def swallow(item: type_of_item) -> None:
    """Catch a database error without a savepoint: what came before is lost, silently."""
    try:
        break_unique(item)
    except IntegrityError:
        pass


def swallow_raw(item: type_of_item) -> None:
    """The same by a cursor, where Django does not notice."""
    table = connection.ops.quote_name(Account._meta.db_table)
    sql = f"INSERT INTO {table} (name, email, region, number, balance) VALUES ('raw', %s, %s, 1, 1)"
    with connection.cursor() as cursor:
        cursor.execute(sql, [f"raw-{item['key']}", item["key"]])
        try:
            cursor.execute(sql, [f"raw-{item['key']}", item["key"]])
        except IntegrityError:
            pass


def mark_for_rollback(item: type_of_item) -> None:
    transaction.set_rollback(True)


def close_connection(item: type_of_item) -> None:
    connection.close()


def use_after_error(item: type_of_item) -> None:
    try:
        break_unique(item)
    except IntegrityError:
        Account.objects.aggregate(Max("number"))


Trouble = Callable[[type_of_item], None]

AT_THE_FUNCTION: dict[str, Trouble] = {
    "raise": raise_value,
    "awkward": raise_awkward,
    "local": raise_local,
    "chained": raise_chained,
    "stop": raise_stop_iteration,
    "unsaved parent": save_unsaved_parent,
    "durable": ask_for_durability,
}
AT_THE_STATEMENT: dict[str, Trouble] = {
    "unique": break_unique,
    "not null": break_not_null,
    "check": break_check,
    "nonsense": write_nonsense,
    "after error": use_after_error,
}
AT_COMMIT: dict[str, Trouble] = {"foreign key": break_foreign_key}
AFTER_COMMIT: dict[str, Trouble] = {"on commit": fail_in_on_commit}
SILENT: dict[str, Trouble] = {
    "swallow": swallow,
    "swallow raw": swallow_raw,
    "set rollback": mark_for_rollback,
    "close": close_connection,
}
"""A plain loop loses these items and says nothing."""

ODD: dict[str, Trouble] = {"mute": raise_mute, "recurse": recurse, "exit": leave}
"""Whose errors are their own kind of trouble."""

TROUBLES = ODD | AT_THE_FUNCTION | AT_THE_STATEMENT | AT_COMMIT | AFTER_COMMIT | SILENT


def may_fail(item: type_of_item, prefix: str = "") -> None:
    """Do what the item's `bad` says, if it starts with the prefix."""
    bad = item.get("bad") or ""
    if bad.startswith("early ") != (prefix == "early "):
        return
    name = bad.removeprefix(prefix)
    if name:
        TROUBLES[name](item)


def troubled(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Make an item function fail as its items say: before its writes (`early …`) or after."""

    @functools.wraps(function)
    def run(item: Any) -> Any:
        bad = item.get("bad")
        may_fail({"key": item["key"], "bad": bad}, "early ")
        key = item["key"]
        value = function(item)
        may_fail({"key": key, "bad": bad})
        return value

    return run
