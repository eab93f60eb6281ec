"""Asking SQLite, before COMMIT, about foreign keys that it checks only then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import IntegrityError, connection, connections, transaction

from carpool import deferred
from carpool.attempt import Attempt
from carpool.deferred import NewRows, SetConstraints
from carpool.grouping import Grouping
from carpool.items import LocalItems
from carpool.observer import Observer
from carpool.tries import Work
from carpool.types import Ending, Job
from tests.app.models import Author, Book, Tag

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.only_on("sqlite")]

NOBODY = 999_999_999


@pytest.fixture
def check() -> Iterator[NewRows]:
    """A check in a transaction that is rolled back in the end."""
    check = NewRows(connections["default"], {})
    with transaction.atomic():
        with connection.execute_wrapper(check.watch):
            check.begin_group()
            yield check
        transaction.set_rollback(True)


def dangle() -> None:
    Book.objects.create(name="b", author_id=NOBODY)


def test_a_row_that_points_nowhere_is_found(check: NewRows) -> None:
    """The error is SQLite's own, in its own words."""
    dangle()
    with pytest.raises(IntegrityError, match="FOREIGN KEY constraint failed"):
        check.end_group()


def test_rows_that_point_somewhere_are_not(check: NewRows) -> None:
    """Parents of before, of this group, and of a row inserted later in it; and no parent at all."""
    parent = Author.objects.create(name="a")
    Book.objects.create(name="b", author=parent).tags.add(Tag.objects.create(word="t"))
    Book.objects.create(name="c", author_id=parent.pk + 1)
    Author.objects.create(pk=parent.pk + 1, name="later")
    check.end_group()


def test_rows_of_an_earlier_group_are_not_this_ones(check: NewRows) -> None:
    """A group that was undone, or passed, is not looked at again."""
    dangle()
    check.begin_group()
    Book.objects.create(name="c", author=Author.objects.create(name="a"))
    check.end_group()
    dangle()
    with pytest.raises(IntegrityError):
        check.end_group()


def test_a_group_that_inserts_nothing_costs_no_query(
    check: NewRows, django_assert_num_queries: Callable[[int], Any]
) -> None:
    """Only the tables that rows were inserted into are asked about."""
    with django_assert_num_queries(0):
        check.begin_group()
        check.end_group()


LATER = "DEFERRABLE INITIALLY DEFERRED"
ODD_TABLES = {
    "no rowid": ("plain", "(id TEXT PRIMARY KEY) WITHOUT ROWID", "'x'"),
    "a percent sign": (
        "100% plain",
        "(id INTEGER PRIMARY KEY, a REFERENCES app_author)",
        "7, NULL",
    ),
    "its key is not named": (
        "pointing",
        f"(id INTEGER PRIMARY KEY, a REFERENCES app_author {LATER})",
        "7, 1",
    ),
    "keys of two columns": (
        "double",
        "(row TEXT, number INT, FOREIGN KEY (row, number) REFERENCES app_seat (row, number))",
        "NULL, 1",
    ),
}


@pytest.mark.parametrize(("name", "columns", "values"), ODD_TABLES.values(), ids=ODD_TABLES)
def test_tables_that_cannot_be_checked_are_left_to_commit(
    check: NewRows, name: str, columns: str, values: str
) -> None:
    """A check that can't be made finds nothing, and blames nobody."""
    with connection.cursor() as cursor:
        cursor.execute(f'CREATE TABLE "{name}" {columns}')
        cursor.execute(f'INSERT INTO "{name}" VALUES ({values})')
    check.end_group()
    with connection.cursor() as cursor:
        cursor.execute(f'DROP TABLE "{name}"')


def test_a_dangling_key_is_found_whatever_the_names(check: NewRows) -> None:
    """A percent sign in the names of tables and columns is no placeholder."""
    with connection.cursor() as cursor:
        cursor.execute('CREATE TABLE "100% parent" ("50%" INTEGER PRIMARY KEY)')
        cursor.execute(
            f'CREATE TABLE "100% child" ("%s" INT REFERENCES "100% parent" ("50%") {LATER})'
        )
        cursor.execute('INSERT INTO "100% child" VALUES (1)')
    with pytest.raises(IntegrityError):
        check.end_group()
    with connection.cursor() as cursor:
        cursor.execute('INSERT INTO "100% parent" VALUES (1)')
    check.end_group()


def test_an_error_of_the_check_itself_blames_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a violation is an item's fault; a check that breaks ends the run, and says so."""

    def broken(check: NewRows) -> None:
        raise ValueError("a bug of the check's")

    monkeypatch.setattr(NewRows, "end_group", broken)
    grouping = Grouping()
    grouping.commit_refused(can_check=True)
    job = Job(lambda item: None, None, None, ("default",), 0, False, False)
    items = LocalItems("ab", [b"", b""])
    result = Attempt(Work(job, range(2), items, Observer(), grouping), 1).run()
    assert result.ending is Ending.UNAVAILABLE
    assert result.fault is not None
    assert result.fault.message == "a bug of the check's"
    assert result.faults == {}


def test_the_check_is_chosen_by_what_the_database_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """SET CONSTRAINTS where there is one, SQLite's way where constraints are put off, or none."""
    wrapper = connections["default"]
    assert deferred.can_check(wrapper)
    assert isinstance(deferred.check_for(wrapper, {}), NewRows)
    monkeypatch.setattr(wrapper.features, "supports_deferrable_unique_constraints", True)
    assert isinstance(deferred.check_for(wrapper, {}), SetConstraints)
    monkeypatch.setattr(wrapper.features, "can_defer_constraint_checks", False)
    assert not deferred.can_check(wrapper)
