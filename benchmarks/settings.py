"""Django's settings for the benchmark: only what its models need, and the atlas."""

import json
import os
import sys
from pathlib import Path

# Here, since every process that sets Django up comes by. The atlas' own settings aren't used.
sys.path.append(str(Path(__file__).resolve().parent.parent / "examples" / "atlas"))

# Through the environment, since a worker process that a pool starts afresh has only that.
DATABASES = json.loads(os.environ.get("CARPOOL_BENCHMARKS_DATABASES", "{}"))
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "benchmarks", "atlas"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SECRET_KEY = "the benchmark signs nothing"
USE_TZ = True
