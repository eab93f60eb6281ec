"""From the rows of the source to objects: ordinary Django, which knows nothing of carpool.

What cities share (countries, languages, time zones) exists before the first city is
imported. A `get_or_create()` in `create_city` would give the same rows, but every worker that
wants the same new time zone would wait until the one creating it has committed.
"""

from functools import cache

from atlas import geonames
from atlas.models import AlternateName, City, Country, Language, TimeZone


def create_city(row: geonames.CityRow) -> None:
    country = countries_by_code()[row["countrycode"]]
    city = City.objects.create(
        geoname_id=row["geonameid"],
        name=row["name"],
        country=country,
        time_zone_id=row["timezone"],
        latitude=row["latitude"],
        longitude=row["longitude"],
        population=row["population"],
    )
    city.languages.add(*country.languages.all())
    AlternateName.objects.bulk_create(
        AlternateName(city=city, name=name) for name in geonames.alternate_names_of(row)
    )


@cache
def countries_by_code() -> dict[str, Country]:
    """Return the countries with their languages, read once in each process that imports."""
    return Country.objects.prefetch_related("languages").in_bulk()


def create_country(row: geonames.CountryRow) -> None:
    country, _ = Country.objects.update_or_create(
        code=row["iso"], defaults={"name": row["name"], "capital": row["capital"]}
    )
    country.languages.set(geonames.languages_of(row))


def create_languages() -> None:
    """Create plain rows: no receiver waits for them, so here `bulk_create()` is the right tool."""
    codes = {code for country in geonames.countries() for code in geonames.languages_of(country)}
    Language.objects.bulk_create(
        (Language(code=code, name=geonames.language_name(code)) for code in codes),
        ignore_conflicts=True,
    )


def create_time_zones() -> None:
    names = {city["timezone"] for city in geonames.cities()}
    TimeZone.objects.bulk_create((TimeZone(name=name) for name in names), ignore_conflicts=True)
