"""How functions and values travel to another process."""

from __future__ import annotations

import functools
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpool.exceptions import ConfigurationError
from carpool.functions import dumps, loads, ship
from tests.waiting import HANG

LOCK = threading.Lock()  # can't be pickled: the culprit of most tests here


@dataclass(frozen=True)
class Point:
    x: int


def run_script(path: Path, *arguments: str) -> str:
    """Run a file as ``__main__``; return what it printed."""
    done = subprocess.run(
        [sys.executable, path, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


SENDER = """
import sys
from dataclasses import dataclass
from pathlib import Path
from carpool.functions import dumps, ship

from django.core.cache import cache
from django.conf import settings
from django.db import connection
from django.db.models.signals import post_save
from django.utils.translation import gettext_lazy

settings.configure(MINE=2, DATABASES={"default": {}})
FACTOR = 3

@dataclass(frozen=True)
class Point:
    x: int

def triple(point):
    return Point(helper(point.x))

def helper(x):
    return x * FACTOR

class Triple:
    def __call__(self, point):
        return triple(point)

def uses_django(point):
    seen = [connection.alias, cache.get("n"), str(gettext_lazy("yes")), post_save.send(Point)]
    return Point(len(seen) * FACTOR * settings.MINE)

values = [Point(4), {"a": (Point(4),)}, "__main__", None]
callables = [triple, lambda p: Point(p.x * FACTOR), Triple(), Triple().__call__, uses_django]
Path(sys.argv[1]).write_bytes(dumps([[dumps(v) for v in values],
                                     [ship("function", c) for c in callables]]))
"""
RECEIVER = """
import sys
from pathlib import Path
from django.conf import settings
settings.configure(MINE=1, DATABASES={"default": {}})
import django
django.setup()
from carpool.functions import loads
values, callables = loads(Path(sys.argv[1]).read_bytes())
point, nested, text, nothing = map(loads, values)
assert point.x == 4 and nested["a"][0] == point and text == "__main__" and nothing is None
print([loads(c)(point).x for c in callables])
"""


def test_what_is_defined_in_main_reaches_another_main(tmp_path: Path) -> None:
    """Items and functions of a script arrive where `__main__` is another file.

    What Django has one of in each process (settings, connection, cache, signals) is that of the
    process in which the function runs.
    """
    (tmp_path / "sender.py").write_text(SENDER)
    (tmp_path / "receiver.py").write_text(RECEIVER)
    run_script(tmp_path / "sender.py", str(tmp_path / "data"))
    assert run_script(tmp_path / "receiver.py", str(tmp_path / "data")) == "[12, 12, 12, 12, 12]\n"


@given(st.recursive(st.none() | st.integers() | st.text() | st.binary(), st.lists))
def test_plain_values_come_back_equal(value: Any) -> None:
    """A value is the same after its journey."""
    assert loads(dumps(value)) == value


def test_what_can_be_imported_goes_by_name() -> None:
    """An instance of an importable class is not sent with its class: it is the same class there."""
    data = dumps(Point(3))
    assert type(loads(data)) is Point
    assert len(data) < 200


def test_what_standard_pickle_cannot_send_is_tried_by_cloudpickle() -> None:
    """A lambda, or an instance of a class made in a function, goes by value."""

    class Local:
        def __init__(self, n: int) -> None:
            self.n = n

    assert loads(dumps(lambda: 5))() == 5
    assert loads(dumps(Local(3))).n == 3


def test_what_nothing_can_send_raises() -> None:
    """A lock can't travel, and it is said at once."""
    with pytest.raises(TypeError, match="lock"):
        dumps({"a": LOCK})


def closure() -> Callable[[Any], Any]:
    held = LOCK

    def inner(item: Any) -> None:
        with held:
            pass

    return inner


def deep_closure() -> Callable[[Any], Any]:
    settings = {"db": [1, LOCK]}

    def inner(item: Any) -> None:
        print(settings)

    return inner


class Service:
    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)

    def work(self, item: Any) -> None:
        pass

    def __call__(self, item: Any) -> None:
        pass


def uses_global() -> Callable[[Any], Any]:
    """Return a function that goes by value and refers to a global that can't travel."""
    scope: dict[str, Any] = {"connection": LOCK, "__name__": "__main__"}
    exec("def work(item):\n    return connection", scope)
    return scope["work"]  # type: ignore[no-any-return]


def uses_global_within() -> Callable[[Any], Any]:
    scope: dict[str, Any] = {"connection": LOCK, "__name__": "__main__"}
    exec("def other(items):\n    return map(lambda item: connection, items)", scope)
    return scope["other"]  # type: ignore[no-any-return]


def with_default(item: Any, lock: Any = LOCK) -> None:
    pass


with_default.__module__ = "__main__"  # goes by value, as a script's own function does

CULPRITS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "a closure's variable": (closure, ["the closure's variable 'held' of", "_thread.lock"]),
    "deep in a closure": (deep_closure, ["[1] of ['db'] of the closure's variable 'settings'"]),
    "a partial's argument": (
        lambda: functools.partial(print, 1, LOCK),
        ["argument 1 of", "_thread.lock"],
    ),
    "a partial's keyword": (lambda: functools.partial(print, end=LOCK), ["argument 'end' of"]),
    "a partial's function": (
        lambda: functools.partial(closure(), 1),
        ["the closure's variable 'held' of the function of"],
    ),
    "a method's self": (
        lambda: Service(session=LOCK).work,
        ["the attribute 'session' of self of Service.work"],
    ),
    "an object that can be called": (
        lambda: Service(session=LOCK),
        ["the attribute 'session' of"],
    ),
    "a global": (uses_global, ["the global 'connection' of work"]),
    "a global of a function within": (uses_global_within, ["the global 'connection' of other"]),
    "a default": (lambda: with_default, ["default 0 of with_default"]),
}


@pytest.mark.parametrize(("make", "words"), CULPRITS.values(), ids=CULPRITS)
def test_the_culprit_is_named(make: Callable[[], Any], words: list[str]) -> None:
    """A function that can't travel is refused with the name of what in it can't, and a remedy."""
    with pytest.raises(ConfigurationError) as caught:
        ship("function", make())
    message = str(caught.value)
    assert message.startswith("The function can't be sent to worker processes: ")
    assert 'executor="threads"' in message
    for word in words:
        assert word in message


def test_the_option_is_named() -> None:
    """Where it is setup= that can't travel, the message says so."""
    with pytest.raises(ConfigurationError, match="The setup can't be sent"):
        ship("setup", closure())


def test_a_closure_that_is_not_complete_yet_is_refused_too() -> None:
    """Looking for the culprit does not stumble over an empty cell."""

    def inner(item: Any) -> Any:
        return later, LOCK

    inner.extra = LOCK  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match="can't be sent"):
        ship("function", inner)
    later = 1


@pytest.mark.parametrize(
    "function",
    [print, lambda item: item, Service(a=1), Service(a=1).work, functools.partial(print, 1), None],
    ids=["builtin", "lambda", "object", "method", "partial", "none"],
)
def test_what_can_travel_is_shipped(function: Any) -> None:
    """Any callable that can be pickled at all arrives."""
    there = pickle.loads(ship("function", function))
    assert callable(there) or function is None
