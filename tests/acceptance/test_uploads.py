"""The example of runs behind requests, in a browser's eyes: a server, a queue and its worker."""

from __future__ import annotations

import http.cookiejar
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from tests.acceptance.conftest import Script
from tests.waiting import HANG, wait_until

UPLOADS = Path(__file__).resolve().parents[2] / "examples" / "uploads"
BOUNDARY = "a line that no file has"

#: An app that makes each row take its time, and holds a task up before it counts the rows or before
#: its run is taken up, while a file of that name is there; then it makes a file "held".
SLOW = """
import sys
import time
from pathlib import Path

import carpool
from django.apps import AppConfig
from django.db.models.signals import post_save

def wait(**kwargs):
    if Path("slow.on").exists():
        time.sleep(0.05)

class SlowConfig(AppConfig):
    name = "slow"

    def ready(self):
        post_save.connect(wait, sender="uploads.Contact")
        if "db_worker" in sys.argv:
            carpool.read = hold(carpool.read, "read.hold")
            carpool.run = hold(carpool.run, "run.hold")

def hold(function, name):
    def held(*args, **kwargs):
        while Path(name).exists():
            Path("held").touch()
            time.sleep(0.05)
        return function(*args, **kwargs)
    return held
"""

SETTINGS = """
from config.settings import *

INSTALLED_APPS = [*INSTALLED_APPS, "slow"]
"""

#: Prints what is stored, and what became of the tasks, as JSON.
STORED = """
import django, json
django.setup()
from django_tasks_db.models import DBTaskResult
from uploads.models import Contact
print(json.dumps({
    "contacts": sorted(Contact.objects.values_list("email", flat=True)),
    "tasks": list(DBTaskResult.objects.order_by("enqueued_at").values_list("status", flat=True)),
}))
"""

#: Enqueues the first upload's task once more.
ENQUEUE = """
import django
django.setup()
from uploads.tasks import import_contacts
import_contacts.enqueue(1)
"""

Progress = dict[str, Any]


class Site:
    """The example in a folder of its own: its programs, and a browser."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.rows: Callable[[int], list[str]] = runpy.run_path(str(folder / "sample.py"))["rows"]
        python_path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._environment = {
            **os.environ,
            "DATABASE_URL": url,
            "DJANGO_DEBUG": "0",
            "DJANGO_SETTINGS_MODULE": "slow_settings",
            "PYTHONPATH": os.pathsep.join(python_path),
            "PYTHONUNBUFFERED": "1",
            # A run in a task that took itself for one in a request would fail.
            "PYTHONWARNINGS": "error::RuntimeWarning",
        }
        self._scripts: list[Script] = []
        self._base = ""
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._browser = urllib.request.build_opener(cookies)

    # Programs.

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=HANG,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *arguments: str) -> Script:
        folder = self.folder / f"log{len(self._scripts)}"
        folder.mkdir()
        with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, "manage.py", *arguments],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        script = Script(process, folder)
        self._scripts.append(script)
        return script

    def serve(self) -> None:
        script = self.start("runserver", "127.0.0.1:0", "--noreload")
        address = re.compile(r"http://127\.0\.0\.1:\d+")
        self._base = wait_until(lambda: address.search(script.out), lambda: script.err)[0]

    def start_worker(self) -> Script:
        return self.start("db_worker", "--no-startup-delay", "--interval", "0.1")

    def end(self) -> None:
        for script in self._scripts:
            script.end()

    def stored(self, what: str = "contacts") -> list[str]:
        found: list[str] = json.loads(self.run("-c", STORED))[what]
        return found

    # The browser.

    def get(self, address: str) -> str:
        with self._browser.open(urllib.parse.urljoin(self._base, address)) as response:
            text: str = response.read().decode()
            return text

    def upload(self, lines: list[str], name: str = "contacts.csv") -> str:
        """Send the form on the first page; return the address of the page that it leads to."""
        form = [
            f'Content-Disposition: form-data; name="csrfmiddlewaretoken"\r\n\r\n{self._token("/")}',
            f'Content-Disposition: form-data; name="file"; filename="{name}"\r\n'
            "Content-Type: text/csv\r\n\r\n" + "\n".join(lines),
        ]
        body = "".join(f"--{BOUNDARY}\r\n{part}\r\n" for part in form) + f"--{BOUNDARY}--\r\n"
        kind = f'multipart/form-data; boundary="{BOUNDARY}"'
        request = urllib.request.Request(
            f"{self._base}/", body.encode(), {"Content-Type": kind, "Origin": self._base}
        )
        with self._browser.open(request) as response:
            address: str = response.url
            return address

    def press(self, page: str, button: str) -> None:
        token = self._token(page)
        data = urllib.parse.urlencode({"csrfmiddlewaretoken": token}).encode()
        with self._browser.open(f"{page}{button}/", data) as response:
            assert response.url == page

    def _token(self, address: str) -> str:
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.get(address))
        assert found
        return found[1]

    def progress(self, page: str) -> Progress:
        found: Progress = json.loads(self.get(f"{page}progress/"))
        return found

    def wait_for(self, page: str, condition: Callable[[Progress], Any]) -> Progress:
        """Ask for the progress, as the page does, until it is so."""
        seen: list[Progress] = []

        def is_so() -> bool:
            seen[:] = [self.progress(page)]
            return bool(condition(seen[0]))

        wait_until(is_so, lambda: f"{seen}\n{[script.err for script in self._scripts]}")
        return seen[0]

    @property
    def slow(self) -> Path:
        return self.folder / "slow.on"


@pytest.fixture
def site(tmp_path: Path, new_database: Callable[[], str]) -> Iterator[Site]:
    """The example on an empty database, its web server running."""
    folder = shutil.copytree(
        UPLOADS,
        tmp_path / "uploads",
        ignore=shutil.ignore_patterns("*.sqlite3*", "__pycache__", "media"),
    )
    (folder / "slow").mkdir()
    (folder / "slow" / "__init__.py").touch()
    (folder / "slow" / "apps.py").write_text(SLOW)
    (folder / "slow_settings.py").write_text(SETTINGS)
    # On SQLite its own file, with the options that the example has for it.
    site = Site(folder, "" if connection.vendor == "sqlite" else new_database())
    try:
        site.run("manage.py", "migrate", "-v0")
        site.serve()
        yield site
    finally:
        site.end()


def ended(progress: Progress) -> bool:
    return progress["state"] not in ("waiting", "counting", "running")


def addresses(rows: int) -> list[str]:
    """Return what sample.py's rows leave in the table: of each hundred, two are refused."""
    return sorted(f"contact{n}@example.com" for n in range(rows) if n % 100 not in (7, 8))


def test_an_upload_is_imported_by_the_worker(site: Site) -> None:
    """The page is there at once; then all rows, those that failed by name, and no warning."""
    page = site.upload(site.rows(3000))
    waiting = site.progress(page)
    assert (waiting["state"], waiting["percent"], waiting["rows"]) == ("waiting", 0, None)
    assert "contacts.csv" in site.get(page) and "contacts.csv" in site.get("/")

    worker = site.start_worker()
    done = site.wait_for(page, ended)

    assert (done["rows"], done["succeeded"], done["failed"]) == (3000, 2940, 60)
    assert (done["percent"], done["can_cancel"], done["can_resume"]) == (100, False, False)
    assert done["words"] == "done, 60 rows failed"
    assert done["rate"] > 0
    assert len(done["failures"]) == 20
    errors = {failure["row"]: failure["error"] for failure in done["failures"]}
    assert any("Enter a valid email address" in error for error in errors.values())
    assert any("uni" in error.lower() or "duplicate" in error.lower() for error in errors.values())
    assert site.stored() == addresses(3000)
    wait_until(lambda: site.stored("tasks") == ["SUCCESSFUL"])
    worker.interrupt()
    worker.wait(0)
    assert "Warning" not in worker.out + worker.err


def test_an_import_is_cancelled_and_resumed(site: Site) -> None:
    """What is imported stays; the rest follows, each row once."""
    site.slow.touch()
    site.start_worker()
    page = site.upload(site.rows(2000))
    site.wait_for(page, lambda progress: progress["succeeded"])
    site.press(page, "cancel")
    cancelled = site.wait_for(page, ended)

    assert cancelled["state"] == "cancelled" and cancelled["can_resume"]
    assert 0 < cancelled["succeeded"] == len(site.stored()) < 1960

    site.slow.unlink()
    site.press(page, "resume")
    done = site.wait_for(page, lambda progress: progress["percent"] == 100 and ended(progress))
    assert (done["succeeded"], done["failed"]) == (1960, 40)
    assert site.stored() == addresses(2000)


def test_an_import_is_cancelled_before_it_begins(site: Site) -> None:
    """The worker leaves it alone."""
    page = site.upload(site.rows(100))
    site.press(page, "cancel")
    assert site.progress(page)["state"] == "cancelled"
    site.start_worker()
    wait_until(lambda: site.stored("tasks") == ["SUCCESSFUL"])
    assert site.progress(page)["state"] == "cancelled"
    assert site.stored() == []
    site.press(page, "resume")
    assert site.wait_for(page, ended)["percent"] == 100
    assert site.stored() == addresses(100)


@pytest.mark.parametrize("place", ["read.hold", "run.hold"])
def test_an_import_is_cancelled_before_its_run_is_taken_up(site: Site, place: str) -> None:
    """The wish isn't lost: neither of a new run, nor of one that is resumed."""
    site.slow.touch()
    site.start_worker()
    page = ""
    for _ in ("new", "resumed"):
        (site.folder / place).touch()
        if page:
            site.press(page, "resume")
        else:
            page = site.upload(site.rows(2000))
        wait_until((site.folder / "held").exists)
        site.press(page, "cancel")
        (site.folder / place).unlink()
        (site.folder / "held").unlink()
        wait_until(lambda: set(site.stored("tasks")) == {"SUCCESSFUL"})
        cancelled = site.progress(page)
        assert (cancelled["state"], cancelled["can_resume"]) == ("cancelled", True)
        assert cancelled["succeeded"] == len(site.stored()) < 1960

    site.slow.unlink()
    site.press(page, "resume")
    done = site.wait_for(page, ended)
    assert (done["succeeded"], done["failed"]) == (1960, 40)
    assert site.stored() == addresses(2000)


def test_a_file_that_the_worker_cannot_see_is_an_error(site: Site) -> None:
    """The page says so, without the server's paths; when the file is there, it is imported."""
    page = site.upload(site.rows(100))
    media = site.folder / "media"
    media.rename(site.folder / "elsewhere")
    site.start_worker()
    failed = site.wait_for(page, ended)
    assert (failed["state"], failed["can_resume"]) == ("failed", True)
    assert "on the server" in failed["reason"]
    assert str(site.folder) not in json.dumps(failed)

    (site.folder / "elsewhere").rename(media)
    site.press(page, "resume")
    done = site.wait_for(page, ended)
    assert (done["state"], done["reason"], done["percent"]) == ("done", "", 100)
    assert site.stored() == addresses(100)


def test_resume_is_enqueued_once(site: Site) -> None:
    """A second click does nothing, nor one while the run is alive."""
    page = site.upload(site.rows(2000))
    site.press(page, "resume")
    assert site.stored("tasks") == ["READY"]
    site.press(page, "cancel")
    site.press(page, "resume")
    site.press(page, "resume")
    assert len(site.stored("tasks")) == 2

    (site.folder / "read.hold").touch()
    site.slow.touch()
    site.start_worker()
    wait_until((site.folder / "held").exists)
    assert site.progress(page)["state"] == "counting"
    site.press(page, "resume")
    (site.folder / "read.hold").unlink()
    site.wait_for(page, lambda progress: progress["succeeded"])
    site.press(page, "resume")
    assert site.progress(page)["state"] == "running"
    assert len(site.stored("tasks")) == 2
    site.slow.unlink()
    assert site.wait_for(page, ended)["state"] == "done"


def test_a_task_that_comes_twice_is_no_error(site: Site) -> None:
    """While one worker has the run, another leaves it alone, and the page doesn't speak of it."""
    site.slow.touch()
    site.start_worker()
    page = site.upload(site.rows(2000))
    site.wait_for(page, lambda progress: progress["succeeded"])
    site.start_worker()
    site.run("-c", ENQUEUE)
    wait_until(lambda: sorted(site.stored("tasks")) == ["RUNNING", "SUCCESSFUL"])
    assert (site.progress(page)["state"], site.progress(page)["reason"]) == ("running", "")
    site.slow.unlink()
    done = site.wait_for(page, ended)
    assert (done["state"], done["reason"], done["succeeded"]) == ("done", "", 1960)


def test_each_upload_shows_its_own_failed_rows(site: Site) -> None:
    """Also where two names differ in the case of their suffix alone."""
    site.start_worker()
    first = site.upload(["name,email", "Ann,nobody", "Bob,bob@example.com"], "contacts.csv")
    second = site.upload(["name,email", "Ann,ann@example.com", "Bob,nobody"], "contacts.CSV")
    for page, row in ((first, 1), (second, 2)):
        done = site.wait_for(page, ended)
        assert [failure["row"] for failure in done["failures"]] == [row]
        assert (done["state"], done["words"], done["reason"]) == ("done", "done, 1 row failed", "")


def test_a_damaged_file_is_refused_as_a_whole(site: Site) -> None:
    """The page says where; nothing of it is imported."""
    site.start_worker()
    page = site.upload([*site.rows(50), "one field too many,a@example.com,?"])
    refused = site.wait_for(page, ended)
    assert refused["state"] == "failed"
    assert "line 52" in refused["reason"]
    assert str(site.folder) not in json.dumps(refused)
    wait_until(lambda: site.stored("tasks") == ["FAILED"])
    assert site.stored() == []


def test_only_csv_files_are_taken(site: Site) -> None:
    """The form says so, and nothing is enqueued."""
    assert site.upload(["name,email"], "contacts.exe").count("/") == 3  # the form's own page
    assert "contacts.exe" not in site.get("/")


@pytest.mark.only_on("postgresql")
def test_a_killed_worker_costs_nothing(site: Site) -> None:
    """Its task is never heard of again; the run is found lost, and another worker does the rest."""
    site.slow.touch()
    worker = site.start_worker()
    page = site.upload(site.rows(2000))
    site.wait_for(page, lambda progress: progress["succeeded"])
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.wait(-signal.SIGKILL)
    lost = site.wait_for(page, ended)
    assert (lost["state"], lost["can_resume"]) == ("lost", True)
    assert site.stored("tasks") == ["RUNNING"]

    site.slow.unlink()
    site.start_worker()
    site.press(page, "resume")
    done = site.wait_for(page, lambda progress: progress["percent"] == 100 and ended(progress))
    assert (done["succeeded"], done["failed"]) == (1960, 40)
    assert site.stored() == addresses(2000)
