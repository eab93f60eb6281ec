"""Rows as msgspec Structs, pydantic models and Django forms: each library's rules and words."""

from __future__ import annotations

import csv
import datetime
import io
import subprocess
import sys
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import msgspec
import pydantic
import pydantic.dataclasses
import pytest
from django import forms

from carpool.exceptions import ConfigurationError, InvalidItem
from carpool.functions import dumps, loads
from carpool.typed import converter_for
from tests.app.models import Author, Tag
from tests.waiting import HANG

if TYPE_CHECKING:
    from decimal import Decimal as Unknown

T = TypeVar("T")


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


class StructLine(msgspec.Struct):
    price: Decimal


class StructOrder(msgspec.Struct):
    number: int
    day: datetime.date | None = None
    size: Size = Size.SMALL
    paid: bool = False
    lines: list[StructLine] = []
    note: Annotated[str, msgspec.Meta(max_length=5)] = ""


class StrictStruct(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    order_number: int


class StructPage(msgspec.Struct, Generic[T]):
    content: T


class ModelLine(pydantic.BaseModel):
    price: Decimal


class ModelOrder(pydantic.BaseModel):
    number: int
    day: datetime.date | None = None
    size: Size = Size.SMALL
    paid: bool = False
    lines: list[ModelLine] = []
    note: Annotated[str, pydantic.Field(max_length=5)] = ""

    @pydantic.field_validator("number")
    @classmethod
    def _even(cls, number: int) -> int:
        if number % 2:
            raise ValueError("odd numbers are taken")
        return number


class StrictModel(pydantic.BaseModel, extra="forbid"):
    number: int = pydantic.Field(alias="No.")


class ModelPage(pydantic.BaseModel, Generic[T]):
    content: T


class Rows(pydantic.RootModel[list[int]]):
    pass


@pydantic.dataclasses.dataclass
class PydanticDataclass:
    number: pydantic.PositiveInt


class OrderForm(forms.Form):
    number = forms.IntegerField(min_value=1)
    day = forms.DateField(required=False)
    e_mail = forms.EmailField(required=False)

    def clean(self) -> None:
        if self.cleaned_data.get("number") == 13:
            raise forms.ValidationError("not on this day")


class TagForm(forms.ModelForm):
    class Meta:
        model = Tag
        fields = ("uses",)


def converter(hint: Any) -> Any:
    def function(item):
        return item

    function.__annotations__ = {"item": hint}
    made = converter_for(function)
    assert made is not None
    return made


def refusal(hint: Any, row: Any) -> InvalidItem:
    with pytest.raises(InvalidItem) as caught:
        converter(hint)(row)
    return caught.value


ROW = {"number": "8", "day": "2026-11-22", "size": "l", "paid": "true", "note": "soon"}


@pytest.mark.parametrize("kind", [StructOrder, ModelOrder])
def test_texts_become_what_the_fields_are(kind: Any) -> None:
    """A CSV file's row, which is nothing but text, makes an object with real types."""
    order = converter(kind)(ROW)
    assert type(order) is kind
    assert (order.number, order.paid, order.size) == (8, True, Size.LARGE)
    assert order.day == datetime.date(2026, 11, 22)


@pytest.mark.parametrize("kind", [StructOrder, ModelOrder])
def test_nested_values_are_converted_too(kind: Any) -> None:
    """A line of JSON may hold lists of objects."""
    order = converter(kind)({"number": 8, "lines": [{"price": "1.50"}]})
    assert order.lines[0].price == Decimal("1.50")


@pytest.mark.parametrize(
    ("kind", "item"),
    [
        (StructOrder, StructOrder(1)),
        (ModelOrder, ModelOrder(number=2)),
        (PydanticDataclass, PydanticDataclass(number=2)),
        (OrderForm, OrderForm()),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_an_item_of_the_type_passes_untouched(kind: Any, item: Any) -> None:
    """Not validated again, not copied: an unbound form, too, is whoever's who made it."""
    assert converter(kind)(item) is item


def test_msgspecs_message_is_the_items() -> None:
    """It names the place; the error itself is the cause."""
    error = refusal(StructOrder, {**ROW, "number": "x"})
    assert str(error) == "Expected `int`, got `str` - at `$.number`"
    assert isinstance(error.__cause__, msgspec.ValidationError)
    assert "length <= 5" in str(refusal(StructOrder, {**ROW, "note": "too late"}))
    assert "missing required field `number`" in str(refusal(StructOrder, {}))
    assert "got `int`" in str(refusal(StructOrder, 7))


def test_pydantics_message_is_the_items() -> None:
    """Whole, with all that is wrong; the error itself is the cause."""
    error = refusal(ModelOrder, {**ROW, "number": "x", "day": "never"})
    assert isinstance(error.__cause__, pydantic.ValidationError)
    assert str(error) == str(error.__cause__)
    assert "2 validation errors for ModelOrder" in str(error)
    assert "odd numbers are taken" in str(refusal(ModelOrder, {**ROW, "number": "7"}))
    assert "valid dictionary" in str(refusal(ModelOrder, 7))


def test_columns_without_a_field_are_for_the_library_to_judge() -> None:
    """msgspec and pydantic ignore them, unless the class says otherwise."""
    assert converter(StructOrder)({**ROW, "colour": "red"}).number == 8
    assert converter(ModelOrder)({**ROW, "colour": "red"}).number == 8
    assert "`colour`" in str(refusal(StrictStruct, {"orderNumber": "1", "colour": "red"}))
    assert "colour" in str(refusal(StrictModel, {"No.": "1", "colour": "red"}))


def test_fields_may_have_other_names_in_the_file() -> None:
    """msgspec's rename and pydantic's alias name the columns."""
    assert converter(StrictStruct)({"orderNumber": "7"}).order_number == 7
    assert converter(StrictModel)({"No.": "7"}).number == 7


def test_generic_classes_are_converted_to() -> None:
    """With the type that they were given."""
    assert converter(StructPage[int])({"content": "7"}).content == 7
    assert converter(ModelPage[int])({"content": "7"}).content == 7


def test_a_root_model_takes_what_is_no_row() -> None:
    """What an item may be is the library's own business."""
    assert converter(Rows)(["1", "2"]).root == [1, 2]


def test_a_pydantic_dataclass_is_pydantics() -> None:
    """It is a dataclass, too, but has a validator of its own."""
    assert converter(PydanticDataclass)({"number": "7", "colour": "red"}).number == 7
    assert "greater than 0" in str(refusal(PydanticDataclass, {"number": "-7"}))


@pytest.mark.parametrize(
    ("kind", "item"),
    [
        (StructOrder, ROW),
        (StructPage[int], {"content": "7"}),
        (ModelOrder, ROW),
        (PydanticDataclass, {"number": "7"}),
    ],
    ids=str,
)
def test_a_converter_travels(kind: Any, item: Any) -> None:
    """A worker process gets it with the function, and compiles its own validator."""
    assert loads(dumps(converter(kind)))(item) == converter(kind)(item)


@pytest.mark.parametrize("kind", [StructOrder, ModelOrder, OrderForm])
def test_a_row_that_is_too_long_is_refused(kind: Any) -> None:
    """Its surplus cells would be ignored by some, and be a riddle from others."""
    (row,) = csv.DictReader(io.StringIO("number,note\n8,first, second\n"))
    assert "' second'" in str(refusal(kind, row))


class LateModel(pydantic.BaseModel):
    number: Unknown


class LateStruct(msgspec.Struct):
    number: Unknown


class OddStruct(msgspec.Struct):
    line: StructLine | StructOrder


@pytest.mark.parametrize(
    ("kind", "library", "reason"),
    [
        (LateModel, "pydantic", "'Unknown' is not defined"),
        (LateStruct, "msgspec", "'Unknown' is not defined"),
        (OddStruct, "msgspec", "multiple Struct types"),
    ],
)
def test_a_class_that_the_library_cannot_read_is_refused(
    kind: Any, library: str, reason: str
) -> None:
    """Before the first item, in the library's words."""
    with pytest.raises(ConfigurationError) as caught:
        converter(kind)
    for word in (kind.__name__, library, reason):
        assert word in str(caught.value)


def test_pydantic_1_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its models are made otherwise; the message says what to do."""
    monkeypatch.setattr(pydantic, "VERSION", "1.10.2")
    with pytest.raises(ConfigurationError, match=r"pydantic 1\.10\.2.*Upgrade pydantic"):
        converter(ModelOrder)


@pytest.mark.parametrize("library", ["msgspec", "pydantic"])
def test_a_library_that_is_not_installed_is_not_missed(library: str) -> None:
    """Functions of all other kinds are told as ever."""
    other = "pydantic.BaseModel" if library == "msgspec" else "msgspec.Struct"
    code = (
        f"import sys\nsys.modules[{library!r}] = None\n"
        "from carpool.typed import converter_for\n"
        f"import {other.partition('.')[0]}\n"
        f"class Order({other}):\n    number: int\n"
        "def function(order: Order): ...\n"
        "print(converter_for(function)({'number': '7'}).number)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=HANG
    )
    assert (done.stdout, done.stderr) == ("7\n", "")


# Forms.


def test_a_form_is_bound_and_valid() -> None:
    """The function gets it with cleaned_data; columns that it doesn't have are ignored."""
    form = converter(OrderForm)({"number": "7", "day": "2026-11-22", "e_mail": "", "other": "x"})
    assert type(form) is OrderForm
    assert form.is_valid()
    assert form.cleaned_data == {"number": 7, "day": datetime.date(2026, 11, 22), "e_mail": ""}


def test_a_forms_errors_are_the_message() -> None:
    """As text, those of the whole form included."""
    message = str(refusal(OrderForm, {"number": "0", "e_mail": "x"}))
    assert message == (
        "* number\n  * Ensure this value is greater than or equal to 1.\n"
        "* e_mail\n  * Enter a valid email address."
    )
    assert "* __all__\n  * not on this day" in str(refusal(OrderForm, {"number": "13"}))


def test_a_model_form_makes_its_instance() -> None:
    """ready for save()."""
    assert converter(TagForm)({"uses": "3"}).instance.uses == 3


def test_a_form_is_made_of_rows_only() -> None:
    """An item of another kind fails, and says what it is."""
    assert "The item is a 'int'; a OrderForm is made of a row" in str(refusal(OrderForm, 7))


def test_a_forms_converter_travels() -> None:
    """A worker process gets it with the function."""
    assert loads(dumps(converter(OrderForm)))({"number": "7"}).cleaned_data["number"] == 7


def test_a_model_is_nothing_special() -> None:
    """A function of a model's instances is for a QuerySet."""

    def function(author: Author) -> None: ...

    assert converter_for(function) is None
