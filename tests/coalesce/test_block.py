"""What `coalesce()` promises of the block: statements, keys, errors, hooks, figures."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session
from django.core import serializers
from django.db import DatabaseError, IntegrityError, connection, connections, models, transaction
from django.db.models import Count, F
from django.db.models.signals import m2m_changed
from django.utils import timezone

import carpool
from carpool.coalescing import Unit, unit_of
from tests.app.models import Account, Author, Book, SignalLog, Tag
from tests.coalesce.sent import statements

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.usefixtures("nobody_reads_an_authors_key"),
]


def users(number: int) -> None:
    for n in range(number):
        User.objects.create(username=f"u{n}", email=f"{n}@example.org")


# Statements.


@pytest.mark.first_rows
def test_a_thousand_users_take_six_statements() -> None:
    """The recipe's unchanged create(), a thousand times."""
    with statements() as sent, carpool.coalesce() as figures:
        users(1000)

    assert len(sent) <= 6, sent
    assert User.objects.count() == 1000
    at_once = 0 if connection.vendor == "mysql" else 3
    assert figures.queued == 1000 - at_once
    assert figures.sent == len(sent) - at_once
    assert figures.saved == 1000 - len(sent)
    assert figures.flushes == 1
    assert not figures.early


@pytest.mark.only_on("sqlite", "postgresql")
def test_users_with_profiles_and_groups_take_twenty_statements(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A user, a row that points at it, and two links, a thousand times."""
    # With a receiver, Django asks for each add() which links are there already.
    monkeypatch.setattr(m2m_changed, "receivers", [])
    m2m_changed.sender_receivers_cache.clear()
    groups = [Group.objects.create(name=name) for name in ("a", "b")]

    with statements() as sent, carpool.coalesce():
        for n in range(1000):
            user = User.objects.create(username=f"u{n}")
            Account.objects.create(name=f"u{n}", email=f"u{n}@example.org", number=user.pk)
            user.groups.add(*groups)

    assert len(sent) <= 20, sent
    assert User.groups.through.objects.count() == 2000
    assert set(Account.objects.values_list("number", flat=True)) == set(
        User.objects.values_list("pk", flat=True)
    )


def test_a_long_block_writes_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue is bounded: by rows, and by bytes."""
    monkeypatch.setattr("carpool.coalescing.unit.MOST_ROWS", 100)
    with carpool.coalesce() as figures:
        users(1050)
        unit = unit_of(connections["default"])
        assert unit is not None
        assert unit._rows == 50
    assert figures.flushes == 11
    assert not figures.early  # nobody's fault
    assert User.objects.count() == 1050

    monkeypatch.setattr("carpool.coalescing.unit.MOST_BYTES", 100_000)
    with carpool.coalesce() as figures:
        for n in range(10):
            Session.objects.create(
                session_key=f"{n}", session_data="x" * 60_000, expire_date=timezone.now()
            )
    assert figures.flushes == 5


@pytest.mark.first_rows
@pytest.mark.parametrize("number", [1, 5])
def test_a_block_with_little_in_it_sends_no_more_than_without(number: int) -> None:
    """No key is reserved for a single row, nor for a single bulk_create()."""
    with statements() as sent, carpool.coalesce():
        Tag.objects.create(word="w")
        Author.objects.bulk_create([Author(name=f"a{n}") for n in range(number)])
    assert len(sent) == 2, sent
    assert Author.objects.count() == number


# Values.


def test_what_is_changed_after_the_save_is_stored_as_it_was() -> None:
    """A prepared value is the value at that moment."""
    data = {"a": [1]}
    with carpool.coalesce():
        made = SignalLog.objects.create(item="i", position=1, signal="s", sender="x", detail=data)
        data["a"].append(2)
    assert SignalLog.objects.get(pk=made.pk).detail == {"a": [1]}


def test_a_value_that_cannot_be_prepared_is_refused_at_its_place() -> None:
    """Also after another was, and before anything is said of the transaction."""
    with carpool.coalesce():
        for value in ("x", object()):
            with pytest.raises((TypeError, ValueError)):
                Tag(word="w", uses=value).save()  # type: ignore[misc]
        transaction.set_rollback(True)


def test_a_connection_that_is_closed_in_the_block() -> None:
    """What was queued is gone, as it is without the block; what comes then is sent at once."""
    with carpool.coalesce():
        Tag.objects.create(word="gone")
        connection.close()
        connection.connect()
        with transaction.atomic():
            Tag.objects.create(word="kept")
    assert [tag.word for tag in Tag.objects.all()] == ["kept"]


# Keys.


def test_keys_are_there_at_once_and_right() -> None:
    """Every way to use an object's key gives the row's."""
    with carpool.coalesce():
        made = [Author.objects.create(name=f"a{n}") for n in range(12)]
        copied = copy.copy(made[0])
        deep = copy.deepcopy(made[1])
        pickled = pickle.loads(pickle.dumps(made[2]))
        text = serializers.serialize("json", [made[3]])
        hashed = {made[4]: "found"}
        represented = repr(made[5])
        queryset = Author.objects.filter(pk=made[6].pk)
        assert made[7] != made[8]
    keys = dict(Author.objects.values_list("name", "pk"))
    assert [a.pk for a in made] == [keys[a.name] for a in made]
    assert sorted(set(keys.values())) == [a.pk for a in made]
    assert copied.pk == made[0].pk == keys["a0"]
    assert deep.pk == keys["a1"]
    assert pickled.pk == keys["a2"]
    assert f'"pk": {keys["a3"]}' in text
    assert hashed[Author.objects.get(name="a4")] == "found"
    assert represented == repr(made[5])
    assert queryset.get().name == "a6"
    for author in made:
        assert type(author.__dict__["id"]) is int


@pytest.mark.only_on("mysql")
def test_late_keys_of_unread_objects_do_not_flush() -> None:
    """Nobody asks for the key: all rows go out together, and every instance has its own."""
    with carpool.coalesce() as figures:
        made = [Author.objects.create(name=f"a{n}") for n in range(300)]
        copies = [copy.copy(made[-1]), pickle.loads(pickle.dumps(made[-1]))]
    assert figures.flushes == 1
    keys = dict(Author.objects.values_list("name", "pk"))
    assert [vars(a)["id"] for a in made] == [keys[a.name] for a in made]
    assert [vars(a)["id"] for a in copies] == [keys["a299"]] * 2


@pytest.mark.only_on("mysql")
def test_late_keys_without_returning(monkeypatch: pytest.MonkeyPatch) -> None:
    """MySQL has no RETURNING: the keys follow from LAST_INSERT_ID."""
    features = type(connection.features)
    monkeypatch.setattr(features, "can_return_rows_from_bulk_insert", False)
    monkeypatch.setattr(features, "can_return_columns_from_insert", False)
    with carpool.coalesce() as figures:
        made = [Author.objects.create(name=f"a{n}") for n in range(300)]
    assert figures.flushes == 1
    keys = dict(Author.objects.values_list("name", "pk"))
    assert [a.pk for a in made] == [keys[a.name] for a in made]


@pytest.mark.only_on("mysql")
def test_the_key_of_a_row_that_was_dropped_is_none() -> None:
    """There is no row, and so no key."""
    with pytest.raises(ValueError, match="stop"), carpool.coalesce():
        author = Author.objects.create(name="a")
        raise ValueError("stop")
    assert author.pk is None


def test_an_explicit_key_among_given_ones() -> None:
    """A key of one's own never meets one that was reserved."""
    with carpool.coalesce():
        first = Author.objects.create(name="first")
        key = first.pk
        mine = Author.objects.create(pk=key + 1000, name="mine")
        if connection.vendor == "sqlite":  # where the next key follows the highest
            assert Author.objects.create(name="next").pk == key + 1001
        assert mine.pk == key + 1000
    assert Author.objects.get(name="mine").pk == key + 1000


def test_a_copy_by_setting_the_key_to_none() -> None:
    """``obj.pk = None; obj.save()`` makes a second row, before the first is written."""
    with carpool.coalesce():
        author = Author.objects.create(name="twin")
        first = copy.copy(author)
        author.pk = None
        author._state.adding = True
        author.save()
    assert Author.objects.filter(name="twin").count() == 2
    assert author.pk != first.pk


# The barrier.

QUERIES: list[Callable[[], Any]] = [
    lambda: Author.objects.count(),
    lambda: list(Author.objects.values_list("name", flat=True)),
    lambda: Author.objects.filter(name="a").exists(),
    lambda: list(Author.objects.raw(f"SELECT * FROM {Author._meta.db_table}")),
    lambda: list(Author.objects.extra(where=["1=1"])),
    lambda: Author.objects.aggregate(n=Count("pk")),
    lambda: list(Author.objects.filter(name="a").union(Author.objects.filter(name="b"))),
    lambda: list(Book.objects.filter(author__name="a")),
    lambda: list(Tag.objects.filter(pk__in=Author.objects.values("pk"))),
    lambda: Author.objects.filter(name="a").update(name="a"),
    lambda: Author.objects.filter(name="a").delete(),
    lambda: Author.objects.in_bulk(),
    lambda: Author.objects.select_for_update().first(),
]


@pytest.mark.parametrize("number", range(len(QUERIES)))
def test_whatever_reads_the_table_sees_the_row(number: int) -> None:
    """Any query on the table is preceded by its rows."""
    with carpool.coalesce() as figures:
        Author.objects.create(name="a")
        QUERIES[number]()
        unit = unit_of(connections["default"])
        assert unit is not None
        assert Author._meta.db_table not in unit._tables
    assert figures.early.total() == 1
    (reason,) = figures.early
    assert reason.place.startswith("tests/coalesce/test_block.py:")


def test_sql_of_ones_own_sees_the_row() -> None:
    """A cursor's statement, executemany and callproc-like calls are preceded by everything."""
    with carpool.coalesce() as figures:
        with connection.cursor() as cursor:
            Author.objects.create(name="a")
            cursor.execute(f"SELECT COUNT(*) FROM {Author._meta.db_table}")
            assert cursor.fetchone() == (1,)
    assert [reason.table for reason in figures.early] == ["SQL of your own"]


QUIET: list[Callable[[], Any]] = [
    lambda: Tag.objects.count(),
    lambda: list(Tag.objects.filter(word="a")),
    lambda: Author.objects.filter(name="other").exists(),
    lambda: Author.objects.filter(name="other", books_written=1).first(),
    lambda: Author.objects.filter(name__in=["x", "y"]).count(),
    lambda: Account(name="n", email="new@example.org", region="r").validate_unique(),
    lambda: Tag.objects.create(word="new"),
    lambda: Tag.objects.get_or_create(word="there"),
]


@pytest.mark.parametrize("number", range(len(QUIET)))
def test_what_cannot_see_the_row_does_not_flush(number: int) -> None:
    """Another table; or values that no queued row has."""
    Tag.objects.create(word="there")
    with carpool.coalesce() as figures:
        Author.objects.create(name="a")
        Account.objects.create(name="n1", email="n1@example.org", region="r1")
        QUIET[number]()
    assert not figures.early


@pytest.mark.only_on("mysql")
def test_a_collation_that_ignores_case_is_minded() -> None:
    """MariaDB's default collations hold "A" and "a", "é" and "e" equal."""
    for asked in ("AUTHOR", "àuthor", "author "):
        with carpool.coalesce() as figures, transaction.atomic():
            Author.objects.create(name="author")
            Author.objects.filter(name=asked).exists()
        assert any(reason.table == Author._meta.db_table for reason in figures.early)


def test_get_or_create_keeps_the_batches() -> None:
    """Looking for a parent that is there, for each of a hundred children."""
    Author.objects.create(name="parent")
    with carpool.coalesce() as figures:
        for n in range(100):
            parent, _ = Author.objects.get_or_create(name="parent")
            Book.objects.create(name=f"b{n}", author=parent)
    assert not figures.early
    assert figures.flushes == 1


def test_get_or_create_finds_a_queued_row() -> None:
    """The second call finds what the first has made."""
    with carpool.coalesce():
        made = [Tag.objects.get_or_create(word="w")[1] for _ in range(3)]
    assert made == [True, False, False]
    assert Tag.objects.filter(word="w").count() == 1


def test_a_second_save_changes_the_queued_row() -> None:
    """No flush, no UPDATE."""
    with carpool.coalesce() as figures:
        tag = Tag.objects.create(word="a")
        tag.uses = 1
        tag.save()
        Tag.objects.filter(pk=tag.pk).update(uses=F("uses") + 2)
    if connection.vendor != "mysql":  # where the key is late, and reading it writes the row
        assert figures.flushes == 1
        assert figures.queued == 3
    assert Tag.objects.values_list("word", "uses").get() == ("a", 3)


# Errors.


def test_an_error_comes_at_the_end_and_undoes_the_block() -> None:
    """A refused row is met at the flush; nothing is stored."""
    Tag.objects.create(word="w")
    with pytest.raises(IntegrityError), carpool.coalesce():
        Tag.objects.create(word="x")
        Tag.objects.create(word="w")
    assert [t.word for t in Tag.objects.all()] == ["w"]


def test_an_inner_atomic_meets_its_own_error() -> None:
    """The lawful way to catch an IntegrityError works."""
    with carpool.coalesce():
        Tag.objects.create(word="before")
        with pytest.raises(IntegrityError), transaction.atomic():
            Tag.objects.create(word="w")
            Tag.objects.create(word="w")
        Tag.objects.create(word="after")
    assert {t.word for t in Tag.objects.all()} == {"before", "after"}


def test_a_missing_value_is_refused_at_its_place() -> None:
    """NOT NULL can be seen while queueing."""
    with carpool.coalesce():
        with pytest.raises(IntegrityError), transaction.atomic():
            Author.objects.create(name=None)  # type: ignore[misc]
            pytest.fail("it was queued")
        Author.objects.create(name="a")
    assert Author.objects.count() == 1


def test_after_an_error_nothing_more_is_taken() -> None:
    """As in any atomic block: no statement after an error, until it is undone."""
    with pytest.raises(transaction.TransactionManagementError), carpool.coalesce():
        with pytest.raises(IntegrityError):
            Author.objects.create(name=None)  # type: ignore[misc]
        Author.objects.create(name="a")
    assert Author.objects.count() == 0


def test_an_exception_drops_the_queue() -> None:
    """Nothing is sent for a block that raised."""
    with statements() as sent, pytest.raises(ValueError, match="stop"), carpool.coalesce():
        users(10)
        raise ValueError("stop")
    assert not any("auth_user" in sql and "INSERT" in sql for sql in sent)
    assert User.objects.count() == 0


def test_set_rollback_drops_the_queue() -> None:
    """A block that is told to roll back doesn't write."""
    with carpool.coalesce():
        users(3)
        transaction.set_rollback(True)
    assert User.objects.count() == 0


# Nesting, decorating, on_commit.


def test_inner_blocks_are_savepoints() -> None:
    """An inner block that raises takes back its own rows only."""
    with carpool.coalesce() as outer:
        Tag.objects.create(word="outer")
        with pytest.raises(ValueError, match="stop"), carpool.coalesce():
            Tag.objects.create(word="inner")
            raise ValueError("stop")
        with carpool.coalesce() as inner:
            Tag.objects.create(word="kept")
    assert {t.word for t in Tag.objects.all()} == {"outer", "kept"}
    assert inner.queued == 1
    assert outer.queued == 3


def test_as_a_decorator() -> None:
    """With and without parentheses; each call is a block of its own."""

    @carpool.coalesce
    def bare(word: str) -> str:
        Tag.objects.create(word=word)
        return word

    @carpool.coalesce(using="default")
    def called(word: str) -> str:
        Tag.objects.create(word=word)
        return bare(f"{word} again")

    assert called("a") == "a again"
    assert bare("b") == "b"
    assert Tag.objects.count() == 3


def test_on_commit_runs_after_the_rows_are_there() -> None:
    """And a callback may save: that is outside of the block."""
    seen = []

    def look() -> None:
        seen.append(Tag.objects.count())
        Tag.objects.create(word="by callback")

    with carpool.coalesce():
        Tag.objects.create(word="a")
        transaction.on_commit(look)
        assert not seen
    assert seen == [1]
    assert Tag.objects.count() == 2


def test_several_aliases_have_a_queue_each() -> None:
    """A query on one database leaves the other's queue alone."""
    with carpool.coalesce(["default", "other"]) as figures:
        Tag.objects.using("default").create(word="a")
        Tag.objects.using("other").create(word="b")
        assert Tag.objects.using("other").count() == 1
    assert figures.flushes == 2
    assert figures.early.total() == 1
    assert Tag.objects.using("default").get().word == "a"


def test_another_thread_is_not_in_the_block() -> None:
    """Its connection is another."""
    found: list[Any] = []

    def look() -> None:
        try:
            found.append(unit_of(connections["default"]))
        finally:
            connection.close()

    with carpool.coalesce():
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert found == [None]


def test_async_code_is_refused_and_async_to_sync_works() -> None:
    """The block can't be opened in a coroutine; inside it, asave() is queued."""

    async def wrong() -> None:
        with carpool.coalesce():
            pass

    with pytest.raises(carpool.ConfigurationError, match="async"):
        asyncio.run(wrong())

    async def right() -> None:
        await Tag(word="a").asave()
        await Tag.objects.acreate(word="b")

    with carpool.coalesce() as figures:
        async_to_sync(right)()
    assert figures.queued == 2
    assert figures.flushes == 1
    assert Tag.objects.count() == 2


@pytest.mark.parametrize("kind", ["async", "generator"])
def test_decorating_what_only_begins_is_refused(kind: str) -> None:
    """The block would be over before the body runs."""

    async def coroutine() -> None: ...

    def generator() -> Iterator[int]:
        yield 1

    with pytest.raises(carpool.ConfigurationError, match="coroutine or generator"):
        carpool.coalesce()({"async": coroutine, "generator": generator}[kind])


def test_an_alias_that_does_not_exist() -> None:
    """Said before anything is opened."""
    with pytest.raises(carpool.ConfigurationError, match="nowhere"), carpool.coalesce("nowhere"):
        pass


# Traces.


def state() -> dict[str, Any]:
    """Everything of the connection that the hooks could have changed."""
    return {
        "connection": {
            key: value
            for key, value in vars(connection).items()
            if key not in ("queries_log", "savepoint_state", "errors_occurred", "rollback_exc")
        },
        "ops": {key: value for key, value in vars(connection.ops).items() if key != "_cache"},
        "wrappers": list(connection.execute_wrappers),
        "model": dict(vars(models.Model)),
        "key": vars(Author)["id"],
        "reduce": vars(Author).get("__reduce_ex__"),
    }


@pytest.mark.parametrize("raises", [None, "inside", "at the flush"])
def test_the_connection_is_as_before(raises: str | None) -> None:
    """However the block ends, no hook is left."""
    Author.objects.count()
    before = state()
    try:
        with carpool.coalesce():
            Author.objects.create(name="a")
            with transaction.atomic():
                Tag.objects.create(word="w")
            assert state() != before
            if raises == "inside":
                raise ValueError
            if raises == "at the flush":
                Tag.objects.create(word="w")
    except (ValueError, IntegrityError):
        pass
    assert state() == before
    assert unit_of(connections["default"]) is None


# Backends without a strategy.


def test_without_a_strategy_everything_is_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning once; strict refuses."""
    monkeypatch.setattr(Unit, "has_strategy", property(lambda self: False))
    monkeypatch.setattr("carpool.coalescing.block._warned", set())
    with pytest.warns(RuntimeWarning, match="no strategy"), carpool.coalesce():
        Author.objects.create(name="a")
        assert connections["default"].in_atomic_block
    with carpool.coalesce():
        Author.objects.create(name="b")
    assert Author.objects.count() == 2
    with pytest.raises(carpool.ConfigurationError, match="strict"), carpool.coalesce(strict=True):
        pass


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"email": "taken"}, {"email": "free"}),
        ({"balance": -1}, {"balance": 1}),
        ({"name": "x" * 50}, {"name": "x"}),
        ({"number": 2**40}, {"number": 1}),
    ],
)
def test_a_row_that_is_mended_in_time_is_refused_all_the_same(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    """A loop would have met the error at the first save()."""
    Account.objects.create(name="t", email="taken", region="t")
    fields = {"name": "n", "email": "e", "region": "r"}

    def mend() -> None:
        account = Account.objects.create(**{**fields, **first})
        for name, value in second.items():
            setattr(account, name, value)
        account.save()

    refused = connection.vendor != "sqlite" or not first.keys() & {"name", "number"}
    if refused:
        with pytest.raises(DatabaseError), carpool.coalesce():
            mend()
    else:  # SQLite takes a text of any length, and all that fits 64 bits
        with carpool.coalesce():
            mend()
    assert Account.objects.count() == 1 + (not refused)
