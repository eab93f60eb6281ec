"""The demo, as a reader runs it: real data, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import HANG

ATLAS = Path(__file__).resolve().parents[2] / "examples" / "atlas"
TABLES_CHECKED = 9

#: Enough that the pool takes over from the parent before the source is done.
CITIES = 500

#: Prints what the import has made, without the keys that the database chose.
DUMP = """
import django, json
django.setup()
from atlas.models import City, Country, Language, TimeZone
columns = "geoname_id name slug country_id latitude longitude population time_zone_id".split()
columns += ["language_count", "search_entry__text"]
values = {values.pop("pk"): values for values in City.objects.values("pk", *columns)}
print(json.dumps({
    "languages": list(Language.objects.order_by("code").values()),
    "time zones": list(TimeZone.objects.order_by("name").values()),
    "countries": [
        [row, sorted(Country.objects.get(pk=row["code"]).languages.values_list("code", flat=True))]
        for row in Country.objects.order_by("code").values()
    ],
    "cities": [
        [
            values[city.pk],
            sorted(language.code for language in city.languages.all()),
            [entry.name for entry in sorted(city.alternate_names.all(), key=lambda it: it.pk)],
        ]
        for city in City.objects.order_by("geoname_id").prefetch_related(
            "languages", "alternate_names"
        )
    ],
}))
"""

#: Takes a row away, has a look, and puts it back.
LOSE_A_ROW = """
import django
django.setup()
from django.db import transaction
from atlas import models, verify
with transaction.atomic():
    models.SearchEntry.objects.first().delete()
    print(*verify.against_the_source({limit}), sep="\\n")
    transaction.set_rollback(True)
"""

#: Makes the next thousand cities in one block; prints the statements that wrote, and the figures.
COUNT_WRITES = """
import django
django.setup()
import itertools
import carpool
from django.db import connection
from django.test.utils import CaptureQueriesContext
from atlas import geonames, imports
from atlas.models import City
imports.countries_by_code()
there = set(City.objects.values_list("geoname_id", flat=True))
new = (row for row in geonames.cities() if row["geonameid"] not in there)
rows = list(itertools.islice(new, 1000))
with CaptureQueriesContext(connection) as queries, carpool.coalesce() as figures:
    for row in rows:
        imports.create_city(row)
writes = [q["sql"] for q in queries.captured_queries if not q["sql"].startswith("SELECT")]
writes += [q["sql"] for q in queries.captured_queries if "nextval" in q["sql"]]
print(len(writes), "writes;", figures)
"""

Run = subprocess.CompletedProcess[str]
Demo = Callable[..., Run]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Run the demo; its data files go into a folder of the test's."""
    data = tmp_path_factory.mktemp("data")

    def run(*arguments: str, url: str = "") -> Run:
        return run_in_atlas(str(ATLAS / "demo.py"), *arguments, "--data", str(data), url=url)

    return run


@pytest.fixture(scope="module")
def imported(new_database: Callable[[], str], demo: Demo) -> tuple[str, Run]:
    """The URL of a database that the demo has filled, and what the demo said."""
    url = new_database()
    return url, demo("--limit", str(CITIES), "--workers", "2", url=url)


def run_in_atlas(*command: str, url: str = "", atlas: Path = ATLAS) -> Run:
    environment = {**os.environ, "DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "config.settings"}
    environment["PYTHONPATH"] = os.pathsep.join([str(atlas), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=2 * HANG,
        check=False,
    )


def dump(url: str) -> Any:
    finished = run_in_atlas("-c", DUMP, url=url)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def test_every_table_has_as_many_rows_as_the_source(imported: tuple[str, Run]) -> None:
    finished = imported[1]

    assert finished.returncode == 0, finished.stderr
    assert f"{CITIES} cities in the source, {CITIES} in the database: OK" in finished.stdout
    assert finished.stdout.count(": OK\n") == TABLES_CHECKED
    assert "runserver" in finished.stdout


def test_it_shows_the_command_that_it_runs(imported: tuple[str, Run]) -> None:
    """Each as one would type it, with the report below it: the command's own."""
    lines = imported[1].stdout.splitlines()

    shown = [number for number, line in enumerate(lines) if line.startswith("$ ")]

    for number, function, file, items in zip(
        shown,
        ("atlas.imports.create_country", "atlas.imports.create_city"),
        ("countries.jsonl", "cities.jsonl.gz"),
        (252, CITIES),
        strict=True,
    ):
        words = lines[number].split()
        assert words[2].endswith("manage.py") and words[3:6] == ["carpool", "run", function]
        assert words[6].endswith(f"/{file}")
        assert lines[number + 1].startswith(f"{items} items in ")
        assert lines[number + 1].endswith(f": {items} succeeded")


def test_the_rows_are_those_of_a_plain_loop(
    imported: tuple[str, Run], new_database: Callable[[], str], demo: Demo
) -> None:
    by_carpool, by_loop = imported[0], new_database()
    finished = demo("--limit", str(CITIES), "--plain-loop", url=by_loop)
    assert finished.returncode == 0, finished.stderr

    found, expected = dump(by_carpool), dump(by_loop)

    assert len(found["cities"]) == CITIES
    assert found == expected


@pytest.mark.only_on("sqlite", "postgresql")
def test_a_thousand_cities_take_sixty_writes(new_database: Callable[[], str], demo: Demo) -> None:
    """Inherited rows, links, alternate names, search entries and counters, in one block."""
    url = new_database()
    assert demo("--limit", "1", url=url).returncode == 0

    finished = run_in_atlas("-c", COUNT_WRITES, url=url)

    assert finished.returncode == 0, finished.stderr
    assert int(finished.stdout.split()[0]) <= 60, finished.stdout
    cities = dump(url)["cities"]
    assert len(cities) == 1001
    assert all(city[0]["language_count"] == len(city[1]) for city in cities)


def test_a_missing_row_is_noticed(imported: tuple[str, Run]) -> None:
    finished = run_in_atlas("-c", LOSE_A_ROW.format(limit=CITIES), url=imported[0])

    lost = f"{CITIES} search entries in the source, {CITIES - 1} in the database: MISMATCH"
    assert lost in finished.stdout
    assert finished.stdout.count(": OK\n") == TABLES_CHECKED - 1


def test_a_named_database_with_rows_is_left_as_it_is(imported: tuple[str, Run], demo: Demo) -> None:
    finished = demo("--limit", str(2 * CITIES), url=imported[0])

    assert finished.returncode == 1
    assert f"There are {CITIES} places in this database already" in finished.stderr
    assert len(dump(imported[0])["cities"]) == CITIES


def test_the_database_of_another_project_is_left_as_it_is(
    new_database: Callable[[], str], demo: Demo
) -> None:
    url = new_database()
    assert run_in_atlas("-m", "django", "migrate", "auth", "-v0", url=url).returncode == 0

    finished = demo("--limit", "10", url=url)

    assert finished.returncode == 1
    assert "Nothing was changed" in finished.stderr
    shown = run_in_atlas("-m", "django", "showmigrations", "--plan", "atlas", url=url).stdout
    assert "[ ]  atlas.0001_initial" in shown


@pytest.mark.only_on("sqlite")
def test_its_own_file_is_begun_afresh_each_time(tmp_path: Path) -> None:
    atlas = shutil.copytree(
        ATLAS,
        tmp_path / "atlas",
        ignore=shutil.ignore_patterns("*.sqlite3*", "__pycache__", "data"),
    )

    for limit in ("20", "10"):
        finished = run_in_atlas(str(atlas / "demo.py"), "--limit", limit, atlas=atlas)
        assert finished.returncode == 0, finished.stderr
        assert f"{limit} cities in the source, {limit} in the database: OK" in finished.stdout
    assert (atlas / "atlas.sqlite3").exists()
    assert {file.name for file in (atlas / "data").iterdir()} == {
        "countries.jsonl",
        "cities.jsonl.gz",
    }
    assert "user demo, password demo" in finished.stdout
