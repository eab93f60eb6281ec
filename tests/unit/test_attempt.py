"""One chunk in one transaction: who fails, what is stored, what is called how often."""

from __future__ import annotations

import pickle
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from django.db import IntegrityError, connection, connections, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carpool import attempt as attempt_module
from carpool.attempt import Attempt
from carpool.exceptions import NotSendable
from carpool.grouping import CHECKED_CHUNKS, Grouping
from carpool.items import LocalItems
from carpool.observer import Observer, Stop
from carpool.tries import Work
from carpool.types import GONE, ChunkResult, Ending, Fault, Job
from tests.app.models import AuditLine, Author, Book
from tests.unit.driver_errors import busy, deadlock, lost, rolled_back

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

BROKEN = "carpool.exceptions.TransactionBroken"
NOBODY = 999_999_999
BOTH = ("default", "other")


@pytest.fixture(autouse=True)
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Don't really wait between tries; give the times that would have been waited."""
    naps: list[float] = []
    monkeypatch.setattr(attempt_module.time, "sleep", naps.append)
    return naps


class Script:
    """A function whose calls are counted, and that does to each item what the test says."""

    def __init__(
        self, default: Callable[[Any], Any] | None = None, **by_item: Callable[[Any], Any]
    ) -> None:
        self.default = default or store
        self.by_item = by_item
        self.calls: Counter[str] = Counter()

    def __call__(self, item: Any) -> Any:
        self.calls[item] += 1
        return self.by_item.get(item, self.default)(item)


def store(item: Any) -> str:
    return Author.objects.create(name=item).name


def stored() -> str:
    return "".join(sorted(Author.objects.values_list("name", flat=True)))


def attempt(function: Callable[..., Any], items: Any, **options: Any) -> Attempt:
    given_out = items
    if isinstance(items, str):
        given_out = LocalItems(items, [pickle.dumps(item) for item in items])
    job = Job(
        function=function,
        setup=None,
        queryset=None,
        using=options.pop("using", ("default",)),
        retries=options.pop("retries", 5),
        dry_run=options.pop("dry_run", False),
        keep_values=options.pop("keep_values", False),
        coalesce=options.pop("coalesce", False),
        convert=options.pop("convert", None),
        before_chunk=options.pop("before_chunk", None),
    )
    positions = range(options.pop("length", None) or len(items))
    work = Work(
        job,
        positions,
        given_out,
        options.pop("observer", None) or Observer(),
        options.pop("grouping", None) or Grouping(),
        pack=options.pop("pack", None),
        interruptible=options.pop("interruptible", False),
    )
    return Attempt(work, 7, **options)


def run(function: Callable[..., Any], items: Any, **options: Any) -> ChunkResult:
    return attempt(function, items, **options).run()


def faults(result: ChunkResult) -> dict[int, str]:
    return {position: fault.error for position, fault in sorted(result.faults.items())}


# Which items fail.


def raise_at_once(item: Any) -> None:
    raise ValueError(item)


def raise_after_writing(item: Any) -> None:
    store(item)
    raise ValueError(item)


def save_nonsense(item: Any) -> None:
    """Fail inside save() before any statement: Django marks the transaction for rollback."""
    Author(name=item, books_written="many").save()  # type: ignore[misc]


def leave_marked(item: Any) -> None:
    """Swallow the same."""
    try:
        save_nonsense(item)
    except ValueError:
        pass


def set_rollback(item: Any) -> None:
    store(item)
    transaction.set_rollback(True)


def set_rollback_and_raise(item: Any) -> None:
    transaction.set_rollback(True)
    raise ValueError(item)


def close_connection(item: Any) -> None:
    store(item)
    connection.close()


def close_driver_and_raise(item: Any) -> None:
    """Leave a connection on which not even a savepoint can be undone."""
    store(item)
    connection.connection.close()
    raise ValueError(item)


def exit_process(item: Any) -> None:
    store(item)
    sys.exit(3)


def interrupt(item: Any) -> None:
    store(item)
    raise KeyboardInterrupt


def write_unseen_and_raise(item: Any) -> None:
    """Write as COPY and callproc() do: past Django's execute(), by the driver's own cursor."""
    with connection.cursor() as cursor:
        cursor.cursor.execute("INSERT INTO app_author (name, books_written) VALUES ('unseen', 0)")
    raise ValueError(item)


BAD: dict[str, tuple[Callable[[Any], Any], str]] = {
    "raises": (raise_at_once, "builtins.ValueError"),
    "raises after writing": (raise_after_writing, "builtins.ValueError"),
    "writes unseen": (write_unseen_and_raise, "builtins.ValueError"),
    "saves nonsense": (save_nonsense, "builtins.ValueError"),
    "swallows nonsense": (leave_marked, BROKEN),
    "sets rollback": (set_rollback, BROKEN),
    "sets rollback and raises": (set_rollback_and_raise, "builtins.ValueError"),
    "closes the connection": (close_connection, BROKEN),
    "closes the driver's": (close_driver_and_raise, "builtins.ValueError"),
    "exits": (exit_process, "builtins.SystemExit"),
    "interrupts": (interrupt, "builtins.KeyboardInterrupt"),
}


@pytest.mark.parametrize("length", [1, 3, 40])
@pytest.mark.parametrize(("bad", "error"), BAD.values(), ids=BAD)
def test_a_bad_item_fails_alone(bad: Callable[[Any], Any], error: str, length: int) -> None:
    """Whatever it does, nothing of it is stored, and everything of its neighbours."""
    items = [chr(ord("A") + n) for n in range(length)]
    middle = length // 2
    function = Script(**{items[middle]: bad})
    result = run(function, "".join(items))
    assert result.ending is Ending.COMMITTED
    assert faults(result) == {middle: error}
    assert stored() == "".join(items[:middle] + items[middle + 1 :])
    assert not connection.in_atomic_block


@given(data=st.data(), length=st.integers(1, 30))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bad_items_fail_and_no_others(data: st.DataObject, length: int) -> None:
    """Any set of items, bad in any ways: exactly the others are stored, once."""
    Author.objects.all().delete()
    items = "".join(chr(ord("A") + n) for n in range(length))
    kinds = data.draw(
        st.dictionaries(st.sampled_from(items), st.sampled_from(list(BAD.values())), max_size=8)
    )
    function = Script(**{item: kind[0] for item, kind in kinds.items()})
    result = run(function, items)
    assert faults(result) == {p: kinds[i][1] for p, i in enumerate(items) if i in kinds}
    assert stored() == "".join(item for item in items if item not in kinds)


def test_closing_the_connection_is_called_by_its_name() -> None:
    """The message says what the function did, and that it needn't."""
    result = run(Script(b=close_connection), "abc")
    assert "closed the database connection" in result.faults[1].message


def test_an_item_without_statements_that_fails_costs_its_neighbours_nothing() -> None:
    """Where nothing reached the database nothing is undone, so nobody is called twice."""
    function = Script(c=raise_at_once)
    run(function, "abcdef")
    assert set(function.calls.values()) == {1}


def test_one_bad_item_costs_the_others_one_call_more_at_most() -> None:
    """The group is undone, and run again once."""
    function = Script(c=raise_after_writing)
    run(function, "abcdef")
    assert max(function.calls.values()) <= 2


def test_a_chunk_of_one_is_never_called_twice() -> None:
    """chunk_size=1 promises it."""
    function = Script(a=raise_after_writing)
    result = run(function, "a")
    assert faults(result) == {0: "builtins.ValueError"}
    assert function.calls == {"a": 1}


# Items that don't come as they should.


class Loads:
    """Items whose loading, each time, gives what the test says."""

    def __init__(self, *times: Sequence[Any]) -> None:
        self.times = iter(times)

    def load(self, positions: Sequence[int]) -> Iterator[tuple[int, Any]]:
        now = next(self.times)
        return ((position, now[position]) for position in positions)


def test_rows_that_are_gone_are_skipped_and_items_with_faults_fail() -> None:
    """The function is called for neither."""
    function = Script()
    result = run(function, Loads(["a", GONE, Fault("e", "m", stage="item"), "d"]), length=4)
    assert result.skipped == (1,)
    assert faults(result) == {2: "e"}
    assert function.calls == {"a": 1, "d": 1}
    assert stored() == "ad"


def test_a_row_that_is_back_at_the_second_look_is_not_skipped() -> None:
    """What an undone group found does not count: the row may be there the next time."""
    loads = Loads(["a", GONE, "c"], ["a", "b", None], ["a"])
    result = run(Script(c=raise_after_writing), loads, length=3)
    assert result.skipped == ()
    assert faults(result) == {2: "builtins.ValueError"}
    assert stored() == "ab"


@pytest.mark.parametrize("error", [ValueError("no"), deadlock()], ids=["own", "deadlock"])
def test_a_load_that_raises_is_judged_as_a_statement(error: Exception) -> None:
    """Trouble is tried again; anything else means that no worker can go on."""

    class Broken:
        loads = 0

        def load(self, positions: Sequence[int]) -> Iterable[tuple[int, Any]]:
            self.loads += 1
            if self.loads == 1:
                raise error
            return [(position, "a") for position in positions]

    result = run(store, Broken(), length=1)
    if isinstance(error, ValueError):
        assert result.ending is Ending.UNAVAILABLE
        assert result.fault is not None
        assert result.fault.message == "no"
        assert stored() == ""
    else:
        assert (result.ending, result.retries) == (Ending.COMMITTED, 1)
        assert stored() == "a"


# Trouble: the same work may succeed in a while.


def failing(times: int, make: Callable[[], Exception]) -> Callable[[Any], Any]:
    """Return a step that stores the item and then raises, so many times."""
    left = [times]

    def step(item: Any) -> Any:
        name = store(item)
        if left[0]:
            left[0] -= 1
            raise make()
        return name

    return step


@pytest.mark.parametrize("trouble", [busy, deadlock, rolled_back, lost])
def test_trouble_undoes_the_chunk_and_tries_it_again(
    trouble: Callable[[], Exception], naps: list[float]
) -> None:
    """After a deadlock and its like every item is run again, and all are stored once."""
    function = Script(b=failing(2, trouble))
    result = run(function, "abc")
    assert (result.ending, result.retries, result.faults) == (Ending.COMMITTED, 2, {})
    assert stored() == "abc"
    assert function.calls["a"] == 3
    assert len(naps) == 2


def test_trouble_on_a_database_that_the_chunk_does_not_cover_is_tried_again_too() -> None:
    """The item sent nothing on the chunk's own; it is the same trouble all the same."""
    errors = [lost(), deadlock()]

    def elsewhere(item: Any) -> None:
        if errors:
            raise errors.pop()
        store(item)

    result = run(Script(b=elsewhere), "abc")
    assert (result.ending, result.retries, result.faults) == (Ending.COMMITTED, 2, {})
    assert stored() == "abc"


def test_the_pauses_grow_and_are_bounded(naps: list[float]) -> None:
    """Back-off doubles, by chance a half more or less, up to a few seconds."""
    run(Script(a=failing(12, busy)), "a", retries=12)
    assert len(naps) == 12
    for number, nap in enumerate(naps):
        whole = min(attempt_module.LONGEST_BACK_OFF, attempt_module.BACK_OFF * 2**number)
        assert whole * 0.5 <= nap <= whole * 1.5
    assert len(set(naps)) == 12


@pytest.mark.parametrize("retries", [0, 1, 5])
def test_trouble_that_does_not_go_away_is_the_items_that_meets_it(retries: int) -> None:
    """After so many tries the item fails, and the others are stored."""
    function = Script(b=failing(10**6, deadlock))
    result = run(function, "abc", retries=retries)
    assert (result.ending, result.retries) == (Ending.COMMITTED, retries)
    assert result.faults[1].sqlstate == "40P01"
    assert list(result.faults) == [1]
    assert stored() == "ac"
    assert function.calls["b"] == retries + 1


def test_each_item_in_trouble_has_tries_of_its_own() -> None:
    """After one that never succeeds has failed, the next is tried as often as any."""
    function = Script(a=failing(10**6, deadlock), b=failing(2, busy), c=failing(10**6, lost))
    result = run(function, "abcd", retries=2)
    assert list(result.faults) == [0, 2]
    assert stored() == "bd"


def test_a_rollback_that_the_function_hides_is_found() -> None:
    """If a statement met a deadlock, the transaction is gone, whatever the function makes of it."""
    hidden = [True]

    def hide(execute: Any, sql: str, *rest: Any) -> Any:
        if hidden and "'b'" in repr(rest[0]):
            hidden.pop()
            raise rolled_back()
        return execute(sql, *rest)

    def swallow(item: Any) -> None:
        with connection.execute_wrapper(hide):
            try:
                with transaction.atomic():
                    store(item)
            except Exception:
                store(item)

    result = run(Script(b=swallow), "abc")
    assert result.ending is Ending.COMMITTED
    assert stored() == "abc"


def test_a_lost_connection_is_closed_only_where_it_is_the_workers() -> None:
    """A worker of a pool begins with a new connection; inline the connection is the caller's."""
    for owns, same in ((True, False), (False, True)):
        connection.ensure_connection()
        before = connection.connection
        run(Script(a=failing(1, lost)), "a", owns_connections=owns)
        assert (connection.connection is before) == same


def test_a_lost_connection_to_any_database_is_made_anew() -> None:
    """The function may have lost one that the chunk's transaction does not cover."""
    connections["other"].ensure_connection()
    before = connections["other"].connection
    run(Script(a=failing(1, lost)), "a")
    assert connections["other"].connection is not before


# COMMIT.


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make COMMIT on an alias raise these errors, one a time, before or after the real one."""

    def raising(*errors: Exception, alias: str = "default", stored: bool = False) -> None:
        left = list(errors)
        wrapper = connections[alias]
        real = wrapper._commit

        def commit() -> None:
            if left:
                if stored:
                    real()
                raise left.pop(0)
            real()

        monkeypatch.setattr(wrapper, "_commit", commit, raising=True)

    return raising


Commits = Callable[..., None]


def test_a_conflict_at_commit_is_tried_again(commits: Commits) -> None:
    """A serialization failure comes at COMMIT as well, and the chunk is simply run again."""
    commits(deadlock(), deadlock())
    result = run(store, "ab")
    assert (result.ending, result.retries) == (Ending.COMMITTED, 2)
    assert stored() == "ab"


def test_a_commit_that_is_lost_is_unknown_and_not_tried_again(commits: Commits) -> None:
    """Nobody can say whether it is stored, so it is never run twice."""
    commits(lost(), stored=True)
    function = Script(b=raise_at_once)
    result = run(function, "abc")
    assert result.ending is Ending.UNKNOWN
    assert faults(result) == {1: "builtins.ValueError"}
    assert function.calls["a"] == 1
    assert stored() == "ac"


def test_a_commit_that_refuses_is_given_back(commits: Commits) -> None:
    """With no row to blame and nothing to check, run() splits the chunk."""
    commits(IntegrityError("refused"), IntegrityError("refused"))
    result = run(store, "abc")
    assert result.ending is Ending.REFUSED
    assert result.fault is not None
    assert result.fault.stage == "commit"
    assert stored() == ""


def test_a_conflict_at_commit_that_stays_is_given_back(commits: Commits) -> None:
    """After the retries a smaller chunk may get through where this one does not."""
    commits(*[deadlock() for _ in range(10)])
    result = run(store, "abc", retries=2)
    assert (result.ending, result.retries) == (Ending.REFUSED, 2)


@pytest.mark.parametrize("length", [1, 2, 20, 60])
def test_rows_that_only_commit_refuses_are_found(length: int) -> None:
    """A foreign key to nowhere, which SQLite tells at COMMIT, fails its item alone."""

    def dangle(item: Any) -> None:
        Book.objects.create(name=item, author_id=NOBODY)

    items = "".join(chr(ord("A") + n) for n in range(length))
    bad = {items[0], items[-1]}
    grouping = Grouping()
    result = run(Script(**dict.fromkeys(bad, dangle)), items, grouping=grouping)
    assert result.ending is Ending.COMMITTED
    assert list(result.faults) == sorted({0, length - 1})
    assert {fault.stage for fault in result.faults.values()} == {"commit"}
    assert stored() == "".join(item for item in items if item not in bad)
    assert not Book.objects.exists()
    assert grouping.checks_early


def test_a_transaction_that_silently_was_not_committed_is_not_counted() -> None:
    """Whatever undid it without an error: what is not stored is not called so."""
    rollbacks = [True, True]

    class Sly(Observer):
        def committing(self) -> None:
            if rollbacks:
                rollbacks.pop()
                transaction.set_rollback(True)

    result = run(store, "ab", observer=Sly())
    assert (result.ending, result.retries) == (Ending.COMMITTED, 2)
    assert stored() == "ab"


def test_who_stumbles_over_a_row_that_is_refused_later_is_run_without_it() -> None:
    """The row would have been refused by itself, so it is in nobody's way."""

    def dangle(item: Any) -> None:
        Book.objects.create(name=item, author_id=NOBODY)

    def stumble(item: Any) -> None:
        if Book.objects.filter(name="b").exists():
            raise ValueError("b is there already")
        store(item)

    result = run(Script(b=dangle, d=stumble), "abcde")
    assert {position: fault.stage for position, fault in result.faults.items()} == {1: "commit"}
    assert stored() == "acde"


def test_with_several_aliases_rows_are_checked_before_the_first_commit() -> None:
    """A COMMIT that is refused on one alias comes too late if another's has succeeded."""

    def dangle(item: Any) -> None:
        audit(item)
        Book.objects.create(name=item, author_id=NOBODY)

    result = run(Script(audit, b=dangle), "abc", using=BOTH)
    assert result.ending is Ending.COMMITTED
    assert list(result.faults) == [1]
    assert (stored(), audited()) == ("ac", "ac")


def test_inside_the_callers_transaction_a_conflict_is_the_items_own() -> None:
    """Only the caller, who began the transaction, can repeat it."""
    with transaction.atomic():
        function = Script(b=failing(10**6, deadlock))
        result = run(function, "abc")
    assert (result.ending, result.retries) == (Ending.COMMITTED, 0)
    assert list(result.faults) == [1]
    assert stored() == "ac"


def test_inside_the_callers_transaction_a_lost_connection_ends_the_run() -> None:
    """What the caller had done is gone: nothing of carpool's can put that right."""
    with transaction.atomic():
        result = run(Script(b=failing(1, rolled_back)), "abc")
        transaction.set_rollback(True)
    assert (result.ending, result.retries) == (Ending.UNAVAILABLE, 0)
    assert stored() == ""


def test_early_checks_end_some_chunks_after_the_last_refusal() -> None:
    """They cost a round trip a group, and bad rows come in runs."""
    grouping = Grouping()
    grouping.commit_refused(can_check=True)
    for _ in range(CHECKED_CHUNKS):
        assert grouping.checks_early
        run(lambda item: None, "a", grouping=grouping)
    assert not grouping.checks_early


def audit(item: Any) -> None:
    store(item)
    AuditLine.objects.create(name=item)


def audited() -> str:
    return "".join(sorted(AuditLine.objects.values_list("name", flat=True)))


def test_a_transaction_covers_every_alias() -> None:
    """A bad item leaves nothing on either database."""

    def bad(item: Any) -> None:
        audit(item)
        raise ValueError(item)

    result = run(Script(audit, b=bad), "abc", using=BOTH)
    assert faults(result) == {1: "builtins.ValueError"}
    assert (stored(), audited()) == ("ac", "ac")


def test_a_chunk_stored_on_one_alias_only_is_unknown(commits: Commits) -> None:
    """Two COMMITs are not one: where the second is refused, the message says what is stored."""
    commits(IntegrityError("refused"))
    result = run(audit, "ab", using=BOTH)
    assert result.ending is Ending.UNKNOWN
    assert result.fault is not None
    assert result.fault.stage == "unknown"
    assert result.fault.message == "stored on other, but not on every alias; then: refused"
    assert (stored(), audited()) == ("", "ab")


def test_a_chunk_whose_last_transaction_is_marked_for_rollback_is_not_tried_again() -> None:
    """By a callback of the first one's, say: what is stored there would be stored again."""

    def hook(item: Any) -> None:
        audit(item)
        transaction.on_commit(partial(transaction.set_rollback, True), using="other")

    result = run(hook, "ab", using=BOTH)
    assert result.ending is Ending.UNKNOWN
    assert result.fault is not None
    assert "stored on other, but not on every alias" in result.fault.message
    assert (stored(), audited()) == ("", "ab")


def test_an_error_after_the_last_commit_does_not_say_that_one_is_missing() -> None:
    """The message names what is stored, and says no more than is known."""

    class Late(Observer):
        def committed(self) -> None:
            raise ValueError("late")

    result = run(audit, "ab", using=BOTH, observer=Late())
    assert result.ending is Ending.UNKNOWN
    assert result.fault is not None
    assert result.fault.message == "stored on other, default; then: late"
    assert (stored(), audited()) == ("ab", "ab")


def test_nothing_is_left_on_the_connection() -> None:
    """After a chunk the connection has neither wrappers nor attributes of carpool's."""
    connection.ensure_connection()
    before = dict(vars(connections["default"]))
    run(Script(b=raise_after_writing), "abc")
    assert vars(connections["default"]).keys() == before.keys()
    assert connection.execute_wrappers == []
    assert connection.transaction_mode == before["transaction_mode"]


def test_a_cursor_method_that_someone_else_put_there_is_used_and_stays() -> None:
    """django-debug-toolbar, for one, puts its own on the connection."""
    calls = []
    real = connection.cursor

    def mine() -> Any:
        calls.append(1)
        return real()

    connection.cursor = mine
    try:
        run(store, "ab")
        assert calls
        assert connection.cursor is mine
    finally:
        del connection.cursor


def test_no_database_means_no_worker_can_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where BEGIN fails for good, nothing is run and the run has to stop."""

    def begin(*args: Any) -> Any:
        raise lost()

    monkeypatch.setattr(connection, "set_autocommit", begin)
    function = Script()
    result = run(function, "ab", retries=2)
    assert (result.ending, result.retries) == (Ending.UNAVAILABLE, 2)
    assert not function.calls


def test_the_time_that_the_write_lock_took_is_not_the_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else workers that queue for SQLite's lock would make chunks smaller and smaller."""

    class Clock:
        now = 0.0
        sleep = staticmethod(lambda seconds: None)
        thread_time = staticmethod(lambda: 0.0)

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(attempt_module, "time", clock)
    begin = connections["default"].set_autocommit

    def wait_and_begin(*args: Any, **kwargs: Any) -> None:
        clock.now += 30
        begin(*args, **kwargs)

    monkeypatch.setattr(connections["default"], "set_autocommit", wait_and_begin)

    def slow(item: Any) -> None:
        clock.now += 2

    committed_at = []

    class Notes(Observer):
        def prepared(self, result: ChunkResult) -> None:
            committed_at.append(result.seconds)

    run(slow, "abc", observer=Notes())
    assert committed_at == [6]


# Callbacks.


def hooking(log: list[str], step: Callable[[Any], Any] = store) -> Callable[[Any], Any]:
    """Return a step that registers a callback, which notes the item, and then goes on."""

    def hook(item: Any) -> Any:
        transaction.on_commit(partial(log.append, item))
        return step(item)

    return hook


def test_callbacks_run_once_after_the_commit_and_never_for_a_failed_item() -> None:
    """on_commit of an item runs when its rows are stored, in the items' order."""
    log: list[str] = []
    function = Script(
        hooking(log), b=hooking(log, raise_after_writing), d=hooking(log, raise_at_once)
    )
    run(function, "abcde")
    assert log == ["a", "c", "e"]


def test_callbacks_of_a_try_that_was_undone_do_not_run() -> None:
    """A deadlock's first try leaves no mail to be sent."""
    log: list[str] = []
    run(Script(hooking(log), b=hooking(log, failing(1, deadlock))), "abc")
    assert log == ["a", "b", "c"]


def test_a_callback_that_raises_fails_its_item_alone() -> None:
    """The rows are stored, the item has failed, the neighbours' callbacks run."""
    log: list[str] = []

    def hook(item: Any) -> None:
        store(item)
        transaction.on_commit(partial(log.append, "before"))
        transaction.on_commit(partial(raise_at_once, item))
        transaction.on_commit(partial(log.append, "after"))

    result = run(Script(hooking(log), b=hook), "abc")
    assert result.ending is Ending.COMMITTED
    assert faults(result) == {1: "builtins.ValueError"}
    assert result.faults[1].stage == "on_commit"
    assert stored() == "abc"
    assert log == ["a", "before", "c"]


def test_callbacks_inside_the_callers_transaction_are_the_callers() -> None:
    """Inside atomic() they stay what they are, and run, or are dropped, when that ends."""
    log: list[str] = []
    with transaction.atomic():
        run(Script(hooking(log), b=hooking(log, raise_after_writing)), "abc")
        assert log == []
        callbacks = [entry[1] for entry in connection.run_on_commit]
        assert [type(callback) for callback in callbacks] == [partial, partial]
    assert log == ["a", "c"]


def test_a_run_inside_a_transaction_leaves_nothing_of_its_own_there() -> None:
    """Each chunk's items would be kept in memory until the caller's COMMIT."""
    with transaction.atomic():
        for _ in range(3):
            run(store, "abc")
        assert connection.run_on_commit == []


def test_callbacks_that_raise_on_an_alias_of_our_own_cost_no_second_run() -> None:
    """With one alias inside the caller's transaction and one not, each is treated as it is."""

    def hook(item: Any) -> None:
        audit(item)
        transaction.on_commit(partial(raise_at_once, item), using="other")

    with transaction.atomic():
        result = run(Script(audit, b=hook), "abc", using=BOTH)
        assert result.ending is Ending.COMMITTED
        assert {p: f.stage for p, f in result.faults.items()} == {1: "on_commit"}
    assert (stored(), audited()) == ("abc", "abc")


def test_a_dry_run_stores_nothing_and_calls_no_callbacks() -> None:
    """Everything runs, failures are found, and all is rolled back."""
    log: list[str] = []
    function = Script(hooking(log), b=raise_after_writing)
    result = run(function, "abc", dry_run=True)
    assert result.ending is Ending.COMMITTED
    assert faults(result) == {1: "builtins.ValueError"}
    assert (stored(), log) == ("", [])
    assert function.calls["c"] > 0


def test_a_dry_run_inside_a_transaction_leaves_that_as_it_was() -> None:
    """Only the chunk is rolled back, not what the caller did before."""
    with transaction.atomic():
        store("z")
        run(store, "abc", dry_run=True)
        assert stored() == "z"
    assert stored() == "z"


# What the observer is told, and what it can stop.


class Watcher(Observer):
    """Notes the steps, and raises Stop at the so-manieth step of a kind."""

    def __init__(self, stop_at: str = "") -> None:
        self.steps: list[str] = []
        self.stop_at = stop_at

    def note(self, step: str) -> None:
        self.steps.append(step)
        if step == self.stop_at:
            raise Stop

    def item(self, position: int) -> None:
        self.note(f"item {position}")

    def idle(self) -> None:
        self.note("idle")

    def prepared(self, result: ChunkResult) -> None:
        self.result = result
        self.note("prepared")

    def committing(self) -> None:
        self.note("committing")

    def committed(self) -> None:
        self.note("committed")


def test_the_steps_of_a_chunk_are_told_in_order() -> None:
    """Each item, then idle, prepared, committing, and committed when it is stored everywhere."""
    watcher = Watcher()
    result = run(audit, "ab", observer=watcher, using=BOTH)
    last = ["idle", "prepared", "committing", "committed"]
    assert watcher.steps == ["item 0", "idle", "item 1", "idle", *last]
    assert watcher.result.ending is result.ending
    assert watcher.result.faults == result.faults


def test_no_item_is_running_while_others_are_loaded() -> None:
    """The time that rows take to load is not held against the item before them."""
    watcher = Watcher()

    class Slow:
        def load(self, positions: Sequence[int]) -> Iterator[tuple[int, Any]]:
            for position in positions:
                watcher.steps.append("load")
                yield position, "abc"[position]

    run(Script(b=raise_after_writing), Slow(), length=3, observer=watcher)
    before_loads = [before for before, step in pairwise(watcher.steps) if step == "load"]
    assert len(before_loads) == 3
    assert not [step for step in before_loads if step.startswith("item")]


def test_no_item_is_running_while_the_chunk_waits_for_its_next_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker that dies in its sleep did not die of an item."""
    watcher = Watcher()
    asleep: list[str] = []
    monkeypatch.setattr(attempt_module.time, "sleep", lambda s: asleep.append(watcher.steps[-1]))
    run(Script(b=failing(2, deadlock)), "abc", observer=watcher)
    assert asleep == ["idle", "idle"]


def test_committed_is_told_before_the_callbacks_run() -> None:
    """A worker that dies in a callback died after COMMIT."""
    watcher = Watcher()

    def hook(item: Any) -> None:
        store(item)
        transaction.on_commit(lambda: watcher.steps.append("callback"))

    run(hook, "a", observer=watcher)
    assert watcher.steps[-2:] == ["committed", "callback"]


def test_in_a_dry_run_no_commit_is_told() -> None:
    """There is none."""
    watcher = Watcher()
    run(store, "a", observer=watcher, dry_run=True)
    assert watcher.steps == ["item 0", "idle", "idle", "prepared"]


@pytest.mark.parametrize("step", ["item 0", "item 1", "committing"])
def test_a_stop_rolls_the_chunk_back(step: str) -> None:
    """Where the run is over, nothing of the chunk is stored, and it says so."""
    result = run(store, "abc", observer=Watcher(step))
    assert result.ending is Ending.STOPPED
    assert stored() == ""
    assert not connection.in_atomic_block


# Ctrl-C, inline.


@pytest.mark.parametrize("interruptible", [True, False])
def test_ctrl_c_in_the_function_passes_where_it_is_the_users(interruptible: bool) -> None:
    """In the parent it ends the run; in a worker it can only be the function's doing."""
    function = Script(b=interrupt)
    if interruptible:
        with pytest.raises(KeyboardInterrupt):
            run(function, "abc", interruptible=True)
        assert stored() == ""
    else:
        run(function, "abc")
        assert stored() == "ac"


class Presses(Observer):
    """Notes that Ctrl-C was kept for later."""

    interruptions = 0

    def interrupted(self) -> None:
        self.interruptions += 1


def press(item: Any) -> None:
    raise KeyboardInterrupt


def test_ctrl_c_in_a_callback_does_not_hide_that_the_chunk_is_stored() -> None:
    """The rows are stored, the callbacks that did not run are named, and the run is to end."""
    log: list[str] = []

    def hook(item: Any) -> None:
        store(item)
        transaction.on_commit(partial(press, item))

    presses = Presses()
    result = run(Script(hooking(log), b=hook), "abc", interruptible=True, observer=presses)
    assert result.ending is Ending.COMMITTED
    assert faults(result) == dict.fromkeys([1, 2], "builtins.KeyboardInterrupt")
    assert {fault.stage for fault in result.faults.values()} == {"on_commit"}
    assert presses.interruptions > 0
    assert stored() == "abc"
    assert log == ["a"]


def test_a_keyboard_interrupt_in_a_workers_callback_is_the_items_own() -> None:
    """A worker is never told of Ctrl-C: the other items' callbacks run."""
    log: list[str] = []

    def hook(item: Any) -> None:
        store(item)
        transaction.on_commit(partial(press, item))

    presses = Presses()
    result = run(Script(hooking(log), b=hook), "abc", observer=presses)
    assert faults(result) == {1: "builtins.KeyboardInterrupt"}
    assert presses.interruptions == 0
    assert log == ["a", "c"]


def test_ctrl_c_during_commit_leaves_the_chunk_unknown(commits: Commits) -> None:
    """Whether COMMIT got through, nobody can say: it is not run again, nor called undone."""
    commits(KeyboardInterrupt(), stored=True)  # type: ignore[arg-type]
    presses = Presses()
    result = run(store, "ab", interruptible=True, observer=presses)
    assert result.ending is Ending.UNKNOWN
    assert presses.interruptions == 1


# Values.


def test_values_are_kept_only_where_they_are_wanted() -> None:
    """run() drops what the function returns, stream() keeps it, as it is or packed."""
    assert run(store, "ab").values == {}
    result = run(store, "ab", keep_values=True)
    assert (result.values, result.values_are_packed) == ({0: "a", 1: "b"}, False)
    result = run(store, "ab", keep_values=True, pack=pickle.dumps)
    assert {p: pickle.loads(value) for p, value in result.values.items()} == {0: "a", 1: "b"}
    assert result.values_are_packed


def test_a_value_that_cannot_be_sent_fails_its_item_before_it_is_stored() -> None:
    """A pack that raises is an error of the item's, and nothing of it is kept."""

    def pack(value: Any) -> bytes:
        if value == "b":
            raise NotSendable("not me")
        return b""

    result = run(store, "abc", keep_values=True, pack=pack)
    assert faults(result) == {1: "carpool.exceptions.NotSendable"}
    assert stored() == "ac"


# Conversion, and what is called before the items.


class Hook:
    """A before_chunk whose calls are noted; it does what the test says, and returns its number."""

    def __init__(self, *does: Callable[[list[Any]], Any]) -> None:
        self.does = list(does)
        self.calls: list[str] = []

    def __call__(self, items: list[Any]) -> int:
        self.calls.append("".join(map(str, items)))
        if self.does:
            self.does.pop(0)(items)
        return len(self.calls)


def raise_for(bad: str, error: Callable[[], Exception] = LookupError) -> Callable[[Any], None]:
    def check(items: list[Any]) -> None:
        if bad in items:
            raise error()

    return check


def raising(error: BaseException) -> Callable[[Any], None]:
    def do(items: Any) -> None:
        raise error

    return do


class Given:
    """Items as given: some gone, some that can't be loaded."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def load(self, positions: Sequence[int]) -> Iterator[tuple[int, Any]]:
        for position in positions:
            yield position, self.items[position]


COALESCE = pytest.mark.parametrize("coalesce", [False, True])


@COALESCE
def test_the_hooks_result_is_passed_on(coalesce: bool) -> None:
    """One call for the group; each item gets what it returned."""
    hook = Hook()
    got: list[Any] = []

    def take(item: Any, result: Any) -> None:
        store(item)
        got.append((item, result))

    result = run(take, "abc", before_chunk=hook, coalesce=coalesce)
    assert (result.ending, result.faults, result.repeated) == (Ending.COMMITTED, {}, 0)
    assert hook.calls == ["abc"]
    assert got == [("a", 1), ("b", 1), ("c", 1)]
    assert stored() == "abc"


def test_the_hook_gets_no_items_that_are_gone_or_cannot_be_loaded() -> None:
    """They have their fate; of none at all the hook isn't called."""
    hook = Hook()
    bad = Fault("X", "not loadable", stage="item")
    result = run(lambda item, _: store(item), Given("a", GONE, bad, "d"), before_chunk=hook)
    assert hook.calls == ["ad"]
    assert (result.skipped, result.faults) == ((1,), {2: bad})
    assert stored() == "ad"
    result = run(lambda item, _: store(item), Given(GONE, bad), before_chunk=hook)
    assert hook.calls == ["ad"]
    assert (result.skipped, result.faults) == ((0,), {1: bad})


@COALESCE
def test_the_hook_is_called_anew_for_the_others_of_a_bad_item(coalesce: bool) -> None:
    """What it read may have been a row that was undone: neighbours get a fresh result."""
    hook = Hook()
    results = {}

    def take(item: Any, result: Any) -> None:
        store(item)
        with connection.cursor() as cursor:  # so that the item can't just be dropped
            cursor.execute("SELECT 1 FROM app_author")
        if item == "b":
            raise ValueError(item)
        results[item] = result

    result = run(take, "abc", before_chunk=hook, coalesce=coalesce)
    assert faults(result) == {1: "builtins.ValueError"}
    assert hook.calls == ["abc", "ac"]
    assert results == {"a": 2, "c": 2}
    assert stored() == "ac"


@COALESCE
@pytest.mark.parametrize("bad", ["a", "e", "h"])
def test_the_item_that_the_hook_raises_for_is_found(bad: str, coalesce: bool) -> None:
    """By halves; the others are stored, and the fault names the hook."""
    hook = Hook(*[raise_for(bad)] * 9)
    result = run(lambda item, _: store(item), "abcdefgh", before_chunk=hook, coalesce=coalesce)
    (fault,) = result.faults.values()
    assert faults(result) == {"abcdefgh".index(bad): "builtins.LookupError"}
    assert fault.message.startswith("before_chunk: ")
    assert fault.stage == "function"
    assert stored() == "abcdefgh".replace(bad, "")
    assert len(hook.calls) == 7  # 8, 4, 2, 1, and the other halves


def test_a_hook_that_always_raises_fails_every_item_by_name() -> None:
    """Nothing is lost: each has its fault, and nothing is stored."""
    result = run(store, "abcde", before_chunk=Hook(*[raising(KeyError("x"))] * 99))
    assert faults(result) == dict.fromkeys(range(5), "builtins.KeyError")
    assert (result.ending, stored()) == (Ending.COMMITTED, "")


def test_a_single_item_whose_hook_raises_fails() -> None:
    """Without a savepoint, too."""
    hook = Hook(*[raising(KeyError("x"))] * 9)
    result = run(lambda item, _: store(item), "a", before_chunk=hook)
    assert faults(result) == {0: "builtins.KeyError"}
    assert (hook.calls, stored()) == (["a"], "")


@COALESCE
@pytest.mark.parametrize("make", [deadlock, rolled_back, busy, lost])
def test_trouble_in_the_hook_is_retried(make: Callable[[], Exception], coalesce: bool) -> None:
    """As in an item: the transaction is tried again, and the hook is called again."""
    hook = Hook(raising(make()))
    result = run(lambda item, _: store(item), "abc", before_chunk=hook, coalesce=coalesce)
    assert (result.ending, result.retries, result.faults) == (Ending.COMMITTED, 1, {})
    assert hook.calls == ["abc", "abc"]
    assert stored() == "abc"


def test_trouble_in_the_hook_that_does_not_end_fails_its_items(naps: list[float]) -> None:
    """When the tries are used up: all of the group, by name; and no more tries for each."""
    hook = Hook(*[raising(deadlock())] * 99)
    result = run(store, "abc", before_chunk=hook, retries=2)
    assert faults(result) == dict.fromkeys(range(3), "django.db.utils.OperationalError")
    assert (result.ending, result.retries, len(naps)) == (Ending.COMMITTED, 2, 2)
    assert hook.calls == ["abc"] * 3


def test_a_hook_that_leaves_the_transaction_broken_is_to_blame() -> None:
    """It caught a database error without a block of its own: no item is run on top of that."""

    def swallow(items: Any) -> None:
        with pytest.raises(ValueError, match="many"):
            save_nonsense("x")

    result = run(lambda item, _: store(item), "ab", before_chunk=Hook(*[swallow] * 9))
    assert faults(result) == dict.fromkeys(range(2), BROKEN)
    assert stored() == ""


def test_a_hook_that_breaks_the_transaction_once_costs_nobody_else() -> None:
    """The halves are tried again, each with a hook that does well."""

    def swallow(items: Any) -> None:
        with pytest.raises(ValueError, match="many"):
            save_nonsense("x")

    result = run(lambda item, _: store(item), "ab", before_chunk=Hook(swallow))
    assert faults(result) == {}
    assert stored() == "ab"


def test_what_the_hook_saves_is_the_groups() -> None:
    """It is there for the items, stays when one of them fails, and goes when the group does."""

    def parent(items: list[Any]) -> None:
        Author.objects.create(name="+")

    def take(item: Any, _: Any) -> None:
        assert Author.objects.filter(name="+").count() == 1
        if item == "b":
            raise ValueError
        store(item)

    result = run(take, "abc", before_chunk=Hook(parent, parent), coalesce=True)
    assert faults(result) == {1: "builtins.ValueError"}
    assert stored() == "+ac"


def test_a_callback_of_the_hook_that_raises_is_all_its_items_fault() -> None:
    """Stored, and said so of each; not of one that had failed before."""

    def hook(items: list[Any]) -> None:
        transaction.on_commit(lambda: raise_at_once("hook"))

    result = run(
        lambda item, _: raise_at_once(item) if item == "b" else store(item),
        "abc",
        before_chunk=Hook(hook, hook),
        coalesce=True,
    )
    assert {p: fault.stage for p, fault in result.faults.items()} == {
        0: "on_commit",
        1: "function",
        2: "on_commit",
    }
    assert (result.ending, stored()) == (Ending.COMMITTED, "ac")


def test_ctrl_c_in_the_hook_passes_where_it_is_the_users() -> None:
    """Inline it is Ctrl-C; in a worker an error like any other."""
    hook = Hook(raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run(store, "ab", before_chunk=hook, interruptible=True)
    assert stored() == ""
    hook = Hook(*[raising(KeyboardInterrupt())] * 9)
    result = run(store, "ab", before_chunk=hook)
    assert faults(result) == dict.fromkeys(range(2), "builtins.KeyboardInterrupt")


def upper(item: str) -> str:
    if item == "b":
        raise ValueError("no b")
    return item.upper()


@COALESCE
def test_items_are_converted(coalesce: bool) -> None:
    """What can't be is a failed item; nothing of the others is undone."""
    result = run(store, "abc", convert=upper, coalesce=coalesce)
    assert {p: fault.message for p, fault in result.faults.items()} == {1: "no b"}
    assert result.repeated == 0
    assert stored() == "AC"


@COALESCE
def test_the_hook_gets_converted_items(coalesce: bool) -> None:
    """Those that can't be converted are left out, and fail; nobody is called twice."""
    hook = Hook()
    given = []

    def take(item: Any, result: Any) -> None:
        given.append((store(item), result))

    result = run(
        take,
        "abc",
        convert=upper,
        before_chunk=hook,
        coalesce=coalesce,
        keep_values=True,
        pack=pickle.dumps,
    )
    assert hook.calls == ["AC"]
    assert given == [("A", 1), ("C", 1)]
    assert {p: fault.message for p, fault in result.faults.items()} == {1: "no b"}
    assert result.values.keys() == {0, 2}
    assert result.repeated == 0
    assert stored() == "AC"


def test_trouble_in_a_conversion_is_retried() -> None:
    """A form may ask the database, too."""
    errors = [deadlock()]

    def convert(item: str) -> str:
        if item == "b" and errors:
            raise errors.pop()
        return item

    for before in (None, Hook()):
        errors[:] = [deadlock()]
        function = store if before is None else lambda item, _: store(item)
        result = run(function, "abc", convert=convert, before_chunk=before)
        assert (result.retries, result.faults) == (1, {})
        assert stored() == "abc"
        Author.objects.all().delete()
