"""What every test here ends with: each item exactly once, its receiver's row included.

An item is a number; the function creates its author, and a receiver (``reactions.make_profile``)
its author's profile. Neither name is unique, so an item that is run twice is found twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from django.db import DEFAULT_DB_ALIAS

from carpool.journal.models import Entry, Run
from carpool.journal.spans import Spans
from tests.app.models import Author, Profile

#: Names shown of those that are missing or too many.
SHOWN = 10


def exactly_once(
    count: int, *, but: Collection[int] = (), using: str = DEFAULT_DB_ALIAS, journal: str = "t"
) -> None:
    """Fail unless the items ``0 … count - 1``, and none ``but`` these, are stored once each.

    And unless the journal of that name says the same.
    """
    rows_exactly_once(count, but=but, using=using)
    run = Run.objects.using(using).get(name=journal)
    assert Spans.loads(run.settled) == Spans([(0, count - 1)])
    assert Spans.loads(run.failed_positions) == Spans((n, n) for n in but)
    assert (run.succeeded, run.failed, run.skipped) == (count - len(but), len(but), 0)
    assert run.state == ("failed" if but else "succeeded")
    assert not Entry.objects.using(using).filter(run=run).exists()


def rows_exactly_once(
    count: int, *, but: Collection[int] = (), using: str = DEFAULT_DB_ALIAS
) -> None:
    """Fail unless these items' rows, and no others, are there once each."""
    authors = Author.objects.using(using).values_list("name", flat=True)
    profiles = Profile.objects.using(using).values_list("author__name", "bio")
    wanted = {f"a{number}" for number in range(count)} - {f"a{number}" for number in but}
    compare("authors", wanted, Counter(authors))
    compare("profiles", {(name, f"about {name}") for name in wanted}, Counter(profiles))


def compare(what: str, wanted: set, found: Counter) -> None:
    """Fail, with some of them named, if something is missing, too much, or there twice."""
    wrong = {
        "missing": wanted - found.keys(),
        "of nobody": found.keys() - wanted,
        "there more than once": {key for key, times in found.items() if times > 1},
    }
    said = [
        f"{len(keys)} {what} are {how}, such as {sorted(keys)[:SHOWN]}"
        for how, keys in wrong.items()
        if keys
    ]
    assert not said, "; ".join(said)


def agrees(using: str = DEFAULT_DB_ALIAS, journal: str = "t") -> int:
    """Fail unless journal and rows agree on what is done so far; return how many items are."""
    run = Run.objects.using(using).get(name=journal)
    settled, failed = Spans.loads(run.settled), Spans.loads(run.failed_positions)
    for entry in Entry.objects.using(using).filter(run=run, void=False):
        settled.update(Spans.loads(entry.done))
        failed.update(Spans.loads(entry.failed))
    done = {number for first, last in settled - failed for number in range(first, last + 1)}
    authors = Author.objects.using(using).values_list("name", flat=True)
    profiles = Profile.objects.using(using).values_list("author__name", flat=True)
    for what, rows in (("authors", authors), ("profiles", profiles)):
        compare(what, {f"a{number}" for number in done}, Counter(rows))
    return len(done)
