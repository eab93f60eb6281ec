"""A Django app with a model for every trap that `save()` knows."""
