"""The caller's database in use while its workers use it: by the source, by a pool, by many."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User

from tests.acceptance.conftest import PREAMBLE, Script

pytestmark = pytest.mark.usefixtures("no_connections_left")

Start = Callable[..., Script]

EXECUTORS = {
    "threads": {"executor": "threads", "workers": 3},
    "auto": {"workers": 3},
    "forkserver": {"executor": "processes", "workers": 3, "start_method": "forkserver"},
    "fork": {"executor": "processes", "workers": 3, "start_method": "fork"},
    "spawn": {"executor": "processes", "workers": 3, "start_method": "spawn"},
}

#: The source, the function and the consumer all read what they can check, on open connections.
READING = """
    OLD = 400

    def source():
        old = User.objects.filter(username__startswith="old").order_by("pk")
        for number, user in enumerate(old.iterator(chunk_size=10)):
            assert user.username == f"old{{number}}", (user.username, number)
            yield number

    def create(number):
        for other in (number, (number * 7) % OLD):
            user = User.objects.get(username=f"old{{other}}")
            assert user.first_name == f"first {{other}}", (user.first_name, other)
        User.objects.create(username=f"new{{number}}", first_name=f"after {{number}}")
        return encrypted()

    def encrypted():
        if connection.vendor != "postgresql":
            return None
        with connection.cursor() as cursor:
            cursor.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            return cursor.fetchone()[0]

    User.objects.bulk_create(
        User(username=f"old{{n}}", first_name=f"first {{n}}") for n in range(OLD)
    )
    assert User.objects.count() == OLD
    seen = 0
    for outcome in carpool.stream(create, source(), progress=False, chunk_size=10, **{options}):
        assert outcome.ok, outcome.failure
        assert outcome.value == {encrypted}, outcome.value
        assert outcome.index == outcome.item == seen
        assert User.objects.get(username=f"new{{seen}}").first_name == f"after {{seen}}"
        seen += 1
    assert seen == OLD
    assert User.objects.count() == 2 * OLD
    print("all right")
"""


def encrypted() -> bool | None:
    """Whether the test server is one that every connection has to be encrypted for."""
    if os.environ.get("CARPOOL_TEST_DATABASE_URL", "").startswith("postgres"):
        return "sslmode=require" in os.environ["CARPOOL_TEST_DATABASE_URL"]
    return None


@pytest.mark.parametrize("executor", EXECUTORS)
def test_source_function_and_consumer_read_the_database(start: Start, executor: str) -> None:
    """Nobody gets another's rows, over TLS too, and the caller's connection works throughout."""
    script = start(READING.format(options=EXECUTORS[executor], encrypted=encrypted())).wait()

    assert script.out == "all right\n"
    assert script.err == ""
    assert User.objects.count() == 800


@pytest.mark.only_on("postgresql")
@pytest.mark.parametrize("executor", EXECUTORS)
def test_with_psycopgs_pool(start: Start, executor: str) -> None:
    """Where the caller's connections come from a pool, workers get none of them, nor their rows."""
    pytest.importorskip("psycopg_pool")
    preamble = """
import tests.settings
options = tests.settings.DATABASES["default"].setdefault("OPTIONS", {})
options["pool"] = {"min_size": 2, "max_size": 5}
"""
    script = start(
        READING.format(options=EXECUTORS[executor], encrypted=encrypted()),
        preamble=preamble + PREAMBLE,
    ).wait()

    assert script.out == "all right\n"
    assert script.err == ""
    assert User.objects.count() == 800


@pytest.mark.only_on("postgresql")
def test_threads_and_psycopgs_pool(start: Start) -> None:
    """A pool that is just large enough is; one that isn't is refused before it is waited for."""
    pytest.importorskip("psycopg_pool")
    preamble = """
import tests.settings
options = tests.settings.DATABASES["default"].setdefault("OPTIONS", {})
options["pool"] = True
"""
    script = start(
        """
        def create(number):
            User.objects.create(username=f"u{number}")

        def source():
            yield from range(User.objects.count(), 300)

        def run(workers, **options):
            try:
                return carpool.run(create, source(), executor="threads", workers=workers,
                                   chunk_size=5, progress=False, **options).succeeded
            except carpool.ConfigurationError as error:
                return str(error)

        print(run(4), run(3), run(3, journal="users"), run(2, journal="users"), sep="\\n")
        carpool.journal.models.Run.objects.all().delete()
        """,
        preamble=preamble + PREAMBLE,
    ).wait()

    refused, done, refused_too, done_before = script.out.splitlines()
    assert "4 threads need 5 connections" in refused and "workers=3," in refused
    assert "3 threads need 5 connections" in refused_too and "workers=2," in refused_too
    assert (done, done_before) == ("300", "0")
    assert script.err == ""


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_many_workers_on_sqlite(start: Start, executor: str) -> None:
    """On Django's default settings eight workers that read and write never find it locked."""
    script = start(
        f"""
        def create(number):
            assert not User.objects.filter(username=f"u{{number}}").exists()
            user = User.objects.create(username=f"u{{number}}")
            user.first_name = str(User.objects.count())
            user.save()

        assert connection.settings_dict["OPTIONS"] == {{}}
        report = carpool.run(create, range(600), executor="{executor}", workers=8, chunk_size=5,
                             progress=False)
        assert report.failures == (), report
        assert report.retries == 0, report
        tell(report)
        """
    ).wait()

    assert script.told()["succeeded"] == User.objects.count() == 600
    assert script.err == ""
    # Each counted the rows before it and its own: nobody was run beside another.
    assert User.objects.values("first_name").distinct().count() == 600
