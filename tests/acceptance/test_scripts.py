"""A user's scripts: however they are started, and whatever they define on the way."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User

from tests.acceptance.conftest import PREAMBLE, Script

# None of this depends on the database.
pytestmark = [pytest.mark.usefixtures("no_connections_left"), pytest.mark.only_on("sqlite")]

Start = Callable[..., Script]

#: Everything at the top level, as one writes in a hurry: no guard, and all that is sent is defined
#: in the script itself.
HURRIED = """
from dataclasses import dataclass

print("the script begins", flush=True)
SUFFIX = "!"

@dataclass
class Row:
    name: str

def full_name(row):
    return row.name + SUFFIX

def create(row):
    User.objects.create(username=full_name(row))
    return Row(row.name.upper())

rows = (Row(f"u{{n}}") for n in range(40))
outcomes = list(carpool.stream(create, rows, progress=False, **{options}))
assert [outcome.failure for outcome in outcomes] == [None] * 40
assert [outcome.value for outcome in outcomes] == [Row(f"U{{n}}") for n in range(40)]
assert {{type(outcome.value) for outcome in outcomes}} == {{Row}}
"""

METHODS = ["forkserver", "fork", "spawn"]


def processes(method: str) -> dict[str, object]:
    return {"executor": "processes", "workers": 2, "start_method": method}


def assert_all_stored(script: Script, begins: int = 1) -> None:
    script.wait()
    assert script.out.splitlines() == ["the script begins"] * begins
    assert script.err == ""
    stored = set(User.objects.values_list("username", flat=True))
    assert stored == {f"u{n}!" for n in range(40)}


@pytest.mark.parametrize("method", METHODS)
def test_a_script_without_a_guard(start: Start, method: str) -> None:
    """Without ``if __name__ == "__main__"`` the script isn't run again by its workers."""
    assert_all_stored(start(HURRIED.format(options=processes(method))))


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
@pytest.mark.parametrize("how", ["-c", "-", "shell"])
def test_without_a_file(start: Start, how: str, method: str) -> None:
    """`python -c`, a script on stdin and `manage.py shell -c` have no file to import."""
    assert_all_stored(start(HURRIED.format(options=processes(method)), how=[how]))


@pytest.mark.parametrize("method", METHODS)
def test_settings_configured_by_hand(start: Start, method: str) -> None:
    """Workers of a script that calls ``settings.configure()`` have the same settings."""
    preamble = """
import os
from tests.settings import DATABASES
del os.environ["DJANGO_SETTINGS_MODULE"]
from django.conf import settings
settings.configure(
    DATABASES=DATABASES,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"],
    USE_TZ=True,
    GREETING="hello",
)
"""
    script = start(
        f"""
        from django.conf import settings

        def create(number):
            assert settings.GREETING == "hello"
            User.objects.create(username=f"u{{number}}!")

        print("the script begins")
        carpool.run(create, range(40), progress=False, **{processes(method)}).raise_for_failures()
        """,
        preamble=preamble + PREAMBLE,
    )
    assert_all_stored(script)


@pytest.mark.parametrize("method", METHODS)
def test_modules_and_settings_that_only_the_script_knows(start: Start, method: str) -> None:
    """What the script puts on ``sys.path``, and into the environment, its workers have as well."""
    preamble = """
import os, pathlib, sys
lib = pathlib.Path(sys.argv[1], "lib")
lib.mkdir()
(lib / "my_functions.py").write_text('''
from django.contrib.auth.models import User

def create(number):
    User.objects.create(username=f"u{number}!")
''')
(lib / "my_settings.py").write_text("from tests.settings import *")
sys.path.insert(0, str(lib))
os.environ["DJANGO_SETTINGS_MODULE"] = "my_settings"
"""
    script = start(
        f"""
        import my_functions

        print("the script begins")
        carpool.run(
            my_functions.create, range(40), progress=False, **{processes(method)}
        ).raise_for_failures()
        """,
        preamble=preamble + PREAMBLE,
        environment={"DJANGO_SETTINGS_MODULE": "no.such.settings"},
    )
    assert_all_stored(script)


@pytest.mark.parametrize(
    "options",
    [{"executor": "inline"}, {"executor": "threads", "workers": 2}, {}, *map(processes, METHODS)],
    ids=["inline", "threads", "auto", *METHODS],
)
def test_run_from_a_thread(start: Start, options: dict[str, object]) -> None:
    """A run may be made in any thread, where there is no Ctrl-C to take over."""
    script = start(
        f"""
        def create(number):
            User.objects.create(username=f"u{{number}}!")

        def work():
            try:
                carpool.run(create, range(40), progress=False, **{options}).raise_for_failures()
                assert User.objects.count() == 40
                print("the script begins")
            finally:
                connection.close()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        """
    )
    assert_all_stored(script)


def test_inside_a_daemonic_process(start: Start) -> None:
    """A daemonic process may not have children: processes are refused there, auto stays inline."""
    script = start(
        """
        import multiprocessing

        def create(number):
            User.objects.create(username=f"u{number}!")

        def work():
            connection.close()
            try:
                carpool.run(create, range(40), executor="processes", progress=False)
            except carpool.ConfigurationError as error:
                assert "daemonic" in str(error) and "threads" in str(error), error
                assert User.objects.count() == 0
            else:
                raise AssertionError("not refused")
            report = carpool.run(create, range(40), progress=False)
            assert report.executor == "inline", report
            print("the script begins", flush=True)

        if __name__ == "__main__":
            process = multiprocessing.get_context("fork").Process(target=work, daemon=True)
            process.start()
            process.join()
            sys.exit(process.exitcode)
        """
    )
    assert_all_stored(script)


def test_a_script_that_ends_in_the_middle_of_a_stream(start: Start) -> None:
    """A script that exits while a stream is open leaves no worker behind."""
    script = start(
        """
        def create(number):
            User.objects.create(username=f"u{number}!")

        stream = carpool.stream(create, range(100_000), executor="processes", workers=2,
                                chunk_size=2, progress=False)
        print(next(stream).item, flush=True)
        sys.exit(3)
        """
    )
    script.wait(3)
    assert script.out == "0\n"
    assert script.err == ""
