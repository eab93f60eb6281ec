"""The parts of coalescing that need no database: what SQL says, orders, figures."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection, models
from django.db.models.functions import Upper
from django.test.utils import isolate_apps
from hypothesis import given
from hypothesis import strategies as st

from carpool.coalescing import barrier
from carpool.coalescing.figures import EarlyFlush, Figures, place
from carpool.coalescing.rows import (
    Checks,
    Index,
    Row,
    Shape,
    in_order,
    uniquely_constrained,
)
from tests.app.models import Author, Book


@pytest.mark.parametrize(
    ("sql", "relations", "strange"),
    [
        ('SELECT "a"."x" FROM "a"', ("a",), False),
        ("SELECT `a`.`x` FROM `a` INNER JOIN `b` ON (`a`.`x` = `b`.`y`)", ("a", "b"), False),
        ('SELECT COUNT(*) FROM (SELECT "a"."x" FROM "a") subquery', ("(", "a"), False),
        ('SELECT 1 FROM "a" WHERE EXISTS(SELECT 1 FROM "b" U0)', ("a", "b"), False),
        ('UPDATE "a" SET "x" = %s', ("a",), False),
        ('SELECT my_function("a"."x") FROM "a"', ("a",), True),
        ('SELECT \'FROM "b"\' FROM "a"', ("a",), False),
        ('SELECT EXTRACT(YEAR FROM "a"."x") FROM "a"', ("a", "a"), False),
        # A list of tables, of which only the first stands in a table's place.
        ("SELECT 1 FROM a, b", ("a",), True),
        (
            'SELECT 1 FROM "a" WHERE EXISTS (SELECT 1 FROM b p, c q WHERE p.x = q.x)',
            ("a", "b"),
            True,
        ),
        ("SELECT 1 FROM a JOIN (b, c) ON 1", ("a", "("), True),
        ("SELECT 1 FROM (SELECT 1) x, b", ("(",), True),
        (
            "SELECT (SELECT COUNT(*) FROM a), 1, EXTRACT(YEAR FROM y), 2 FROM b",
            ("a", "y", "b"),
            False,
        ),
        ("SELECT x, y FROM a WHERE x IN (1, 2) ORDER BY x, y", ("a",), False),
        ('INSERT INTO "a" ("x", "y") SELECT "x", "y" FROM "b"', ("a", "b"), False),
        # A function's name may be quoted, and a name may have an apostrophe in it.
        ('SELECT "myFunction"("a"."x") FROM "a"', ("a",), True),
        ("SELECT `my_function` (1) FROM `a`", ("a",), True),
        (
            """SELECT "a"."owner's" FROM "a" JOIN "b" ON ("a"."owner's" = "b"."x")""",
            ("a", "b"),
            False,
        ),
    ],
)
def test_what_a_statement_says(sql: str, relations: tuple[str, ...], strange: bool) -> None:
    """Tables, by their place; calls that Django doesn't know."""
    reading = barrier.read(sql)
    assert reading is not None
    assert reading.relations == relations
    assert reading.strange_calls == strange


@isolate_apps("tests.app")
def test_columns_that_others_are_computed_from() -> None:
    """A unique one is in another's way by what it is computed from; and computing it may fail."""

    class Loud(models.Model):
        name = models.CharField(max_length=40)
        size = models.IntegerField()
        other = models.IntegerField()
        loud = models.GeneratedField(
            expression=Upper("name"),
            output_field=models.CharField(max_length=40),
            db_persist=True,
            unique=True,
        )
        share = models.GeneratedField(
            expression=1 / models.F("size"), output_field=models.IntegerField(), db_persist=True
        )

        class Meta:
            app_label = "app"

    assert uniquely_constrained(Loud) == frozenset({"id", "name", "loud"})
    fields = [Loud._meta.get_field(name) for name in ("name", "size", "other")]
    checks = Checks(connection, Loud, fields)  # type: ignore[arg-type]
    assert [checks.surely_pass(n, value) for n, value in enumerate(["a", 1, 1])] == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(
    "sql",
    [
        'SELECT 1 FROM "a" -- FROM b',
        'SELECT 1 FROM "a" /* b */',
        'SELECT "odd FROM a',
        r"SELECT 'it\'s' FROM a",
        "SELECT $$x$$ FROM a",
        "SELECT 1; SELECT 2",
    ],
)
def test_what_cannot_be_taken_apart(sql: str) -> None:
    """Then nothing is proved."""
    assert barrier.read(sql) is None


@pytest.mark.parametrize(
    ("form", "queued", "asked", "lacks"),
    [
        (barrier._integer, [1, 2, None], [3], True),
        (barrier._integer, [1, 2], [3, 2], False),
        (barrier._integer, [1, "2"], [3], False),
        (barrier._integer, [1], ["3"], False),
        (barrier._text, ["a"], ["A"], True),
        (barrier._text, ["a"], ["a"], False),
        (barrier._folded, ["a"], ["A"], False),
        (barrier._folded, ["a"], ["a  "], False),
        (barrier._folded, ["a"], ["b"], True),
        (barrier._folded, ["é"], ["b"], False),
        (barrier._folded, ["a"], ["é"], False),
        (barrier._folded, [None], ["a"], True),
    ],
)
def test_an_index_says_what_is_surely_not_there(
    form: Any, queued: list[Any], asked: list[Any], lacks: bool
) -> None:
    """In doubt, it doesn't say so."""
    index = Index(form)
    for value in queued:
        index.add(value)
    assert index.lacks(asked) == lacks


def tables(order: list[type[models.Model]]) -> dict[str, list[Row]]:
    shapes = {
        model: Shape(connection, model, model._meta.local_concrete_fields) for model in set(order)
    }
    found: dict[str, list[Row]] = {}
    for number, model in enumerate(order):
        shape = shapes[model]
        row = Row(number, shape, [number] * len(shape.fields), None)
        found.setdefault(shape.table, []).append(row)
    return found


MODELS = [Author, Book, Book.tags.through, User, Group, User.groups.through]


@given(st.lists(st.sampled_from(MODELS), max_size=30))
def test_rows_come_after_what_they_point_at(order: list[type[models.Model]]) -> None:
    """Each table's rows in their own order, all of them once, parents first."""
    found = tables(order)
    written = [row for run in in_order(found) for row in run]
    assert sorted(row.number for row in written) == list(range(len(order)))
    for name in found:
        numbers = [row.number for row in written if row.shape.table == name]
        assert numbers == sorted(numbers)
    position = {row.number: at for at, row in enumerate(written)}
    for child, parent in ((Book, Author), (User.groups.through, User)):
        children = [position[n] for n, model in enumerate(order) if model is child]
        parents = [position[n] for n, model in enumerate(order) if model is parent]
        assert not children or not parents or max(parents) < min(children)


def test_tables_in_a_circle_keep_the_order_of_making() -> None:
    """Each row could be written when it was made."""

    class Hen(models.Model):
        egg = models.ForeignKey("Egg", models.CASCADE, null=True)

        class Meta:
            app_label = "unit_circle"

    class Egg(models.Model):
        hen = models.ForeignKey(Hen, models.CASCADE, null=True)

        class Meta:
            app_label = "unit_circle"

    runs = list(in_order(tables([Hen, Egg, Egg, Hen])))
    assert [[row.number for row in run] for run in runs] == [[0], [1, 2], [3]]


def test_figures_add_up_and_read_well() -> None:
    """Of several blocks, the reasons with their counts."""
    reason = EarlyFlush("shop_order", "shop/signals.py:41")
    figures = Figures(queued=8000, flushes=1, sent=10)
    figures.add(Figures(queued=1000, flushes=13, sent=4, early=Counter({reason: 12})))
    assert figures == Figures(queued=9000, flushes=14, sent=14, early=Counter({reason: 12}))
    assert figures.saved == 8986
    assert str(figures) == (
        "9,000 writes became 14 statements; early flushes: 12 at shop/signals.py:41 (shop_order)"
    )
    assert Figures(queued=1, sent=5).saved == 0


def test_the_place_is_the_callers() -> None:
    """This file, relative to where one stands."""
    assert place().startswith("tests/unit/test_coalescing.py:")
