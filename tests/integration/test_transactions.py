"""Transactions: when callbacks run, what is undone, who waits for whom, what is left open."""

from __future__ import annotations

import datetime
import threading
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.db.models.signals import post_save
from django.test import TestCase
from django.utils import timezone, translation

import carpool
from carpool import probe
from tests.app.functions import committing, crossing, finding, saving, waiting
from tests.app.models import Account, AuditLine, Author, SignalLog
from tests.integration.cases import all_items, recorded_run_named, start_afresh
from tests.snapshot import take_snapshot

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

Item = dict[str, Any]
INLINE = pytest.param({"executor": "inline"}, id="inline")
THREADS = pytest.param({"executor": "threads", "workers": 2}, id="threads")
PROCESSES = pytest.param({"executor": "processes", "workers": 2}, id="processes")
EXECUTORS = [INLINE, THREADS, PROCESSES]


def items_with(bad: dict[int, str], number: int) -> list[Item]:
    return [{"key": f"i{n:03}", "bad": bad.get(n)} for n in range(number)]


def names() -> list[str]:
    return sorted(Author.objects.values_list("name", flat=True))


# on_commit


@pytest.mark.parametrize("options", EXECUTORS)
def test_callbacks_run_once_and_after_the_commit(options: dict[str, Any]) -> None:
    """Each good item's callbacks run once, those of bad items and undone blocks never."""
    items = items_with({1: "raise", 4: "unique", 6: "foreign key"}, 9)

    report = carpool.run(
        committing.commit_within_savepoints, items, chunk_size=5, progress=False, **options
    )

    assert report.failed == 3
    good = [item["key"] for item in items if not item["bad"]]
    assert names() == sorted(f"{key} {text}" for key in good for text in ("first", "inner", "last"))


def test_callbacks_see_their_rows_committed() -> None:
    """When a callback runs, another connection sees the item's row: COMMIT has been."""
    seen: list[tuple[str, bool]] = []

    def write(key: str) -> None:
        author = Author.objects.create(name=key)
        transaction.on_commit(lambda: seen.append((key, is_committed(author.pk))))

    report = carpool.run(write, list("abc"), executor="inline", chunk_size=3, progress=False)

    assert report.succeeded == 3
    assert seen == [("a", True), ("b", True), ("c", True)]


def is_committed(key: int) -> bool:
    """Look at a row in a thread, which has a connection of its own."""
    found: list[bool] = []

    def look() -> None:
        try:
            found.append(Author.objects.filter(pk=key).exists())
        finally:
            connection.close()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found[0]


def test_callbacks_of_an_item_that_fails_without_a_statement_never_run() -> None:
    """A callback registered before an error never runs, also where there is nothing to undo."""
    ran: list[int] = []

    def register(n: int) -> None:
        transaction.on_commit(lambda: ran.append(n))
        if n % 2:
            raise ValueError(n)

    report = carpool.run(register, range(6), executor="inline", chunk_size=6, progress=False)

    assert report.failed == 3
    assert ran == [0, 2, 4]


def test_a_raising_callback_affects_its_item_alone() -> None:
    """The item of a callback that raises has failed, though stored; its neighbours succeed."""
    items = items_with({2: "on commit", 5: "on commit"}, 8)

    report = carpool.run(
        saving.create_account, items, executor="inline", chunk_size=8, progress=False
    )

    assert (report.succeeded, report.failed) == (6, 2)
    assert [(failure.index, failure.stage) for failure in report.failures] == [
        (2, "on_commit"),
        (5, "on_commit"),
    ]
    assert Account.objects.count() == 8


def test_callbacks_on_two_databases_each_run_once() -> None:
    """Callbacks on both aliases run after both commits; one that raises fails its item alone."""
    ran: list[str] = []

    def write(key: str) -> None:
        Author.objects.create(name=key)
        AuditLine.objects.create(name=key)
        transaction.on_commit(lambda: ran.append(f"{key} default"))
        transaction.on_commit(lambda: ran.append(f"{key} other"), using="other")
        if key == "b":
            transaction.on_commit(lambda: 1 / 0, using="other")

    report = carpool.run(
        write, list("abc"), executor="inline", using=["default", "other"], progress=False
    )

    assert [failure.item for failure in report.failures] == ["b"]
    assert names() == ["a", "b", "c"]
    assert AuditLine.objects.count() == 3
    assert sorted(set(ran)) == sorted(ran)
    assert {"a default", "a other", "c default", "c other", "b other"} <= set(ran)


# dry_run


@pytest.mark.parametrize("options", EXECUTORS)
def test_a_dry_run_leaves_nothing(options: dict[str, Any]) -> None:
    """A dry run counts as a run does, and leaves no row and runs no callback."""
    start_afresh()
    before = take_snapshot()
    items = all_items()
    bad = {n: item["bad"] for n, item in enumerate(items) if item.get("bad")}
    objecting = {n for n, item in enumerate(items) if item.get("objection")}

    report = carpool.run(
        recorded_run_named, items, chunk_size=40, dry_run=True, progress=False, **options
    )

    assert take_snapshot() == before
    assert not SignalLog.objects.exists()
    assert report.total == len(items) == report.succeeded + report.failed
    # What only COMMIT refuses, a dry run need not find.
    early = {n for n, kind in bad.items() if kind != "foreign key"} | objecting
    assert early <= {failure.index for failure in report.failures} <= bad.keys() | objecting


def write_in_both(name: str) -> None:
    assert AuditLine.objects.filter(name=name).count() == 0  # reading is no harm
    Author.objects.create(name=name)
    AuditLine.objects.create(name=name)


@pytest.mark.parametrize("options", EXECUTORS)
def test_a_dry_run_lets_nothing_be_written_that_it_would_not_undo(options: dict[str, Any]) -> None:
    """A write to a database that is not named fails its item, with the remedy."""
    report = carpool.run(write_in_both, ["a", "b"], dry_run=True, progress=False, **options)

    assert report.failed == 2
    for failure in report.failures:
        assert failure.error == "carpool.exceptions.ConfigurationError"
        assert "to the database 'other'" in failure.message and "--using other" in failure.message
    both = ["default", "other"]
    report = carpool.run(
        write_in_both, ["a", "b"], dry_run=True, using=both, progress=False, **options
    )

    assert report.succeeded == 2
    assert names() == []
    assert not AuditLine.objects.exists()


def test_a_dry_run_leaves_a_transaction_of_the_callers_to_the_caller() -> None:
    """What is written inside of it on another database is undone with it, or not, as ever."""
    with transaction.atomic(using="other"):
        report = carpool.run(write_in_both, ["a"], dry_run=True, progress=False)
        assert AuditLine.objects.count() == 1

    assert report.succeeded == 1
    assert names() == []


@pytest.mark.parametrize(
    ("sql", "is_read"),
    [
        ("SELECT 1", True),
        (" (select 1) union (select 2)", True),
        ("WITH a AS (SELECT 1) SELECT * FROM a", True),
        ("WITH a AS (DELETE FROM b RETURNING 1) SELECT * FROM a", False),
        ("SAVEPOINT s1", True),
        ("INSERT INTO a VALUES (1)", False),
        ("update a set b = 1", False),
        ("CREATE TABLE a (b int)", False),
        ("CALL change()", False),
    ],
)
def test_what_a_dry_run_takes_for_a_read(sql: str, is_read: bool) -> None:
    assert probe._is_read(sql) == is_read


def test_a_dry_run_fires_receivers() -> None:
    """Receivers fire in a dry run: what they do outside of the database is done."""
    seen: list[str] = []

    def see(sender: Any, instance: Author, **kwargs: Any) -> None:
        seen.append(instance.name)

    post_save.connect(see, sender=Author)
    try:
        carpool.run(write_author, list("abc"), executor="inline", dry_run=True, progress=False)
    finally:
        post_save.disconnect(see, sender=Author)

    assert seen == ["a", "b", "c"]
    assert names() == []


def write_author(name: str) -> None:
    Author.objects.create(name=name)


# Transactions that an item breaks


@pytest.mark.parametrize("options", [*EXECUTORS, {"executor": "inline", "coalesce": False}])
@pytest.mark.parametrize("kind", ["swallow", "swallow raw", "set rollback", "close"])
def test_an_item_that_breaks_the_transaction_costs_no_neighbour(
    kind: str, options: dict[str, Any]
) -> None:
    """Neighbours of an item that swallows an error without a savepoint are stored."""
    items = items_with({0: kind, 5: kind, 9: kind}, 10)

    report = carpool.run(saving.create_account, items, chunk_size=10, progress=False, **options)

    harmless = kind == "swallow raw" and connection.vendor != "postgresql"
    assert report.failed == (0 if harmless else 3)
    stored = Account.objects.filter(email__endswith="@example.org")
    assert stored.count() == (10 if harmless else 7)
    for failure in report.failures:
        if kind == "swallow" and options.get("coalesce", True):
            assert failure.error == "django.db.utils.IntegrityError"
            continue
        assert failure.error == "carpool.exceptions.TransactionBroken"
        assert "transaction" in failure.message


# Locks


@pytest.mark.parametrize("options", [THREADS, PROCESSES])
def test_many_writers_never_find_the_database_locked(options: dict[str, Any]) -> None:
    """Eight workers that read before they write, on default settings, all get their turn."""
    items = [{"key": f"i{n:03}"} for n in range(80)]

    report = carpool.run(
        waiting.read_then_write, items, chunk_size=2, progress=False, **options | {"workers": 8}
    )

    assert report.failures == ()
    assert report.succeeded == 80
    assert names() == [item["key"] for item in items]


def test_rows_can_be_locked() -> None:
    """`select_for_update` works in an item, as it runs in a transaction."""
    report = carpool.run(
        waiting.lock_rows, items_with({2: "raise"}, 5), executor="threads", progress=False
    )

    assert report.succeeded == 4
    assert Account.objects.count() == 4


# What workers inherit


@pytest.mark.parametrize(
    "options",
    [
        *EXECUTORS,
        pytest.param({"executor": "processes", "start_method": "fork", "workers": 1}, id="fork"),
        pytest.param({"executor": "processes", "start_method": "spawn", "workers": 1}, id="spawn"),
    ],
)
def test_language_and_time_zone_are_carried(options: dict[str, Any]) -> None:
    """Workers speak the language, and keep the time zone, of the one who called."""
    zone = timezone.get_fixed_timezone(datetime.timedelta(hours=5, minutes=30))
    with translation.override("de"), timezone.override(zone):
        here = waiting.surroundings(None)
        outcomes = list(carpool.stream(waiting.surroundings, range(4), progress=False, **options))

    assert here[0] == "de"
    assert here[2] == "Januar"
    assert here[3] == "2020-07-01T17:30:00+05:30"
    assert [outcome.value for outcome in outcomes] == [here] * 4


def test_no_language_is_carried_too() -> None:
    """With translations switched off in the parent they are off in the workers."""
    with translation.override(None):
        outcomes = list(
            carpool.stream(waiting.surroundings, [1], executor="threads", progress=False)
        )

    assert outcomes[0].value[0] == "None"


@pytest.mark.parametrize("options", EXECUTORS)
def test_workers_use_the_databases_of_the_test(options: dict[str, Any]) -> None:
    """Workers use the parent's databases as they are now, not those of the settings module."""
    here = [str(connections[alias].settings_dict["NAME"]) for alias in ("default", "other")]

    outcomes = list(carpool.stream(waiting.where, range(3), progress=False, **options))

    assert all("test" in name for name in here)
    assert [outcome.value for outcome in outcomes] == [here] * 3


# Within a transaction


@pytest.mark.parametrize("executor", ["auto", "inline"])
def test_inside_atomic_it_stays_inline(executor: Any) -> None:
    """Inside `atomic()` the caller itself works, and its rollback undoes it all."""
    items = items_with({2: "raise", 3: "unique"}, 6)
    with transaction.atomic():
        Author.objects.create(name="before")
        report = carpool.run(
            finding.get_or_create, items, executor=executor, chunk_size=4, progress=False
        )
        assert len(names()) == 5
        assert connection.in_atomic_block
        transaction.set_rollback(True)

    assert (report.succeeded, report.failed) == (4, 2)
    assert report.executor.startswith("inline") or report.workers == 1
    assert names() == []


def test_inside_atomic_callbacks_wait_for_the_outer_commit() -> None:
    """Callbacks of items run inside `atomic()` wait for its COMMIT; its rollback drops them."""
    ran: list[str] = []

    def write(key: str) -> None:
        transaction.on_commit(lambda: ran.append(key))
        if key == "b":
            raise ValueError(key)

    with transaction.atomic():
        report = carpool.run(write, list("abc"), progress=False)
        assert ran == []
    assert (report.succeeded, report.failed) == (2, 1)
    assert ran == ["a", "c"]

    with transaction.atomic():
        carpool.run(write, list("abc"), progress=False)
        transaction.set_rollback(True)
    assert ran == ["a", "c"]


@pytest.mark.parametrize("options", [THREADS, PROCESSES])
def test_a_pool_inside_atomic_is_refused(options: dict[str, Any]) -> None:
    """A pool inside `atomic()` could not see its rows: refused before the source is touched."""
    source = iter(range(3))
    with transaction.atomic(), pytest.raises(carpool.ConfigurationError, match="atomic"):
        carpool.run(print, source, progress=False, **options)

    assert next(source) == 0
    assert names() == []


def test_a_pool_inside_atomic_on_another_alias_is_refused_too() -> None:
    """An open transaction on the second alias of `using` counts as well."""
    both = ["default", "other"]
    with (
        transaction.atomic(using="other"),
        pytest.raises(carpool.ConfigurationError, match="atomic"),
    ):
        carpool.run(print, [1], executor="threads", using=both, progress=False)


class TestInsideTestCase(TestCase):
    """Django's own TestCase wraps each test in `atomic()`."""

    databases = {"default", "other"}

    def test_auto_runs_inline(self) -> None:
        """In a TestCase a run works without being told, isolation and all."""
        items = items_with({1: "raise", 2: "unique", 4: "swallow"}, 7)

        report = carpool.run(saving.create_account, items, progress=False)

        assert (report.succeeded, report.failed) == (4, 3)
        assert Account.objects.filter(email__endswith="@example.org").count() == 4

    def test_callbacks_can_be_captured(self) -> None:
        """`captureOnCommitCallbacks` finds the items' callbacks."""
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            carpool.run(committing.delete_on_commit, items_with({}, 3), progress=False)

        assert len(callbacks) == 3
        assert len(names()) == 3

    def test_a_dry_run_undoes_its_own_rows_only(self) -> None:
        """A dry run inside a transaction leaves what was there before it."""
        Author.objects.create(name="mine")

        report = carpool.run(write_author, list("abc"), dry_run=True, progress=False)

        assert report.succeeded == 3
        assert names() == ["mine"]


# Connections and aliases


@pytest.mark.parametrize(
    "options",
    [
        *EXECUTORS,
        pytest.param({"executor": "auto"}, id="auto"),
        pytest.param({"executor": "processes", "start_method": "fork", "workers": 2}, id="fork"),
    ],
)
@pytest.mark.usefixtures("no_connections_left")
def test_the_connection_works_after_a_run(options: dict[str, Any]) -> None:
    """After a run, bad items and all, the caller's connection works and is in autocommit."""
    Author.objects.create(name="before")
    items = items_with({1: "raise", 3: "unique", 4: "foreign key", 6: "swallow"}, 9)

    carpool.run(saving.create_account, items, chunk_size=4, progress=False, **options)

    assert not connection.in_atomic_block
    assert connection.get_autocommit()
    assert not connection.needs_rollback
    assert not connection.execute_wrappers
    assert connection.run_on_commit == []
    Author.objects.create(name="after")
    with transaction.atomic():
        Author.objects.create(name="undone")
        transaction.set_rollback(True)
    assert names() == ["after", "before"]


@pytest.mark.parametrize("using", [["default", "other"], ["other", "default"]], ids="-".join)
def test_a_row_refused_at_commit_costs_no_neighbour_on_two_aliases(using: list[str]) -> None:
    """An item whose row one database refuses at COMMIT fails alone, and neither database holds
    more of its neighbours than the other."""
    items = items_with({2: "foreign key", 6: "foreign key"}, 9)
    good = [item["key"] for item in items if not item["bad"]]

    report = carpool.run(
        crossing.write_to_both,
        items,
        using=using,
        executor="inline",
        chunk_size=9,
        progress=False,
    )

    assert [failure.index for failure in report.failures] == [2, 6]
    assert names() == good
    kept = sorted(AuditLine.objects.values_list("name", flat=True))
    assert [name for name in kept if name in good] == good


@pytest.mark.parametrize("options", EXECUTORS)
def test_using_covers_two_aliases(options: dict[str, Any]) -> None:
    """With two aliases both have a transaction, and a bad item leaves nothing in either."""
    assert [
        outcome.value
        for outcome in carpool.stream(
            waiting.is_atomic, [1], using=["default", "other"], progress=False, **options
        )
    ] == [[True, True]]

    items = items_with({1: "raise", 4: "unique", 5: "early raise"}, 8)
    report = carpool.run(
        crossing.write_to_both,
        items,
        using=["default", "other"],
        chunk_size=5,
        progress=False,
        **options,
    )

    assert report.failed == 3
    assert len(names()) == 5
    assert AuditLine.objects.count() == 5


def test_using_another_alias_alone() -> None:
    """A run on the other alias has its transaction there, and leaves the default alone."""
    assert [
        outcome.value
        for outcome in carpool.stream(
            waiting.is_atomic, [1], executor="inline", using="other", progress=False
        )
    ] == [[False, True]]

    items = items_with({1: "raise"}, 4)
    report = carpool.run(
        crossing.write_to_other, items, using="other", executor="inline", progress=False
    )

    assert report.failed == 1
    assert AuditLine.objects.count() == 3


@pytest.mark.parametrize("using", ["nowhere", ["default", "nowhere"], [], ""])
def test_an_alias_that_does_not_exist_is_refused(using: Any) -> None:
    """An alias that doesn't exist, or none at all, is refused before the source is touched."""
    if using == ["default"] * 2:
        try:
            assert carpool.run(write_author, list("ab"), using=using, progress=False).succeeded == 2
        except carpool.ConfigurationError:
            pass
        return
    source = iter(range(3))
    with pytest.raises(carpool.ConfigurationError, match=r"nowhere|alias|using"):
        carpool.run(print, source, using=using, progress=False)
    assert next(source) == 0


def test_nothing_is_left_of_a_source_that_writes() -> None:
    """A source that reads the database between chunks works on the caller's connection."""
    for n in range(5):
        Author.objects.create(name=f"source {n}")

    report = carpool.run(
        write_author,
        (f"copy of {author.name}" for author in Author.objects.order_by("pk").iterator()),
        executor="threads",
        workers=2,
        chunk_size=1,
        progress=False,
    )

    assert report.succeeded == 5
    assert Author.objects.count() == 10


def test_a_run_within_an_item() -> None:
    """An item may itself run carpool, which then stays inside the item's transaction."""

    def outer(n: int) -> int:
        report = carpool.run(write_author, [f"{n} {letter}" for letter in "ab"], progress=False)
        if n == 1:
            raise ValueError(n)
        return report.succeeded

    report = carpool.run(outer, range(3), executor="inline", chunk_size=3, progress=False)

    assert (report.succeeded, report.failed) == (2, 1)
    assert names() == ["0 a", "0 b", "2 a", "2 b"]


def test_autocommit_off_is_refused_or_right() -> None:
    """With autocommit switched off by the caller a run is refused, or leaves COMMIT to him."""
    transaction.set_autocommit(False)
    refusal = ""
    try:
        report = carpool.run(write_author, list("ab"), executor="inline", progress=False)
        assert report.succeeded == 2
        transaction.commit()
    except carpool.ConfigurationError as error:
        refusal = str(error)
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)

    assert "autocommit" in refusal or names() == ["a", "b"]
