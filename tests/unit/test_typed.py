"""Which functions have typed items, and how dataclasses and attrs classes are made of rows."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import functools
import io
import subprocess
import sys
import uuid
from collections import UserDict
from collections.abc import Callable
from dataclasses import KW_ONLY, InitVar, dataclass, field
from decimal import Decimal
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, Optional, TypeVar

import attr
import attrs
import pytest
from django.core.exceptions import ValidationError
from django.utils import translation

from carpool.exceptions import ConfigurationError, InvalidItem
from carpool.functions import dumps, loads
from carpool.typed import converter_for
from tests.app.models import Author
from tests.waiting import HANG

if TYPE_CHECKING:
    from decimal import Decimal as Unknown

T = TypeVar("T")


@dataclass
class Order:
    number: int
    name: str = "nobody"


@dataclass
class Page(Generic[T]):
    number: int
    content: T | None = None


def takes(hint: Any) -> Callable[[Any], Any]:
    """Return a function whose first parameter is annotated so."""

    def function(item):
        return item

    function.__annotations__ = {"item": hint}
    return function


def converter(hint: Any) -> Any:
    made = converter_for(takes(hint))
    assert made is not None
    return made


def refusal(hint: Any, row: Any) -> str:
    with pytest.raises(InvalidItem) as caught:
        converter(hint)(row)
    return str(caught.value)


# Whose items are typed.


def function(order: Order) -> None: ...


def function_of_two(number: int, order: Order) -> None: ...


def positional(order: Order, /, *rest: Any) -> None: ...


def any_number(*orders: Order) -> None: ...


def quoted(order: "Order") -> None: ...  # noqa: UP037


def annotated(order: Annotated[Order, "by post"]) -> None: ...


def with_a_result_for_type_checkers(order: Order) -> Unknown:
    return Unknown(order.number)


def generic(page: Page[Order]) -> None: ...


def decorator(inner: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(inner)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return inner(*args, **kwargs)

    return wrapper


@decorator
def decorated(order: Order) -> None: ...


class Shop:
    def method(self, order: Order) -> None: ...

    @classmethod
    def of_the_class(cls, order: Order) -> None: ...

    @staticmethod
    def static(order: Order) -> None: ...

    @decorator
    def decorated(self, order: Order) -> None: ...

    def __call__(self, order: Order) -> None: ...


class Invoice:
    def __init__(self, order: Order) -> None:
        self.number = order.number


class Reminder(Invoice):
    """Its __init__ is its parent's."""


def with_a_cell_that_is_empty() -> Any:
    def early(order: Order) -> Any:
        return late  # not there before this function has been asked about

    found = converter_for(early)
    late = 7
    assert late
    return found


TYPED: dict[str, Any] = {
    "a function": function,
    "a positional parameter": positional,
    "any number of them": any_number,
    "a quoted name": quoted,
    "Annotated": annotated,
    "another annotation that can't be resolved": with_a_result_for_type_checkers,
    "a generic dataclass": generic,
    "a decorated function": decorated,
    "a partial": functools.partial(function_of_two, 7),
    "a partial of a decorated function": functools.partial(decorated),
    "a method": Shop().method,
    "a class method": Shop.of_the_class,
    "a static method": Shop.static,
    "a decorated method": Shop().decorated,
    "an object": Shop(),
    "a partial of an object": functools.partial(Shop()),
    "a class": Invoice,
    "a class with an inherited __init__": Reminder,
    "a lambda with an annotation": takes(Order),
}


@pytest.mark.parametrize("function", TYPED.values(), ids=TYPED)
def test_the_first_parameters_annotation_counts(function: Any) -> None:
    """However the callable is made, its first parameter says what a row becomes."""
    made = converter_for(function)
    assert made is not None
    assert made({"number": "7"}).number == 7


def test_a_function_whose_closure_is_not_complete_is_read_all_the_same() -> None:
    """A name that it will find later is none of its annotations."""
    assert with_a_cell_that_is_empty() is not None


def bare(order): ...


def nothing() -> None: ...


def by_keyword_only(*, order: Order) -> None: ...


def for_type_checkers(order: Unknown) -> None: ...


def nonsense(order: 1 / 0) -> None: ...  # type: ignore[valid-type]


def of_a_row(row: dict[str, str]) -> None: ...


def of_a_model(author: Author) -> None: ...


def of_either(order: Order | dict[str, str]) -> None: ...


def of_anything(order: Any) -> None: ...


def of_a_variable(order: T) -> T:
    return order


def second_only(row, order: Order) -> None: ...


class Plain:
    order: Order


def of_a_plain_class(plain: Plain) -> None: ...


UNTYPED: dict[str, Any] = {
    "no annotation": bare,
    "no parameter": nothing,
    "a keyword only": by_keyword_only,
    "a name for type checkers only": for_type_checkers,
    "no type": nonsense,
    "a dict": of_a_row,
    "a model": of_a_model,
    "a union": of_either,
    "Any": of_anything,
    "a type variable": of_a_variable,
    "the second": second_only,
    "another class": of_a_plain_class,
    "a lambda": lambda row: row,
    "a builtin": print,
    "a type": int,
    "a method of a builtin": [].append,
    "a method of a model": Author.save,
    "a partial that has the item": functools.partial(function, order=Order(1)),
}


@pytest.mark.parametrize("function", UNTYPED.values(), ids=UNTYPED)
def test_any_other_function_gets_the_item_as_it_is(function: Any) -> None:
    """Annotations that say nothing, or that nobody can resolve, are no error."""
    assert converter_for(function) is None


def test_an_item_of_the_type_passes_untouched() -> None:
    """Who has made the objects already gets the very same ones, those of subclasses, too."""

    @dataclass
    class Special(Order):
        pass

    for order in (Order(1), Special(2)):
        assert converter(Order)(order) is order


def test_a_converter_travels() -> None:
    """A worker process gets it with the function."""
    there = loads(dumps(converter(Order)))
    assert there({"number": "7", "name": "Ann"}) == Order(7, "Ann")
    assert "Order" in repr(there)


def test_a_class_of_a_functions_body_travels() -> None:
    """What has no import path goes by value, as functions do."""

    @dataclass
    class Local:
        number: "int"  # noqa: UP037

    Local.__module__ = "__main__"
    there = loads(dumps(converter(Local)))({"number": "7"})
    assert there.number == 7


def test_no_library_is_imported_for_the_question() -> None:
    """Whoever has none of the libraries, or doesn't use them, does without."""
    code = (
        "import sys, dataclasses\n"
        "from carpool.typed import converter_for\n"
        "@dataclasses.dataclass\n"
        "class Order:\n    number: int\n"
        "def function(order: Order): ...\n"
        "def other(order: dict): ...\n"
        "assert converter_for(function)({'number': '7'}) == Order(7)\n"
        "assert converter_for(other) is None\n"
        "print({'attr', 'attrs', 'msgspec', 'pydantic'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=HANG
    )
    assert (done.stdout, done.stderr) == ("set()\n", "")


# Dataclasses.


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


class Rank(IntEnum):
    FIRST = 1
    SECOND = 2


@dataclass
class Address:
    street: str


VALUES: list[tuple[Any, Any, Any]] = [
    (int, "7", 7),
    (int, " 7 ", 7),
    (int, 7, 7),
    (int, 7.0, 7),
    (float, "1.5", 1.5),
    (float, 1, 1.0),
    (bool, "True", True),
    (bool, "true", True),
    (bool, "FALSE", False),
    (bool, "0", False),
    (bool, 1, True),
    (str, "7", "7"),
    (str, "", ""),
    (str, 7, "7"),
    (Decimal, "1.10", Decimal("1.10")),
    (Decimal, 0.1, Decimal("0.1")),
    (Decimal, 3, Decimal(3)),
    (datetime.date, "2026-11-22", datetime.date(2026, 11, 22)),
    (datetime.datetime, "2026-11-22 08:30", datetime.datetime(2026, 11, 22, 8, 30)),
    (
        datetime.datetime,
        "2026-11-22T08:30:00Z",
        datetime.datetime(2026, 11, 22, 8, 30, tzinfo=datetime.UTC),
    ),
    (datetime.time, "08:30", datetime.time(8, 30)),
    (datetime.timedelta, "1 02:00:00", datetime.timedelta(days=1, hours=2)),
    (
        uuid.UUID,
        "7d444840-9dc0-11d1-b245-5ffdce74fad2",
        uuid.UUID("7d444840-9dc0-11d1-b245-5ffdce74fad2"),
    ),
    (Size, "l", Size.LARGE),
    (Size, Size.LARGE, Size.LARGE),
    (Rank, "2", Rank.SECOND),
    (Rank, 2, Rank.SECOND),
    (Literal["a", 2], "a", "a"),
    (Literal["a", 2], "2", 2),
    (Literal["a", 2], 2, 2),
    (int | None, "7", 7),
    (int | None, "", None),
    (int | None, None, None),
    (Optional[datetime.date], "", None),  # noqa: UP045
    (Size | None, "", None),
    (str | None, "", ""),
    (str | None, None, None),
    (Address, Address("here"), Address("here")),
    (Address | None, None, None),
    # Not looked at.
    (Any, "7", "7"),
    (object, "7", "7"),
    (int | str, "7", "7"),
    (int | str | None, "", ""),
    (Any | None, "", ""),
    (list[int], ["7"], ["7"]),
    (T, "7", "7"),
]


@pytest.mark.parametrize(("hint", "cell", "value"), VALUES, ids=repr)
def test_a_cell_becomes_what_its_annotation_says(hint: Any, cell: Any, value: Any) -> None:
    """Text and JSON's values are turned into simple types; all else is left as it is."""
    cls = dataclasses.make_dataclass("Row", [("value", hint)])
    got = converter(cls)({"value": cell}).value
    assert (got, type(got)) == (value, type(value))


BAD_VALUES: list[tuple[Any, Any, str]] = [
    (int, "seven", "“seven” value must be an integer."),
    (int, "", "“” value must be an integer."),
    (int, "7.5", "“7.5” value must be an integer."),
    (int, 7.5, "“7.5” value must be an integer."),
    (int, None, "This field cannot be null."),
    (int, [7], "[7] is a list, not a int."),
    (float, "x", "“x” value must be a float."),
    (bool, "perhaps", "“perhaps” value must be either True or False."),
    (bool, "", "“” value must be either True or False."),
    (str, None, "This field cannot be null."),
    (str, {"a": 1}, "{'a': 1} is a dict, not a str."),
    (Decimal, "1,5", "“1,5” value must be a decimal number."),
    (Decimal, "NaN", "“NaN” value must be a decimal number."),
    (datetime.date, "22.11.2026", "“22.11.2026” value has an invalid date format."),
    (datetime.date, "2026-02-30", "“2026-02-30” value has the correct format (YYYY-MM-DD) but"),
    (datetime.datetime, "now", "“now” value has an invalid format."),
    (uuid.UUID, "7", "“7” is not a valid UUID."),
    (Size, "m", "'m' is not one of 's', 'l'."),
    (Size, "SMALL", "'SMALL' is not one of 's', 'l'."),
    (Rank, True, "True is not one of 1, 2."),
    (Literal["a", 2], "b", "'b' is not one of 'a', 2."),
    (int | None, "x", "“x” value must be an integer."),
    (Address, {"street": "here"}, "{'street': 'here'} is a dict, not a Address"),
    (Address | None, "here", "'here' is a str, not a Address"),
]


@pytest.mark.parametrize(("hint", "cell", "message"), BAD_VALUES, ids=repr)
def test_a_cell_that_is_no_such_value_is_refused(hint: Any, cell: Any, message: str) -> None:
    """The message is Django's, with the column before it."""
    cls = dataclasses.make_dataclass("Row", [("value", hint)])
    assert refusal(cls, {"value": cell}).startswith(f"value: {message}")


def test_messages_are_in_the_users_language() -> None:
    """A run carries the language to its workers, and Django's messages are in it."""
    with translation.override("de"):
        assert "Ganzzahl" in refusal(Order, {"number": "x"})


def test_all_that_is_wrong_with_a_row_is_said_at_once() -> None:
    """Who corrects a file need not come back for each cell."""
    message = refusal(Page, {"numbr": "1", "contnt": ""})
    assert message == (
        "no column for 'number' of Page; no field of Page for the column 'numbr', 'contnt' (it has "
        "'number', 'content')"
    )
    several = dataclasses.make_dataclass("Several", [("a", int), ("b", bool)])
    assert refusal(several, {"a": "x", "b": "y"}).count(";") == 1


def test_defaults_are_the_classs_own() -> None:
    """A column that isn't there leaves the field to its default, a factory's included."""
    cls = dataclasses.make_dataclass(
        "Row", [("a", int, 3), ("b", list[int], field(default_factory=list))]
    )
    assert converter(cls)({}) == cls(3, [])


@dataclass(frozen=True, slots=True)
class Parcel:
    weight: Decimal
    _: KW_ONLY
    street: InitVar[int]
    label: str = field(init=False)

    def __post_init__(self, street: int) -> None:
        if self.weight <= 0:
            raise ValueError("a parcel weighs something")
        if street > 99:
            raise ValidationError("the street is too long")
        object.__setattr__(self, "label", f"{street + 1}: {self.weight}")


def test_a_dataclasss_own_code_runs() -> None:
    """It is called with keywords: __post_init__, InitVar and frozen work as in a call."""
    assert converter(Parcel)({"weight": "1.5", "street": "4"}).label == "5: 1.5"


def test_what_post_init_refuses_is_the_message() -> None:
    """Its ValueError, TypeError or Django's ValidationError is the validator's word."""
    assert refusal(Parcel, {"weight": "0", "street": "4"}) == "a parcel weighs something"
    assert refusal(Parcel, {"weight": "1", "street": "100"}) == "the street is too long"
    assert "no field of Parcel for the column 'label'" in refusal(
        Parcel, {"weight": "1", "street": "4", "label": "mine"}
    )


def test_an_error_without_words_is_shown_as_it_is() -> None:
    """A ValueError need not have a text."""

    @dataclass
    class Curt:
        number: int

        def __post_init__(self) -> None:
            raise ValueError(self.number, "no")

    assert refusal(Curt, {"number": "7"}) == "(7, 'no')"


def test_any_other_error_of_the_classs_code_is_not_hidden() -> None:
    """An error that is no refusal keeps its type."""

    @dataclass
    class Broken:
        def __post_init__(self) -> None:
            raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        converter(Broken)({})


def test_the_cause_is_kept() -> None:
    """The traceback of a failed item leads to the class' own error."""
    with pytest.raises(InvalidItem) as caught:
        converter(Parcel)({"weight": "0", "street": "4"})
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_class_that_takes_any_keyword_takes_any_column() -> None:
    """Its own __init__ decides, if it has one."""

    @dataclass(init=False)
    class Loose:
        number: int

        def __init__(self, number: int, **rest: Any) -> None:
            self.number = number
            self.rest = rest

    loose = converter(Loose)({"number": "7", "colour": "red"})
    assert (loose.number, loose.rest) == (7, {"colour": "red"})


@pytest.mark.parametrize("item", [7, "row", ["7"], None], ids=repr)
def test_what_is_no_row_is_refused(item: Any) -> None:
    """An item that is neither of the class nor a mapping fails, and says what it is."""
    assert refusal(Order, item).startswith(f"The item is a {type(item).__name__!r}; a Order is")


def test_any_mapping_is_a_row() -> None:
    """It need not be a dict."""
    assert converter(Order)(UserDict(number="7")) == Order(7)


def test_a_row_that_is_too_long_is_refused_with_its_cells() -> None:
    """csv.DictReader keeps surplus cells under None; the usual cause is named."""
    rows = list(csv.DictReader(io.StringIO("number,name\n7,Ann,extra\n8\n")))
    assert "['extra']" in refusal(Order, rows[0])
    assert refusal(Order, rows[1]) == "name: This field cannot be null."


@dataclass
class Unresolvable:
    number: Unknown


def test_a_dataclass_with_unresolvable_annotations_is_refused() -> None:
    """Nobody can know what its cells should be; the message names the name, and the remedy."""
    with pytest.raises(ConfigurationError) as caught:
        converter_for(takes(Unresolvable))
    for word in ("Unresolvable", "'Unknown' is not defined", "TYPE_CHECKING"):
        assert word in str(caught.value)


# attrs.


def stripped(text: str) -> str:
    return text.strip()


@attrs.define
class Person:
    age: int = attrs.field(validator=attrs.validators.ge(0))
    name: str = attrs.field(converter=stripped, default="nobody")
    _secret: int = 0
    size: Size = attrs.field(alias="t_shirt", default=Size.SMALL)
    born: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.born = 2026 - self.age


def test_an_attrs_class_is_made_of_a_row() -> None:
    """Types as for dataclasses; converters, aliases and hooks are its own."""
    person = converter(Person)({"age": "40", "name": " Ann ", "secret": "7", "t_shirt": "l"})
    assert person == converter(Person)(person)
    assert attrs.astuple(person) == (40, "Ann", 7, Size.LARGE, 1986)


def test_what_an_attrs_validator_refuses_is_the_message() -> None:
    """Of the validator's arguments, only its words."""
    assert refusal(Person, {"age": "-1"}) == "'age' must be >= 0: -1"
    message = refusal(attrs.make_class("C", {"a": attrs.field(validator=only_text)}), {"a": 1})
    assert message == "only text"


def only_text(instance: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError("only text", attribute, str, value)


def test_a_field_with_a_converter_gets_the_cell_as_it_is() -> None:
    """The class' own conversion comes first, and alone: its annotation is of the result."""
    seen = []

    def remember(cell: Any) -> int:
        seen.append(cell)
        return 1

    cls = attrs.make_class("C", {"a": attrs.field(converter=remember, type=int)})
    assert converter(cls)({"a": "x"}).a == 1
    assert seen == ["x"]


def test_columns_that_an_attrs_class_does_not_have_are_refused() -> None:
    """Also a private attribute's own name, and one that is not for __init__."""
    message = refusal(Person, {"age": "1", "_secret": "7", "born": "1"})
    assert "no field of Person for the column '_secret', 'born'" in message


def test_classes_of_the_older_interface_work() -> None:
    """attr.s with attr.ib(type=…) has no annotations."""

    @attr.s
    class Old:
        a = attr.ib(type=int)
        b = attr.ib(default=1)

    assert converter(Old)({"a": "7", "b": "x"}) == Old(7, "x")


def test_an_attrs_class_travels() -> None:
    """A worker process makes them, too."""
    assert loads(dumps(converter(Person)))({"age": "3"}) == converter(Person)({"age": "3"})
