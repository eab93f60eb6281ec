"""What `update` does to rows that are there: functions for an item, and their likes without save().

A round fills its table before the clock runs, and counts afterwards, by SQL, the rows that are
as they should be: each changed, with nothing else changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from typing import Any, TypeVar

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import F, Model, QuerySet, Value
from django.db.models.functions import Concat
from django.utils import timezone

from benchmarks.items import items
from benchmarks.models import Order

T = TypeVar("T")

#: Objects in memory while a table is filled: few, since a round's peak memory is its row's.
FILL_ROWS = 500

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
#: Binary fractions, so that SQLite multiplies them exactly.
OLD_PRICE, PRICE = Decimal("10.50"), Decimal("12.25")

#: What a user has that no change may touch.
KEPT = {
    "first_name": "Ada",
    "last_name": "Lovelace",
    "is_active": True,
    "is_staff": False,
    "last_login": None,
    "date_joined": LONG_AGO,
}
NEW_HOST = "@example.com"


def batches(rows: Iterator[T], size: int) -> Iterator[list[T]]:
    """Yield the rows in lists of that size. (Python 3.12 has `itertools.batched`.)"""
    while batch := list(islice(rows, size)):
        yield batch


def fill(model: type[Model], objects: Iterator[Any]) -> None:
    """Insert objects, without signals."""
    with transaction.atomic():
        for batch in batches(objects, FILL_ROWS):
            model._base_manager.bulk_create(batch)


def fill_orders(count: int) -> None:
    """Make orders at the old price, last changed long ago."""
    field: Any = Order._meta.get_field("changed")
    field.auto_now = False
    try:
        fill(
            Order,
            (
                Order(
                    number=number,
                    customer=f"Customer {number}",
                    quantity=(quantity := 1 + number % 9),
                    total=quantity * OLD_PRICE,
                    changed=LONG_AGO,
                )
                for number in range(count)
            ),
        )
    finally:
        field.auto_now = True


def fill_users(count: int) -> None:
    """Make the recipe's users, with a name."""
    fill(User, (User(**item, **KEPT) for item in items(count)))


def orders(count: int) -> QuerySet[Order]:
    """Return the orders: there are so many."""
    return Order.objects.all()


def users(count: int) -> QuerySet[User]:
    """Return the users: there are so many."""
    return User.objects.all()


def reprice(order: Order) -> None:
    """Change one field; `changed` follows by itself, since it is `auto_now`."""
    order.total = order.quantity * PRICE
    order.save(update_fields=["total", "changed"])


def move(user: User) -> None:
    """Change a user, and save all its fields."""
    user.email = user.username + NEW_HOST
    user.save()


def repriced(model: type[Order]) -> int:
    """Count the orders that have the new price, and say that they were changed."""
    return model.objects.filter(total=F("quantity") * PRICE, changed__gt=LONG_AGO).count()


def moved(model: type[User]) -> int:
    """Count the users that have moved, and are what they were."""
    return model.objects.filter(email=Concat("username", Value(NEW_HOST)), **KEPT).count()


@dataclass(frozen=True)
class Change:
    """How a row that doesn't call `save()` does what a function does."""

    model: type[Model]
    #: What is written.
    fields: Sequence[str]
    #: Gives an object its new values, those too that `save()` would give it.
    change: Callable[[Any], None]
    #: What a row reads that has no use for objects. The key comes first.
    reads: Sequence[str]
    #: Makes the key and the new `fields` from that.
    values: Callable[[Sequence[Any]], Sequence[Any]]


def change_order(order: Order) -> None:
    """Do what `reprice` does, and what `auto_now` would."""
    order.total = order.quantity * PRICE
    order.changed = timezone.now()


def order_values(row: Sequence[Any]) -> Sequence[Any]:
    """Do the same for an order's key and quantity."""
    key, quantity = row
    return key, quantity * PRICE, connection.ops.adapt_datetimefield_value(timezone.now())


def change_user(user: User) -> None:
    """Do what `move` does."""
    user.email = user.username + NEW_HOST


USER_FIELDS = [field.name for field in User._meta.concrete_fields]
USERNAME, EMAIL = USER_FIELDS.index("username"), USER_FIELDS.index("email")


def user_values(row: Sequence[Any]) -> Sequence[Any]:
    """Do the same for all values of a user."""
    return *row[:EMAIL], row[USERNAME] + NEW_HOST, *row[EMAIL + 1 :]


CHANGES: dict[Callable[[Any], None], Change] = {
    reprice: Change(Order, ["total", "changed"], change_order, ["id", "quantity"], order_values),
    move: Change(User, USER_FIELDS[1:], change_user, USER_FIELDS, user_values),
}
