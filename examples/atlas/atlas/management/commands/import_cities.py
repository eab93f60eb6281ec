from typing import Any

import carpool
from django.core.management import BaseCommand, CommandError, CommandParser

from atlas import geonames, imports, verify
from atlas.models import Place


class Command(BaseCommand):
    help = "Import the cities of the world and check that all of them have arrived."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--limit", type=int, help="only so many cities")
        parser.add_argument("--workers", type=int, help="how many; as a rule one a core")
        parser.add_argument(
            "--plain-loop", action="store_true", help="use a loop instead of carpool, to compare"
        )

    def handle(
        self, *, limit: int | None, workers: int | None, plain_loop: bool, **options: Any
    ) -> None:
        if there_already := Place.objects.count():
            raise CommandError(
                f"There are {there_already:,} places in this database already, and this command "
                "adds to none of them. `manage.py flush` empties the database, after asking."
            )
        imports.create_languages()
        imports.create_time_zones()
        countries = carpool.run(imports.create_country, geonames.countries(), progress=False)
        countries.raise_for_failures()

        if plain_loop:
            for row in geonames.cities(limit):
                imports.create_city(row)
        else:
            report = carpool.run(imports.create_city, geonames.cities(limit), workers=workers)
            self.stdout.write(f"{report}\n\n")

        results = verify.against_the_source(limit)
        self.stdout.writelines(f"{result}\n" for result in results)
        if not all(result.ok for result in results):
            raise CommandError("What is in the database is not what is in the source.")
