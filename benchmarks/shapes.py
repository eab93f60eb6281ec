"""Items of several shapes: what each does beside one INSERT keeps a batch together, or breaks it.

The shapes are `workload.SHAPES`, a table each. The rows are the same for all.
"""

from __future__ import annotations

from functools import cache

from django.contrib.auth.models import Group, User

from benchmarks import create
from benchmarks.items import Item
from benchmarks.models import Account, Book, Profile, Publisher, Restaurant, Ticket
from benchmarks.suite import Suite

#: As many as there are countries, say: all exist after the first items, and are found by the rest.
PUBLISHERS = 200

suite = Suite("shapes")

suite.row("the loop in one transaction", group="reference")(create.one_transaction)
suite.row("coalesce(), one process", group="carpool", needs=["carpool"])(create.carpool_coalesce)
suite.row("carpool.run, default executor", group="carpool", workers="processes", needs=["carpool"])(
    create.carpool_default
)
suite.row("carpool.run, processes", group="carpool", workers="processes", needs=["carpool"])(
    create.carpool_processes
)


def create_groups() -> None:
    """Create the groups that every user joins."""
    Group.objects.bulk_create([Group(name="readers"), Group(name="writers")])


@cache
def groups() -> list[Group]:
    """Return those groups, read once in each process."""
    return list(Group.objects.all())


def create_user_with_profile(item: Item) -> None:
    """Create a user, a profile beside it, and two links to groups."""
    user = User.objects.create(username=item["username"], email=item["email"])
    Profile.objects.create(user=user, city="Springfield")
    user.groups.add(*groups())


def create_restaurant(item: Item) -> None:
    """Create an object whose rows are in two tables, the second with the key of the first."""
    Restaurant.objects.create(name=item["username"], address=item["email"], seats=40)


def create_book(item: Item) -> None:
    """Ask for a parent that other items share, create it if it is the first, and refer to it."""
    number = int(item["username"]) % PUBLISHERS
    publisher, _ = Publisher.objects.get_or_create(name=f"Publisher {number}")
    Book.objects.create(title=item["username"], publisher=publisher)


def create_account(item: Item) -> None:
    """Create an object that validates itself, with a query for its unique field."""
    Account.objects.create(name=item["username"], email=item["email"])


def create_ticket(item: Item) -> None:
    """Create an object that a receiver (`receivers`) saves again."""
    Ticket.objects.create(title=item["username"])
