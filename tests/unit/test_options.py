"""Whatever can't work is refused before the first item, with the cause and the remedy."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from django.apps import apps
from django.db import connections, transaction
from hypothesis import given
from hypothesis import strategies as st

from carpool.exceptions import ConfigurationError
from carpool.options import Options

DEFAULTS: dict[str, Any] = {
    "executor": "auto",
    "workers": None,
    "start_method": None,
    "setup": None,
    "using": "default",
    "chunk_size": None,
    "retries": 5,
    "timeout": None,
    "on_error": "collect",
    "max_failures": None,
    "rejects": None,
    "progress": None,
    "dry_run": False,
}
POOL = ThreadPoolExecutor(1)


def check(**changes: Any) -> Options:
    options = Options(**DEFAULTS | changes)
    options.check(print)
    return options


ACCEPTED: list[dict[str, Any]] = [
    {},
    {"executor": "inline", "workers": 1},
    {"executor": "threads", "workers": 60},
    {"executor": "processes", "start_method": "spawn", "timeout": 0.5},
    {"executor": "auto", "start_method": "fork", "timeout": 10},
    {"executor": POOL, "workers": 3},
    {"using": ["default", "other"]},
    {"using": {"default": 1, "other": 2}.keys()},
    {"chunk_size": 1},
    {"retries": 0},
    {"max_failures": 0},
    {"on_error": "raise"},
    {"setup": print},
    {"before_chunk": print},
    {"progress": True},
    {"progress": print},
    {"dry_run": True},
    {"lock": True},
]


@pytest.mark.parametrize("options", ACCEPTED, ids=str)
def test_what_can_work_is_accepted(options: dict[str, Any]) -> None:
    """No refusal without a reason."""
    check(**options)


class NotCallable:
    pass


class Service:
    def __call__(self, item: Any) -> None:
        pass


# Each: the options, and words of the cause and of the remedy that the message must have.
REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"executor": "proceses"}, ["executor='proceses'", "'processes'", "concurrent.futures"]),
    ({"executor": None}, ["executor=None", "'auto'"]),
    ({"executor": ThreadPoolExecutor}, ["executor=", "a concurrent.futures.Executor"]),
    ({"start_method": "thread"}, ["start_method='thread'", "'spawn'"]),
    ({"on_error": "ignore"}, ["on_error='ignore'", "'collect', 'raise'"]),
    ({"workers": 0}, ["workers=0", "1 or more, or None"]),
    ({"workers": 2.0}, ["workers=2.0", "whole number"]),
    ({"workers": True}, ["workers=True", "whole number"]),
    ({"workers": "4"}, ["workers='4'", "whole number"]),
    ({"chunk_size": 0}, ["chunk_size=0", "1 or more, or None"]),
    ({"chunk_size": -1}, ["chunk_size=-1", "1 or more"]),
    ({"max_failures": -1}, ["max_failures=-1", "0 or more, or None"]),
    ({"retries": -1}, ["retries=-1", "0 or more."]),
    ({"retries": None}, ["retries=None", "0 or more."]),
    ({"timeout": 0}, ["timeout=0", "positive number of seconds, or None"]),
    ({"timeout": -1.5}, ["timeout=-1.5", "positive"]),
    ({"timeout": float("nan")}, ["timeout=nan", "positive"]),
    ({"timeout": float("inf")}, ["timeout=inf", "or None"]),
    ({"timeout": "5"}, ["timeout='5'", "positive number"]),
    ({"timeout": True}, ["timeout=True", "positive number"]),
    ({"setup": "module.setup"}, ["setup", "callable without arguments"]),
    ({"before_chunk": "module.look_up"}, ["before_chunk is a 'str'", "takes a list of items"]),
    ({"progress": "bar"}, ["progress='bar'", "callable that takes a Snapshot"]),
    ({"progress": 1}, ["progress=1", "None, True, False"]),
    ({"lock": 1}, ["lock=1", "True or False"]),
    ({"lock": "rows"}, ["lock='rows'", "True or False"]),
    ({"using": "defualt"}, ["'defualt'", "not in settings.DATABASES", "default, other"]),
    ({"using": ["default", "nowhere"]}, ["'nowhere'", "default, other"]),
    ({"using": []}, ["using is empty", '"default"']),
    ({"using": 5}, ["using=5", "database alias or several"]),
    ({"using": None}, ["using=None", "database alias or several"]),
    ({"using": [["default"]]}, ["using=", "database alias or several"]),
    ({"executor": "inline", "workers": 2}, ["workers=2", 'executor="threads" or "processes"']),
    ({"executor": "inline", "timeout": 5}, ["timeout", "'inline'", 'executor="processes"']),
    ({"executor": "threads", "timeout": 5}, ["timeout", "'threads'", 'executor="processes"']),
    ({"executor": POOL, "timeout": 5}, ["timeout", "ThreadPoolExecutor", 'executor="processes"']),
    (
        {"executor": "threads", "start_method": "spawn"},
        ["start_method", "'threads'", "Leave it out"],
    ),
    ({"executor": "inline", "start_method": "fork"}, ["start_method", 'executor="processes"']),
    ({"executor": POOL, "start_method": "fork"}, ["start_method", "ThreadPoolExecutor"]),
    ({"on_error": "raise", "max_failures": 3}, ['on_error="raise"', "max_failures", "one of them"]),
]


@pytest.mark.parametrize(("options", "words"), REFUSED, ids=lambda value: str(value)[:50])
def test_what_cannot_work_is_refused(options: dict[str, Any], words: list[str]) -> None:
    """The message has the option, what is wrong with it, and what to do instead."""
    with pytest.raises(ConfigurationError) as caught:
        check(**options)
    for word in words:
        assert word in str(caught.value)
    assert caught.value.report is None


@pytest.mark.parametrize("function", [None, "module.function", 5, NotCallable()], ids=str)
def test_a_function_that_cannot_be_called_is_refused(function: Any) -> None:
    """The message says what was passed, and what should be."""
    with pytest.raises(ConfigurationError, match=rf"{type(function).__name__}.*takes one item"):
        Options(**DEFAULTS).check(function)


async def later(item: Any) -> None:
    pass


async def later_and_later(item: Any) -> Any:
    yield item


def bit_by_bit(item: Any) -> Any:
    yield item


class Later:
    async def __call__(self, item: Any) -> None:
        pass

    def bit_by_bit(self, item: Any) -> Any:
        yield item


BEGINNERS: list[tuple[Any, str]] = [
    (later, "async_to_sync"),
    (later_and_later, "async_to_sync"),
    (Later(), "async_to_sync"),
    (partial(partial(later), 1), "async_to_sync"),
    (bit_by_bit, "does its work and returns"),
    (Later().bit_by_bit, "does its work and returns"),
]


@pytest.mark.parametrize(("function", "remedy"), BEGINNERS, ids=range(len(BEGINNERS)))
def test_a_function_that_only_begins_is_refused(function: Any, remedy: str) -> None:
    """A coroutine or a generator that nobody runs would count as a success."""
    with pytest.raises(ConfigurationError, match=remedy):
        Options(**DEFAULTS).check(function)


@pytest.mark.parametrize(("function", "remedy"), BEGINNERS, ids=range(len(BEGINNERS)))
def test_a_before_chunk_that_only_begins_is_refused(function: Any, remedy: str) -> None:
    """As a function is; the message says which of the two is meant."""
    with pytest.raises(ConfigurationError, match=rf"^before_chunk is a .*{remedy}"):
        check(before_chunk=function)


@pytest.mark.parametrize("function", [print, int, str.upper, partial(print, 1), Service()], ids=str)
def test_anything_else_that_can_be_called_is_a_function(function: Any) -> None:
    """Builtins, classes, methods, partials and objects."""
    Options(**DEFAULTS).check(function)


def test_a_start_method_that_the_platform_lacks_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On Windows there is only spawn, and the message says so."""
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    with pytest.raises(ConfigurationError, match=r"start_method='fork' must be one of 'spawn'\."):
        check(start_method="fork")


def test_django_must_be_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before django.setup() there are no models to work with."""
    monkeypatch.setattr(apps, "ready", False)
    with pytest.raises(ConfigurationError, match=r"django\.setup\(\)"):
        check()


@given(st.lists(st.sampled_from(["default", "other"]), min_size=1))
def test_each_alias_counts_once_in_the_order_given(using: list[str]) -> None:
    """An alias named twice is one transaction, not two."""
    aliases = check(using=using).aliases
    assert list(aliases) == list(dict.fromkeys(using))


def test_a_single_alias_is_a_string() -> None:
    """using="default" is one alias, not seven letters."""
    assert check(using="default").aliases == ("default",)


def test_aliases_may_come_from_a_generator() -> None:
    """An iterable that can be read only once is read only once."""

    def aliases() -> Iterator[str]:
        yield "default"
        yield "other"

    options = check(using=aliases())
    assert options.aliases == ("default", "other")
    assert options.aliases == ("default", "other")


def test_a_database_without_autocommit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """There atomic() ends without COMMIT, and every row would be lost in the end."""
    connections["other"].close()  # an open one is asked itself
    monkeypatch.setitem(connections["other"].settings_dict, "AUTOCOMMIT", False)
    with pytest.raises(ConfigurationError, match=r"Autocommit is off.*'other'.*Turn it on"):
        check(using=["default", "other"])
    check(using="default")


@pytest.mark.django_db(transaction=True)
def test_a_connection_whose_autocommit_was_turned_off_is_refused() -> None:
    """Also where only the caller's own connection is so; inside atomic() all is well."""
    transaction.set_autocommit(False)
    try:
        with pytest.raises(ConfigurationError, match=r"set_autocommit\(False\)"):
            check()
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    check()
    with transaction.atomic():
        check()


def test_an_executor_may_be_of_any_class() -> None:
    """Only that it is a concurrent.futures.Executor is asked for."""

    class Mine(Executor):
        pass

    check(executor=Mine())
