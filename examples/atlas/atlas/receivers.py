"""Keep what is derived from a city up to date, whoever saves it.

Both receivers write only rows that belong to the city at hand. Rows of its own can't be
locked by another worker, so any number of workers import side by side without waiting for
each other, and without a deadlock. A counter on a shared row would spoil that: with
`Language.city_count`, everyone who adds an English-speaking city waits until the last one who
did has committed, and two workers that take English and French in opposite order wait for
each other. Such a total is better counted when it is asked for.
"""

import unicodedata
from typing import Any

from django.db.models import F
from django.db.models.signals import m2m_changed, post_save
from django.dispatch import receiver

from atlas.models import City, SearchEntry


@receiver(post_save, sender=City)
def index_city(instance: City, created: bool, **kwargs: Any) -> None:
    text = f"{instance.name} {without_accents(instance.name)} {instance.country.name}"
    if created:
        SearchEntry.objects.create(city=instance, text=text)
    else:
        SearchEntry.objects.filter(city=instance).update(text=text)


@receiver(m2m_changed, sender=City.languages.through)
def count_languages(
    instance: Any, action: str, reverse: bool, pk_set: set[Any] | None, **kwargs: Any
) -> None:
    """Follow `city.languages` from both of its sides: from a city, and from a language."""
    if action == "pre_clear":  # after it, nobody knows any more which links there were
        City.objects.filter(pk__in=instance.cities.all() if reverse else [instance.pk]).update(
            language_count=F("language_count") - 1 if reverse else 0
        )
    elif action in ("post_add", "post_remove") and pk_set:
        links_a_city = 1 if reverse else len(pk_set)
        City.objects.filter(pk__in=pk_set if reverse else [instance.pk]).update(
            language_count=F("language_count")
            + (links_a_city if action == "post_add" else -links_a_city)
        )


def without_accents(text: str) -> str:
    """Return `text` as typed on a plain keyboard: Zürich becomes Zurich."""
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(character for character in decomposed if not unicodedata.combining(character))
