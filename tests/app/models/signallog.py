from __future__ import annotations

from django.db import models


class SignalLog(models.Model):
    """One signal as a receiver saw it: who sent it, with what, the how-manieth of its item.

    Written by `receivers.Recording` at the end of an item, in the item's own transaction.
    """

    item = models.CharField(max_length=80)
    position = models.IntegerField()
    signal = models.CharField(max_length=20)
    sender = models.CharField(max_length=40)
    instance = models.CharField(max_length=120)
    detail = models.JSONField()

    class Meta:
        indexes = [models.Index(fields=["item"], name="app_signallog_item")]

    def __str__(self) -> str:
        return f"{self.item} {self.position}: {self.signal} {self.sender} {self.instance}"
