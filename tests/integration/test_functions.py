"""What kinds of function there are, as far as the database shows a difference."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import carpool
from tests.app.models import Author

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


async def write_later(name: str) -> None:
    await Author.objects.acreate(name=name)


def write_if_asked(name: str) -> Iterator[None]:
    Author.objects.create(name=name)
    yield


async def write_later_if_asked(name: str) -> AsyncIterator[None]:
    await Author.objects.acreate(name=name)
    yield


class Writer:
    """A callable object, whose methods are functions too."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix

    def __call__(self, name: str) -> None:
        Author.objects.create(name=self.prefix + name)

    def write(self, name: str) -> None:
        self(name)

    @staticmethod
    def write_plainly(name: str) -> None:
        Author.objects.create(name=name)

    async def write_later(self, name: str) -> None:
        await Author.objects.acreate(name=name)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize(
    "function",
    [
        pytest.param(write_later, id="async"),
        pytest.param(write_if_asked, id="generator"),
        pytest.param(write_later_if_asked, id="async generator"),
        pytest.param(Writer().write_later, id="async method"),
        pytest.param(functools.partial(write_later), id="partial"),
    ],
)
def test_a_function_whose_call_does_nothing_is_refused(function: Any) -> None:
    """A coroutine or generator function, called, has done nothing: refused, not "succeeded"."""
    with pytest.raises(carpool.ConfigurationError):
        carpool.run(function, ["a"], executor="inline", progress=False)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"executor": "inline"}, id="inline"),
        pytest.param({"executor": "threads", "workers": 2}, id="threads"),
        pytest.param({"executor": "processes", "workers": 2}, id="processes"),
    ],
)
@pytest.mark.parametrize(
    "function",
    [
        pytest.param(Writer("x").__call__, id="bound call"),
        pytest.param(Writer("x"), id="callable"),
        pytest.param(Writer("x").write, id="method"),
        pytest.param(Writer.write_plainly, id="static method"),
        pytest.param(functools.partial(Author.objects.create, books_written=1), id="partial"),
        pytest.param(lambda name: Author(name=f"x{name}").save(), id="lambda"),
    ],
)
def test_any_callable_will_do(function: Any, options: dict[str, Any]) -> None:
    """Methods, callable objects, partials and lambdas are run like functions."""
    items: list[Any] = ["a", "b", "c"]
    if isinstance(function, functools.partial):
        function = WithName(function)

    report = carpool.run(function, items, progress=False, **options)

    assert report.failures == ()
    assert sorted(name[-1] for name in Author.objects.values_list("name", flat=True)) == items


class WithName:
    """Give the item to a function as its keyword `name`."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, name: str) -> None:
        self.function(name=name)
