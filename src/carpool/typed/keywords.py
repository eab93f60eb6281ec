"""Classes without a validator of types: called with a keyword for each column.

So their own ``__init__`` runs, with defaults, converters, validators, ``__post_init__``; before,
cells are turned into what simple annotations say (`scalars`). A class' ``__init__`` refuses what it
doesn't know, so columns without a field are refused.
"""

from __future__ import annotations

import inspect
import typing
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from django.core.exceptions import ValidationError

from carpool.exceptions import ConfigurationError, InvalidItem
from carpool.typed.annotations import signature_of
from carpool.typed.converter import Converter
from carpool.typed.scalars import scalar_converter


class KeywordConverter(Converter):
    """Calls the class; collects what is wrong with a row's cells into one message.

    Raises:
        ConfigurationError: annotations of the class can't be resolved, so that nobody knows what
            its cells should be.
    """

    def __init__(self, target: Any) -> None:
        super().__init__(target)
        parameters = signature_of(self.type).parameters.values()
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        self._takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self._required = [p.name for p in named if p.default is inspect.Parameter.empty]
        hints = self.hints()
        self._cells: dict[str, Callable[[Any], Any] | None] = {
            p.name: scalar_converter(hints[p.name]) if p.name in hints else None for p in named
        }

    @abstractmethod
    def hints(self) -> Mapping[str, Any]:
        """Return the annotations, by parameter of ``__init__``, of the cells to be converted."""

    def resolved_hints(self) -> dict[str, Any]:
        """Return the annotations of the class' fields, resolved."""
        try:
            return typing.get_type_hints(self.type)
        except Exception as error:
            raise ConfigurationError(
                f"The function takes a {self.type.__name__}, whose annotations can't be resolved "
                f"({type(error).__name__}: {error}), so carpool can't know what its cells should "
                "be. Import at run time what they name, not under TYPE_CHECKING only."
            ) from error

    def convert(self, item: Any) -> Any:
        if not isinstance(item, Mapping):
            raise InvalidItem(
                f"The item is a {type(item).__name__!r}; a {self.type.__name__} is made of a row, "
                "a mapping of columns to cells."
            )
        values, problems = self._values(item)
        if problems:
            raise InvalidItem("; ".join(problems))
        try:
            return self.type(**values)
        except (ValueError, TypeError, ValidationError) as error:
            raise InvalidItem(_message(error)) from error

    def _values(self, row: Mapping[Any, Any]) -> tuple[dict[str, Any], list[str]]:
        values: dict[str, Any] = {}
        problems = []
        unknown = []
        for column, cell in row.items():
            if column not in self._cells and not self._takes_any:
                unknown.append(column)
                continue
            convert = self._cells.get(column)
            try:
                values[column] = cell if convert is None else convert(cell)
            except ValidationError as error:
                problems.append(f"{column}: {' '.join(error.messages)}")
        if missing := [name for name in self._required if name not in row]:
            problems.append(f"no column for {_listed(missing)} of {self.type.__name__}")
        if unknown:
            problems.append(
                f"no field of {self.type.__name__} for the column {_listed(unknown)} (it has "
                f"{_listed(self._cells)})"
            )
        return values, problems


def _listed(names: typing.Iterable[Any]) -> str:
    return ", ".join(map(repr, names))


def _message(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return " ".join(error.messages)
    if error.args and isinstance(error.args[0], str):
        return error.args[0]  # attrs' validators add the field, the class and the value
    return str(error)
