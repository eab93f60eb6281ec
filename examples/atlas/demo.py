"""Make the database, import the cities of the world with carpool, say what to try next.

    python demo.py                  into atlas.sqlite3 beside this file, begun afresh
    python demo.py --limit 500      only so many cities
    python demo.py --plain-loop     with a loop instead of carpool, to compare
    DATABASE_URL=postgres://user:password@host/name python demo.py
                                    into a database of your own, which must be empty

The import itself is the management command `import_cities`. This file is what you would type
around it.
"""

import os
import shlex
import sys
from pathlib import Path

import django
from django.conf import settings
from django.core.management import CommandError, call_command, load_command_class
from django.db import connection

HERE = Path(__file__).resolve().parent


def main(arguments: list[str]) -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    os.environ["DJANGO_DEBUG"] = "0"
    django.setup()
    import_cities = load_command_class("atlas", "import_cities")
    import_cities.create_parser("demo.py", "").parse_args(arguments)  # --help, and slips, first

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
    call_command(import_cities, *arguments)
    say_what_next()


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
    manage = shlex.join(os.path.relpath(path) for path in (sys.executable, HERE / "manage.py"))
    print("\nTry next" + (", with the same DATABASE_URL:" if named else ":"))
    if named:
        print(f"  {manage} createsuperuser")
    print(f"  {manage} runserver")
    print("     http://127.0.0.1:8000/" + ("" if named else " (user demo, password demo)"))
    print(f"  {manage} shell")
    print("     City.objects.filter(search_entry__text__icontains='zurich')")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except CommandError as error:
        sys.exit(f"demo.py: {error}")
    except KeyboardInterrupt:  # carpool has said how far it came
        sys.exit(130)
