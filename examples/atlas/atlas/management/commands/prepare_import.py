import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.core.management import BaseCommand, CommandError, CommandParser

from atlas import geonames, imports
from atlas.models import Place


class Command(BaseCommand):
    help = "Create what cities share, and write the files that carpool is to import."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path, help="where the files go")
        parser.add_argument("--limit", type=int, help="only so many cities")

    def handle(self, *, folder: Path, limit: int | None, **options: Any) -> None:
        if there_already := Place.objects.count():
            raise CommandError(
                f"There are {there_already:,} places in this database already, and the import "
                "adds to none of them. `manage.py flush` empties the database, after asking."
            )
        imports.create_languages()
        imports.create_time_zones()
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / "countries.jsonl", geonames.countries())
        write(folder / "cities.jsonl.gz", geonames.cities(limit))


def write(path: Path, rows: Iterable[Any]) -> None:
    if path.suffix == ".gz":
        file = gzip.open(path, "wt", encoding="utf-8", compresslevel=1)
    else:
        file = path.open("w", encoding="utf-8")
    with file:
        file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
