"""What `carpool` is from outside: its names, their docstrings, and when it can be imported."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import carpool
from tests.waiting import HANG

PUBLIC = {name: getattr(carpool, name) for name in carpool.__all__}
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(carpool.__path__, prefix="carpool.")
)


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter without any Django settings."""
    environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG,
        env=environment,
    )


def test_it_can_be_imported_before_django_is_set_up() -> None:
    """settings.py, or a script before django.setup(), may import carpool."""
    done = python(
        "import carpool\n"
        "from django.conf import settings\n"
        "from django.apps import apps\n"
        "assert not settings.configured and not apps.ready\n"
        "print(len([getattr(carpool, name) for name in carpool.__all__]))"
    )
    assert done.stderr == ""
    assert int(done.stdout) == len(carpool.__all__)


@pytest.mark.parametrize("call", ["run", "stream"])
def test_a_call_before_django_is_set_up_is_refused(call: str) -> None:
    """The message says what to call first."""
    done = python(
        f"import carpool\ntry:\n    carpool.{call}(print, [1])\n"
        "except carpool.ConfigurationError as error:\n    print(error)"
    )
    assert "django.setup()" in done.stdout


def test_all_is_sorted_and_complete() -> None:
    """`__all__` lists what the module imports for its users, in order, and nothing else."""
    tree = ast.parse(inspect.getsource(carpool))
    imported = [
        name.asname or name.name
        for statement in tree.body
        if isinstance(statement, ast.ImportFrom)
        for name in statement.names
    ]
    assert carpool.__all__ == sorted(set(carpool.__all__))
    assert sorted(imported) == carpool.__all__


def test_every_exception_is_public() -> None:
    """Whatever carpool raises, or names as an item's error, can be caught by its public name."""
    exceptions = importlib.import_module("carpool.exceptions")
    for name, value in vars(exceptions).items():
        if inspect.isclass(value) and issubclass(value, BaseException):
            assert PUBLIC.get(name) is value


@pytest.mark.parametrize("name", carpool.__all__)
def test_every_public_name_says_what_it_is(name: str) -> None:
    """Each public class and function, and each of its public methods, has a docstring."""
    value: Any = PUBLIC[name]
    assert inspect.getdoc(value)
    if inspect.isclass(value):
        assert value.__doc__ != value.__mro__[1].__doc__
        for attribute, member in vars(value).items():
            if inspect.isfunction(member) and not attribute.startswith("_"):
                assert inspect.getdoc(member), f"{name}.{attribute}"


@pytest.mark.parametrize("name", MODULES)
def test_every_module_begins_by_saying_what_it_is_for(name: str) -> None:
    """A reader finds the purpose on the first line."""
    assert (importlib.import_module(name).__doc__ or "").strip()


def test_run_and_stream_take_the_same_options() -> None:
    """stream() is run() with outcomes: only `ordered` is its own, and the defaults are the same.

    It has no journal: of what was done before, there is nothing that it could yield.
    """
    run = dict(inspect.signature(carpool.run).parameters)
    for name in ("journal", "retry_failed", "take_over", "ignore_changed_source"):
        del run[name]
    stream = dict(inspect.signature(carpool.stream).parameters)
    assert stream.pop("ordered").default is True
    assert list(run) == list(stream)
    assert all(run[name].default == stream[name].default for name in run)
    keyword_only = [p.name for p in run.values() if p.kind is p.KEYWORD_ONLY]
    assert list(run) == ["function", "items", *keyword_only]


def test_every_option_is_explained() -> None:
    """Each option of run() has its line in the docstring, in the order of the signature."""
    text = inspect.getdoc(carpool.run) or ""
    arguments = text[text.index("Args:") : text.index("Returns:")]
    places = [arguments.find(f"    {name}: ") for name in inspect.signature(carpool.run).parameters]
    assert -1 not in places
    assert places == sorted(places)


def test_the_package_says_that_it_is_typed() -> None:
    """py.typed is there, so that a user's type checker looks inside."""
    assert (Path(carpool.__file__).parent / "py.typed").exists()
