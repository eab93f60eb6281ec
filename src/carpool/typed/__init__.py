"""Typed items: rows turned into what the function's first parameter is annotated with.

::

    @dataclass
    class Order:
        number: int
        day: date

    def create_order(order: Order): ...

A dataclass, an attrs class, a msgspec Struct, a pydantic model (or dataclass), a Django form. No
library is imported for the question: whoever has a class of it has imported it.
"""

from __future__ import annotations

from typing import Any, get_origin

from carpool.typed import (
    attrs_items,
    dataclass_items,
    form_items,
    msgspec_items,
    pydantic_items,
)
from carpool.typed.annotations import first_annotation
from carpool.typed.converter import Converter

__all__ = ["Converter", "converter_for"]

# pydantic has dataclasses of its own, which are dataclasses as well: its question comes first.
_KINDS = (pydantic_items, msgspec_items, form_items, attrs_items, dataclass_items)


def converter_for(function: Any) -> Converter | None:
    """Return what turns an item into what the function takes, or None if it takes any.

    The annotation of the first parameter counts; of a partial, the first that is left; of a
    decorated function, that of the function inside (``functools.wraps``). ``dict``, ``Any``,
    unions, a model, a name that exists for type checkers only: None.

    The converter pickles if the class does. It raises `InvalidItem`; an item that is an instance
    of the class already passes untouched.

    Raises:
        ConfigurationError: the class is of a kind that is converted, but can't be.
    """
    target = first_annotation(function)
    kind = get_origin(target) or target
    if not isinstance(kind, type):
        return None
    for module in _KINDS:
        if module.is_one(kind):
            converter: Converter = module.Items(target)
            return converter
    return None
