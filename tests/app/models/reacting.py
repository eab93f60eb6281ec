"""Models whose receivers do more than look on (gotcha 18; the receivers are in `reactions`)."""

from __future__ import annotations

from django.db import models

from tests.app.models.base import Named


class Slugged(Named):
    """A `pre_save` receiver changes the instance."""

    slug = models.CharField(max_length=40, default="")


class Echo(Named):
    """A `post_save` receiver saves the instance again."""

    echoes = models.IntegerField(default=0)


class Family(Named):
    size = models.IntegerField(default=0)


class Sibling(Named):
    """A `post_save` receiver counts the siblings and writes the count to the parent."""

    family = models.ForeignKey(Family, models.CASCADE, related_name="siblings")


class Order(Named):
    """Receivers of its lines keep the total up, with an expression."""

    total = models.IntegerField(default=0)


class Line(Named):
    order = models.ForeignKey(Order, models.CASCADE, related_name="lines")
    price = models.IntegerField(default=0)


class Fleeting(Named):
    """A `post_save` receiver deletes the row that was there before it."""

    generation = models.IntegerField(default=0)


class Picky(Named):
    """Receivers raise when the row's `objection` says at which signal."""

    objection = models.CharField(max_length=12, default="")
