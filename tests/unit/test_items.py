"""A chunk's items, each time as the source gave them."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from django.db import DatabaseError, connection
from django.db.models import QuerySet
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from carpool.items import (
    LOADED_AT_ONCE,
    LocalItems,
    RowItems,
    SentItems,
    local_items,
    sent_items,
)
from carpool.types import GONE, Chunk, Fault
from tests.app.models import Author, Book


def payloads_of(items: list[Any]) -> list[bytes | None]:
    return [pickle.dumps(item) for item in items]


class Fragile:
    """Pickles, and raises when it is unpickled."""

    def __reduce__(self) -> Any:
        return int, ("not a number",)


mutable = st.lists(st.dictionaries(st.text(max_size=3), st.integers(), min_size=1), min_size=1)


@given(mutable, st.data())
def test_local_items_are_themselves_at_first_and_copies_later(
    items: list[dict[str, int]], data: st.DataObject
) -> None:
    """The first time an item is the caller's own object; again, a copy of what it was."""
    before = pickle.loads(pickle.dumps(items))
    given_out = LocalItems(items, payloads_of(items))
    positions = data.draw(st.lists(st.sampled_from(range(len(items)))))
    seen: set[int] = set()
    for position, item in given_out.load(positions):
        assert item == before[position]
        assert (item is items[position]) == (position not in seen)
        seen.add(position)
        item.clear()  # what a function may do to it


def test_an_item_that_was_being_run_when_the_try_ended_is_a_copy_the_next_time() -> None:
    """A try that is undone in the middle of the chunk leaves no changed item behind."""
    items: list[dict[str, int]] = [{"n": 1}, {"n": 2}]
    given_out = LocalItems(items, payloads_of(items))
    for _, item in given_out.load([0, 1]):
        item.clear()
        break
    assert list(given_out.load([0, 1])) == [(0, {"n": 1}), (1, {"n": 2})]


def test_a_local_item_that_cannot_be_copied_is_itself_each_time() -> None:
    """Without a payload there is nothing to start from but the object."""
    lock = object()
    items = LocalItems([lock], [None])
    assert [item for _ in range(3) for _, item in items.load([0])] == [lock] * 3


def test_a_local_item_whose_copy_fails_is_itself_each_time() -> None:
    """A payload that can't be unpickled is as good as none, and ends no run."""
    item = Fragile()
    items = LocalItems([item, 2], payloads_of([item, 2]))
    assert list(items.load([0, 1])) == [(0, item), (1, 2)]
    assert list(items.load([0, 1])) == [(0, item), (1, 2)]


@given(mutable, st.data())
def test_sent_items_are_fresh_each_time(items: list[dict[str, int]], data: st.DataObject) -> None:
    """A worker's changes to an item are not in its next copy."""
    given_out = SentItems(payloads_of(items))
    positions = data.draw(st.lists(st.sampled_from(range(len(items)))))
    for position, item in given_out.load(positions):
        assert item == items[position]
        item.clear()


def test_a_sent_item_that_cannot_be_opened_is_a_fault() -> None:
    """It fails alone, and the others are loaded."""
    (_, fault), (_, other) = SentItems(payloads_of([Fragile(), 2])).load([0, 1])
    assert isinstance(fault, Fault)
    assert fault.stage == "item"
    assert fault.error == "builtins.ValueError"
    assert "can't be unpickled in the worker" in fault.message
    assert other == 2


def chunk(items: list[Any]) -> Chunk:
    return Chunk(1, range(len(items)), items, payloads_of(items))


def test_the_kind_of_items_follows_from_where_the_worker_is() -> None:
    """Items of this process, items sent, and rows by their keys, sent or not."""
    keys = chunk([1, 2])
    assert isinstance(local_items(None, keys), LocalItems)
    assert isinstance(sent_items(None, keys.payloads), SentItems)
    assert isinstance(local_items(Author.objects.all(), keys), RowItems)
    assert isinstance(sent_items(Author.objects.all(), keys.payloads), RowItems)


class Brittle(Author):
    """An author whose instances can't be made where the name says so."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.__dict__.get("name") == "brittle":
            raise ValueError("brittle")

    class Meta:
        proxy = True
        app_label = "app"


@pytest.mark.django_db
class TestRows:
    """Rows are loaded by their keys, where they are used."""

    @pytest.fixture(autouse=True)
    def _rows(self) -> None:
        Author.objects.bulk_create(Author(name=f"a{n}") for n in range(10))
        self.keys = list(Author.objects.order_by("pk").values_list("pk", flat=True))

    def test_each_position_gets_its_own_row(self) -> None:
        """The order is the keys', not the database's."""
        keys = self.keys[::-1]
        loaded = list(RowItems(Author.objects.all(), keys).load([3, 0, 9]))
        assert [(p, row.pk) for p, row in loaded] == [(p, keys[p]) for p in (3, 0, 9)]

    def test_a_row_that_is_gone_is_told(self) -> None:
        """Deleted rows, and rows that the filters no longer match, are GONE."""
        Author.objects.filter(pk=self.keys[4]).delete()
        Author.objects.filter(pk=self.keys[5]).update(name="other")
        rows = RowItems(Author.objects.filter(name__startswith="a"), self.keys)
        gone = [position for position, row in rows.load(range(10)) if row is GONE]
        assert gone == [4, 5]

    def test_a_key_met_several_times_has_a_row_each_time(self) -> None:
        """A join that gives a key twice gives two rows, as in a loop."""
        author = Author.objects.get(pk=self.keys[0])
        for name in "xyz":
            Book.objects.create(name=name, author=author)
        queryset = Author.objects.filter(books__name__in="xyz")
        keys = [author.pk] * 3
        rows = [row for _, row in RowItems(queryset, keys).load(range(3))]
        assert [row.pk for row in rows] == keys
        assert len({id(row) for row in rows}) == 3

    def test_rows_are_loaded_anew_each_time(self) -> None:
        """A second try has fresh instances, with what the database holds."""
        rows = RowItems(Author.objects.all(), self.keys)
        ((_, first),) = rows.load([0])
        first.name = "changed in memory"
        ((_, second),) = rows.load([0])
        assert second is not first
        assert second.name == "a0"

    def test_many_rows_take_few_queries(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One query for each part, of as many parameters as any database takes."""
        assert LOADED_AT_ONCE < 999
        monkeypatch.setattr("carpool.items.LOADED_AT_ONCE", 4)
        with CaptureQueriesContext(connection) as queries:
            assert len(list(RowItems(Author.objects.all(), self.keys).load(range(10)))) == 10
        assert len(queries) == 3

    def test_locked_rows_are_asked_for_in_key_order(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever the order of the queryset and of the positions; the rows are the same."""
        monkeypatch.setattr("carpool.items.LOADED_AT_ONCE", 4)
        rows = RowItems(Author.objects.order_by("-name"), self.keys[::-1], lock=True)
        with CaptureQueriesContext(connection) as queries:
            loaded = list(rows.load(range(10)))
        assert [row.pk for _, row in loaded] == self.keys[::-1]
        assert len(queries) == 3
        assert all('ORDER BY "app_author"."id" ASC' in q["sql"] for q in queries.captured_queries)

    def test_a_row_that_cannot_be_made_fails_alone(self) -> None:
        """An error of the model's __init__ or a converter is that row's fault."""
        Author.objects.filter(pk=self.keys[2]).update(name="brittle")
        loaded = dict(RowItems(Brittle.objects.all(), self.keys[:4]).load(range(4)))
        assert isinstance(loaded[2], Fault)
        assert loaded[2].stage == "item"
        assert [loaded[p].pk for p in (0, 1, 3)] == [self.keys[p] for p in (0, 1, 3)]

    def test_an_error_of_the_database_is_not_an_items(self) -> None:
        """A query that fails is for the attempt to judge: it may be a lost connection."""

        class Broken(QuerySet[Author]):
            def __iter__(self) -> Any:
                raise DatabaseError("gone")

        with pytest.raises(DatabaseError, match="gone"):
            list(RowItems(Broken(Author), self.keys).load([0, 1]))
