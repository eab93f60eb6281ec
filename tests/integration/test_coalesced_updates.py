"""What `run()` makes of queued changes whose rows are gone or refused."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connections
from django.db.models.signals import post_save
from django.utils import timezone

import carpool
from tests.app.models import Account, Stamped, Tag

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

CALLS: list[int] = []
SIGNALS: list[tuple[int, bool]] = []


def note(sender: Any, instance: Stamped, created: bool, **kwargs: Any) -> None:
    SIGNALS.append((instance.pk, created))


@pytest.fixture(autouse=True)
def _notes() -> Iterator[None]:
    CALLS.clear()
    SIGNALS.clear()
    post_save.connect(note, sender=Stamped)
    yield
    post_save.disconnect(note, sender=Stamped)


def run(function: Any, items: Any, **options: Any) -> carpool.Report:
    return carpool.run(function, items, **{"executor": "inline", "progress": False, **options})


def rows(number: int, *missing: int) -> list[Stamped]:
    """Load rows, some of which somebody else deletes."""
    past = timezone.now() - datetime.timedelta(days=9)
    Stamped.objects.bulk_create(Stamped(name=f"s{n:02}") for n in range(number))
    Stamped.objects.update(created_at=past, amount=0)
    loaded = list(Stamped.objects.order_by("name"))
    Stamped.objects.filter(pk__in=[loaded[n].pk for n in missing]).delete()
    return loaded


@pytest.mark.parametrize("missing", [(5,), (0, 19), (3, 4, 5, 16), tuple(range(20))])
@pytest.mark.parametrize("how", [{"update_fields": ["amount"]}, {"force_update": True}])
def test_an_item_whose_row_is_gone_fails_alone(
    how: dict[str, Any], missing: tuple[int, ...]
) -> None:
    """What Django says of it is the item's error; nobody is called again."""
    loaded = rows(20, *missing)

    def change(number: int) -> None:
        CALLS.append(number)
        loaded[number].amount = 5
        loaded[number].save(**how)

    report = run(change, range(20), chunk_size=20)

    assert [f.index for f in report.failures] == list(missing)
    for failure in report.failures:
        assert failure.error in (
            "django.db.utils.DatabaseError",
            "tests.app.models.times.Stamped.NotUpdated",
        )
        assert "did not affect any rows" in failure.message
    assert list(range(20)) == CALLS
    assert report.repeated == 0
    assert Stamped.objects.filter(amount=5).count() == 20 - len(missing)


@pytest.mark.parametrize("missing", [(5,), (0, 19), (3, 4, 5, 16)])
def test_an_item_whose_row_is_gone_makes_it_anew(missing: tuple[int, ...]) -> None:
    """It is run again by itself, and its last signal says that the row is new."""
    loaded = rows(20, *missing)
    before = timezone.now()

    def change(number: int) -> None:
        CALLS.append(number)
        loaded[number].amount = 5
        loaded[number].save()

    report = run(change, range(20), chunk_size=20)

    report.raise_for_failures()
    assert report.succeeded == 20
    assert sorted(CALLS) == sorted([*range(20), *missing])
    assert report.repeated == len(missing)
    last = dict(SIGNALS)
    for number, stamped in enumerate(loaded):
        assert last[stamped.pk] == (number in missing)
        found = Stamped.objects.get(pk=stamped.pk)
        assert found.amount == 5
        assert (found.created_at >= before) == (number in missing)


def test_rows_of_an_item_that_has_more_to_do() -> None:
    """What it made beside the change is made once."""
    loaded = rows(10, 4)

    def change(number: int) -> None:
        Tag.objects.create(word=f"before {number}")
        loaded[number].amount = 5
        loaded[number].save()
        Tag.objects.create(word=f"after {number}")

    report = run(change, range(10), chunk_size=10)

    report.raise_for_failures()
    assert report.repeated == 1
    assert Stamped.objects.filter(amount=5).count() == 10
    assert Tag.objects.count() == 20


def test_refused_changes_are_found_among_the_others() -> None:
    """A taken e-mail and a negative balance fail alone; no function is called again."""
    Account.objects.bulk_create(Account(name=f"n{n}", email=f"e{n}", number=n) for n in range(50))
    loaded = list(Account.objects.order_by("number"))

    def change(number: int) -> None:
        CALLS.append(number)
        account = loaded[number]
        account.email = "e20" if number == 7 else f"new{number}"
        account.balance = -1 if number == 30 else 1
        account.save()

    report = run(change, range(50), chunk_size=50)

    assert {f.index for f in report.failures} == {7, 30}
    assert {f.error for f in report.failures} <= {
        "django.db.utils.IntegrityError",
        "django.db.utils.OperationalError",  # MariaDB's for a check
    }
    assert list(range(50)) == CALLS
    assert Account.objects.filter(balance=1).count() == 48
    assert Account.objects.get(number=7).email == "e7"
    assert Account.objects.get(number=30).email == "e30"


def test_an_item_that_raises_takes_its_changes_back() -> None:
    """They are dropped from the queue; those of others stay."""
    loaded = rows(10)

    def change(number: int) -> None:
        loaded[number].amount = 5
        loaded[number].save()
        if number == 4:
            raise ValueError(number)

    report = run(change, range(10), chunk_size=10)

    assert [f.index for f in report.failures] == [4]
    assert report.repeated == 0
    assert Stamped.objects.filter(amount=5).count() == 9


def test_items_that_change_one_row_fail_one_by_one() -> None:
    """The second of three raises: the first's change and the third's are kept, in turn."""
    rows(1)

    def change(number: int) -> None:
        stamped = Stamped.objects.get()
        stamped.amount += 1
        stamped.save()
        if number == 1:
            raise ValueError(number)

    report = run(change, range(3), chunk_size=3)

    assert [f.index for f in report.failures] == [1]
    assert Stamped.objects.get().amount == 2


def test_items_that_share_an_object() -> None:
    """One that raises leaves what the others have given to the row."""
    (shared,) = rows(1)

    def change(number: int) -> None:
        shared.amount = 10 + number
        shared.save(update_fields=["amount"])
        if number == 2:
            raise ValueError(number)

    report = run(change, range(3), chunk_size=3)

    assert [f.index for f in report.failures] == [2]
    assert Stamped.objects.get().amount == 11


def change_stamped(stamped: Stamped) -> None:
    stamped.amount += 5
    stamped.save()


@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
def test_a_run_over_a_queryset(executor: str) -> None:
    """Its objects are saved by few statements, each row once."""
    rows(200)
    report = run(change_stamped, Stamped.objects.all(), executor=executor, chunk_size=50)
    report.raise_for_failures()
    assert report.coalesced is not None
    assert report.coalesced.queued == 200
    assert report.coalesced.sent <= 4 * 3
    assert Stamped.objects.filter(amount=5).count() == 200


def test_a_dry_run_leaves_nothing() -> None:
    """And tells which rows are gone."""
    loaded = rows(5, 2)

    def change(number: int) -> None:
        loaded[number].amount = 5
        loaded[number].save(update_fields=["amount"])

    report = run(change, range(5), chunk_size=5, dry_run=True)
    assert [f.index for f in report.failures] == [2]
    assert not Stamped.objects.filter(amount=5).exists()
    assert not connections["default"].in_atomic_block
