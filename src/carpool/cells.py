"""What a cell of a row means to a field of Django's.

Rows of a CSV file hold nothing but text. Django's model fields say what a text means, in the
user's language; a few spellings that files have, and forms don't, are added here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models

from carpool.exceptions import InvalidItem

_TRUE_AND_FALSE = {"true": "True", "false": "False"}


def python_value(field: models.Field[Any, Any], cell: Any) -> Any:
    """Return the cell's value as the field has it in Python.

    As ``field.to_python()``, but that "true" and "FALSE" are read as well as "True", that a
    number with a fraction is no integer, and that the text of a JSONField is JSON.

    Raises:
        ValidationError: the field's own.
    """
    if isinstance(cell, str):
        if isinstance(field, models.BooleanField):
            cell = _TRUE_AND_FALSE.get(cell.lower(), cell)
        elif isinstance(field, models.JSONField):
            return _parsed(field, cell)
    elif isinstance(cell, float) and isinstance(field, models.IntegerField | models.DecimalField):
        # to_python() would cut 3.7 to 3, and make 0.1 a Decimal of as many digits as there is room.
        cell = int(cell) if cell.is_integer() else repr(cell)
    return field.to_python(cell)


def _parsed(field: models.JSONField[Any, Any], cell: str) -> Any:
    try:
        return json.loads(cell, cls=field.decoder)
    except ValueError as error:
        raise ValidationError(field.error_messages["invalid"], code="invalid") from error


def refuse_surplus(item: Any) -> None:
    """Refuse a row that has more cells than its header: ``csv.DictReader`` keeps them under None.

    Raises:
        InvalidItem: with the cells.
    """
    if isinstance(item, Mapping) and None in item:
        raise InvalidItem(
            f"The row has more cells than the header has columns: {item[None]!r}. The usual cause "
            "is a delimiter within a cell that is not quoted."
        )
