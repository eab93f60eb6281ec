"""What an item does on its chunk's connections, seen as it happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, connections, transaction

from carpool.exceptions import TransactionBroken
from carpool.probe import Probe
from tests.app.models import Author
from tests.unit.driver_errors import busy, deadlock, lost, rolled_back

pytestmark = pytest.mark.django_db


@pytest.fixture
def probe() -> Iterator[Probe]:
    probe = Probe()
    with probe.watch(connections["default"]):
        yield probe


def test_every_way_to_the_database_counts(probe: Probe) -> None:
    """The ORM, a cursor, a savepoint, and what the driver's own cursor does unseen."""
    counts = [probe.statements]

    def note() -> None:
        counts.append(probe.statements)

    Author.objects.count()
    note()
    with transaction.atomic():
        pass
    note()
    with connection.cursor() as cursor:
        cursor.cursor.execute("SELECT 1")
    note()
    list(Author.objects.iterator())
    note()
    assert counts == sorted(set(counts)), "something was not seen"


def test_a_cursor_of_before_counts_when_it_is_used() -> None:
    """A function may keep one from item to item."""
    probe = Probe()
    with connection.cursor() as cursor, probe.watch(connections["default"]):
        assert probe.statements == 0
        cursor.execute("SELECT 1")
    assert probe.statements == 1


def test_what_touches_no_database_does_not_count(probe: Probe) -> None:
    """Making an object, or a queryset, sends nothing."""
    Author(name="a")
    Author.objects.filter(name="a")
    assert probe.statements == 0


ENDING = [
    "COMMIT",
    " commit ",
    "COMMIT;",
    "END",
    "begin immediate",
    "START  TRANSACTION",
    "ROLLBACK",
    "rollback work",
]
HARMLESS = [
    "ROLLBACK TO SAVEPOINT s",
    "ROLLBACK TO s",
    "rollback work to s",
    "SAVEPOINT s",
    "RELEASE SAVEPOINT s",
    "SELECT 'COMMIT'",
    "INSERT INTO commits VALUES (1)",
    "COMMITTED",
    "ENDPOINT",
]
DDL = ["CREATE TABLE t (n INT)", "alter table t add m int", "DROP TABLE t", "TRUNCATE t"]
TEMPORARY = ["CREATE TEMPORARY TABLE t (n INT)", "DROP TEMPORARY TABLE t"]


@contextmanager
def ddl_can_be_rolled_back(can: bool) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections["default"].features, "can_rollback_ddl", can)
        yield


def send(sql: Any) -> list[Any]:
    """Send a statement through a probe, and give what would reach the database."""
    sent: list[Any] = []
    probe = Probe()
    context = {"connection": connections["default"]}
    probe(lambda sql, *rest: sent.append(sql), sql, None, False, context)
    return sent


@pytest.mark.parametrize("sql", ENDING)
def test_a_statement_that_ends_the_transaction_is_not_executed(sql: str) -> None:
    """It would commit the items before it, half a chunk, behind carpool's back."""
    with pytest.raises(TransactionBroken, match="would end the chunk's transaction"):
        send(sql)


@pytest.mark.parametrize("sql", HARMLESS)
def test_statements_that_only_look_like_it_are(sql: str) -> None:
    """Savepoints are the function's own affair, and words in data are only words."""
    assert send(sql) == [sql]


@pytest.mark.parametrize("sql", DDL)
def test_ddl_is_refused_only_where_it_cannot_be_rolled_back(sql: str) -> None:
    """MySQL and MariaDB commit before it; PostgreSQL and SQLite don't."""
    with ddl_can_be_rolled_back(True):
        assert send(sql) == [sql]
    with ddl_can_be_rolled_back(False), pytest.raises(TransactionBroken):
        send(sql)


@pytest.mark.parametrize("sql", TEMPORARY)
def test_temporary_tables_are_no_ones_business(sql: str) -> None:
    """They commit nothing."""
    with ddl_can_be_rolled_back(False):
        assert send(sql) == [sql]


class Composed:
    """A statement as psycopg.sql composes it: no string."""


@pytest.mark.parametrize("sql", [b"SELECT 1", Composed()], ids=["bytes", "composed"])
def test_statements_that_are_no_text_are_passed_on(sql: Any) -> None:
    """psycopg takes bytes, and objects of psycopg.sql."""
    assert send(sql) == [sql]


@pytest.mark.parametrize(
    ("error", "undone"), [(busy, False), (deadlock, False), (rolled_back, True), (lost, True)]
)
def test_trouble_that_has_undone_the_transaction_is_remembered(error: Any, undone: bool) -> None:
    """The function may catch the error; the rows are gone all the same."""
    probe = Probe()
    raised = error()

    def execute(*args: Any) -> Any:
        raise raised

    with pytest.raises(type(raised)):
        probe(execute, "SELECT 1", None, False, {"connection": connections["default"]})
    assert (probe.undone is raised) == undone


def test_probes_may_be_nested_and_leave_nothing() -> None:
    """A run inside a function of another run sees its own, and takes away only that."""
    outer, inner = Probe(), Probe()
    wrapper = connections["default"]
    before = dict(vars(wrapper))
    with outer.watch(wrapper):
        with inner.watch(wrapper):
            Author.objects.count()
        seen = inner.statements
        Author.objects.count()
    Author.objects.count()
    assert 0 < seen == inner.statements < outer.statements
    assert vars(wrapper).keys() == before.keys()
    assert wrapper.execute_wrappers == []
