"""Make programs: hypothesis draws lines about the models of a small cast.

A line that needs an object of which there is none yet brings the line that makes it along. The
values come from small pools, so that rows meet: duplicates, matches, texts that are equal to one
collation and not to another.
"""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from django.db import connection, models
from hypothesis import strategies as st

from tests.coalesce.language import (
    SPELLINGS,
    WAYS,
    Atomic,
    BulkCreate,
    BulkUpdate,
    CheckConstraints,
    Clean,
    Create,
    Delete,
    DeleteBehind,
    DeleteWhere,
    Duplicate,
    Equal,
    Fetch,
    FetchAgain,
    GetOrCreate,
    Line,
    Look,
    Name,
    New,
    NewWithKey,
    OnCommit,
    Pickled,
    Program,
    Query,
    RawUpdate,
    React,
    ReadKey,
    Refresh,
    Relate,
    Related,
    RelatedCreate,
    Reorder,
    Save,
    SaveAs,
    SaveElseCreate,
    SaveStep,
    Several,
    Swap,
    ThereAndBack,
    Update,
    UpdateOrCreate,
    model_of,
)
from tests.coalesce.machine import REACTIONS

T = TypeVar("T")
Values = dict[str, Any]

NAMES = ("a", "b", "A", "á")
NUMBERS = (0, 1, 2)

#: Model → its columns, each with the values that it may be given.
COLUMNS: dict[str, dict[str, Sequence[Any]]] = {
    "Account": {
        "name": NAMES,
        "email": ("a", "b", "A", "á", "a ", "b" * 41),
        "region": ("n", "s"),
        "number": range(20),
        "balance": (0, 1, -1),
    },
    "Amphibian": {"plate": NAMES, "wheels": NUMBERS, "masts": NUMBERS, "crew": NUMBERS},
    "Article": {"name": NAMES, "hidden": (False, True), "text": NAMES},
    "AuditLine": {"name": NAMES, "detail": NAMES},
    "AuditNote": {"name": NAMES},
    "Author": {"name": NAMES, "books_written": NUMBERS},
    "Boat": {"plate": NAMES, "masts": NUMBERS},
    "Book": {"name": NAMES, "pages": NUMBERS},
    "Box": {"name": NAMES, "width": NUMBERS, "height": NUMBERS},
    "Car": {"plate": NAMES, "wheels": NUMBERS},
    "Club": {"name": NAMES},
    "Country": {"code": ("a", "b", "A", "á"), "title": NAMES},
    "Course": {"name": NAMES},
    "Draft": {"name": NAMES, "published": (False, True)},
    "Echo": {"name": NAMES, "echoes": NUMBERS},
    "Family": {"name": NAMES, "size": NUMBERS},
    "Fleeting": {"name": NAMES, "generation": NUMBERS},
    "Gadget": {
        "name": NAMES,
        "data": ({}, {"a": 1}, [1, None]),
        "maybe": (None, {"b": "á"}),
        "price": (decimal.Decimal("1.2500"), decimal.Decimal(0)),
        "raw": (b"", b"\x00\xff\\"),
        "length": (None, datetime.timedelta(days=1, microseconds=5)),
        "flag": (None, True, False),
        "day": (None, datetime.date(2001, 2, 3)),
        "text": ("", "tab\tquote'\\n\n%s", "\u2028𝄞"),
        "small": (0.0, 1.5),
        "address": (None, "10.0.0.1", "::1"),
    },
    "Kiosk": {"name": NAMES, "visits": NUMBERS},
    "Lesson": {"name": NAMES},
    "Line": {"name": NAMES, "price": NUMBERS},
    "Membership": {"role": NAMES},
    "Mirror": {"code": ("ab", "ba", "Ab"), "amount": NUMBERS},
    "Novel": {"name": NAMES, "pages": NUMBERS},
    "Order": {"name": NAMES, "total": NUMBERS},
    "Parcel": {"name": NAMES},
    "Person": {"name": NAMES},
    "Picky": {"name": NAMES, "objection": ("", "pre_save", "post_save")},
    "Picture": {"name": NAMES},
    "Pizzeria": {"name": NAMES, "visits": NUMBERS, "stars": NUMBERS, "oven": NAMES},
    "Place": {"name": NAMES, "visits": NUMBERS},
    "Priced": {"name": NAMES, "price": NUMBERS, "label": NAMES},
    "Profile": {"bio": NAMES},
    "Quoted": {"name": NAMES, "order": NUMBERS},
    "Receipt": {"number": (None, 1, 2)},
    "Remark": {"name": NAMES},
    "Restaurant": {"name": NAMES, "visits": NUMBERS, "stars": NUMBERS},
    "Seat": {"row": ("a", "b", "A"), "number": NUMBERS, "holder": NAMES},
    "Selected": {"name": NAMES, "amount": NUMBERS},
    "Sibling": {"name": NAMES},
    "Slot": {"name": NAMES, "position": NUMBERS},
    "Slugged": {"name": ("A b", "a", "b"), "slug": NAMES},
    "Stamped": {
        "name": NAMES,
        "amount": NUMBERS,
        "happened_at": (None, datetime.datetime(2001, 2, 3, tzinfo=datetime.UTC)),
    },
    "Sticker": {"name": NAMES},
    "Tag": {"word": ("a", "b", "A", "á", "a "), "uses": NUMBERS},
    "Ticket": {"name": NAMES, "amount": NUMBERS},
    "TicketStub": {"name": NAMES},
    "Town": {"name": NAMES},
    "Turn": {"name": NAMES, "number": NUMBERS},
    "Vehicle": {"plate": NAMES},
}

#: Columns that are never left to their default.
REQUIRED = {
    "name",
    "plate",
    "email",
    "word",
    "code",
    "row",
    "position",
    "Seat.number",
    "Turn.number",
    "Account.number",
}

#: Columns in which a row refuses another, and the pool that is mostly drawn from instead: a new
#: value each time.
UNIQUE = {
    "Account.email",
    "Account.number",
    "Tag.word",
    "Country.code",
    "Mirror.code",
    "Seat.number",
    "Slot.position",
    "Turn.number",
}

#: Model → its foreign keys: to which models, and whether there must be one.
PARENTS: dict[str, dict[str, tuple[tuple[str, ...], bool]]] = {
    "AuditNote": {"line": (("AuditLine",), True)},
    "Book": {"author": (("Author",), True)},
    "Lesson": {"course": (("Course",), True)},
    "Line": {"order": (("Order",), True)},
    "Membership": {"club": (("Club",), True), "person": (("Person",), True)},
    "Novel": {"author": (("Author",), True)},
    "Person": {"boss": (("Person",), False)},
    "Profile": {"author": (("Author",), True)},
    "Receipt": {"course": (("Course",), True)},
    "Remark": {"target": (("Picture", "Author", "Place"), True)},
    "Sibling": {"family": (("Family",), True)},
    "Sticker": {"parcel": (("Parcel",), True)},
    "TicketStub": {"ticket": (("Ticket",), True)},
    "Town": {"country": (("Country",), True)},
}

#: Model → its managers of many: name → model.
MANY = {
    "Book": {"tags": "Tag"},
    "Club": {"members": "Person"},
    "Novel": {"tags": "Tag"},
    "Person": {
        "friends": "Person",
        "follows": "Person",
        "followers": "Person",
        "clubs": "Club",
        "staff": "Person",
    },
    "Tag": {"books": "Book"},
}

#: Model → the managers of the rows that point at it.
CHILDREN = {
    "AuditLine": {"notes": "AuditNote"},
    "Author": {"books": "Book"},
    "Country": {"towns": "Town"},
    "Course": {"lessons": "Lesson", "receipts": "Receipt"},
    "Family": {"siblings": "Sibling"},
    "Order": {"lines": "Line"},
    "Parcel": {"stickers": "Sticker"},
    "Picture": {"remarks": "Remark"},
    "Ticket": {"stubs": "TicketStub"},
}

#: Models whose rows meet in one program.
CASTS = (
    ("Author", "Book", "Tag", "Profile", "Novel"),
    ("Person", "Club", "Membership"),
    ("Tag",),
    ("Account",),
    ("Country", "Town"),
    ("Ticket", "TicketStub"),
    ("Seat", "Mirror"),
    ("Parcel", "Sticker"),
    ("Place", "Restaurant", "Pizzeria", "Kiosk"),
    ("Vehicle", "Car", "Boat", "Amphibian"),
    ("Picture", "Remark", "Author", "Place"),
    ("Course", "Lesson", "Receipt"),
    ("Order", "Line", "Family", "Sibling"),
    ("Echo", "Fleeting", "Slugged", "Picky"),
    ("Priced", "Box", "Stamped", "Gadget"),
    ("Article", "Selected", "Quoted", "Draft"),
    ("AuditLine", "AuditNote", "Tag"),
    ("Slot", "Turn"),
)

#: Whose keys a program may set by itself, below all that a database makes.
GIVEN = ("Account", "Author", "Book", "Tag", "Person", "Place", "Parcel", "Echo", "Order")


def exists(model: str) -> bool:
    """Tell whether the database at hand has this model's table."""
    needed = model_of(model)._meta.required_db_features
    return all(getattr(connection.features, feature) for feature in needed)


class Scene:
    """What a program has made so far: what its next line may be about."""

    def __init__(self, draw: st.DrawFn, cast: Sequence[str]) -> None:
        self.draw = draw
        self.cast = [model for model in cast if exists(model)]
        self.made: dict[str, list[Name]] = {}
        self.numbers: dict[str, int] = {}
        self.before: list[Line] = []
        self.depth = 0

    # --- choosing

    def choose(self, values: Sequence[T]) -> T:
        return self.draw(st.sampled_from(values)) if len(values) > 1 else values[0]

    def once_in(self, times: int) -> bool:
        """Draw a coin; shrinking lets it be False."""
        return self.draw(st.integers(0, times - 1)) == times - 1

    def model(self, among: Sequence[str] | None = None) -> str:
        known = [model for model in self.cast if among is None or model in among]
        return self.choose(known or [model for model in among or () if exists(model)])

    def number(self, kind: str) -> int:
        self.numbers[kind] = self.numbers.get(kind, 0) + 1
        return self.numbers[kind]

    def fresh(self, model: str) -> Name:
        name = Name(f"{model.lower()}{self.number(model)}")
        self.made.setdefault(model, []).append(name)
        return name

    def name(self, model: str) -> Name:
        """Return a name of an object of this model; make one if there is none, or for a change."""
        known = self.made.get(model, [])
        if known and not (len(known) < 3 and self.once_in(5)):
            return self.choose(known)
        return self.make(model)

    def make(self, model: str) -> Name:
        values = self.values(model)
        name = self.fresh(model)
        self.before.append(Create(name, model, values))
        return name

    # --- values

    def value(self, model: str, column: str) -> Any:
        pool = COLUMNS[model][column]
        if f"{model}.{column}" not in UNIQUE or self.once_in(4):
            return self.choose(pool)
        number = self.number(f"{model}.{column}")
        return f"w{number}" if isinstance(pool[0], str) else 20 + number

    def values(self, model: str, every: bool = True) -> Values:
        """Draw the values of a row; of a part of its columns if not ``every``."""
        values: Values = {}
        for column in COLUMNS[model]:
            required = column in REQUIRED or f"{model}.{column}" in REQUIRED
            if (required and every) or self.once_in(3):
                values[column] = self.value(model, column)
        if every:
            if model == "Ticket":
                values["id"] = uuid.UUID(int=self.number("uuid"))
            elif model in GIVEN and self.once_in(8):
                values["id"] = -self.number("key")
            for column, (parents, must) in PARENTS.get(model, {}).items():
                if must or (self.made.get(model) and self.once_in(2)):
                    values[column] = self.name(self.model(parents))
        return values

    def where(self, model: str) -> Values:
        """Draw a condition: none, one column, or a parent."""
        parents = [
            column for column, (models, _) in PARENTS.get(model, {}).items() if len(models) == 1
        ]
        kind = self.draw(st.integers(0, 4 if parents else 3))
        if kind == 0:
            return {}
        if kind == 4:
            parent = self.choose(parents)
            target = PARENTS[model][parent][0][0]
            if self.once_in(2) and self.made.get(target):
                return {parent: self.choose(self.made[target])}
            column = self.choose(list(COLUMNS[target]))
            return {f"{parent}__{column}": self.choose(COLUMNS[target][column])}
        column = self.choose([name for name in COLUMNS[model] if model != "Gadget"] or ["name"])
        value = self.choose(COLUMNS[model][column])
        if value is None:
            return {f"{column}__isnull": True}
        if kind == 2 and isinstance(value, str):
            return {f"{column}__iexact": value}
        if kind == 3:
            return {f"{column}__in": [value, *COLUMNS[model][column][:1]]}
        return {column: value}

    def lookup(self, model: str) -> Values:
        """Draw what `get_or_create` looks for: a unique column, or a few others."""
        unique = {
            "Account": ["email"],
            "Tag": ["word"],
            "Country": ["code"],
            "Mirror": ["code"],
            "Seat": ["row", "number"],
        }.get(model)
        if unique:
            return {column: self.choose(COLUMNS[model][column]) for column in unique}
        values = self.values(model)
        return {
            column: value
            for column, value in values.items()
            if value is not None and column not in ("target", "id", "data", "maybe")
        }


# --- lines


def create(scene: Scene) -> Line:
    model = scene.model()
    values = scene.values(model)
    return Create(scene.fresh(model), model, values, in_async=scene.once_in(20))


def several(scene: Scene) -> Line:
    among = [model for model in scene.cast if not has_unique(model)]
    if not among:
        return create(scene)
    model = scene.choose(among)
    values = scene.values(model)
    values.pop("id", None)
    return Several(scene.fresh(model), model, values)


def has_unique(model: str) -> bool:
    """Tell whether two rows of the same values refuse each other."""
    meta = model_of(model)._meta
    return (
        bool(meta.total_unique_constraints or meta.unique_together)
        or model in ("Ticket", "Country", "Mirror", "Seat", "Draft")
        or any(each.unique and not each.primary_key for each in meta.fields)
    )


def new(scene: Scene) -> Line:
    model = scene.model()
    values = scene.values(model)
    return New(scene.fresh(model), model, values)


def save(scene: Scene) -> Line:
    model = scene.model()
    name = scene.name(model)
    values = scene.values(model, every=False)
    kind = scene.draw(st.integers(0, 5))
    names = list(COLUMNS[model])
    if kind == 3:
        chosen = tuple(dict.fromkeys([*values, scene.choose(names)]))
        if not set(chosen) & {"code", "row", "Seat.number"} and model != "Seat":
            return Save(name, values, update_fields=chosen)
    if kind == 4:
        return Save(name, values, force_update=True)
    if kind == 5:
        if scene.once_in(3):
            return Save(name, values, update_fields=())
        return Save(name, values, force_insert=True)
    return Save(name, values, in_async=scene.once_in(20))


def save_with_parent(scene: Scene) -> Line:
    model = scene.model()
    if model not in PARENTS:
        return save(scene)
    name = scene.name(model)
    column, (parents, _) = scene.choose(list(PARENTS[model].items()))
    return Save(name, {column: scene.name(scene.model(parents))})


def save_step(scene: Scene) -> Line:
    found = numeric(scene)
    if found is None or found[0] == "Echo":  # its receiver compares the number
        return save(scene)
    model, column = found
    return SaveStep(scene.name(model), column, 1, reads=not scene.once_in(3))


def numeric(scene: Scene) -> tuple[str, str] | None:
    """Choose a column that can be reckoned with."""
    model = scene.model()
    columns = [
        column
        for column in COLUMNS[model]
        if isinstance(model_of(model)._meta.get_field(column), models.IntegerField)
        and f"{model}.{column}" not in UNIQUE
        and model != "Receipt"
    ]
    return (model, scene.choose(columns)) if columns else None


def fetch(scene: Scene) -> Line:
    model = scene.model()
    where = scene.where(model)
    only, defer = part_of_columns(scene, model)
    known = scene.made.get(model)
    name = scene.choose(known) if known and scene.once_in(2) else scene.fresh(model)
    union = None
    if not (only or defer) and model != "Seat" and scene.once_in(5):
        union = scene.where(model)
    return Fetch(name, model, where, only, defer, union)


def part_of_columns(scene: Scene, model: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Draw what to load only, or what not; mostly neither."""
    kind = scene.draw(st.integers(0, 7))
    columns = [name for name in COLUMNS[model] if model != "Seat"]
    if kind < 6 or not columns:
        return (), ()
    if kind == 6:
        return tuple(columns[:1]), ()
    return (), (scene.choose(columns),)


def two_of_one_row(scene: Scene) -> Line:
    """Save two objects of one row, each with changes of its own."""
    model = scene.model()
    name = scene.name(model)
    other = scene.fresh(model)
    scene.before.append(FetchAgain(other, name, *part_of_columns(scene, model)))
    first, second = scene.choose([(name, other), (other, name)])
    scene.before.append(changed(scene, model, first))
    return changed(scene, model, second)


def changed(scene: Scene, model: str, name: Name, by_force: bool = False) -> Save:
    """Save an object that is there, with a part of its columns or all of them."""
    names = list(COLUMNS[model])
    values = scene.values(model, every=False)
    kind = scene.draw(st.integers(0, 3))
    plain = tuple(c for c in [*values, scene.choose(names)] if c != "code" and model != "Seat")
    if kind == 3 and plain:
        return Save(name, values, update_fields=tuple(dict.fromkeys(plain)))
    return Save(name, values, force_update=kind == 2 and by_force)


def key_of_another(scene: Scene) -> Line:
    """Save an object that was made with the key of another, without asking the database."""
    model = scene.model()
    of = scene.name(model)
    values = {k: v for k, v in scene.values(model).items() if k not in ("id", "code", "row")}
    if model == "Seat":
        values.pop("number", None)
    name = scene.fresh(model)
    scene.before.append(NewWithKey(name, of, values, scene.choose(list(SPELLINGS))))
    return changed(scene, model, name, by_force=True)


def save_as(scene: Scene) -> Line:
    model = scene.model()
    name = scene.name(model)
    bases = [base for base in scene.cast if issubclass(model_of(model), model_of(base))]
    key: Any = scene.name(scene.choose(bases))  # a row of a parent's may have none of its own
    if model in GIVEN and scene.once_in(2):
        key = -scene.number("key")
    return SaveAs(name, key, and_back=scene.once_in(3))


def there_and_back(scene: Scene) -> Line:
    """Change a column and change it back; the key, if the program may."""
    model = scene.model()
    name = scene.name(model)
    keys = [column for column in COLUMNS[model] if column in ("code", "row")]
    column = scene.choose(keys or list(COLUMNS[model]))
    return ThereAndBack(name, column, scene.value(model, column), not scene.once_in(3))


def swap(scene: Scene) -> Line:
    among = {"Account": "email", "Tag": "word", "Slot": "position", "Turn": "number"}
    models_of_cast = [model for model in scene.cast if model in among]
    if not models_of_cast:
        return two_of_one_row(scene)
    model = scene.choose(models_of_cast)
    column = among[model]
    temporary = scene.number("temporary") + 900
    return Swap(
        scene.name(model),
        scene.make(model),
        column,
        (temporary if column in ("position", "number") else f"t{temporary}")
        if not scene.once_in(4)
        else None,
        by_field=scene.once_in(2),
    )


def stale(scene: Scene) -> Line:
    """Delete a row behind its object's back, and go on with the object."""
    model = scene.model()
    name = scene.name(model)
    hows = ["queryset", "raw", "cursor"]
    scene.before.append(DeleteBehind(name, scene.choose(hows)))
    if scene.once_in(5):
        return Refresh(name)
    return changed(scene, model, name, by_force=True)


def about_one(scene: Scene) -> Line:
    """A line that needs an object and nothing else."""
    model = scene.model()
    name = scene.name(model)
    kind = scene.draw(st.integers(0, 6))
    if kind == 0:
        return ReadKey(name)
    if kind == 1:
        return Look(name)
    if kind == 2:
        return Refresh(name, scene.choose([None, tuple(list(COLUMNS[model])[:1])]))
    if kind == 3 and model != "Parcel":  # its key is not a number, to a validator
        return Clean(name, scene.choose(["full_clean", "validate_unique"]))
    if kind == 4:
        return Equal(name, scene.name(model))
    if kind == 5:
        how = scene.choose(["pickle", "copy", "deepcopy", "serialise"])
        return Pickled(scene.fresh(model), name, how)
    if model_of(model)._meta.pk.get_internal_type() in ("CompositePrimaryKey", "CharField"):
        return ReadKey(name)
    if model in ("Ticket", "Mirror", "Country"):
        return ReadKey(name)
    return Duplicate(scene.fresh(model), name)


def delete(scene: Scene) -> Line:
    model = scene.model()
    if scene.once_in(2):
        return DeleteWhere(model, scene.where(model))
    return Delete(scene.name(model))


def get_or_create(scene: Scene) -> Line:
    model = scene.model(
        [m for m in scene.cast if m not in ("Receipt", "Ticket", "Gadget")] or ["Tag"]
    )
    lookup = scene.lookup(model)
    defaults = {k: v for k, v in scene.values(model, every=False).items() if k not in lookup}
    needed = REQUIRED | PARENTS.get(model, {}).keys()
    defaults |= {k: v for k, v in scene.values(model).items() if k in needed and k not in lookup}
    kind = scene.choose([GetOrCreate, UpdateOrCreate, SaveElseCreate])
    if kind is SaveElseCreate and scene.once_in(2):  # so that there is one to be found
        scene.before.append(SaveElseCreate(scene.fresh(model), model, lookup, defaults))
        defaults = {k: scene.value(model, k) for k in defaults if k in COLUMNS[model]}
        return SaveElseCreate(scene.fresh(model), model, lookup, defaults, scene.once_in(2))
    return kind(scene.fresh(model), model, lookup, defaults)


def bulk_create(scene: Scene) -> Line:
    model = scene.model()
    if model_of(model)._meta.parents:
        return create(scene)
    rows = tuple(scene.values(model) for _ in range(scene.draw(st.integers(1, 3))))
    names = tuple(scene.fresh(model) for _ in rows)
    return BulkCreate(names, model, rows, ignore_conflicts=scene.once_in(4))


def update(scene: Scene) -> Line:
    if scene.once_in(2) and (found := numeric(scene)):
        model, column = found
        return Update(model, scene.where(model), column, step=1)
    model = scene.model()
    columns = [
        column
        for column in COLUMNS[model]
        if f"{model}.{column}" not in UNIQUE and f"{model}.{column}" != "Seat.row"
    ]
    if not columns or model == "Receipt":
        return query(scene)
    column = scene.choose(columns)
    value = scene.choose(COLUMNS[model][column])
    kind = scene.draw(st.integers(0, 3))
    if kind == 1 and isinstance(value, str | int | float | bool):
        return RawUpdate(model, column, value)
    if kind == 2 and not model_of(model)._meta.parents:
        return BulkUpdate((scene.name(model),), model, column, value)
    return Update(model, scene.where(model), column, value)


def relate(scene: Scene) -> Line:
    owners = [model for model in scene.cast if model in MANY]
    if not owners:
        return related_create(scene)
    model = scene.choose(owners)
    relation, target = scene.choose(list(MANY[model].items()))
    action = scene.choose(["add", "add", "remove", "set", "clear"])
    name = scene.name(model)
    # The rows of many at once have keys in the order of a set, which would tell in `Membership`.
    most = 1 if "Club" in (model, target) else 3
    count = 0 if action == "clear" else scene.draw(st.integers(1, most))
    targets = tuple(scene.name(target) for _ in range(count))
    by_key = relation != "staff" and scene.once_in(4)
    return Relate(name, relation, action, targets, by_key)


def related_create(scene: Scene) -> Line:
    relations = {**MANY, **CHILDREN}
    owners = [model for model in scene.cast if model in relations]
    if not owners:
        return create(scene)
    model = scene.choose(owners)
    relation, target = scene.choose(list((MANY.get(model, {}) | CHILDREN.get(model, {})).items()))
    owner = scene.name(model)
    if scene.once_in(3):
        return Related(owner, relation)
    values = scene.values(target)
    parent = next(
        (column for column, (parents, _) in PARENTS.get(target, {}).items() if model in parents),
        None,
    )
    if relation not in MANY.get(model, {}) and parent:
        values.pop(parent, None)
    get = scene.once_in(4) and target not in ("Remark", "Receipt")
    return RelatedCreate(scene.fresh(target), owner, relation, values, get=get)


def reorder(scene: Scene) -> Line:
    return Reorder(scene.name("Course")) if "Course" in scene.cast else query(scene)


def query(scene: Scene) -> Line:
    model = scene.model()
    way = scene.choose(list(WAYS))
    return Query(model, way, scene.where(model), excluding=scene.once_in(6))


def block(scene: Scene) -> Line:
    """Draw a block; its lines may not leave their names behind in the scene."""
    made = {model: list(names) for model, names in scene.made.items()}
    outside, scene.before = scene.before, []
    scene.depth += 1
    kinds = ALL if scene.depth < 3 else SIMPLE
    body = tuple(line for _ in range(scene.draw(st.integers(1, 4))) for line in one(scene, kinds))
    scene.before = outside
    scene.depth -= 1
    how = scene.choose(["atomic", "atomic", "coalesce", "savepoint", "joined"])
    endings = ["normal", "normal", "normal", "normal", "raise", "rollback"]
    ending = scene.choose(endings if how != "joined" or scene.depth else endings[:4])
    if how == "joined" and ending == "rollback":
        ending = "raise"
    if ending != "normal":
        scene.made = made
    return Atomic(body, how, ending, catches=ending == "rollback" or not scene.once_in(8))


def on_commit(scene: Scene) -> Line:
    outside, scene.before = scene.before, []
    made = {model: list(names) for model, names in scene.made.items()}
    body = tuple(line for _ in range(scene.draw(st.integers(0, 2))) for line in one(scene, SIMPLE))
    scene.before, scene.made = outside, made
    return OnCommit(body)


def react(scene: Scene) -> Line:
    names = [name for reactions in REACTIONS.values() for name in reactions]
    return React(scene.choose(names), on=not scene.once_in(4))


def check(scene: Scene) -> Line:
    return CheckConstraints()


#: What a line may be, the commonest more than once.
SIMPLE: tuple[Callable[[Scene], Line], ...] = (
    *(create,) * 5,
    *(new,) * 1,
    *(save,) * 3,
    several,
    save_with_parent,
    save_step,
    two_of_one_row,
    key_of_another,
    save_as,
    there_and_back,
    swap,
    stale,
    *(fetch,) * 2,
    *(about_one,) * 3,
    delete,
    *(get_or_create,) * 2,
    *(bulk_create,) * 1,
    *(update,) * 2,
    *(relate,) * 3,
    related_create,
    reorder,
    *(query,) * 3,
    check,
)
ALL = (*SIMPLE, *(block,) * 4, on_commit, *(react,) * 2)


def one(scene: Scene, kinds: Sequence[Callable[[Scene], Line]]) -> list[Line]:
    """Draw a line, and get the lines that it needs before it."""
    line = scene.choose(kinds)(scene)
    lines = [*scene.before, line]
    scene.before.clear()
    return guarded(scene, lines)


def guarded(scene: Scene, lines: list[Line]) -> list[Line]:
    """Put a line that may well be refused into a block of its own, mostly."""
    last = lines[-1]
    risky = isinstance(
        last, Create | GetOrCreate | SaveElseCreate | BulkCreate | Save | SaveAs | Swap | Duplicate
    )
    if risky and scene.draw(st.integers(0, 2)):
        return [*lines[:-1], Atomic((last,))]
    return lines


@st.composite
def lines(draw: st.DrawFn, scene: Scene) -> list[Line]:
    """Draw a line with those that it needs; or none, so that shrinking can take any line out."""
    scene.draw = draw
    return one(scene, ALL) if draw(st.integers(0, 7)) else []


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Draw a program about one or two casts."""
    casts = draw(st.lists(st.sampled_from(CASTS), min_size=1, max_size=2))
    scene = Scene(draw, list(dict.fromkeys(model for cast in casts for model in cast)))
    if not scene.cast:
        scene.cast = ["Tag"]
    drawn = draw(st.lists(lines(scene), min_size=6, max_size=20))
    ending = draw(st.sampled_from(["normal"] * 18 + ["raise", "rollback"]))
    databases: list[tuple[tuple[str, ...], tuple[str, ...]]] = [(("default",), ())]
    if "AuditLine" in scene.cast:
        databases = [
            (("default",), ("other",)),
            (("default", "other"), ()),
            (("other",), ("default",)),
        ]
    using, beside = draw(st.sampled_from(databases))
    return Program(tuple(line for some in drawn for line in some), ending, using, beside)
