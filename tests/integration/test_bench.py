"""`carpool.bench.bench` on a database: every way is a pass over the same items, undone."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from django.db import connection, transaction

from carpool.bench import advice_on, bench, rounds, watching
from carpool.bench.loop import loop
from carpool.bench.sample import Sample
from carpool.bench.table import text_of
from carpool.calling import calls_of
from carpool.exceptions import CarpoolError
from tests.app.models import AuditLine, Author, Tag

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

CALLS: list[Any] = []


def make(word: str) -> None:
    CALLS.append(word)
    if word.startswith("bad"):
        raise ValueError(word)
    Tag.objects.create(word=word)


def rename(author: Author) -> None:
    author.name += "!"
    author.save()


def known(words: list[str]) -> set[str]:
    CALLS.append(len(words))
    return set(Tag.objects.filter(word__in=words).values_list("word", flat=True))


def make_unknown(word: str, known: set[str]) -> None:
    if word not in known:
        Tag.objects.create(word=word)


WORDS = [f"w{n:03}" for n in range(40)]


ENOUGH = 600.0
"""Seconds allowed to a benchmark that isn't of its time. It takes no more of them than it needs."""


@pytest.fixture(autouse=True)
def _one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    CALLS.clear()
    monkeypatch.setattr(rounds, "MOST_ROUNDS", 1)
    monkeypatch.setattr(rounds, "LONGEST", 0.3)


def passed(function: Any, items: Any, before_chunk: Any = None, **options: Any) -> Any:
    sample = Sample.take(items, 1000, ("default",))
    calls = calls_of(function, before_chunk, ("default",))
    local = sample.local(lock=False)
    return loop(calls, local, len(sample), ("default",), **{"savepoints": False, **options})


def test_a_loop_is_rolled_back() -> None:
    """It calls the function once an item, in order."""
    found = passed(make, WORDS)
    assert (found.items, found.failed, CALLS) == (40, 0, WORDS)
    assert not Tag.objects.exists()


def test_a_loop_goes_on_after_items_that_fail() -> None:
    """With a savepoint each; without, the first error ends it."""
    words = ["bad1", *WORDS, "bad2"]
    assert passed(make, words, savepoints=True).failed == 2
    assert words == CALLS
    with pytest.raises(ValueError, match="bad1"):
        passed(make, words)
    assert not Tag.objects.exists()


def test_a_loop_calls_before_chunk_once() -> None:
    """With all items."""
    Tag.objects.create(word="w007")
    assert passed(make_unknown, WORDS, known).failed == 0
    assert CALLS == [40]
    assert Tag.objects.count() == 1


def test_a_loop_over_rows() -> None:
    """Loaded as a run loads them."""
    Author.objects.bulk_create(Author(name=f"a{n}") for n in range(10))
    assert passed(rename, Author.objects.filter(name__lt="a5")).items == 5
    assert not Author.objects.filter(name__endswith="!").exists()


def test_ways_that_cannot_work_are_told_of() -> None:
    """Inside atomic() there is no pool; the others are measured all the same."""
    with transaction.atomic():
        found = bench(make, WORDS, seconds=ENOUGH, workers=1)
    notes = {row.way.kind: row.note for row in found.rows}
    assert notes["loop"] is notes["inline"] is None
    assert "inside transaction.atomic()" in str(notes["threads"])
    assert "inside transaction.atomic()" in str(notes["processes"])
    assert found.rounds >= 1 and found.loop is not None
    assert not Tag.objects.exists()


def test_rows_are_measured_by_keys() -> None:
    """A queryset's first ones; its length is known; nothing is changed."""
    Author.objects.bulk_create(Author(name=f"a{n:03}") for n in range(60))
    found = bench(rename, Author.objects.order_by("-name"), sample=20, seconds=ENOUGH, workers=1)
    assert (found.total, found.reading_seconds) == (60, None)
    assert 16 <= found.items <= 20
    assert [row.note for row in found.rows] == [None] * len(found.rows)
    assert not Author.objects.filter(name__endswith="!").exists()


def test_typed_items_and_failures() -> None:
    """Failures are counted in every way, and do not end any."""
    found = bench(make, ["bad", *WORDS], seconds=ENOUGH, workers=1)
    assert found.failed == 1
    assert {row.failed for row in found.rows} == {1}
    assert [failure.index for failure in found.failures] == [0]
    assert connection.in_atomic_block is False


def test_nothing_is_compared_where_nearly_all_fail() -> None:
    """How fast they fail is of no use to anybody."""
    found = bench(make, [f"bad{word}" for word in WORDS], seconds=ENOUGH, workers=2)
    assert (found.rows, found.rounds) == ((), 0)
    assert found.failed == found.profiled == found.items
    assert "ValueError: badw000" in advice_on(found)


def test_lines_of_progress() -> None:
    """That the function is called again and again comes before its first call."""
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(f"{len(CALLS) > 0}: {line}")

    bench(make, WORDS, seconds=ENOUGH, workers=1, tell=tell)
    assert lines[0].startswith("False: each item is run in every way, again and again")
    assert any("round 1 took" in line for line in lines)


def test_a_moment_at_which_the_machine_is_busy() -> None:
    """Items that take too long are refused; not for one that did once."""
    slow = [1.2]

    def wait(word: str) -> None:
        if slow:
            time.sleep(slow.pop())

    found = bench(wait, WORDS, seconds=2, workers=1)
    assert found.item_seconds < 0.5
    assert not slow and found.rounds == 1


def nothing(word: str) -> None:
    pass


@pytest.mark.parametrize(("sample", "remedy"), [(39, True), (40, False), (1000, False)])
def test_workers_that_the_sample_is_too_small_for(sample: int, remedy: bool) -> None:
    """Are left out, which the table says; a larger one is asked for where there is more."""
    found = bench(nothing, WORDS, sample=sample, seconds=ENOUGH, workers=4)
    left_out = [row for row in found.rows if row.note is not None]
    assert {row.way.workers for row in left_out} == {2, 4}
    measured = [row for row in found.rows if row.is_measured]
    assert {row.way.workers for row in measured if row.way.paced} == {1}
    assert {row.chunk_size for row in measured if not row.way.paced} == {1}  # asked for
    (line,) = [line for line in text_of(found).splitlines() if "left out" in line]
    assert line.startswith("  2 threads; 4 threads; 2 processes; 4 processes: left out, since ")
    assert line.endswith("so many workers: take a larger sample (--sample)") is remedy


def test_each_pass_that_takes_long_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the way, in processes too; where it is only where that can be seen."""
    monkeypatch.setattr(watching, "FIRST", 0.002)
    told: list[str] = []
    parent = os.getpid()

    def wait(word: str) -> None:
        before = len(told)
        while word == WORDS[0] and os.getpid() == parent and len(told) == before:
            time.sleep(0.001)

    def tell(line: str) -> None:
        if "not through" in line:
            told.append(line)

    bench(wait, WORDS[:16], seconds=ENOUGH, workers=1, tell=tell)
    ways = ("warm-up", "profile", "plain loop, one transaction", "inline", "1 thread")
    named = {line.partition(":")[0] for line in told}
    named.discard("reading the sample")  # on a busy machine that takes 2 ms, too
    assert named == {*ways, "inline, coalesce=False", "1 process"}
    for way in ways:
        assert any(
            line.startswith(f"{way}: not through after ")
            and "tests/integration/test_bench.py:" in line
            for line in told
        )


def end_it(word: str) -> None:
    Tag.objects.create(word=word)
    with connection.cursor() as cursor:
        cursor.execute("COMMIT")


def write_elsewhere(word: str) -> None:
    AuditLine.objects.create(name=word)


@pytest.mark.parametrize("function", [end_it, write_elsewhere])
@pytest.mark.parametrize("savepoints", [True, False])
def test_the_plain_loop_stores_nothing_either(function: Any, savepoints: bool) -> None:
    """It refuses what `run` refuses: to end the transaction, to write where nothing is undone."""
    if savepoints:
        assert passed(function, WORDS[:3], savepoints=True).failed == 3
    else:
        with pytest.raises(CarpoolError, match="was not executed"):
            passed(function, WORDS[:3])

    assert not Tag.objects.exists()
    assert not AuditLine.objects.exists()
