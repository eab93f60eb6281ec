"""Make the database, import the cities of the world with carpool, say what to try next.

    python demo.py                  into atlas.sqlite3 beside this file, begun afresh
    python demo.py --limit 500      only so many cities
    python demo.py --workers 4      as a rule one a core
    python demo.py --plain-loop     with a loop instead of carpool, to compare
    DATABASE_URL=postgres://user:password@host/name python demo.py
                                    into a database of your own, which must be empty

The import itself is `manage.py carpool run`, shown as you would type it. The rest of this file is
what you would do before and after.
"""

import argparse
import gzip
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import django
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection

HERE = Path(__file__).resolve().parent
MANAGE = [os.path.relpath(path) for path in (sys.executable, HERE / "manage.py")]


def main() -> None:
    options = arguments()  # --help, and slips, first
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    os.environ["DJANGO_DEBUG"] = "0"
    django.setup()
    make_the_database()
    call_command("prepare_import", options.data, limit=options.limit)
    import_the_files(options)
    call_command("check_import", limit=options.limit)
    say_what_next()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("demo.py")
    parser.add_argument("--limit", type=int, help="only so many cities")
    parser.add_argument("--workers", type=int, help="how many; as a rule one a core")
    parser.add_argument(
        "--plain-loop", action="store_true", help="use a loop instead of carpool, to compare"
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.path.relpath(HERE / "data")),
        help="a folder for the files that are imported (default: data, beside this file)",
    )
    return parser.parse_args()


def make_the_database() -> None:
    name = connection.settings_dict["NAME"]
    if settings.DATABASE_URL:
        refuse_the_database_of_another_project()
        call_command("migrate", verbosity=0)
        print(f"The cities of the world go into {name} on {connection.display_name}.\n")
    else:
        Path(name).unlink(missing_ok=True)
        call_command("migrate", verbosity=0)
        create_demo_user()
        print(f"The cities of the world go into {os.path.relpath(name)}, begun afresh.\n")


def import_the_files(options: argparse.Namespace) -> None:
    countries, cities = options.data / "countries.jsonl", options.data / "cities.jsonl.gz"
    workers = [] if options.workers is None else ["--workers", str(options.workers)]
    # Countries first: the cities refer to them.
    carpool_run("atlas.imports.create_country", str(countries), "--no-progress")
    if options.plain_loop:
        in_a_plain_loop(cities)
    else:
        carpool_run("atlas.imports.create_city", str(cities), *workers)


def carpool_run(*arguments: str) -> None:
    """Run `manage.py carpool run` in a process of its own, as a shell does."""
    command = [*MANAGE, "carpool", "run", *arguments]
    print("$", shlex.join(command), flush=True)
    process = subprocess.Popen(command)
    try:
        code = process.wait()
    except KeyboardInterrupt:  # the terminal has told both; that one says how far it came
        code = process.wait()
    print(flush=True)
    if code:
        sys.exit(code)


def in_a_plain_loop(path: Path) -> None:
    from atlas.imports import create_city  # needs django.setup()

    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            create_city(json.loads(line))


def refuse_the_database_of_another_project() -> None:
    tables = connection.introspection.table_names()
    if tables and "atlas_place" not in tables:
        raise CommandError(
            f"The database of DATABASE_URL holds {len(tables)} tables that are not the atlas's "
            f"({tables[0]}, say). Nothing was changed. Name an empty database, or unset "
            "DATABASE_URL to use an SQLite file."
        )


def create_demo_user() -> None:
    """Let the reader into the admin; only in the demo's own file, never in a named database."""
    os.environ["DJANGO_SUPERUSER_PASSWORD"] = "demo"
    call_command(
        "createsuperuser",
        username="demo",
        email="demo@example.com",
        interactive=False,
        verbosity=0,
    )


def say_what_next() -> None:
    named = bool(settings.DATABASE_URL)
    manage = shlex.join(MANAGE)
    print("\nTry next" + (", with the same DATABASE_URL:" if named else ":"))
    if named:
        print(f"  {manage} createsuperuser")
    print(f"  {manage} runserver")
    print("     http://127.0.0.1:8000/" + ("" if named else " (user demo, password demo)"))
    print(f"  {manage} shell")
    print("     City.objects.filter(search_entry__text__icontains='zurich')")


if __name__ == "__main__":
    try:
        main()
    except CommandError as error:
        sys.exit(f"demo.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
