from typing import Any

from django.core.management import BaseCommand, CommandError, CommandParser

from atlas import verify


class Command(BaseCommand):
    help = "Check that all cities of the source have arrived, with everything that is theirs."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--limit", type=int, help="as given to prepare_import")

    def handle(self, *, limit: int | None, **options: Any) -> None:
        results = verify.against_the_source(limit)
        self.stdout.writelines(f"{result}\n" for result in results)
        if not all(result.ok for result in results):
            raise CommandError("What is in the database is not what is in the source.")
