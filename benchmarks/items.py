"""The functions that are run once an item: a user is created, after more or less setup."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TypedDict

from django.contrib.auth.models import User
from django.db.models import Model

CPU_SECONDS = 0.005
WAIT_SECONDS = 0.020


class Item(TypedDict):
    """What a user is made from. The name is the item's number: `counters` relies on it."""

    username: str
    email: str


def items(count: int) -> Iterator[Item]:
    """Yield `count` items, one at a time."""
    for number in range(count):
        yield {"username": f"{number}", "email": f"{number}@{number}.com"}


def no_setup() -> None:
    """Set nothing up."""


def all_rows(model: type[Model]) -> int:
    """Count a model's rows: those that a round wrote, if it began with none."""
    return model._base_manager.count()


def burn() -> None:
    """Keep a core busy for 5 ms of this thread's own CPU time, however many threads want it."""
    end = time.thread_time() + CPU_SECONDS
    while time.thread_time() < end:
        for _ in range(100):
            pass


def wait() -> None:
    """Wait for 20 ms, as for an answer from the network."""
    time.sleep(WAIT_SECONDS)


def create_user(item: Item) -> None:
    """Create a user, and nothing else."""
    User.objects.create(username=item["username"], email=item["email"])


def create_user_after_burn(item: Item) -> None:
    """Create a user after 5 ms of CPU."""
    burn()
    create_user(item)


def create_user_after_wait(item: Item) -> None:
    """Create a user after 20 ms of waiting."""
    wait()
    create_user(item)


def do_nothing(item: Item) -> None:
    """Do nothing, so that what is left is the cost of being called."""
