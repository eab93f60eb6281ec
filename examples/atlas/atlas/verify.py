"""Count what the source has and what the database has, independently of any report."""

from dataclasses import dataclass

from django.db.models import Sum

from atlas import geonames
from atlas.models import (
    AlternateName,
    City,
    Country,
    Language,
    Place,
    SearchEntry,
    TimeZone,
)


@dataclass(frozen=True)
class Result:
    what: str
    in_source: int
    in_database: int
    where: str = "the database"

    @property
    def ok(self) -> bool:
        return self.in_source == self.in_database

    def __str__(self) -> str:
        return (
            f"{self.in_source:>9,} {self.what} in the source, "
            f"{self.in_database:,} in {self.where}: {'OK' if self.ok else 'MISMATCH'}"
        )


def against_the_source(limit: int | None = None) -> list[Result]:
    """Compare every table with the source; `limit` as given to the import."""
    languages = {row["iso"]: geonames.languages_of(row) for row in geonames.countries()}
    codes = {code for spoken in languages.values() for code in spoken}
    time_zones = {row["timezone"] for row in geonames.cities()}
    cities = alternate_names = links = 0
    for row in geonames.cities(limit):
        cities += 1
        alternate_names += len(geonames.alternate_names_of(row))
        links += len(languages[row["countrycode"]])
    counted = City.objects.aggregate(total=Sum("language_count", default=0))["total"]
    return [
        Result("countries", len(languages), Country.objects.count()),
        Result("languages", len(codes), Language.objects.count()),
        Result("time zones", len(time_zones), TimeZone.objects.count()),
        Result("places", cities, Place.objects.count()),
        Result("cities", cities, City.objects.count()),
        Result("alternate names", alternate_names, AlternateName.objects.count()),
        Result("languages of cities", links, City.languages.through.objects.count()),
        Result("languages of cities", links, counted, "the counters"),
        Result("search entries", cities, SearchEntry.objects.count()),
    ]
