"""Engines deliver chunks twice, and lose answers. With a journal each item is stored once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Collection, Iterator
from functools import partial
from typing import Any

import pytest
from django.db import connections

import carpool
from carpool import Report
from carpool.functions import dumps, loads
from carpool.journal import journal
from carpool.journal.models import Entry, Lease, Run
from carpool.journal.spans import Spans
from carpool.types import ChunkResult, Ending, Fault
from tests.executors.loopback import Answer, Courier, Deliver, Loopback
from tests.journal.functions import names, store, stored
from tests.waiting import HANG

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.usefixtures("no_connections_left", "no_thread_left"),
]

NUMBER = 60
BAD = {7, 31}
"""Items that fail."""

STORE = partial(store, bad=frozenset(BAD))


@pytest.fixture(params=["folded at once", "never folded"])
def folding(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the entries folded between any two chunks, or only at the end."""
    monkeypatch.setattr(journal, "FOLDING", 0.0 if request.param == "folded at once" else 1e9)
    monkeypatch.setattr(journal, "FOLDING_SHARE", 0)


def run(engine: Loopback, **options: Any) -> Report:
    defaults: dict[str, Any] = {
        "chunk_size": 4,
        "progress": False,
        "journal": "twice",
        "executor": engine,
    }
    return carpool.run(STORE, range(NUMBER), **defaults | options)


def check(report: Report, failed_now: Collection[int] = BAD) -> None:
    """Check that each item is stored once, or has failed; and the books with it."""
    assert stored() == names(sorted(set(range(NUMBER)) - BAD))
    assert (report.total, report.unknown) == (NUMBER, 0)
    assert {failure.index for failure in report.failures} == set(failed_now)
    row = Run.objects.get()
    assert (row.succeeded, row.failed, row.state) == (NUMBER - len(BAD), len(BAD), "failed")
    assert Spans.loads(row.settled) == Spans([(0, NUMBER - 1)])
    assert Spans.loads(row.failed_positions) == Spans((n, n) for n in BAD)
    assert not Entry.objects.exists()


# How deliveries go wrong.


def twice_in_a_row(number: int, deliver: Deliver, answer: Answer) -> None:
    answer(deliver())
    answer(deliver())


def twice_and_the_first_answer_is_lost(number: int, deliver: Deliver, answer: Answer) -> None:
    deliver()
    answer(deliver())


def twice_at_once(number: int, deliver: Deliver, answer: Answer) -> None:
    other = threading.Thread(target=lambda: answer(deliver()))
    other.start()
    answer(deliver())
    other.join()


def given_up_before_it_runs(number: int, deliver: Deliver, answer: Answer) -> None:
    if number % 3 == 0:
        answer(ConnectionResetError("the broker is gone"))
        time.sleep(0.01)  # the coordinator gives it up now, or not yet
        deliver()
    else:
        answer(deliver())


def given_up_after_it_ran(number: int, deliver: Deliver, answer: Answer) -> None:
    result = deliver()
    answer(ConnectionResetError("the broker is gone") if number % 3 == 0 else result)


def at_random(number: int, deliver: Deliver, answer: Answer) -> None:
    couriers = [
        twice_in_a_row,
        twice_and_the_first_answer_is_lost,
        twice_at_once,
        given_up_before_it_runs,
        given_up_after_it_ran,
    ]
    random.Random(number).choice(couriers)(number, deliver, answer)


COURIERS: list[Courier] = [
    twice_in_a_row,
    twice_and_the_first_answer_is_lost,
    twice_at_once,
    given_up_before_it_runs,
    given_up_after_it_ran,
    at_random,
]


@pytest.mark.parametrize("courier", COURIERS)
def test_each_item_is_stored_once(courier: Courier, folding: None) -> None:
    """Whatever is delivered twice, or given up and delivered all the same."""
    check(run(Loopback(courier)))


def test_deliveries_long_after(folding: None) -> None:
    """A chunk that comes again when others have ended since, or the run, does nothing."""
    engine = Loopback()

    def courier(number: int, deliver: Deliver, answer: Answer) -> None:
        answer(deliver())
        engine.late.append(deliver)
        if number > 5:
            engine.late.pop(0)()

    engine.courier = courier
    report = run(engine)
    again_in_a_thread(engine)

    assert engine.late
    check(report)


def again_in_a_thread(engine: Loopback) -> None:
    """Deliver what is late, as a worker would whose connections are its own."""

    def work() -> None:
        for deliver in engine.late:
            deliver()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_late_deliveries_in_the_next_call(folding: None) -> None:
    """What the last call had sent does nothing while the next one runs, and nothing is lost."""
    first = Loopback()

    def courier(number: int, deliver: Deliver, answer: Answer) -> None:
        first.late.append(deliver)
        if 3 < number < 7:
            answer(ConnectionResetError("the broker is gone"))
        else:
            answer(deliver())

    def breaking_off() -> Iterator[int]:
        yield from range(NUMBER // 2)
        raise LookupError("no more")

    first.courier = courier
    with pytest.raises(LookupError):
        carpool.run(
            STORE, breaking_off(), chunk_size=4, progress=False, journal="twice", executor=first
        )

    def interfering(number: int, deliver: Deliver, answer: Answer) -> None:
        while first.late:
            first.late.pop()()
        answer(deliver())

    check(run(Loopback(interfering)), failed_now=BAD - set(range(NUMBER // 2)))
    assert not first.late


def test_a_chunk_refused_at_commit_is_not_run_by_a_late_delivery() -> None:
    """Its parts are run under other numbers, and so its own is closed first."""
    engine = Loopback()
    late: list[Deliver] = []
    refused: set[int] = set()

    def courier(number: int, deliver: Deliver, answer: Answer) -> None:
        if number == 2 and number not in refused:
            refused.add(number)
            fault = Fault("django.db.utils.IntegrityError", "refused", stage="commit")
            late.append(deliver)
            answer(dumps(ChunkResult(number, Ending.REFUSED, fault=fault)))
            return
        answer(deliver())
        while late:
            late.pop()()

    engine.courier = courier
    check(run(engine))
    assert refused and not late


def test_without_a_journal_a_second_delivery_is_not_run() -> None:
    """Its items are unknown, since the first may have stored them; none is stored twice."""
    report = run(Loopback(twice_and_the_first_answer_is_lost), journal=None)

    assert stored() == names(sorted(set(range(NUMBER)) - BAD))
    assert (report.succeeded, report.failed, report.unknown) == (0, 0, NUMBER)
    assert "delivered a second time" in report.failures[0].message


DEADLY = 20


def neighbours_of_the_dead() -> Courier:
    """Lose each chunk that is with a worker while the deadly item is: nothing tells whose fault."""
    lock = threading.Lock()
    there: set[int] = set()
    deaths = 0

    def courier(number: int, deliver: Deliver, answer: Answer) -> None:
        nonlocal deaths
        payloads: list[bytes] = deliver.args[2]  # type: ignore[attr-defined]
        items = {loads(payload) for payload in payloads}
        with lock:
            before = deaths
            there.update(items)
        time.sleep(0.05)
        with lock:
            is_lost = DEADLY in there or deaths > before
            there.difference_update(items)
            deaths += DEADLY in items
        answer(ConnectionError("a worker died") if is_lost else deliver())

    return courier


def test_an_item_that_is_lost_with_its_neighbours_is_found_in_the_end() -> None:
    """Those that were blamed with it as often as it are not: before it is blamed, it runs alone."""
    engine = Loopback(neighbours_of_the_dead())
    report = carpool.run(
        partial(store, bad=frozenset()),
        range(NUMBER),
        chunk_size=4,
        progress=False,
        journal="twice",
        executor=engine,
    )
    assert [failure.index for failure in report.failures] == [DEADLY]
    assert (report.succeeded, report.unknown) == (NUMBER - 1, 0)
    assert stored() == names(sorted(set(range(NUMBER)) - {DEADLY}))


def test_entries_stay_few_behind_a_chunk_that_takes_long(folding: None) -> None:
    """What can't be taken away yet is void, and goes when the slow chunk has ended."""
    going_on = threading.Event()
    most = 0

    def courier(number: int, deliver: Deliver, answer: Answer) -> None:
        nonlocal most
        if number == 1:
            going_on.wait(HANG)
        result = deliver()
        if number > 1:
            most = max(most, Entry.objects.count())
            connections.close_all()
            if number == 12:
                going_on.set()
        answer(result)

    check(run(Loopback(courier)))
    assert 0 < most <= NUMBER // 4
    assert Lease.objects.get().closed == 0  # the next call counts its chunks anew


def test_the_lease_is_raised_while_chunks_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folding closes numbers in the middle of a run of many workers, and nobody waits for ever."""
    monkeypatch.setattr(journal, "FOLDING", 0.0)
    monkeypatch.setattr(journal, "FOLDING_SHARE", 0)
    report = run(Loopback(twice_at_once, workers=6), chunk_size=1)

    check(report)
