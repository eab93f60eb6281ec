"""Savers: a model in the place of a function, for rows that are its instances."""

from carpool.savers.lookups import Lookups
from carpool.savers.saver import ModelSaver

__all__ = ["Lookups", "ModelSaver"]
