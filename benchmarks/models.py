"""What is written, beside users and the atlas. Each is what people have, made small."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.db import models


class Profile(models.Model):
    """The usual row beside each user."""

    user = models.OneToOneField(User, models.CASCADE, related_name="profile")
    city = models.CharField(max_length=100)
    newsletter = models.BooleanField(default=False)
    created = models.DateTimeField(auto_now_add=True)


class Place(models.Model):
    """The parent of an inherited model: a table of its own."""

    name = models.CharField(max_length=100)
    address = models.CharField(max_length=200)


class Restaurant(Place):
    """An inherited model: a row here and one in its parent's table."""

    seats = models.PositiveIntegerField(default=0)


class Publisher(models.Model):
    """A parent that items share, and get or create."""

    name = models.CharField(max_length=100, unique=True)


class Book(models.Model):
    """What refers to that parent."""

    title = models.CharField(max_length=100)
    publisher = models.ForeignKey(Publisher, models.CASCADE, related_name="books")


class Account(models.Model):
    """A model that never saves what it has not validated: each save asks for the same e-mail."""

    name = models.CharField(max_length=100)
    email = models.EmailField(unique=True)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Validate, then save."""
        self.full_clean()
        super().save(*args, **kwargs)


class Ticket(models.Model):
    """A model whose number is made from its key, and so can only be saved after it."""

    title = models.CharField(max_length=100)
    number = models.CharField(max_length=30, blank=True)


class Order(models.Model):
    """A model that `update` changes: one field, and the date that says when."""

    number = models.PositiveIntegerField()
    customer = models.CharField(max_length=100)
    quantity = models.PositiveIntegerField()
    total = models.DecimalField(max_digits=10, decimal_places=2)
    changed = models.DateTimeField(auto_now=True)
