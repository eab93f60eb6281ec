"""Which items are to blame for a refused flush: those that a loop would have refused."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import DatabaseError, transaction

import carpool
from tests.app.models import Account, Tag
from tests.snapshot import empty_tables

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


@dataclass
class Item:
    """Rows in two tables; each may be refused for another reason."""

    name: str
    email: str
    number: int
    balance: int = 0
    words: tuple[str, ...] = ()


def make(item: Item) -> None:
    for word in item.words:
        Tag.objects.create(word=word)
    Account.objects.create(
        name=item.name, email=item.email, number=item.number, balance=item.balance
    )


def loop(items: Sequence[Item]) -> set[int]:
    """Make the items one by one; return which were refused."""
    refused = set()
    for index, item in enumerate(items):
        try:
            with transaction.atomic():
                make(item)
        except DatabaseError:
            refused.add(index)
    return refused


def rows() -> tuple[list[Any], list[Any]]:
    """Return all rows, in the order of their keys."""
    accounts = Account.objects.order_by("pk").values_list("name", "email", "number")
    return list(accounts), list(Tag.objects.order_by("pk").values_list("word", flat=True))


def random_items(seed: int) -> list[Item]:
    """Return items of which a part clashes: few or most, in one way or in all."""
    chance = random.Random(seed)
    size = chance.choice([5, 30, 150])
    spread = chance.choice([size // 2 + 1, size, 10 * size, 100 * size])
    ways = chance.sample(["email", "number", "balance", "word", "case"], chance.choice([1, 2, 5]))

    def clashing(way: str, index: int) -> int:
        return chance.randrange(spread) if way in ways else index

    items = []
    for index in range(size):
        email = f"{clashing('email', index)}@example.org"
        if "case" in ways and chance.random() < 0.1:
            email = email.upper()  # equal to MariaDB's usual collation, and to no other
        items.append(
            Item(
                name=f"{index}",
                email=email,
                number=clashing("number", index),
                balance=-1 if "balance" in ways and chance.randrange(spread) < 5 else 0,
                words=tuple(
                    f"{clashing('word', 2 * index + n)}" for n in range(chance.choice([0, 0, 1, 2]))
                ),
            )
        )
    return items


def check(items: list[Item], there: Sequence[Item] = ()) -> carpool.Report:
    """A run refuses what a loop does; the same rows are there, in the same order of keys."""
    loop(there)
    refused = loop(items)
    expected = rows()

    empty_tables()
    loop(there)
    report = carpool.run(
        make, items, executor="inline", progress=False, chunk_size=max(1, len(items))
    )

    assert report.failed == len(refused)
    assert failed(report) == set(sorted(refused)[: len(report.failures)])  # it keeps the first
    assert rows() == expected
    assert report.repeated == 0
    return report


@pytest.mark.parametrize("told", [True, False], ids=["told which", "not told"])
@pytest.mark.parametrize("seed", range(20))
def test_those_that_a_loop_refuses(seed: int, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever clashes, and whether or not the database tells what."""
    if not told:
        monkeypatch.setattr("carpool.coalescing.flushing.Flusher.suspect", lambda *_: None)
    items = random_items(seed)
    check(items, random_items(seed + 1000)[: len(items) // 4])


def plain(count: int) -> list[Item]:
    return [Item(f"{n}", f"{n}@example.org", n, words=(f"{n}",)) for n in range(count)]


def failed(report: carpool.Report) -> set[int]:
    return {failure.index for failure in report.failures}


def test_what_only_a_refused_row_was_in_the_way_of_is_good() -> None:
    """An e-mail address is free again when the item that has it first turns out to be bad."""
    items = plain(60)
    for first, again in [(0, 1), (10, 11), (20, 21)]:
        items[again].email = items[first].email
    items[30].balance = -1
    items[40].email = items[50].email = items[30].email
    items[45].number = items[40].number  # it comes too late

    assert failed(check(items)) == {1, 11, 21, 30, 45, 50}


def test_what_one_is_in_the_way_of_that_is_set_aside_is_good() -> None:
    """Its word is one of two that an item has; the other is another's already."""
    items = plain(60)
    for first, again in [(0, 1), (10, 11), (20, 21)]:
        items[again].words = items[first].words
    items[30].words = ("30", "22")
    items[40].words = ("30",)
    items[45].number = items[40].number

    assert failed(check(items)) == {1, 11, 21, 30, 45}


@pytest.mark.parametrize(("one", "other"), [("words", "email"), ("email", "words")])
def test_what_one_is_in_the_way_of_that_is_set_aside_later_is_good(one: str, other: str) -> None:
    """It has the word of one that is refused for its e-mail address, or the other way round."""
    items = plain(60)

    def double(again: int, first: int, column: str) -> None:
        setattr(items[again], column, getattr(items[first], column))

    for first, again in [(0, 1), (10, 11), (20, 21)]:
        double(again, first, one)
    for first, again in [(2, 3), (12, 13), (22, 23), (40, 45)]:
        double(again, first, other)
    double(50, 45, one)
    double(55, 50, "number")

    assert failed(check(items)) == {1, 3, 11, 13, 21, 23, 45, 55}


def test_many_duplicates_cost_few_statements() -> None:
    """A row that is refused costs its own INSERT: what the others are is asked once."""
    there = [Item(f"{n}", f"{n}@example.org", -1 - n) for n in range(0, 1000, 100)]
    items = [Item(f"{n}", f"{n - n // 50 % 2 * (n % 50 == 7)}@example.org", n) for n in range(1000)]

    report = check(items, there)

    assert len(failed(report)) == 20
    assert report.coalesced is not None
    assert report.coalesced.sent <= 50


def test_who_may_insert_but_not_select(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the database will not tell is found out by trying."""
    asked = []

    def refused(self: Any, *args: Any) -> Any:
        asked.append(args)
        return self._unit.ask("SELECT secret FROM nowhere", [])

    monkeypatch.setattr("carpool.coalescing.isolating.Isolator._values_there", refused)
    items = plain(60)
    for first, again in [(0, 1), (10, 11), (20, 21), (30, 59)]:
        items[again].email = items[first].email

    assert failed(check(items)) == {1, 11, 21, 59}
    assert asked


def test_an_item_that_reads_while_others_wait() -> None:
    """Its own row is refused at a read, among others that are: all are told of."""
    items = plain(60)
    for first, again in [(0, 1), (10, 11), (20, 21), (30, 59)]:
        items[again].email = items[first].email

    been_through = []

    def function(item: Item) -> None:
        make(item)
        if item.name == "59":
            assert Account.objects.exists()
        been_through.append(item.name)

    report = carpool.run(function, items, executor="inline", progress=False, chunk_size=60)

    assert failed(report) == {1, 11, 21, 59}
    assert "59" not in been_through
    assert Account.objects.count() == 56
