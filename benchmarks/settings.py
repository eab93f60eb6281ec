"""Django's settings for the benchmark: only what `django.contrib.auth.models.User` needs."""

import json
import os

# Through the environment, since a worker process that a pool starts afresh has only that.
DATABASES = json.loads(os.environ.get("CARPOOL_BENCHMARKS_DATABASES", "{}"))
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "benchmarks"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SECRET_KEY = "the benchmark signs nothing"
USE_TZ = True
