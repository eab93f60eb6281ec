"""What every executor must do, written once; a file beside this one names each executor.

A subclass says by ``options`` how `run` gets its executor, and by the flags what kind it is. Of the
tests that it adds, each is about something that only its kind can do, or suffer.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.cache import cache, caches
from django.db import connection, connections
from django.utils import timezone, translation

import carpool
from carpool import Outcome, Report, Snapshot
from carpool.executors import processes, remote, threads
from tests.app.models import Tag
from tests.executors import functions
from tests.executors.functions import endless_rows, name, names, rows, stored
from tests.waiting import HANG


@pytest.mark.usefixtures("transactional_db", "no_connections_left")
class ExecutorContract:
    """The contract.

    Attributes:
        options: of `run`; they choose the executor.
        label: what the report calls it.
        workers: how many the report says there were.
        most_workers: how many there may have been, where that is more.
        sends_function, sends_items: they are pickled (and, with items, what is returned).
    """

    options: dict[str, Any]
    label: str
    workers = 2
    sends_function = True
    sends_items = True

    def run(self, function: Callable[..., Any], items: Iterable[Any], **more: Any) -> Report:
        return carpool.run(function, items, **{"progress": False, **self.options, **more})

    def stream(
        self, function: Callable[..., Any], items: Iterable[Any], **more: Any
    ) -> Iterator[Outcome]:
        return carpool.stream(function, items, **{"progress": False, **self.options, **more})

    @property
    def most_workers(self) -> int:
        return self.workers

    @property
    def window(self) -> int:
        """Chunks in flight, by the design, and one that is just being handed out."""
        return self.most_workers + max(1, self.most_workers // 2) + 1

    # Every item, once.

    def test_each_item_is_run_once(self) -> None:
        """All items are stored, none twice, and the report counts them."""
        report = self.run(functions.create, rows(250))

        assert stored() == names(range(250))
        assert (report.total, report.succeeded, report.failed, report.unknown) == (250, 250, 0, 0)
        assert report.failures == ()
        assert (report.executor, report.workers) == (self.label, self.workers)
        report.raise_for_failures()

    def test_no_items(self) -> None:
        """A source without items is a run without chunks."""
        report = self.run(functions.create, iter(()))

        assert (report.total, report.chunks) == (0, 0)

    def test_chunk_size_is_the_size_of_chunks(self) -> None:
        """With a fixed size there are as many transactions as it takes, the last one smaller."""
        report = self.run(functions.create, rows(23), chunk_size=5)

        assert report.chunks == 5

    def test_source_is_iterated_once(self) -> None:
        """The source is asked for one iterator, however many workers wait for items."""

        class Source:
            iterators = 0

            def __iter__(self) -> Iterator[functions.Row]:
                self.iterators += 1
                return iter(rows(40))

        source = Source()
        self.run(functions.create, source, chunk_size=3)

        assert source.iterators == 1
        assert stored() == names(range(40))

    def test_source_may_read_the_database(self) -> None:
        """A source that reads from a database cursor gets its rows, and so does the function."""
        User.objects.bulk_create(User(username=f"old {n}") for n in range(60))

        def source() -> Iterator[functions.Row]:
            old = User.objects.filter(username__startswith="old").order_by("pk")
            for number, user in enumerate(old.iterator(chunk_size=7)):
                assert user.username == f"old {number}"
                yield {"name": name(number)}

        report = self.run(functions.create, source())

        assert report.succeeded == 60
        assert stored() == [*sorted(f"old {n}" for n in range(60)), *names(range(60))]

    def test_rows_of_a_queryset(self) -> None:
        """The rows of a queryset are loaded where the function runs, each once."""
        User.objects.bulk_create(User(username=name(n)) for n in range(60))

        report = self.run(
            functions.rename, User.objects.filter(username__gte=name(10)), chunk_size=7
        )

        assert (report.succeeded, report.skipped) == (50, 0)
        assert stored() == sorted([*names(range(10)), *(n.upper() for n in names(range(10, 60)))])

    def test_a_function_may_run_carpool_itself(self) -> None:
        """A run inside a run stays in its worker and in its item's transaction."""
        report = self.run(functions.create_many, rows(8, {5: "raise"}), chunk_size=4)

        assert (report.succeeded, report.failed) == (7, 1)
        assert stored() == [f"{name(n)}.{part}" for n in range(8) for part in "abc" if n != 5]

    def test_nothing_is_left_open(self) -> None:
        """Runs, streams that are never begun and calls that are refused leave no file open."""

        def open_files() -> int:
            return len(list(Path("/proc/self/fd").iterdir()))

        self.run(functions.create, rows(5))  # what is opened once and kept: a fork server, a pool
        counts = [open_files()]
        for _ in range(5):  # a leak is one each time; a worker's thread may come to be used late
            self.run(functions.shout, rows(20), chunk_size=2)
            self.stream(functions.shout, rows(20))
            with pytest.raises(carpool.ConfigurationError):
                self.run(functions.shout, rows(20), rejects="/no/such/folder/rejects")
            counts.append(open_files())
            if counts[-1] <= counts[-2]:
                return
        pytest.fail(f"more and more files are open: {counts}")

    def test_reads_a_window_ahead(self) -> None:
        """The source is never read further ahead than the chunks in flight."""
        read = 0

        def source() -> Iterator[functions.Row]:
            nonlocal read
            for row in rows(300):
                read += 1
                yield row

        ahead = [
            read - number
            for number, _ in enumerate(
                self.stream(functions.shout, source(), chunk_size=5, ordered=False)
            )
        ]
        assert len(ahead) == 300
        assert max(ahead) <= 5 * self.window

    # What comes back.

    def test_values_come_in_the_order_of_the_input(self) -> None:
        """`stream` yields what the function returned, each with its item, in input order."""
        outcomes = list(self.stream(functions.create, rows(60), chunk_size=7))

        assert [outcome.index for outcome in outcomes] == list(range(60))
        assert [outcome.item for outcome in outcomes] == rows(60)
        assert [outcome.value for outcome in outcomes] == [n.upper() for n in names(range(60))]
        assert all(outcome.ok for outcome in outcomes)

    def test_values_come_as_they_are_ready(self) -> None:
        """Unordered, `stream` yields the same outcomes, each once, failures among them."""
        bad = {11: "raise", 30: "duplicate"}
        outcomes = list(self.stream(functions.create, rows(60, bad), chunk_size=7, ordered=False))

        assert sorted(outcome.index for outcome in outcomes) == list(range(60))
        for outcome in outcomes:
            assert outcome.item["name"] == name(outcome.index)
            assert outcome.ok == (outcome.index not in bad)
            assert outcome.value == (name(outcome.index).upper() if outcome.ok else None)
            assert (outcome.failure is None) == outcome.ok

    def test_what_is_yielded_is_committed(self) -> None:
        """An outcome is yielded after its COMMIT: another look at the table finds the row."""
        for outcome in self.stream(functions.create, rows(20), chunk_size=4):
            assert User.objects.filter(username=outcome.item["name"]).exists()

    def test_a_stream_may_be_left_early(self) -> None:
        """Leaving the loop ends the run: what was yielded is stored, no more is read."""
        seen = []
        for outcome in self.stream(functions.create, endless_rows(), chunk_size=3, ordered=False):
            seen.append(outcome.item["name"])
            if len(seen) == 10:
                break

        there = stored()
        assert set(seen) <= set(there)
        assert len(there) <= 10 + 3 * self.window
        assert stored() == there

    # Failures.

    def test_bad_items_fail_alone(self) -> None:
        """Items that raise, and items that the database refuses, cost no other item."""
        bad = {0: "raise", 7: "duplicate", 8: "raise", 21: "duplicate", 39: "raise"}
        items = rows(40, bad)

        report = self.run(functions.create, items, chunk_size=10)

        assert stored() == [name(n) for n in range(40) if n not in bad]
        assert (report.total, report.succeeded, report.failed) == (40, 35, 5)
        failures = {failure.index: failure for failure in report.failures}
        assert failures.keys() == bad.keys()
        for index, failure in failures.items():
            assert failure.item == items[index]
            assert failure.traceback
            assert failure.stage == "function"
            if bad[index] == "raise":
                assert "functions.py" in failure.traceback
                assert failure.error == "builtins.ValueError"
                assert failure.message == f"{name(index)} is bad"
                assert failure.sqlstate is None
            else:
                assert failure.error == "django.db.utils.IntegrityError"
                postgresql = connection.vendor == "postgresql"
                assert failure.sqlstate == ("23505" if postgresql else None)
        with pytest.raises(carpool.ItemsFailed) as caught:
            report.raise_for_failures()
        assert caught.value.report == report

    def test_failures_hold_the_item_as_it_was(self) -> None:
        """A function that empties its item leaves the failure's item, and its second try, whole."""
        items = rows(9, {4: "raise"})

        report = self.run(functions.create_and_empty, items, chunk_size=9)

        assert report.succeeded == 8
        assert report.failures[0].item == {"name": name(4), "do": "raise"}

    def test_collisions_are_tried_again(self, tmp_path: Path) -> None:
        """A serialization failure undoes the chunk's transaction, and the chunk is run again."""
        function = functools.partial(functions.create_in_conflict, str(tmp_path))
        items = rows(20, {3: "conflict once", 14: "conflict once"})

        report = self.run(function, items, chunk_size=5)

        assert (report.succeeded, report.retries) == (20, 2)
        assert stored() == names(range(20))

    def test_tries_are_limited(self, tmp_path: Path) -> None:
        """An item that collides each time fails when the tries are used up, and alone."""
        function = functools.partial(functions.create_in_conflict, str(tmp_path))

        report = self.run(function, rows(9, {4: "conflict"}), chunk_size=3, retries=1)

        (failure,) = report.failures
        assert (failure.index, failure.sqlstate) == (4, "40001")
        assert failure.error == "django.db.utils.OperationalError"
        assert stored() == [name(n) for n in range(9) if n != 4]

    def test_stops_at_the_first_failure_if_asked(self) -> None:
        """With ``on_error="raise"`` an endless source is read no further than the window."""
        bad = dict.fromkeys(range(7, 10_000), "raise")
        with pytest.raises(carpool.ItemsFailed) as caught:
            self.run(functions.create, endless_rows(bad), chunk_size=3, on_error="raise")

        report = caught.value.report
        assert report is not None
        assert {failure.error for failure in report.failures} == {"builtins.ValueError"}
        assert 8 <= report.total <= 9 + 3 * self.window
        assert report.succeeded == 7
        assert stored() == names(range(7))

    def test_stops_when_more_have_failed_than_may(self) -> None:
        """With ``max_failures`` the run ends when one more than so many have failed."""
        bad = dict.fromkeys(range(0, 10_000, 2), "raise")
        with pytest.raises(carpool.TooManyFailures) as caught:
            self.run(functions.create, endless_rows(bad), chunk_size=2, max_failures=4)

        report = caught.value.report
        assert report is not None
        assert 5 <= report.failed <= 5 + self.window
        assert len(stored()) == report.succeeded

    def test_rejects_are_lines_of_json(self, tmp_path: Path) -> None:
        """Each failed item is a line in the rejects file, with its index, data and error."""
        path = tmp_path / "rejects.jsonl"

        self.run(functions.create, rows(30, {3: "raise", 17: "raise"}), rejects=path)

        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert sorted(line["index"] for line in lines) == [3, 17]
        for line in lines:
            assert line["item"] == {"name": name(line["index"]), "do": "raise"}
            assert line["error"] == "builtins.ValueError"
            assert line["message"] == f"{name(line['index'])} is bad"
            assert "functions.py" in line["traceback"]

    def test_a_source_that_raises(self) -> None:
        """What was read before is finished; then the source's error comes, with the report."""

        def source() -> Iterator[functions.Row]:
            yield from rows(23)
            raise OSError("the file is torn")

        with pytest.raises(OSError, match="the file is torn") as caught:
            self.run(functions.create, source(), chunk_size=5)

        assert caught.value.report.succeeded == 23  # type: ignore[attr-defined]
        assert stored() == names(range(23))

    # Items of a type, hooks, models.

    def test_rows_become_what_the_function_takes(self) -> None:
        """Rows are turned into the annotation's class; one that can't be fails with its words."""
        items = [{**row, "joined": "2026-11-22"} for row in rows(30, {7: "raise"})]
        items[12]["joined"] = "yesterday"

        outcomes = list(self.stream(functions.create_typed, items, chunk_size=6))

        assert stored() == [name(n) for n in range(30) if n not in (7, 12)]
        assert {outcome.value for outcome in outcomes if outcome.ok} == {"2026-11-22"}
        assert [outcome.item for outcome in outcomes] == items
        failures = {f.index: f for o in outcomes if (f := o.failure) is not None}
        assert failures[7].error == "builtins.ValueError"
        assert failures[12].error == "carpool.exceptions.InvalidItem"
        assert "joined" in failures[12].message and "yesterday" in failures[12].message
        assert failures[12].item == items[12]

    def test_a_class_made_on_the_spot_will_do(self) -> None:
        """A dataclass that no worker can import travels with the function."""

        @dataclass
        class Here:
            name: str

        def create_here(item: Here) -> None:
            functions.create({"name": item.name})

        create_here.__annotations__["item"] = Here  # annotations are text in this module

        report = self.run(create_here, [{"name": name(n)} for n in range(9)], chunk_size=2)

        assert report.failures == ()
        assert stored() == names(range(9))

    def test_before_chunk_is_called_once_a_chunk(self) -> None:
        """Its result is the function's second argument, for all items of the chunk."""
        User.objects.create(username="ann", first_name="Ann")
        items = [{**row, "friend": "ann"} for row in rows(23)]

        outcomes = list(
            self.stream(
                functions.create_with_friend,
                items,
                before_chunk=functions.look_up,
                chunk_size=5,
            )
        )

        assert [outcome.failure for outcome in outcomes] == [None] * 23
        assert [outcome.value for outcome in outcomes] == [5] * 20 + [3] * 3
        assert User.objects.filter(first_name="Ann").count() == 24

    def test_before_chunk_that_raises_fails_those_it_raises_for(self) -> None:
        """The items to blame are found and named; the others of their chunks are stored."""
        User.objects.create(username="ann", first_name="Ann")
        bad = {4, 17, 18}
        items = [
            {**row, "friend": "nobody" if n in bad else "ann"}
            for n, row in enumerate(rows(30, {11: "raise"}))
        ]

        report = self.run(
            functions.create_with_friend, items, before_chunk=functions.look_up, chunk_size=10
        )

        assert {f.index for f in report.failures} == {*bad, 11}
        for failure in report.failures:
            if failure.index in bad:
                assert failure.error == "builtins.LookupError"
                assert failure.message == "before_chunk: there is no nobody"
                assert "look_up" in failure.traceback
        assert stored() == ["ann", *(name(n) for n in range(30) if n not in {*bad, 11})]

    def test_a_model_saves_rows(self) -> None:
        """A model in the function's place makes an instance of each row, cleaned and saved."""
        words: list[dict[str, str]] = [{"word": name(n)} for n in range(20)]
        words[7] = {"word": ""}
        words[9] = {"weird": "?"}

        try:
            report = self.run(Tag, words, chunk_size=6)
            there = sorted(Tag.objects.values_list("word", flat=True))
        finally:
            Tag.objects.all().delete()  # the other tests of executors store users only

        assert {f.index: f.error for f in report.failures} == dict.fromkeys(
            (7, 9), "carpool.exceptions.InvalidItem"
        )
        assert there == [name(n) for n in range(20) if n not in (7, 9)]

    # Ctrl-C.

    @pytest.fixture
    def grace(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let chunks in flight end on a machine that stalls, too: that they do is to be seen."""
        for module in (processes, remote, threads):
            monkeypatch.setattr(module, "GRACE", HANG)

    @pytest.mark.usefixtures("grace")
    def test_ctrl_c_in_the_source(self) -> None:
        """Ctrl-C while an item is being made ends the source; what was read ends or is not run."""

        def source() -> Iterator[functions.Row]:
            yield from rows(20)
            os.kill(os.getpid(), signal.SIGINT)
            yield from rows(1_000)

        with pytest.raises(carpool.Interrupted) as caught:
            self.run(functions.create, source(), chunk_size=3)

        self.check_interrupted(caught.value.report, 20)

    @pytest.mark.usefixtures("grace")
    def test_ctrl_c_elsewhere(self) -> None:
        """Ctrl-C at any other moment ends the run as well; chunks in flight finish or roll back."""

        def press(snapshot: Snapshot) -> None:
            if snapshot.done == 9:
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(carpool.Interrupted) as caught:
            self.run(functions.create, endless_rows(), chunk_size=3, progress=press)

        self.check_interrupted(caught.value.report, 9 + 3 * self.window)

    def check_interrupted(self, report: Report | None, most: int) -> None:
        assert report is not None
        assert report.total <= most
        assert report.total == report.succeeded + report.failed
        assert {failure.error for failure in report.failures} <= {"carpool.exceptions.NotRun"}
        assert len(stored()) == report.succeeded
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    # What the options say.

    def test_setup_is_called_once_in_each_worker(self, tmp_path: Path) -> None:
        """``setup`` runs once in each worker before its first item, and nowhere else."""
        setup = functools.partial(functions.note_setup, str(tmp_path))

        outcomes = self.stream(functions.whereabouts, rows(60), chunk_size=2, setup=setup)

        ran_in = {outcome.value for outcome in outcomes}
        set_up = sorted(path.name.split()[:2] for path in tmp_path.iterdir())
        assert ran_in <= {(int(process), int(thread)) for process, thread in set_up}
        assert len({tuple(worker) for worker in set_up}) == len(set_up) <= self.most_workers

    def test_a_setup_that_raises(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where a worker can't begin, the run fails with its error, and stores nothing."""
        monkeypatch.setattr(remote, "GRACE", HANG)  # to hear it of all that was sent
        with pytest.raises(carpool.RunFailed, match="no model to load") as caught:
            self.run(functions.create, endless_rows(), setup=functions.fail_at_setup)

        report = caught.value.report
        assert report is not None
        assert (report.succeeded, stored()) == (0, [])
        assert {failure.error for failure in report.failures} <= {"carpool.exceptions.NotRun"}

    def test_progress_grows_to_the_end(self) -> None:
        """Snapshots only ever grow, and the last one says what the report says."""
        snapshots: list[Snapshot] = []

        report = self.run(
            functions.create, rows(40, {5: "raise"}), chunk_size=4, progress=snapshots.append
        )

        assert [s.done for s in snapshots] == sorted(s.done for s in snapshots)
        assert [s.failed for s in snapshots] == sorted(s.failed for s in snapshots)
        assert [s.seconds for s in snapshots] == sorted(s.seconds for s in snapshots)
        assert {s.total for s in snapshots} == {40}
        assert (snapshots[-1].done, snapshots[-1].failed) == (report.total, report.failed)

    def test_a_generator_has_no_total(self) -> None:
        """Where the source can't tell how long it is, the total is unknown, not wrong."""
        snapshots: list[Snapshot] = []

        self.run(functions.create, (row for row in rows(9)), progress=snapshots.append)

        assert {s.total for s in snapshots} == {None}

    @pytest.mark.usefixtures("grace")
    def test_a_progress_that_raises(self) -> None:
        """An error in ``progress`` ends the run and is raised, with a report that tells all."""

        def show(snapshot: Snapshot) -> None:
            if snapshot.done >= 6:
                raise LookupError("no terminal")

        with pytest.raises(LookupError, match="no terminal") as caught:
            self.run(functions.create, endless_rows(), chunk_size=2, progress=show)

        report = caught.value.report  # type: ignore[attr-defined]
        assert len(stored()) == report.succeeded >= 6
        assert report.total == report.succeeded + report.failed
        assert {f.error for f in report.failures} <= {"carpool.exceptions.NotRun"}

    def test_a_dry_run_stores_nothing(self) -> None:
        """A dry run runs and fails items as a real one does, and leaves no row."""
        report = self.run(functions.create, rows(30, {4: "raise"}), dry_run=True)

        assert (report.succeeded, report.failed, report.dry_run) == (29, 1, True)
        assert stored() == []

    def test_language_and_time_zone_are_the_callers(self) -> None:
        """The function runs in the language and time zone that are active around the run."""
        with translation.override("pt-br"), timezone.override("Asia/Tokyo"):
            outcomes = list(self.stream(functions.surroundings, rows(20), chunk_size=2))

        assert {outcome.value for outcome in outcomes} == {("pt-br", "Asia/Tokyo")}

    # What can be sent.

    @pytest.mark.parametrize("kind", ["lambda", "closure", "partial", "method", "object", "local"])
    def test_any_callable_will_do(self, kind: str) -> None:
        """Lambdas, closures, partials, bound methods, objects and classes' methods all run."""
        ending = "!"

        def closure(row: functions.Row) -> str:
            return functions.create_for(ending, row)

        class Local:
            def __call__(self, row: functions.Row) -> str:
                return closure(row)

        callables: dict[str, Callable[[functions.Row], str]] = {
            "lambda": lambda row: functions.create_for("!", row),
            "closure": closure,
            "partial": functools.partial(functions.create_for, "!"),
            "method": functions.Creator("!").create,
            "object": functions.Creator("!"),
            "local": Local(),
        }
        report = self.run(callables[kind], rows(6))

        assert report.failures == ()
        assert stored() == [f"{name(n)}!" for n in range(6)]

    def test_a_function_may_use_what_django_has_one_of(self) -> None:
        """A function that is sent whole uses the connections, caches and settings over there."""
        home = os.getpid()

        def ask(row: functions.Row) -> tuple[Any, ...]:
            functions.create(row)
            with connection.cursor() as cursor:
                cursor.execute("SELECT COUNT(*) FROM auth_user")
                assert cursor.fetchone()[0] > 0
            assert connections["default"].in_atomic_block
            if os.getpid() != home:
                cache.set("key", os.getpid())
                assert caches["default"].get("key") == os.getpid()
            return settings.SECRET_KEY, connection.alias, connections["default"].vendor

        values = {outcome.value for outcome in self.stream(ask, rows(6))}

        assert values == {(settings.SECRET_KEY, "default", connection.vendor)}

    def test_a_function_that_cannot_be_sent(self) -> None:
        """A closure over a lock runs where nothing is sent; elsewhere it is refused, by name."""
        guard = threading.Lock()

        def guarded(row: functions.Row) -> None:
            with guard:
                functions.create(row)

        if not self.sends_function:
            assert self.run(guarded, rows(5)).succeeded == 5
            return
        with pytest.raises(
            carpool.ConfigurationError,
            match=r": the closure's variable 'guard' of \S+ is a _thread",
        ):
            self.run(guarded, rows(5))
        assert stored() == []

    def test_the_culprit_is_named(self) -> None:
        """Of what a function refers to, the one that can't be sent is named, and the way to it."""
        if not self.sends_function:
            return

        class Keeper:
            def __init__(self) -> None:
                self.create = threading.Lock()

        keeper = Keeper()

        def create(row: functions.Row) -> None:
            with keeper.create:
                User.objects.create(username=row["name"])

        with pytest.raises(
            carpool.ConfigurationError,
            match=r": the attribute 'create' of the closure's variable 'keeper' of \S+ is a _thr",
        ):
            self.run(create, rows(5))

    def test_an_item_that_cannot_be_sent(self) -> None:
        """An item that can't be pickled fails alone, and not at all where nothing is sent."""
        items = rows(9)
        items[4]["lock"] = threading.Lock()

        report = self.run(functions.read_lock, items, chunk_size=3)

        if not self.sends_items:
            assert report.succeeded == 9
            return
        (failure,) = report.failures
        assert failure.index == 4
        assert failure.item is items[4]
        assert (failure.error, failure.stage) == ("carpool.exceptions.NotSendable", "item")
        assert stored() == [name(n) for n in range(9) if n != 4]

    def test_a_value_that_cannot_be_sent(self) -> None:
        """What can't be pickled is of no matter to `run`; for `stream` its item is rolled back."""
        assert self.run(functions.give_lock, rows(3)).succeeded == 3

        items = [{"name": f"streamed {n}"} for n in range(3)]
        outcomes = list(self.stream(functions.give_lock, items))

        assert len(outcomes) == 3
        for outcome in outcomes:
            assert outcome.ok == (not self.sends_items)
            if outcome.failure is not None:
                assert outcome.failure.error == "carpool.exceptions.NotSendable"
                assert "_thread.lock" in outcome.failure.message
        assert len(stored()) == (3 if self.sends_items else 6)
