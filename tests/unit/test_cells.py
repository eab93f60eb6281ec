"""What a cell of a row means to a field of Django's."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import models

from carpool.cells import python_value, refuse_surplus
from carpool.exceptions import InvalidItem


class Loud(json.JSONDecoder):
    """Reads texts in capitals."""

    def decode(self, text: str, *args: Any) -> Any:
        return super().decode(text.upper(), *args)


VALUES: list[tuple[models.Field[Any, Any], Any, Any]] = [
    (models.BooleanField(), "True", True),
    (models.BooleanField(), "TRUE", True),
    (models.BooleanField(), "false", False),
    (models.BooleanField(), "0", False),
    (models.BooleanField(null=True), "", None),
    (models.IntegerField(), "7", 7),
    (models.IntegerField(), 7.0, 7),
    (models.BigAutoField(), 7.0, 7),
    (models.DecimalField(max_digits=9, decimal_places=2), 0.1, Decimal("0.1")),
    (models.DecimalField(max_digits=9, decimal_places=2), 2.0, Decimal(2)),
    (models.FloatField(), 0.1, 0.1),
    (models.JSONField(), '{"a": [1, null]}', {"a": [1, None]}),
    (models.JSONField(), '"text"', "text"),
    (models.JSONField(), 0.1, 0.1),
    (models.JSONField(), [1], [1]),
    (models.JSONField(decoder=Loud), '"text"', "TEXT"),
    (models.CharField(), "true", "true"),
    (models.CharField(), 7, "7"),
    (models.CharField(), 0.1, "0.1"),
    (models.CharField(), None, None),
]


@pytest.mark.parametrize(("field", "cell", "value"), VALUES, ids=repr)
def test_a_cell_is_what_the_field_makes_of_it(
    field: models.Field[Any, Any], cell: Any, value: Any
) -> None:
    """Text and JSON's values become what the field has in Python."""
    got = python_value(field, cell)
    assert (got, type(got)) == (value, type(value))


BAD: list[tuple[models.Field[Any, Any], Any, str]] = [
    (models.BooleanField(), "yes", "“yes” value must be either True or False."),
    (models.IntegerField(), 7.5, "“7.5” value must be an integer."),
    (models.IntegerField(), float("inf"), "“inf” value must be an integer."),
    (models.DecimalField(max_digits=9), float("nan"), "“nan” value must be a decimal number."),
    (models.JSONField(), "{", "Value must be valid JSON."),
    (models.JSONField(), "text", "Value must be valid JSON."),
]


@pytest.mark.parametrize(("field", "cell", "message"), BAD, ids=repr)
def test_what_the_field_refuses_is_said_in_its_words(
    field: models.Field[Any, Any], cell: Any, message: str
) -> None:
    """Numbers are not cut short, and text is not taken for JSON."""
    with pytest.raises(ValidationError) as caught:
        python_value(field, cell)
    assert caught.value.messages == [message]


def test_surplus_cells_are_refused() -> None:
    """What csv.DictReader keeps under None is shown; what is no row is none of its business."""
    with pytest.raises(InvalidItem, match=r"more cells than the header.*\['x', 'y'\].*delimiter"):
        refuse_surplus({"a": "1", None: ["x", "y"]})
    for item in ({"a": None}, 7, None, [None]):
        refuse_surplus(item)
