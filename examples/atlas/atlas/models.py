"""Places on a map, and what is known of them.

`City` inherits from `Place` through two tables, has foreign keys, a many-to-many and a
reverse one-to-many, and counts on its own `save()` and on receivers (`receivers.py`).
`bulk_create()` does none of that, which is why people write loops.
"""

from typing import Any

from django.db import models
from django.utils.text import slugify


class Language(models.Model):
    code = models.CharField(max_length=8, primary_key=True)
    name = models.CharField(max_length=100)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class TimeZone(models.Model):
    name = models.CharField(max_length=64, primary_key=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Country(models.Model):
    code = models.CharField("ISO code", max_length=2, primary_key=True)
    name = models.CharField(max_length=100)
    capital = models.CharField(max_length=100, blank=True)
    languages = models.ManyToManyField(Language, related_name="countries")

    class Meta:
        ordering = ["name"]
        verbose_name_plural = "countries"

    def __str__(self) -> str:
        return self.name


class Place(models.Model):
    """Anything with coordinates. Each place is a row here and one in its own kind's table."""

    geoname_id = models.PositiveIntegerField("GeoNames id", unique=True)
    name = models.CharField(max_length=100, db_index=True)
    slug = models.SlugField(max_length=120, unique=True)
    country = models.ForeignKey(Country, models.PROTECT, related_name="places")
    latitude = models.FloatField()
    longitude = models.FloatField()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Give a new place its slug, and keep it when the place is renamed.

        There are nine cities called Victoria, so a name is not enough. Asking the table
        whether "victoria" is still free can't see what other transactions are about to
        commit, and would hand the short slug to whichever comes first. With the GeoNames id
        in it the slug is unique by construction, and the same in whatever order the
        places arrive: san-pedro-ph-1688830.
        """
        if not self.slug:
            self.slug = slugify(f"{self.name} {self.country_id} {self.geoname_id}")
        super().save(*args, **kwargs)


class City(Place):
    population = models.PositiveIntegerField()
    time_zone = models.ForeignKey(TimeZone, models.PROTECT, related_name="cities")
    languages = models.ManyToManyField(Language, related_name="cities")
    language_count = models.PositiveIntegerField(default=0, editable=False)

    class Meta:
        verbose_name_plural = "cities"


class AlternateName(models.Model):
    """What a city is called in another language, or was called in another time."""

    city = models.ForeignKey(City, models.CASCADE, related_name="alternate_names")
    name = models.CharField(max_length=250)

    def __str__(self) -> str:
        return self.name


class SearchEntry(models.Model):
    """What a visitor may type to find a city: its name, with and without accents, its country."""

    city = models.OneToOneField(City, models.CASCADE, related_name="search_entry")
    text = models.CharField(max_length=350)

    class Meta:
        verbose_name_plural = "search entries"

    def __str__(self) -> str:
        return self.text
