"""The command's parts: querysets in words, lines of progress, checks, and calls from Python."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import OperationalError, connections
from django.test import override_settings

import carpool
from carpool import Snapshot, checks
from carpool.command import watching
from carpool.command.output import foreseen_of, json_of, text_of
from carpool.command.querysets import queryset_of
from carpool.command.watching import Lines, line_of, watch_of
from carpool.exceptions import ConfigurationError
from carpool.progress import BarProgress, Progress, duration
from carpool.report import Report


def call(*arguments: str, **options: Any) -> str:
    out = io.StringIO()
    call_command("carpool", *arguments, stdout=out, stderr=io.StringIO(), **options)
    return out.getvalue()


def interrupt(row: Any) -> None:
    raise KeyboardInterrupt


# Querysets.


@pytest.mark.parametrize(
    ("words", "conditions"),
    [
        ("auth.User", {}),
        ("auth.User:", {}),
        ("auth.User:username=ann", {"username": "ann"}),
        ("auth.User:username=a=b", {"username": "a=b"}),
        ("auth.User: id__gt=3 , is_staff=false", {"id__gt": 3, "is_staff": False}),
        ("auth.User:id__in=1|2|3", {"id__in": [1, 2, 3]}),
        ("auth.User:last_login__isnull=true", {"last_login__isnull": True}),
        ("auth.User:groups__name=true", {"groups__name": "true"}),
        ('auth.User:id=1,"username=a,b"', {"id": 1, "username": "a,b"}),
    ],
)
def test_a_queryset_in_words(words: str, conditions: dict[str, Any]) -> None:
    """Is what filter() makes of the conditions."""
    expected = User.objects.filter(**conditions)
    assert str(queryset_of(words, None).query) == str(expected.query)


def test_a_queryset_may_be_of_another_database() -> None:
    """That of --using."""
    assert queryset_of("auth.User", "other").db == "other"


# Progress.


def snapshot(**changes: Any) -> Snapshot:
    return Snapshot(
        **{"done": 1500, "failed": 0, "total": None, "rate": 50.0, "seconds": 30.0} | changes
    )


def test_what_a_line_says() -> None:
    """Of the total and the time left only where they are known."""
    assert line_of(snapshot()) == "1,500 items, 50/s"
    assert (
        line_of(snapshot(total=6000, failed=2))
        == "1,500 of 6,000 items, 2 failed, 50/s, 2 min left"
    )
    assert line_of(snapshot(total=6000, rate=0.0)) == "1,500 of 6,000 items, 0/s"
    assert line_of(snapshot(done=1)) == "1 item, 50/s"
    assert line_of(snapshot(done=0, total=1, rate=0.0)) == "0 of 1 item, 0/s"
    assert line_of(snapshot(retries=1)) == "1,500 items, 1 retry, 50/s"
    assert line_of(snapshot(failed=3, retries=2)) == "1,500 items, 3 failed, 2 retries, 50/s"


def test_durations() -> None:
    """To two figures or so."""
    seconds = (0.04, 9.9, 12.3, 89, 90, 3600, 5400, 90_000)
    assert [duration(s) for s in seconds] == [
        "0.0 s",
        "9.9 s",
        "12 s",
        "89 s",
        "2 min",
        "60 min",
        "1 h 30 min",
        "25 h 0 min",
    ]


def test_lines_come_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """However often chunks end."""
    now = 100.0
    monkeypatch.setattr(watching.time, "monotonic", lambda: now)
    lines = Lines(5)
    for second in (1, 4, 6, 7, 11, 12):
        now = 100.0 + second
        lines.update(snapshot(done=second))
    assert capsys.readouterr().err.splitlines() == ["6 items, 50/s", "11 items, 50/s"]


@pytest.mark.parametrize(
    ("verbosity", "terminal", "kind"),
    [(0, True, Progress), (1, True, BarProgress), (1, False, Lines), (2, True, Lines)],
)
def test_what_is_shown(
    monkeypatch: pytest.MonkeyPatch, verbosity: int, terminal: bool, kind: type[Progress]
) -> None:
    """A bar in a terminal, lines elsewhere, and nothing if nothing is wanted."""
    monkeypatch.setattr("sys.stderr", mock.Mock(isatty=lambda: terminal))
    assert type(watch_of({"no_progress": False, "verbosity": verbosity})._shown) is kind
    assert type(watch_of({"no_progress": True, "verbosity": verbosity})._shown) is Progress


def test_a_watch_passes_everything_on() -> None:
    """And remembers the total."""
    shown = mock.Mock(spec=Progress)
    watch = watching.Watch(shown)
    watch.start(7)
    watch.update(snapshot())
    watch.write("words")
    watch.close()
    assert shown.mock_calls == [
        mock.call.start(7),
        mock.call.update(snapshot()),
        mock.call.write("words"),
        mock.call.close(),
    ]
    assert watch.total == 7


# What is printed.


def report(**changes: Any) -> Report:
    counts: dict[str, Any] = {
        "total": 100,
        "succeeded": 100,
        "failed": 0,
        "unknown": 0,
        "skipped": 0,
    }
    how = {"retries": 0, "seconds": 2.0, "chunks": 4, "executor": "inline", "workers": 1}
    return Report(**counts | how | changes)


def test_only_a_dry_run_foretells() -> None:
    """By its own pace; of items that it did not come to only if their number is known."""
    assert foreseen_of(report(), 100) is None
    assert foreseen_of(report(dry_run=True), None) == 2.0
    assert foreseen_of(report(dry_run=True), 1000) == 20.0
    stopped = report(dry_run=True, succeeded=50, failed=50, not_run=50)
    assert foreseen_of(stopped, None) is None
    assert foreseen_of(stopped, 1000) == 40.0
    assert foreseen_of(report(dry_run=True, total=0, succeeded=0), None) is None
    assert text_of(report(dry_run=True), 6000).endswith(
        "\n6,000 items would take about 2 min, COMMITs not counted"
    )
    assert text_of(report(), None) == str(report())


def test_json_has_every_figure() -> None:
    """All attributes of a report by name, so that a new one can't be forgotten."""
    told = json.loads(json_of(report(), None, "oh"))
    assert set(Report.__slots__) | {"rate", "error"} == told.keys()
    assert (told["rate"], told["error"], told["coalesced"]) == (50.0, "oh", None)
    assert "foreseen_seconds" in json.loads(json_of(report(dry_run=True), None, None))


def test_a_hint_names_the_commands_options(capsys: pytest.CaptureFixture[str]) -> None:
    """In the text, in JSON, and in the report after Ctrl-C."""
    hinted = report(hint='executor="threads", workers=32 would overlap it')
    words = "--executor threads --workers 32 would overlap it"
    assert text_of(hinted, None).endswith(f"\nhint: {words}")
    assert json.loads(json_of(hinted, None, None))["hint"] == words
    watching.Watch(Progress()).interrupted(hinted)
    err = capsys.readouterr().err
    assert err.startswith("Interrupted.\n100 items in") and err.endswith(f"\nhint: {words}\n")


# From Python, by call_command().


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_a_call_from_python(tmp_path: Any) -> None:
    """What ends a process with a code raises CommandError with it here."""
    path = tmp_path / "users.jsonl"
    path.write_text('{"username": "ann", "password": "x"}\n')
    assert "1 succeeded" in call("run", "auth.User", str(path), executor="inline")
    with pytest.raises(CommandError, match="1 of 1 item did not") as caught:
        call("run", "auth.User", str(path), executor="inline")
    assert caught.value.returncode == 1
    with pytest.raises(CommandError, match="nothing to read") as caught:
        call("run", "auth.User")
    assert caught.value.returncode == 2
    assert isinstance(caught.value.__cause__, ConfigurationError)
    with pytest.raises(carpool.Interrupted):
        call("run", "tests.unit.test_command.interrupt", str(path), executor="inline")


@pytest.mark.parametrize("action", ["runs", "show", "cancel", "pause", "resume"])
def test_without_a_journal_there_are_no_runs(monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    """The message says what to install; so does --journal's."""
    monkeypatch.setattr("django.apps.apps.is_installed", lambda name: False)
    name = [] if action == "runs" else ["orders"]
    with pytest.raises(CommandError, match=r'add "carpool\.journal" to INSTALLED_APPS') as caught:
        call(action, *name)
    assert caught.value.returncode == 2


def test_an_unknown_database_is_refused() -> None:
    """With the names of those there are."""
    with pytest.raises(CommandError, match=r"--database 'nowhere'.*default, other"):
        call("runs", database="nowhere")


# System checks.


def warned(check: Callable[[], Any]) -> list[str | None]:
    return [message.id for message in check()]


def test_debug_is_warned_of() -> None:
    """Unless it is silenced; in a line."""
    with override_settings(DEBUG=True):
        assert warned(checks.check_debug) == ["carpool.W002"]
        (line,) = checks.messages()
        assert line.startswith("carpool.W002: DEBUG is True") and "\n" not in line
        with override_settings(SILENCED_SYSTEM_CHECKS=["carpool.W002"]):
            assert checks.messages() == []
    assert warned(checks.check_debug) == []


def test_databases_in_memory_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """By alias."""
    assert warned(checks.check_databases) == []
    monkeypatch.setattr("carpool.databases.is_in_memory", lambda alias: alias == "other")
    (message,) = checks.check_databases()
    assert message.id == "carpool.W001" and "'other'" in message.msg
    assert "other" in connections.settings


@pytest.mark.parametrize(
    ("vendor", "pool", "said"),
    [
        ("postgresql", True, ["carpool.W004"]),
        ("postgresql", {"max_size": 2}, ["carpool.W004"]),
        ("postgresql", False, []),
        ("postgresql", {}, []),  # to Django, too
        ("oracle", True, []),
    ],
)
def test_pools_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, vendor: str, pool: Any, said: list[str]
) -> None:
    """Psycopg's, where there may be worker processes; with cause and remedy."""
    other = connections["other"]
    monkeypatch.setattr(other, "vendor", vendor)
    monkeypatch.setitem(other.settings_dict, "OPTIONS", {"pool": pool})
    assert warned(checks.check_pools) == said
    lines = checks.messages()
    assert [line.partition(":")[0] for line in lines] == said
    assert all("'other'" in line and "close_pool()" in line for line in lines)
    assert checks.messages(processes=False) == []


@pytest.mark.django_db(databases=["default", "other"])
def test_a_database_without_the_journals_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told of if the database may be asked, by Django's own check or by --journal."""
    assert warned(checks.check_journal) == []
    assert checks.check_journal(databases=["default"]) == []
    assert checks.journal_errors(["default", "nowhere"]) == []
    introspection = connections["default"].introspection
    monkeypatch.setattr(introspection, "table_names", lambda: ["carpool_journal_run"])
    assert warned(checks.check_journal) == []
    (warning,) = checks.check_journal(databases=["default"])
    assert warning.id == "carpool.W003" and "'default'" in warning.msg
    said = io.StringIO()
    call_command("check", deploy=True, databases=["default"], stderr=said)
    assert "carpool.W003" in said.getvalue()
    call_command("check", deploy=True, stderr=(said := io.StringIO()))
    assert "carpool.W003" not in said.getvalue()
    assert checks.messages() == []
    with pytest.raises(CommandError, match=r"E002.*migrate carpool_journal --database") as caught:
        call("run", "builtins.str", "no.csv", "--journal", "orders", skip_checks=False)
    assert caught.value.returncode == 2
    with override_settings(SILENCED_SYSTEM_CHECKS=["carpool.E002"]):
        assert checks.journal_errors(["default"]) == []


@pytest.mark.django_db
def test_a_database_that_does_not_answer_is_left_to_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It knows what to try again, and what to say."""

    def table_names() -> list[str]:
        raise OperationalError("the server is gone")

    monkeypatch.setattr(connections["default"].introspection, "table_names", table_names)
    assert checks.journal_errors(["default"]) == []


def test_journal_without_its_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """--journal is refused by the check, or by the run if checks are skipped."""
    monkeypatch.setattr("django.apps.apps.is_installed", lambda name: name != "carpool.journal")
    arguments = ["builtins.str", "--queryset", "auth.User", "--journal", "orders"]
    for skipped, words in ((False, "carpool.E001"), (True, 'add "carpool.journal"')):
        with pytest.raises(CommandError) as caught:
            call("run", *arguments, skip_checks=skipped)
        assert words in str(caught.value)
        assert caught.value.returncode == 2


def test_no_other_command_talks_of_them() -> None:
    """They are deployment checks."""
    from django.core.checks import run_checks

    with override_settings(DEBUG=True):
        assert [m for m in run_checks(tags=["carpool"]) if str(m.id).startswith("carpool")] == []
