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
from django.db import DatabaseError, Error, connections, models, transaction
from hypothesis import HealthCheck, Phase, find, given, settings

from carpool.coalescing import EarlyFlush, Figures, Unit, barrier, coalesce
from carpool.coalescing.queue import Queue
from carpool.coalescing.transaction import Transaction
from tests.app.models import Tag
from tests.coalesce.comparison import Difference, compare
from tests.coalesce.language import Program, check_constraints, read
from tests.coalesce.machine import Opener, Outcome, run
from tests.coalesce.strategies import programs
from tests.snapshot import ALIASES, empty_tables

#: The programs of one test within a transaction; there are fewer of those that commit.
MANY = int(os.environ.get("CARPOOL_TEST_PROGRAMS", "400"))

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.timeout(900),  # shrinking takes its time
]


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


@pytest.fixture(autouse=True)
def emptied_databases(transactional_db: None) -> None:
    """Begin with empty tables: other tests may have left their rows to the next."""
    empty_tables()


class Undo(Exception):
    """Ends what must not be kept."""


def within_a_transaction(program: Program, unit: Opener) -> Outcome:
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
    """Ask for what a COMMIT would have checked, where it checks anything."""
    if not connections["default"].features.can_defer_constraint_checks:
        return
    try:
        check_constraints()
    except DatabaseError as error:
        outcome.root.entries.append(("at the commit", type(error).__name__))


def with_a_commit(program: Program, unit: Opener) -> Outcome:
    """Run a program at the top level: what it wrote is committed, then deleted."""
    empty_tables()
    return run(program, unit)


def is_in_transaction(alias: str) -> bool:
    """Ask Django, and the driver where it knows."""
    driver: Any = connections[alias].connection
    return connections[alias].in_atomic_block or bool(getattr(driver, "in_transaction", False))


def connect_anew() -> None:
    """Leave nothing of a program that went wrong to the next one."""
    for alias in ALIASES:
        if is_in_transaction(alias):
            driver: Any = connections[alias].connection
            driver.close()
            connections[alias].connect()


@contextmanager
def plain(using: tuple[str, ...]) -> Iterator[None]:
    """Open the transactions that `coalesce` opens, and nothing else."""
    with ExitStack() as stack:
        for alias in using:
            stack.enter_context(transaction.atomic(alias))
        yield


def differs(
    program: Program, unit: Opener, way: Callable[[Program, Opener], Outcome] = within_a_transaction
) -> Difference | None:
    """Run a program without a unit of work and with one."""
    try:
        expected = way(program, plain)
        actual = way(program, unit)
        left = [alias for alias in ALIASES if is_in_transaction(alias)]
        assert not left, f"left in a transaction: {left}"
    finally:
        connect_anew()
    try:
        compare(expected, actual)
    except Difference as difference:
        return difference
    return None


def assert_same(program: Program, way: Callable[[Program, Opener], Outcome]) -> None:
    if (difference := differs(program, coalesce, way)) is not None:
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


#: Programs that once differed, by what was wrong.
FOUND = {
    "an error raised on entering a savepoint is swallowed with the savepoint's own": """
Program((
    Create(tag1, 'Tag', {'word': 'x'}),
    Create(tag2, 'Tag', {'word': 'x'}),
    Atomic((
        Create(country1, 'Country', {'code': 'b'}),
    )),
))""",
    "likewise within a savepoint": """
Program((
    Atomic((
        Create(tag1, 'Tag', {'word': 'x'}),
        Create(tag2, 'Tag', {'word': 'x'}),
        Atomic((
            Create(country1, 'Country', {'code': 'b'}),
        )),
    )),
))""",
    "the savepoint whose rows were refused is left by an error of its own": """
Program((
    Create(author1, 'Author', {'name': 'a'}),
    Atomic((
        Create(profile1, 'Profile', {'author': author1}),
        Atomic((
            Save(profile1),
        )),
    ), ending='raise'),
))""",
    "a queued duplicate is changed before the database sees it": """
Program((
    Create(tag1, 'Tag', {'word': 'x'}),
    Create(tag2, 'Tag', {'word': 'x'}),
    Save(tag2, values={'word': 'y'}),
))""",
    "a queued row against a check is changed before the database sees it": """
Program((
    Create(account1, 'Account', {'name': 'b', 'email': 'x', 'number': 1, 'balance': -1}),
    Save(account1, values={'balance': 1}),
))""",
    "the figures of an inner block equal the outer one's": """
Program((
    Atomic((
        Create(tag1, 'Tag', {'word': 'w1'}),
    ), how='coalesce'),
    Create(tag2, 'Tag', {'word': 'w2'}),
))""",
    "what on_commit() writes is queued for nobody": """
Program((
    OnCommit((
        Create(author1, 'Author', {'name': 'b'}),
    )),
))""",
    "a key is reserved while a row without one is queued": """
Program((
    BulkCreate((vehicle1,), 'Vehicle', ({'plate': 'a'},), ignore_conflicts=True),
    Create(vehicle2, 'Vehicle', {'plate': 'b'}),
    Create(vehicle3, 'Vehicle', {'plate': 'c'}),
))""",
    "an error that a savepoint of one's own has undone is raised again at the end": """
Program((
    Create(country1, 'Country', {'code': 'b'}),
    Atomic((
        Create(country2, 'Country', {'code': 'b'}),
        Atomic((
        )),
    ), how='savepoint', ending='rollback'),
))""",
    "a row with a late key is inserted once more": """
Program((
    Create(order1, 'Order', {'name': 'a'}),
    Save(order1, force_insert=True),
))""",
    "a key is asked for after a flush was refused": """
Program((
    Create(author1, 'Author', {'name': 'a'}),
    Create(profile1, 'Profile', {'bio': 'A', 'author': author1}),
    Atomic((
    )),
    Create(quoted1, 'Quoted', {'name': 'A'}),
))""",
    "what an outer block has queued is dropped with an inner coalesce()": """
Program((
    Create(priced1, 'Priced', {'name': 'a'}),
    UpdateOrCreate(priced2, 'Priced', {'name': 'a'}, defaults={'label': 'A'}),
    Atomic((
    ), how='coalesce', ending='raise'),
))""",
    "what an outer block has queued is dropped with an inner coalesce() that is marked": """
Program((
    Create(p2, 'Person', {'name': 'b'}),
    Query('Person', 'list'),
    Save(p2, values={'name': 'a'}),
    Atomic((
        Save(p2, values={'name': 'b'}),
    )),
    Atomic((
    ), how='coalesce', ending='rollback'),
))""",
    "an object whose key was changed is said to be updated": """
Program((
    Create(country1, 'Country', {'code': 'w1'}),
    Save(country1, values={'code': 'w2'}),
))""",
}


@pytest.mark.parametrize("way", [within_a_transaction, with_a_commit], ids=lambda way: way.__name__)
@pytest.mark.parametrize("script", FOUND.values(), ids=list(FOUND))
def test_a_program_that_once_differed(
    script: str, way: Callable[[Program, Opener], Outcome]
) -> None:
    """What hypothesis has found stays mended."""
    assert_same(read(script), way)


@settings(profile(100), derandomize=True)
@given(programs())
def test_a_program_can_be_read_from_what_is_printed(program: Program) -> None:
    """A program's repr is that program, so that a failing example can be kept."""
    assert read(repr(program)) == program


# --- that the comparison would see it


@contextmanager
def saving_twice(using: tuple[str, ...]) -> Iterator[None]:
    """Save every `Tag` once more."""
    save = models.Model.save_base

    def twice(self: models.Model, *arguments: Any, **options: Any) -> None:
        save(self, *arguments, **options)
        if isinstance(self, Tag):
            save(self)

    with plain(using), mock.patch.object(models.Model, "save_base", twice):
        yield


@contextmanager
def losing_the_last(using: tuple[str, ...]) -> Iterator[None]:
    """Lose one row."""
    with plain(using):
        yield
        last = Tag.objects.order_by("pk").last()
        if last is not None:
            Tag.objects.filter(pk=last.pk).delete()


@contextmanager
def with_a_hole_in_the_barrier(using: tuple[str, ...]) -> Iterator[None]:
    """Let every query of the ORM pass, whatever is queued."""
    with mock.patch.object(barrier, "touched", return_value=None), coalesce(using):
        yield


@contextmanager
def with_errors_in_the_wrong_savepoint(using: tuple[str, ...]) -> Iterator[None]:
    """Don't write the queue when a savepoint is made or released."""
    flush = Unit.flush

    def late(self: Unit, early: EarlyFlush | None, **options: Any) -> None:
        if early is None or early.table != "a savepoint":
            flush(self, early, **options)

    with mock.patch.object(Unit, "flush", late), coalesce(using):
        yield


@contextmanager
def keeping_what_is_undone(using: tuple[str, ...]) -> Iterator[None]:
    """Don't drop the queue when a savepoint is undone."""
    undo = Transaction._roll_back_to

    def keep(self: Transaction, sid: str) -> None:
        with mock.patch.object(Queue, "drop", return_value=set()):
            undo(self, sid)

    with mock.patch.object(Transaction, "_roll_back_to", keep), coalesce(using):
        yield


WRONG = [
    saving_twice,
    losing_the_last,
    with_a_hole_in_the_barrier,
    with_errors_in_the_wrong_savepoint,
    keeping_what_is_undone,
]


def goes_wrong(program: Program, unit: Opener) -> bool:
    """Tell whether a unit differs, or leaves the connection in a state that can't be looked at."""
    try:
        return differs(program, unit) is not None
    except Error:
        return True


@pytest.mark.parametrize("unit", WRONG, ids=lambda unit: unit.__name__)
def test_the_comparison_sees_a_wrong_unit(unit: Opener) -> None:
    """Programs are found that tell a wrong unit of work from a right one, and they are short."""
    program = find(
        programs(),
        lambda program: goes_wrong(program, unit) and not goes_wrong(program, coalesce),
        settings=settings(profile(2000), derandomize=True, phases=[Phase.generate, Phase.shrink]),
    )

    assert len(program.lines) <= 6, program


def test_the_programs_give_the_unit_something_to_do() -> None:
    """Writes are queued, and what must write the queue early does."""
    total = Figures()

    @contextmanager
    def counted(using: tuple[str, ...]) -> Iterator[None]:
        with coalesce(using) as figures:
            yield
        total.add(figures)

    @settings(profile(100), derandomize=True)
    @given(programs())
    def run_all(program: Program) -> None:
        within_a_transaction(program, counted)

    run_all()

    assert total.queued > 200
    assert len({early.table for early in total.early}) > 5
