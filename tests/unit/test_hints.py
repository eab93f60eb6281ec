"""The hint at a report's end: given where the figures speak clearly, and only there."""

from __future__ import annotations

from collections import Counter
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import carpool.hints as hints_module
from carpool.coalescing.figures import EarlyFlush, Figures
from carpool.hints import Seen, as_arguments, hint_of
from carpool.types import ChunkResult, Ending, Spent


def seen(**changes: Any) -> Seen:
    """Return a run of one worker that waited for 97 % of ten seconds, with these changes."""
    values: dict[str, Any] = {
        "items": 1000,
        "seconds": 10.0,
        "spent": Spent(10.0, 0.2, 0.1),
        "coalesced": None,
        "workers": 1,
        "where": "here",
        "processors": 4,
        "may_use_threads": True,
    }
    return Seen(**values | changes)


def broken(sent: int = 900, **changes: Any) -> Figures:
    """Return figures of batches that one line broke, with these changes."""
    early = Counter({EarlyFlush("shop_order", "shop/imports.py:31"): 800})
    values: dict[str, Any] = {"queued": 1000, "flushes": 810, "sent": sent, "early": early}
    return Figures(**values | changes)


BUSY = Spent(10.0, 9.0, 0.5)


def test_waiting_asks_for_threads() -> None:
    """With the share, in a sentence, from one worker and from a few processes."""
    words = '97% of the items\' time was waiting, not in the database: executor="threads"'
    assert str(hint_of(seen())).startswith(words)
    assert hint_of(seen(workers=2, where="processes", spent=Spent(20.0, 0.4, 0.2)))
    assert hint_of(seen(workers=15, where="threads", spent=Spent(150.0, 1.6, 0.8)))


@pytest.mark.parametrize(
    "changes",
    [
        {"items": 19},
        {"seconds": 1.9, "spent": Spent(1.9, 0.0, 0.0)},
        # A fifth of a second, of all workers two.
        {"seconds": 0.2, "workers": 10, "where": "threads", "spent": Spent(2.0, 0.0, 0.0)},
        # The pool's start was most of it.
        {"spent": Spent(1.9, 0.0, 0.0)},
        {"failed": 500},
        {"one_writer": True, "workers": 4, "where": "threads", "spent": Spent(40.0, 0.4, 0.2)},
        {"one_writer": True, "spent": Spent(10.0, 0.5, 1.0)},
        {"workers": 16, "where": "threads", "spent": Spent(160.0, 1.0, 1.0)},
        {"spent": Spent(10.0, 2.0, 1.0)},
        {"spent": Spent(10.0, 0.2, 9.7)},
        {"spent": BUSY},
        {"may_use_threads": False},
        {"workers": 32, "where": "threads", "spent": Spent(320.0, 2.0, 1.0)},
        # Sixteen processes on four processors wait for their turns.
        {"workers": 16, "where": "processes", "spent": Spent(160.0, 32.0, 0.0)},
        {"items": 0, "seconds": 0.0, "spent": Spent()},
    ],
    ids=str,
)
def test_what_is_not_clear_is_not_said(changes: dict[str, Any]) -> None:
    """Few items, a short run, other shares, nothing that could overlap, workers enough."""
    assert hint_of(seen(**changes)) is None


def test_fewer_threads_where_chunks_write_by_turns() -> None:
    """And none with half of them."""
    assert 'executor="threads", workers=8' in str(hint_of(seen(one_writer=True)))
    assert 'executor="threads", workers=32' in str(hint_of(seen()))


def test_a_few_failed_items_change_nothing() -> None:
    """Up to half of them."""
    assert hint_of(seen(failed=499)) == hint_of(seen()) is not None


def in_threads(n: int, waits: float, computes: float, processors: int) -> Seen:
    """Return 1,000 items in so many threads, none of which has the processor while another does."""
    an_item = max((waits + computes) / n, computes)
    seconds = 1000 * an_item
    spent = Spent(n * seconds, 1000 * computes, 0.0)
    return seen(seconds=seconds, spent=spent, workers=n, where="threads", processors=processors)


def in_processes(n: int, waits: float, computes: float, processors: int) -> Seen:
    """Return the same in so many processes."""
    seconds = 1000 * max((waits + computes) / n, computes / processors)
    spent = Spent(n * seconds, 1000 * computes, 0.0)
    return seen(seconds=seconds, spent=spent, workers=n, where="processes", processors=processors)


@given(
    threads=st.integers(2, 64),
    waits=st.floats(0.0, 10.0),
    computes=st.floats(0.01, 1.0),
    processors=st.integers(1, 64),
)
@example(threads=32, waits=0.1, computes=0.01, processors=2)
@example(threads=4, waits=0.03, computes=0.01, processors=4)
def test_no_hint_takes_back_another(
    threads: int, waits: float, computes: float, processors: int
) -> None:
    """Whatever a function does: not both processes for threads and threads for processes."""
    with mock.patch.object(hints_module, "_has_global_lock", return_value=True):
        first = hint_of(in_threads(threads, waits, computes, processors))
        then = hint_of(in_processes(processors, waits, computes, processors))
        back = hint_of(in_threads(32, waits, computes, processors))
    if "processes" in str(first):
        assert "threads" not in str(then)
    if "threads" in str(then):
        assert "processes" not in str(back)


def test_threads_that_take_turns_ask_for_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all of them together have used one processor, and there are more."""
    turns = seen(workers=4, where="threads", spent=Spent(40.0, 9.5, 12.0))
    monkeypatch.setattr(hints_module, "_has_global_lock", lambda: True)
    assert "4 threads took turns at one processor" in str(hint_of(turns))
    for other in ({"processors": 3}, {"where": "processes"}, {"spent": Spent(40.0, 6.0, 12.0)}):
        changed: dict[str, Any] = {"workers": 4, "where": "threads", "spent": turns.spent} | other
        assert hint_of(seen(**changed)) is None
    monkeypatch.setattr(hints_module, "_has_global_lock", lambda: False)
    assert hint_of(turns) is None


def test_broken_batches_name_the_line() -> None:
    """The one that caused most early flushes."""
    assert hint_of(seen(spent=BUSY, coalesced=broken())) == (
        "early flushes at shop/imports.py:31 (shop_order) broke most batches: 1,000 writes took "
        "900 statements"
    )


@pytest.mark.parametrize(
    "figures",
    [
        broken(sent=300),
        broken(queued=999),
        broken(early=Counter()),
        broken(flushes=1700),
        broken(early=Counter({EarlyFlush("t", f"a.py:{n}"): 300 for n in range(3)})),
    ],
    ids=["statements shared", "few writes", "none early", "most at the end", "many lines"],
)
def test_other_batches_are_not_talked_of(figures: Figures) -> None:
    """Nor is a line named that is one of many."""
    assert hint_of(seen(spent=BUSY, coalesced=figures)) is None


def test_the_command_names_its_own_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of Python's; a line of code is left as it is."""
    monkeypatch.setattr(hints_module, "_has_global_lock", lambda: True)
    assert as_arguments(str(hint_of(seen()))).endswith(
        "the database: --executor threads --workers 32 would overlap it"
    )
    turns = seen(workers=4, where="threads", spent=Spent(40.0, 9.5, 12.0))
    assert as_arguments(str(hint_of(turns))).endswith(": --executor processes would use 4")
    line = str(hint_of(seen(spent=BUSY, coalesced=broken())))
    assert as_arguments(line) == line


def test_waiting_comes_first() -> None:
    """There is one hint at most."""
    assert "waiting" in str(hint_of(seen(coalesced=broken())))


def test_what_was_spent_adds_up() -> None:
    """By chunks; waiting is the rest, and never less than nothing."""
    one = ChunkResult(1, Ending.COMMITTED, 2.0, cpu=0.5, database=0.25).spent
    assert one + one == Spent(4.0, 1.0, 0.5)
    assert (one + one).waiting == 2.5
    assert Spent(1.0, 0.7, 0.6).waiting == 0.0
