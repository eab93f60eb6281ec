"""Generated programs do under `coalesce()` what they do without it.

Each is run twice in empty tables, and the two logs, the objects and the tables are compared; see
`comparison` for what may differ. ``CARPOOL_TEST_PROGRAMS`` asks for another number of programs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import DatabaseError, connection, connections, models, transaction
from hypothesis import HealthCheck, Phase, find, given, settings
from pytest_django.plugin import DjangoDbBlocker

import carpool
from tests.app.models import Country
from tests.coalesce.comparison import Difference, compare
from tests.coalesce.language import Program
from tests.coalesce.machine import Outcome, Unit, run
from tests.coalesce.strategies import programs
from tests.snapshot import ALIASES, empty_tables

#: The programs of one test within a transaction; there are fewer of those that commit.
MANY = int(os.environ.get("CARPOOL_TEST_PROGRAMS", "500"))

# Shrinking takes its time.
pytestmark = pytest.mark.timeout(900)


def profile(examples: int) -> settings:
    """The same programs on every run where there is a CI, new ones elsewhere."""
    in_ci = bool(os.environ.get("CI"))
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=in_ci,
        database=None,
        print_blob=not in_ci,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(autouse=True, scope="module")
def emptied_databases(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Allow the databases to the whole module, as hypothesis runs a test many times."""
    with django_db_blocker.unblock():
        ContentType.objects.clear_cache()
        empty_tables()
        yield
        empty_tables()


class Undo(Exception):
    """Ends what must not be kept."""


def within_a_transaction(program: Program, unit: Unit) -> Outcome:
    """Run a program where it can be undone at once: the unit is a savepoint."""
    outcome: Outcome | None = None
    try:
        with transaction.atomic(using="other"), transaction.atomic():
            outcome = run(program, unit)
            check_deferred(outcome)
            raise Undo
    except Undo:
        pass
    assert outcome is not None
    return outcome


def check_deferred(outcome: Outcome) -> None:
    """Ask for what a COMMIT would have checked."""
    try:
        connection.check_constraints()
    except DatabaseError as error:
        outcome.root.entries.append(("at the commit", type(error).__name__))


def with_a_commit(program: Program, unit: Unit) -> Outcome:
    """Run a program at the top level: what it wrote is committed, then deleted."""
    empty_tables()
    return run(program, unit)


@contextmanager
def plain(using: tuple[str, ...]) -> Iterator[None]:
    """Open the transactions that `coalesce` opens, and nothing else."""
    with ExitStack() as stack:
        for alias in using:
            stack.enter_context(transaction.atomic(alias))
        yield


def differs(
    program: Program, unit: Unit, way: Callable[[Program, Unit], Outcome] = within_a_transaction
) -> Difference | None:
    """Run a program without a unit of work and with one."""
    expected = way(program, plain)
    actual = way(program, unit)
    assert not any(connections[alias].in_atomic_block for alias in ALIASES)
    try:
        compare(expected, actual)
    except Difference as difference:
        return difference
    return None


def assert_same(program: Program, way: Callable[[Program, Unit], Outcome]) -> None:
    if (difference := differs(program, carpool.coalesce, way)) is not None:
        raise difference


@profile(MANY)
@given(programs())
def test_a_program_does_the_same_within_a_transaction(program: Program) -> None:
    """Coalesced in a savepoint, a program leaves what it leaves without."""
    assert_same(program, within_a_transaction)


@profile(MANY // 4)
@given(programs())
def test_a_program_does_the_same_with_a_commit(program: Program) -> None:
    """Coalesced at the top level, a program commits what it commits without."""
    assert_same(program, with_a_commit)


# --- that the comparison would see it


@contextmanager
def forgetting_to_flush(using: tuple[str, ...]) -> Iterator[None]:
    """Hold the rows of `Country` back till the end, whatever asks for them."""
    held: list[tuple[Any, ...]] = []
    insert = models.Model._do_insert

    def hold(self: models.Model, *arguments: Any) -> list[Any]:
        if isinstance(self, Country):
            held.append((self, *arguments))
            return []
        return insert(self, *arguments)

    with plain(using):
        with mock.patch.object(models.Model, "_do_insert", hold):
            yield
        for one, *arguments in held:
            insert(one, *arguments)


@contextmanager
def saving_twice(using: tuple[str, ...]) -> Iterator[None]:
    """Send every signal of `Country` that an UPDATE sends after the INSERT."""
    save = models.Model.save_base

    def twice(self: models.Model, *arguments: Any, **options: Any) -> None:
        save(self, *arguments, **options)
        if isinstance(self, Country):
            save(self)

    with plain(using), mock.patch.object(models.Model, "save_base", twice):
        yield


@contextmanager
def losing_the_last(using: tuple[str, ...]) -> Iterator[None]:
    """Lose one row."""
    with plain(using):
        yield
        last = Country.objects.order_by("pk").last()
        if last is not None:
            Country.objects.filter(pk=last.pk).delete()


@pytest.mark.parametrize("unit", [forgetting_to_flush, saving_twice, losing_the_last])
def test_the_comparison_sees_a_wrong_unit(unit: Unit) -> None:
    """Programs are found that tell a wrong unit of work from a right one, and they are short."""
    program = find(
        programs(),
        lambda program: differs(program, unit) is not None,
        settings=settings(profile(2000), derandomize=True, phases=[Phase.generate, Phase.shrink]),
    )

    assert len(program.lines) <= 3, program
