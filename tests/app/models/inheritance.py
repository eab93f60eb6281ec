from __future__ import annotations

from typing import Any, ClassVar

from django.db import models

from tests.app.models.base import Named


class Place(Named):
    """The top of three tables, one row in each for a pizzeria (gotcha 11)."""

    visits = models.IntegerField(default=0)


class Restaurant(Place):
    stars = models.IntegerField(default=0)


class Pizzeria(Restaurant):
    """The second level, with a link of another name."""

    restaurant_link = models.OneToOneField(
        Restaurant, models.CASCADE, parent_link=True, primary_key=True, related_name="as_pizzeria"
    )
    oven = models.CharField(max_length=40, default="wood")


class Vehicle(models.Model):
    """The top of a diamond, written once."""

    natural: ClassVar[tuple[str, ...]] = ("plate",)

    vehicle_id = models.BigAutoField(primary_key=True)
    plate = models.CharField(max_length=40)

    def __str__(self) -> str:
        return self.plate


class Car(Vehicle):
    car_vehicle = models.OneToOneField(
        Vehicle, models.CASCADE, parent_link=True, primary_key=True, related_name="car"
    )
    wheels = models.IntegerField(default=4)


class Boat(Vehicle):
    boat_vehicle = models.OneToOneField(
        Vehicle, models.CASCADE, parent_link=True, primary_key=True, related_name="boat"
    )
    masts = models.IntegerField(default=1)


class Amphibian(Car, Boat):
    """The bottom of the diamond: four tables, one row of `Vehicle`."""

    crew = models.IntegerField(default=2)


class Kiosk(Place):
    """A child with its own key beside the link to its parent, and a `save()` of its own."""

    kiosk_id = models.BigAutoField(primary_key=True)
    place = models.OneToOneField(Place, models.CASCADE, parent_link=True, related_name="kiosk")
    slug = models.CharField(max_length=40, default="")

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.slug = self.name.lower().replace(" ", "-")
        super().save(*args, **kwargs)
