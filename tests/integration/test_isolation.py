"""Bad items fail alone: whichever they are, wherever they fail, in chunks of any size."""

from __future__ import annotations

import copy
import gc
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import carpool
from tests.app.functions import committing, finding, saving
from tests.app.functions.saving import create_account
from tests.app.functions.trouble import (
    AFTER_COMMIT,
    AT_COMMIT,
    AT_THE_FUNCTION,
    AT_THE_STATEMENT,
    SILENT,
    TROUBLES,
)
from tests.app.models import Account, Author, Book
from tests.integration.plain_loop import carpooled, loop
from tests.snapshot import empty_tables

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

Item = dict[str, Any]
BROKEN = "carpool.exceptions.TransactionBroken"


def items_with(bad: dict[int, str], number: int) -> list[Item]:
    return [{"key": f"i{n:03}", "bad": bad.get(n)} for n in range(number)]


def stored() -> list[str]:
    """The keys of the items whose row is there."""
    good = Account.objects.filter(email__endswith="@example.org")
    return sorted(good.values_list("name", flat=True))


def assert_isolated(items: list[Item], report: Any) -> None:
    """The good items are stored once, the bad ones are named, and the three counts add up.

    An item whose `on_commit` callback raises is stored, as a loop would leave it, and failed.
    """
    harmless = set() if connection.vendor == "postgresql" else {"swallow raw"}
    bad = {n for n, item in enumerate(items) if item["bad"] and item["bad"] not in harmless}
    kept = [i["key"] for n, i in enumerate(items) if n not in bad or i["bad"] in AFTER_COMMIT]

    assert stored() == kept
    assert report.total == len(items) == report.succeeded + report.failed + report.unknown
    assert (report.failed, report.unknown, report.skipped) == (len(bad), 0, 0)
    assert Counter(failure.index for failure in report.failures) == Counter(bad)
    for failure in report.failures:
        assert failure.item == items[failure.index]
        assert failure.error
        assert failure.traceback
    if not any(i["bad"] == "swallow raw" for i in items):
        assert Account.objects.count() == len(kept)
    assert not Author.objects.exists()
    assert not Book.objects.exists()


#: Troubles that let the function go on: they must come last to be its end.
LAST = SILENT | AFTER_COMMIT | AT_COMMIT
KINDS = [*TROUBLES, *(f"early {kind}" for kind in TROUBLES if kind not in LAST)]


@st.composite
def inputs(draw: st.DrawFn, longest: int = 24, kinds: list[str] = KINDS) -> list[Item]:
    """Draw items of which some are bad, each in a way of its own."""
    number = draw(st.integers(0, longest))
    positions = draw(st.sets(st.integers(0, number - 1))) if number else set()
    return items_with({n: draw(st.sampled_from(kinds)) for n in sorted(positions)}, number)


chunk_sizes = st.one_of(st.none(), st.integers(1, 30))
quick = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@given(items=inputs(), chunk_size=chunk_sizes)
@settings(quick, max_examples=60)
def test_exactly_the_others_commit_inline(items: list[Item], chunk_size: int | None) -> None:
    """Any set of bad items, any chunk size: the others commit, in the process itself."""
    empty_tables()

    report = carpool.run(
        create_account, items, executor="inline", chunk_size=chunk_size, progress=False
    )

    assert_isolated(items, report)


@given(items=inputs(), chunk_size=chunk_sizes, workers=st.integers(1, 4))
@settings(quick, max_examples=25)
def test_exactly_the_others_commit_in_threads(
    items: list[Item], chunk_size: int | None, workers: int
) -> None:
    """Any set of bad items, any chunk size: the others commit, in any number of threads."""
    empty_tables()

    report = carpool.run(
        create_account,
        items,
        executor="threads",
        workers=workers,
        chunk_size=chunk_size,
        progress=False,
    )

    assert_isolated(items, report)


@given(items=inputs(longest=40), chunk_size=chunk_sizes)
@settings(quick, max_examples=6)
def test_exactly_the_others_commit_in_processes(items: list[Item], chunk_size: int | None) -> None:
    """Any set of bad items, any chunk size: the others commit, in processes."""
    empty_tables()

    report = carpool.run(
        create_account,
        items,
        executor="processes",
        workers=2,
        chunk_size=chunk_size,
        progress=False,
    )

    assert_isolated(items, report)


@given(items=inputs(kinds=["raise", "foreign key", "unique"]), chunk_size=chunk_sizes)
@settings(quick, max_examples=20)
def test_errors_at_commit_are_found_among_others(items: list[Item], chunk_size: int | None) -> None:
    """Rows refused at COMMIT, which blames nobody, are told from errors raised at once."""
    empty_tables()

    report = carpool.run(
        create_account, items, executor="inline", chunk_size=chunk_size, progress=False
    )

    assert_isolated(items, report)
    for failure in report.failures:
        if failure.item["bad"] == "foreign key":
            assert failure.error == "django.db.utils.IntegrityError"
            late = connection.features.can_defer_constraint_checks
            assert failure.stage == ("commit" if late else "function")


executors = st.sampled_from([{"executor": "inline"}, {"executor": "threads", "workers": 2}])


@given(items=inputs(), chunk_size=chunk_sizes, limit=st.integers(0, 6), options=executors)
@settings(quick, max_examples=25)
def test_a_run_that_stops_early_counts_what_is_stored(
    items: list[Item], chunk_size: int | None, limit: int, options: dict[str, Any]
) -> None:
    """A run that ends at max_failures tells of each item it read, and stored what it says."""
    empty_tables()
    report: carpool.Report | None
    try:
        report = carpool.run(
            create_account,
            items,
            chunk_size=chunk_size,
            max_failures=limit,
            progress=False,
            **options,
        )
    except carpool.TooManyFailures as error:
        report = error.report
        assert report is not None
        assert report.failed > limit
    else:
        assert report.failed <= limit
        assert report.total == len(items)

    assert report.total == report.succeeded + report.failed
    assert len({failure.index for failure in report.failures}) == report.failed
    late = [failure for failure in report.failures if failure.stage == "on_commit"]
    lost = {failure.item["key"] for failure in report.failures} - {f.item["key"] for f in late}
    read = {item["key"] for item in items[: report.total]}
    assert set(stored()) == read - lost


class BrokenSourceError(Exception):
    """What a source raises in the middle."""


@given(items=inputs(), chunk_size=chunk_sizes, options=executors)
@settings(quick, max_examples=15)
def test_what_was_read_before_a_source_breaks_is_done(
    items: list[Item], chunk_size: int | None, options: dict[str, Any]
) -> None:
    """A source that raises gets its error back, after all that it gave is done."""
    empty_tables()

    def source() -> Iterator[Item]:
        yield from items
        raise BrokenSourceError

    with pytest.raises(BrokenSourceError) as raised:
        carpool.run(
            create_account,
            source(),
            chunk_size=chunk_size,
            progress=False,
            **options,
        )

    assert_isolated(items, raised.value.report)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", sorted(TROUBLES))
@pytest.mark.parametrize("executor", ["inline", "threads"])
def test_each_trouble_costs_its_own_item(kind: str, executor: Any) -> None:
    """Each way to fail, at the start, in the middle and at the end of a chunk, fails alone."""
    items = items_with(dict.fromkeys((0, 4, 5, 8), kind), 9)

    report = carpool.run(
        create_account, items, executor=executor, workers=1, chunk_size=9, progress=False
    )

    assert_isolated(items, report)


def test_every_trouble_in_processes_costs_its_own_item() -> None:
    """All the ways to fail in one run of processes: each fails alone, and says what it was."""
    kinds = sorted(TROUBLES)
    items = items_with({3 * n: kind for n, kind in enumerate(kinds)}, 3 * len(kinds))

    report = carpool.run(
        create_account, items, executor="processes", workers=2, chunk_size=10, progress=False
    )

    assert_isolated(items, report)
    errors = {failure.item["bad"]: failure.error for failure in report.failures}
    assert errors["raise"] == "builtins.ValueError"
    assert errors["awkward"] == "tests.app.functions.trouble.Awkward"
    assert errors["mute"] == "tests.app.functions.trouble.Mute"
    assert errors["local"] == "tests.app.functions.trouble.raise_local.<locals>.Local"
    assert errors["exit"] == "builtins.SystemExit"
    assert errors["recurse"] == "builtins.RecursionError"
    assert errors["stop"] == "builtins.StopIteration"
    messages = {failure.item["bad"]: failure.message for failure in report.failures}
    assert messages["awkward"].endswith("and its trouble")


@pytest.mark.parametrize("coalesce", [True, False], ids=["coalesced", "at once"])
@pytest.mark.parametrize("kind", sorted(SILENT))
def test_what_a_loop_would_lose_in_silence_is_reported(kind: str, coalesce: bool) -> None:
    """An item that breaks its transaction and returns is failed, with a message that says why."""
    if kind == "swallow raw" and connection.vendor != "postgresql":
        pytest.skip("only PostgreSQL refuses to go on after an error in SQL of one's own")
    items = items_with({3: kind}, 7)

    report = carpool.run(
        create_account, items, executor="inline", chunk_size=7, progress=False, coalesce=coalesce
    )

    assert_isolated(items, report)
    (failure,) = report.failures
    if kind == "swallow" and coalesce:  # the error comes when nobody is there to catch it
        assert failure.error == "django.db.utils.IntegrityError"
        return
    assert failure.error == BROKEN
    assert "transaction" in failure.message
    assert ("atomic" in failure.message) == (kind != "close")


@pytest.mark.parametrize("kind", [*AT_THE_FUNCTION, *AT_THE_STATEMENT, *AT_COMMIT])
def test_all_items_bad(kind: str) -> None:
    """Where every item is bad, nothing is stored and all are named."""
    items = items_with(dict.fromkeys(range(20), kind), 20)

    report = carpool.run(create_account, items, executor="inline", chunk_size=20, progress=False)

    assert report.failed == 20
    assert_isolated(items, report)


def test_failures_know_where_and_why() -> None:
    """A failure carries its index, the item untouched, the error, its text and the traceback."""
    items = items_with({2: "raise", 4: "unique", 5: "on commit", 6: "chained"}, 8)

    report = carpool.run(
        create_account, items, executor="threads", workers=2, chunk_size=8, progress=False
    )

    raised, refused, late, chained = sorted(report.failures, key=lambda failure: failure.index)
    assert raised.message == "i002 is bad"
    assert raised.item == {"key": "i002", "bad": "raise"}
    assert "in raise_value" in raised.traceback
    assert raised.stage == refused.stage == "function"
    assert refused.error == "django.db.utils.IntegrityError"
    assert "email" in refused.message
    assert refused.sqlstate == ("23505" if connection.vendor == "postgresql" else None)
    assert late.stage == "on_commit"
    assert late.message == "i005 is bad after its commit"
    assert "KeyError" in chained.traceback


def test_callbacks_of_neighbours_run_when_one_raises() -> None:
    """A callback that raises ends the callbacks of its own item, not those of the next ones."""
    report = carpool.run(
        committing.call_three_times,
        items_with({1: "bad", 3: "bad"}, 6),
        executor="inline",
        chunk_size=6,
        progress=False,
    )

    assert report.failed == 2
    assert sorted(Author.objects.values_list("name", flat=True)) == [
        "i000 first",
        "i000 last",
        "i001 first",
        "i002 first",
        "i002 last",
        "i003 first",
        "i004 first",
        "i004 last",
        "i005 first",
        "i005 last",
    ]


@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
@pytest.mark.parametrize("kind", ["raise", "unique", "foreign key"])
def test_items_that_the_function_empties_are_whole_when_run_again(executor: Any, kind: str) -> None:
    """A neighbour's failure does not run an item again on what the function left of it."""
    items = [{"key": f"i{n:03}", "n": n, "bad": kind if n == 5 else None} for n in range(9)]
    expected = [dict(item) for item in items]

    report = carpool.run(
        saving.pop_everything, items, executor=executor, workers=1, chunk_size=9, progress=False
    )

    assert [failure.index for failure in report.failures] == [5], report.failures
    assert Author.objects.count() == 8
    assert report.failures[0].item == expected[5]


def test_a_neighbour_is_not_blamed_for_rows_that_are_refused_at_commit() -> None:
    """An item that stumbles over the row of another, which COMMIT refuses, is run without it."""
    items = items_with({3: "foreign key"}, 9)
    items[6]["email"] = items[3]["email"] = "the same"
    expected = loop(saving.create_given_account, copy.deepcopy(items))
    empty_tables()

    actual = carpooled(saving.create_given_account, items, executor="inline", chunk_size=9)

    assert set(expected.errors) == {3}
    assert actual.errors == expected.errors
    assert actual.rows == expected.rows


@pytest.mark.only_on("postgresql")
def test_looking_for_bad_rows_does_not_put_off_other_constraints() -> None:
    """A constraint that is checked at once stays so, in chunks where COMMIT refuses a row too."""
    items = [item | {"number": n % 10} for n, item in enumerate(items_with({0: "foreign key"}, 50))]
    expected = loop(finding.take_turn, copy.deepcopy(items))
    empty_tables()

    actual = carpooled(finding.take_turn, items, executor="inline", chunk_size=50)

    assert set(expected.errors) == {0}
    assert actual.errors == expected.errors
    assert actual.rows == expected.rows


@pytest.mark.only_on("postgresql")
def test_writes_by_copy_are_undone_with_their_item() -> None:
    """Rows that an item wrote by COPY, past Django's cursor, go when the item fails."""
    items = items_with({2: "raise"}, 5)

    report = carpool.run(
        finding.write_by_copy, items, executor="inline", chunk_size=5, progress=False
    )

    assert report.failed == 1
    assert sorted(Author.objects.values_list("name", flat=True)) == [
        "i000",
        "i001",
        "i003",
        "i004",
    ]


class Thing:
    """What a source holds."""


def raising(snapshot: carpool.Snapshot) -> None:
    raise OSError("no more room")


def refuse(number: int) -> None:
    raise ValueError(number)


def refuse_saved(number: int) -> None:
    Author.objects.create(name="author")
    raise ValueError(number)


def refuse_all(numbers: list[int]) -> None:
    raise ValueError(numbers)


@pytest.mark.parametrize(
    "options",
    [
        {"function": refuse},
        {"function": refuse_saved},
        {"function": refuse_saved, "coalesce": False},
        {"function": refuse, "before_chunk": refuse_all},
        {"function": refuse, "max_failures": 1},
        {"function": refuse, "progress": raising},
    ],
    ids=["item", "item that saves", "not coalesced", "before_chunk", "max_failures", "progress"],
)
def test_what_has_failed_leaves_no_garbage(options: dict[str, Any]) -> None:
    """What the source holds goes with the run: no error is part of a cycle that keeps it."""

    def attempt() -> weakref.ref[Thing]:
        thing = Thing()

        def source() -> Iterator[int]:
            kept = thing
            yield from range(8)
            del kept

        reference = weakref.ref(thing)
        defaults: dict[str, Any] = {"executor": "inline", "chunk_size": 2, "progress": False}
        with suppress(carpool.CarpoolError, OSError):
            carpool.run(items=source(), **defaults | options)
        return reference

    attempt()  # what is imported the first time leaves garbage
    gc.collect()
    gc.disable()
    try:
        assert attempt()() is None
    finally:
        gc.enable()
