"""What dotted names mean, and what is said of those that mean nothing."""

from __future__ import annotations

import os.path
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import User

from carpool.exceptions import ConfigurationError
from carpool.targets import resolve_target
from tests.app.functions import objects
from tests.app.models import Author, Order
from tests.waiting import HANG

PACKAGE = {
    "__init__.py": """
        from shopping.orders import create
        def orders(row): ...  # beside a module of this name
        """,
    "orders.py": """
        from json import loads
        LIMIT = 7
        def create(row): ...
        def create_many(rows): ...
        class Loader:
            @staticmethod
            def load(row): ...
        """,
    "broken.py": "1 / 0",
    "needy.py": "import a_library_that_is_not_there",
    "unreadable.py": "def",
    "plain.py": "def function(row): ...",
    "empty.py": "",
}


@pytest.fixture(autouse=True)
def _shopping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package with modules of all kinds."""
    folder = tmp_path / "shopping"
    folder.mkdir()
    for name, code in PACKAGE.items():
        (folder / name).write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "shopping"]:
        del sys.modules[name]


def refusal(dotted: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        resolve_target(dotted)
    return caught.value


def named(dotted: str) -> str:
    target = resolve_target(dotted)
    return f"{target.__module__}.{target.__qualname__}"


@pytest.mark.parametrize(
    ("dotted", "name"),
    [
        ("shopping.plain.function", "shopping.plain.function"),
        ("shopping.create", "shopping.orders.create"),
        ("shopping.orders.Loader", "shopping.orders.Loader"),
        ("shopping.orders.Loader.load", "shopping.orders.Loader.load"),
        ("shopping.orders.loads", "json.loads"),
    ],
)
def test_a_functions_path_is_the_function(dotted: str, name: str) -> None:
    """A module and what is in it, imported into it or inside of a class."""
    assert named(dotted) == name


def test_modules_that_know_their_own_parts_are_searched() -> None:
    """Like os.path, which is a module though os is no package."""
    assert resolve_target("os.path.join") is os.path.join


def test_a_function_goes_before_a_module_of_its_name() -> None:
    """And the module isn't imported, which would put it in the function's place."""
    assert named("shopping.orders") == "shopping.orders"


def test_an_app_and_a_name_are_a_model() -> None:
    """By the app's label, whatever its module is called."""
    assert resolve_target("app.Order") is Order
    assert resolve_target("auth.User") is User


def test_a_models_path_is_the_model_too() -> None:
    """With its module it is found as any class is."""
    assert resolve_target("tests.app.models.Author") is Author
    assert resolve_target("django.contrib.auth.models.User") is User
    assert resolve_target("tests.app.functions.objects.key") is objects.key


@pytest.mark.parametrize("dotted", ["", "create", "shop.", ".create", "a:b", "a b.c", "a.b-c"])
def test_what_is_no_dotted_name_is_refused(dotted: str) -> None:
    """With an example of both kinds."""
    message = str(refusal(dotted))
    assert "is not a dotted name" in message
    assert "shop.imports.create_order" in message and "shop.Order" in message


MESSAGES: list[tuple[str, list[str]]] = [
    # No module.
    ("shoping.orders.create", ["neither an app nor a module 'shoping'", "manage.py"]),
    ("ap.Order", ["neither an app nor a module 'ap'", "Did you mean app?", "INSTALLED_APPS"]),
    (
        "auth.models.User",
        ["'auth' is the label of an app", "Did you mean django.contrib.auth.models.User?"],
    ),
    # No submodule.
    ("shopping.order.create", ["The module shopping has nothing named 'order'", "orders"]),
    # No attribute.
    (
        "shopping.orders.creat",
        ["The module shopping.orders has nothing named 'creat'", "Did you mean create"],
    ),
    ("shopping.orders.CREATE", ["Did you mean create"]),
    ("shopping.orders.unlike", ["There are: Loader, create, create_many."]),
    ("shopping.empty.function", ["shopping.empty has nothing named 'function'."]),
    ("shopping.orders.Loader.lod", ["Loader has nothing named 'lod'. Did you mean load?"]),
    # No model.
    ("app.Ordr", ["The app 'app' has no model 'Ordr'. Did you mean Order?"]),
    ("auth.user", ["The app 'auth' has no model 'user'. Did you mean User?"]),
    ("auth.Thing", ["The app 'auth' has no model 'Thing'. There are: Group, Permission, User."]),
    # Nothing to call.
    ("shopping.plain", ["shopping.plain is a module; name a function in it. There are: function."]),
    ("shopping.orders.LIMIT", ["is a 'int', which can't be called"]),
]


@pytest.mark.parametrize(("dotted", "words"), MESSAGES, ids=[dotted for dotted, _ in MESSAGES])
def test_what_is_not_there_is_said_with_what_is(dotted: str, words: list[str]) -> None:
    """A missing app, module, attribute and model are told apart, and like names proposed."""
    message = str(refusal(dotted))
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("module", "kind", "words"),
    [
        ("broken", ZeroDivisionError, "ZeroDivisionError: division by zero"),
        ("needy", ModuleNotFoundError, "No module named 'a_library_that_is_not_there'"),
        ("unreadable", SyntaxError, "SyntaxError"),
    ],
)
def test_an_error_inside_the_module_is_told_from_a_missing_one(
    module: str, kind: type[Exception], words: str
) -> None:
    """The module is there, so no other name is proposed; its error is the cause."""
    error = refusal(f"shopping.{module}.create")
    assert f"The module shopping.{module} can't be imported: " in str(error)
    assert words in str(error)
    assert isinstance(error.__cause__, kind)
    assert "Did you mean" not in str(error)


def test_names_are_listed_up_to_a_length() -> None:
    """Of many models, the first are shown."""
    message = str(refusal("app.Xylophone"))
    assert message.count(",") <= 12
    assert "…" in message


def test_before_django_is_set_up_it_is_refused() -> None:
    """Models aren't known by then; the message says what to call first."""
    code = (
        "from carpool import ConfigurationError\nfrom carpool.targets import resolve_target\n"
        "try:\n    resolve_target('shop.Order')\n"
        "except ConfigurationError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=HANG
    )
    assert "django.setup()" in done.stdout
