"""What is called for an item: the function, its annotation's converter, before_chunk, a saver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest

import carpool
from carpool.calling import calls_of
from carpool.exceptions import ConfigurationError
from carpool.savers import ModelSaver
from carpool.typed import Converter
from tests.app.models import Tag
from tests.app.models.base import Named

DEFAULT = ("default",)


@dataclass
class Order:
    number: int


def create(item: Any) -> None:
    pass


def create_order(order: Order) -> None:
    pass


def look_up(items: list[Any]) -> None:
    pass


def test_a_function_is_called_as_it_is() -> None:
    """Without annotation and hook there is nothing but the function."""
    calls = calls_of(create, None, DEFAULT)
    assert (calls.function, calls.convert, calls.before_chunk) == (create, None, None)


def test_an_annotation_makes_a_converter() -> None:
    """Of a class that items are turned into."""
    convert = calls_of(create_order, None, DEFAULT).convert
    assert isinstance(convert, Converter)
    assert convert.target is Order


def test_the_option_is_the_hook() -> None:
    """before_chunk= goes with any function."""
    assert calls_of(create, look_up, DEFAULT).before_chunk is look_up


def test_a_function_may_bring_its_own() -> None:
    """An attribute of the name, of a function or of an object's class."""

    def brings(item: Any, result: Any) -> None:
        pass

    brings.before_chunk = look_up  # type: ignore[attr-defined]
    assert calls_of(brings, None, DEFAULT).before_chunk is look_up
    saver = ModelSaver(Tag)
    assert calls_of(saver, None, DEFAULT).before_chunk == saver.before_chunk


def test_two_hooks_are_refused() -> None:
    """Nobody can say which result the function is to be called with."""
    with pytest.raises(ConfigurationError, match=r"A ModelSaver has a before_chunk of its own"):
        calls_of(ModelSaver(Tag), look_up, DEFAULT)


def test_an_object_that_has_every_attribute_brings_none() -> None:
    """A mock in the place of a function is called with the item alone."""
    assert calls_of(mock.Mock(), None, DEFAULT).before_chunk is None


def test_a_model_becomes_a_saver() -> None:
    """With its lookups, and saved where the routers say, which the transaction covers."""
    calls = calls_of(Tag, None, DEFAULT)
    assert isinstance(calls.function, ModelSaver)
    assert (calls.function.model, calls.function.using) == (Tag, None)
    assert calls.before_chunk == calls.function.before_chunk
    assert calls.convert is None


def test_a_model_is_saved_where_the_transaction_is() -> None:
    """The alias that the run names wins over the routers; without one, both must agree."""
    assert calls_of(Tag, None, ("other",)).function.using == "other"
    assert calls_of(Tag, None, ("other", "default")).function.using is None
    with mock.patch("django.db.router.db_for_write", return_value="elsewhere"):
        for aliases in (DEFAULT, ("default", "other")):
            with pytest.raises(
                ConfigurationError, match=r"'elsewhere', by the routers.*using='els"
            ):
                calls_of(Tag, None, aliases)


def test_a_model_without_a_table_is_refused() -> None:
    """As ModelSaver refuses it."""
    with pytest.raises(ConfigurationError, match="is abstract"):
        carpool.run(Named, [{}])


def test_a_hook_that_cannot_be_called_is_refused() -> None:
    """A function's own as well."""

    def brings(item: Any, result: Any) -> None:
        pass

    brings.before_chunk = {"not": "callable"}  # type: ignore[attr-defined]
    for start in (carpool.run, carpool.stream):
        with pytest.raises(ConfigurationError, match="before_chunk is a 'dict'"):
            start(brings, [1])
