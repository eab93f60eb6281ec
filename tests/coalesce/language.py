"""The language of the generated programs: a line is one thing that a project does with its models.

A program is a list of these lines, over names that stand for objects. Its repr reads as a script,
so that a failing example can be read, and pasted into a test as it is.

A line about a name that stands for nothing, since making it failed or was rolled back, is passed
over: so any line can be taken out of a program, and what is left is a program still.
"""

from __future__ import annotations

import copy
import datetime
import decimal
import pickle
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from asgiref.sync import async_to_sync
from django.apps import apps
from django.core import serializers
from django.db import connection, connections, models, transaction
from django.db.models import Count, Exists, F, OuterRef

from tests.coalesce.values import key_of, normal, normal_keys, seen

# Renamed in Django 6.1, where the old name warns.
create_savepoint = getattr(transaction, "savepoint_create", None) or transaction.savepoint

if TYPE_CHECKING:
    from tests.coalesce.machine import Machine


class Name(str):
    """What an object is called in a program."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class Script:
    """What hypothesis prints as its repr says, not as it prints any dataclass."""

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        for number, line in enumerate(repr(self).split("\n")):
            if number:
                printer.break_()
            printer.text(line)


class Stop(Exception):
    """What a program raises to leave a block."""


def model_of(label: str) -> type[models.Model]:
    return apps.get_model("app", label)


def manager_of(label: str) -> models.Manager[Any]:
    """Return the manager that sees every row."""
    return model_of(label)._default_manager


def is_saved(instance: models.Model) -> bool:
    """Tell whether it has been saved, and not been deleted since, without asking for its key."""
    key = instance.__dict__.get(instance._meta.pk.attname, "of two columns")
    return key is not None and not instance._state.adding


def names_in(value: Any) -> Iterator[Name]:
    """Yield the names that a value mentions, however deep."""
    if isinstance(value, Name):
        yield value
    elif isinstance(value, Line):
        for each in fields(value):
            yield from names_in(getattr(value, each.name))
    elif isinstance(value, Mapping):
        yield from names_in(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for each in value:
            yield from names_in(each)


@dataclass(frozen=True, repr=False)
class Line(Script):
    """One line of a program."""

    #: The fields that hold names which the line makes, and so needn't stand for anything yet.
    makes: ClassVar[tuple[str, ...]] = ()

    def run(self, machine: Machine) -> Any:
        """Do it; return what the log is to say."""
        raise NotImplementedError

    def needs(self) -> set[Name]:
        """Tell the names without which the line can't be run."""
        return {
            name
            for each in fields(self)
            if each.name not in self.makes
            for name in names_in(getattr(self, each.name))
        }

    def __repr__(self) -> str:
        words = []
        for each in fields(self):
            value = getattr(self, each.name)
            default = each.default_factory() if callable(each.default_factory) else each.default
            if default is not MISSING and value == default:
                continue
            required = each.default is MISSING and each.default_factory is MISSING
            words.append(repr(value) if required else f"{each.name}={value!r}")
        return f"{type(self).__name__}({', '.join(words)})"


def in_async(function: Callable[..., Any]) -> Callable[..., Any]:
    """Call a method of Django's from async code, which waits for it."""

    async def called(*arguments: Any, **options: Any) -> Any:
        return await function(*arguments, **options)

    return async_to_sync(called)


def indented(lines: tuple[Line, ...]) -> str:
    return "".join("    " + line + "\n" for one in lines for line in f"{one!r},".split("\n"))


# --- one object


@dataclass(frozen=True, repr=False)
class New(Line):
    """An object that is not saved."""

    makes = ("name",)
    name: Name
    model: str
    values: Mapping[str, Any]

    def run(self, machine: Machine) -> Any:
        machine.bind(self.name, model_of(self.model)(**machine.resolve(self.values)))


@dataclass(frozen=True, repr=False)
class Create(Line):
    """``Model.objects.create(...)``."""

    makes = ("name",)
    name: Name
    model: str
    values: Mapping[str, Any]
    in_async: bool = False

    def run(self, machine: Machine) -> Any:
        manager = manager_of(self.model)
        create = in_async(manager.acreate) if self.in_async else manager.create
        created = create(**machine.resolve(self.values))
        machine.bind(self.name, created)
        return type(created).__name__


@dataclass(frozen=True, repr=False)
class Several(Line):
    """So many rows of the same values: enough for what is done with many at once."""

    makes = ("name",)
    name: Name
    model: str
    values: Mapping[str, Any]
    times: int = 10

    def run(self, machine: Machine) -> Any:
        values = machine.resolve(self.values)
        for _ in range(self.times):
            machine.bind(self.name, manager_of(self.model).create(**values))


@dataclass(frozen=True, repr=False)
class Save(Line):
    """``save()``, after the values are set; ``update_fields`` without them all means None."""

    name: Name
    values: Mapping[str, Any] = field(default_factory=dict)
    update_fields: tuple[str, ...] | None = None
    force_insert: bool = False
    force_update: bool = False
    in_async: bool = False

    def run(self, machine: Machine) -> Any:
        instance = machine[self.name]
        for attribute, value in machine.resolve(self.values).items():
            setattr(instance, attribute, value)
        save = in_async(instance.asave) if self.in_async else instance.save
        save(
            force_insert=self.force_insert,
            force_update=self.force_update,
            update_fields=self.update_fields,
        )
        return instance._state.adding, instance._state.db


@dataclass(frozen=True, repr=False)
class SaveStep(Line):
    """``save()`` of an expression: the database reckons."""

    name: Name
    attribute: str
    step: int
    reads: bool = True

    def run(self, machine: Machine) -> Any:
        instance = machine[self.name]
        if instance._state.adding:
            return "not saved"
        setattr(instance, self.attribute, F(self.attribute) + self.step)
        instance.save()
        if not self.reads:
            return "not read"
        instance.refresh_from_db()
        return getattr(instance, self.attribute)


@dataclass(frozen=True, repr=False)
class Fetch(Line):
    """The first row that matches, as a new object of this name."""

    makes = ("name",)
    name: Name
    model: str
    where: Mapping[str, Any]
    only: tuple[str, ...] = ()
    defer: tuple[str, ...] = ()
    union: Mapping[str, Any] | None = None

    def run(self, machine: Machine) -> Any:
        rows = manager_of(self.model).filter(**machine.resolve(self.where))
        if self.union is not None:
            rows = rows.union(manager_of(self.model).filter(**machine.resolve(self.union)))
        rows = loaded(rows.order_by("pk"), self.only, self.defer)
        found = rows.first()
        machine.bind(self.name, found)
        return None if found is None else seen(found)


def loaded(
    rows: models.QuerySet[Any], only: tuple[str, ...], defer: tuple[str, ...]
) -> models.QuerySet[Any]:
    """Load a part of the columns."""
    if only:
        rows = rows.only(*only)
    return rows.defer(*defer) if defer else rows


@dataclass(frozen=True, repr=False)
class FetchAgain(Line):
    """The row of an object, as another object."""

    makes = ("name",)
    name: Name
    of: Name
    only: tuple[str, ...] = ()
    defer: tuple[str, ...] = ()

    def run(self, machine: Machine) -> Any:
        instance = machine[self.of]
        machine.bind(self.name, None)
        if not is_saved(instance):
            return "not saved"
        rows = loaded(type(instance)._default_manager.all(), self.only, self.defer)
        found = rows.get(pk=instance.pk)
        machine.bind(self.name, found)
        return seen(found)


@dataclass(frozen=True, repr=False)
class NewWithKey(Line):
    """An object that is not saved, with the key of another; spelled in another way if it's text."""

    makes = ("name",)
    name: Name
    of: Name
    values: Mapping[str, Any] = field(default_factory=dict)
    spelled: str = "same"

    def run(self, machine: Machine) -> Any:
        other = machine[self.of]
        machine.bind(self.name, None)
        if not is_saved(other):
            return "not saved"
        key = other.pk
        if isinstance(key, str):
            key = SPELLINGS[self.spelled](key)
        machine.bind(self.name, type(other)(pk=key, **machine.resolve(self.values)))
        return "made"


SPELLINGS: dict[str, Callable[[str], str]] = {
    "same": str,
    "swapped": str.swapcase,
    "with a space": lambda text: text + " ",
    "with an accent": lambda text: text.replace("a", "á"),
}


@dataclass(frozen=True, repr=False)
class SaveAs(Line):
    """An object saved under another key: that of an object, or one of the program's own.

    It is saved as it was before that, since from there on a changed key is noticed: see `late`.
    With ``as_copy`` a copy of the changed object is saved, and has the name from then on.
    """

    name: Name
    key: Any
    and_back: bool = False
    as_copy: bool = False

    def run(self, machine: Machine) -> Any:
        instance = machine[self.name]
        other = machine[self.key] if isinstance(self.key, Name) else None
        if not is_saved(instance) or (other is not None and not is_saved(other)):
            return "not saved"
        instance.save()
        before = instance.pk
        instance.pk = self.key if other is None else other.pk
        if self.as_copy:
            instance = copy.copy(instance)
            machine.bind(self.name, instance)
        instance.save()
        if self.and_back:
            instance.pk = before
            instance.save()
        return seen(instance)


@dataclass(frozen=True, repr=False)
class ThereAndBack(Line):
    """A column changed and changed back, saved each time; or only at the end."""

    name: Name
    attribute: str
    value: Any
    saves_between: bool = True

    def run(self, machine: Machine) -> Any:
        instance = machine[self.name]
        if not is_saved(instance):
            return "not saved"
        before = getattr(instance, self.attribute)
        setattr(instance, self.attribute, self.value)
        if self.saves_between:
            instance.save()
        setattr(instance, self.attribute, before)
        instance.save()
        return seen(instance)


@dataclass(frozen=True, repr=False)
class Swap(Line):
    """Two objects exchange a value; by way of a third value, if there is one."""

    name: Name
    other: Name
    attribute: str
    temporary: Any = None
    by_field: bool = False

    def run(self, machine: Machine) -> Any:
        one, other = machine[self.name], machine[self.other]
        if not is_saved(one) or not is_saved(other):
            return "not saved"
        mine, its = getattr(one, self.attribute), getattr(other, self.attribute)
        steps = [(one, self.temporary)] if self.temporary is not None else []
        for instance, value in (*steps, (other, mine), (one, its)):
            setattr(instance, self.attribute, value)
            instance.save(update_fields=[self.attribute] if self.by_field else None)
        return "swapped"


@dataclass(frozen=True, repr=False)
class Refresh(Line):
    name: Name
    of: tuple[str, ...] | None = None

    def run(self, machine: Machine) -> Any:
        instance = machine[self.name]
        if instance._state.adding:
            return "not saved"
        instance.refresh_from_db(fields=self.of)
        return seen(instance)


@dataclass(frozen=True, repr=False)
class Delete(Line):
    name: Name

    def run(self, machine: Machine) -> Any:
        instance = machine[self.name]
        if instance._state.adding or instance.pk is None:
            return "not saved"
        return instance.delete()


@dataclass(frozen=True, repr=False)
class DeleteBehind(Line):
    """Delete an object's row without a word to the object.

    ``how`` is "queryset", "raw" (which tells nobody) or "cursor".
    """

    name: Name
    how: str = "queryset"

    def run(self, machine: Machine) -> Any:
        instance = machine[self.name]
        if not is_saved(instance):
            return "not saved"
        rows = type(instance)._base_manager.filter(pk=instance.pk)
        if self.how == "queryset":
            return rows.delete()
        if self.how == "raw":
            return rows._raw_delete(rows.db)
        return delete_by_cursor(instance)


def delete_by_cursor(instance: models.Model) -> int:
    meta = instance._meta
    alias = instance._state.db or "default"
    quote = connections[alias].ops.quote_name
    keys: list[Any] = list(meta.pk_fields)
    condition = " AND ".join(f"{quote(key.column)} = %s" for key in keys)
    values = [
        key.get_db_prep_value(getattr(instance, key.attname), connections[alias]) for key in keys
    ]
    with connections[alias].cursor() as cursor:
        cursor.execute(f"DELETE FROM {quote(meta.db_table)} WHERE {condition}", values)
        return int(cursor.rowcount)


@dataclass(frozen=True, repr=False)
class ReadKey(Line):
    name: Name

    def run(self, machine: Machine) -> Any:
        return key_of(machine[self.name])


@dataclass(frozen=True, repr=False)
class Look(Line):
    """Everything that Python can see of an object."""

    name: Name

    def run(self, machine: Machine) -> Any:
        return seen(machine[self.name])


@dataclass(frozen=True, repr=False)
class Equal(Line):
    """``==`` and ``hash()``."""

    name: Name
    other: Name

    def run(self, machine: Machine) -> Any:
        one, other = machine[self.name], machine[self.other]
        try:
            hashed: Any = hash(one) == hash(other), len({one, other})
        except TypeError:
            hashed = "not hashable"
        return one == other, one != other, hashed, [one].count(other)


@dataclass(frozen=True, repr=False)
class Duplicate(Line):
    """Django's recipe for a copy: the key set to None, and saved."""

    makes = ("name",)
    name: Name
    of: Name

    def run(self, machine: Machine) -> Any:
        other = copy.copy(machine[self.of])
        other.pk = None
        for parent in other._meta.all_parents:
            setattr(other, parent._meta.pk.attname, None)
        other._state.adding = True
        other.save()
        machine.bind(self.name, other)


@dataclass(frozen=True, repr=False)
class Pickled(Line):
    """The object after a journey: pickled, deep-copied, or as the serialiser sees it."""

    makes = ("name",)
    name: Name
    of: Name
    how: str = "pickle"

    def run(self, machine: Machine) -> Any:
        instance = machine[self.of]
        if self.how == "serialise":
            machine.bind(self.name, instance)
            if instance._state.adding:
                return None
            words = serializers.serialize("python", [instance])[0]
            return normal_fields(type(instance), words)
        if self.how == "pickle":
            arrived = pickle.loads(pickle.dumps(instance))
        elif self.how == "copy":
            arrived = copy.copy(instance)
        else:
            arrived = copy.deepcopy(instance)
        machine.bind(self.name, arrived)
        return seen(arrived)


def normal_fields(model: type[models.Model], words: Mapping[str, Any]) -> Any:
    """Take the keys out of what a serialiser wrote."""
    pk = model._meta.pk
    found: list[Any] = [words["model"], normal(pk, words.get("pk"))]
    for name, value in words["fields"].items():
        attribute = model._meta.get_field(name)
        if isinstance(attribute, models.ManyToManyField):
            found.append((name, normal_keys(attribute.related_model, value)))
        elif name != "object_id":
            found.append((name, normal(attribute, value)))
    return found


@dataclass(frozen=True, repr=False)
class Clean(Line):
    """``full_clean()`` or ``validate_unique()``."""

    name: Name
    how: str = "full_clean"

    def run(self, machine: Machine) -> Any:
        getattr(machine[self.name], self.how)()
        return "valid"


# --- finding or making


@dataclass(frozen=True, repr=False)
class GetOrCreate(Line):
    makes = ("name",)
    name: Name
    model: str
    lookup: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def run(self, machine: Machine) -> Any:
        return found_or_made(self, machine, manager_of(self.model).get_or_create)


@dataclass(frozen=True, repr=False)
class UpdateOrCreate(Line):
    makes = ("name",)
    name: Name
    model: str
    lookup: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def run(self, machine: Machine) -> Any:
        return found_or_made(self, machine, manager_of(self.model).update_or_create)


@dataclass(frozen=True, repr=False)
class SaveElseCreate(Line):
    """What people write in the place of `UpdateOrCreate`."""

    makes = ("name",)
    name: Name
    model: str
    lookup: Mapping[str, Any]
    values: Mapping[str, Any] = field(default_factory=dict)
    by_field: bool = False

    def run(self, machine: Machine) -> Any:
        manager = manager_of(self.model)
        lookup, values = machine.resolve(self.lookup), machine.resolve(self.values)
        try:
            found = manager.get(**lookup)
        except manager.model.DoesNotExist:
            machine.bind(self.name, manager.create(**lookup, **values))
            return "created"
        for attribute, value in values.items():
            setattr(found, attribute, value)
        found.save(update_fields=list(values) if self.by_field else None)
        machine.bind(self.name, found)
        return seen(found)


def found_or_made(line: Any, machine: Machine, method: Callable[..., tuple[Any, bool]]) -> bool:
    found, created = method(**machine.resolve(line.lookup), defaults=machine.resolve(line.defaults))
    machine.bind(line.name, found)
    return created


# --- many objects


@dataclass(frozen=True, repr=False)
class BulkCreate(Line):
    makes = ("names",)
    names: tuple[Name, ...]
    model: str
    rows: tuple[Mapping[str, Any], ...]
    ignore_conflicts: bool = False

    def run(self, machine: Machine) -> Any:
        model = model_of(self.model)
        instances = [model(**machine.resolve(row)) for row in self.rows]
        made = manager_of(self.model).bulk_create(instances, ignore_conflicts=self.ignore_conflicts)
        if not self.ignore_conflicts and connection.features.can_return_rows_from_bulk_insert:
            for name, instance in zip(self.names, made, strict=True):
                machine.bind(name, instance)
        return len(made), [instance._state.adding for instance in made]


@dataclass(frozen=True, repr=False)
class BulkUpdate(Line):
    names: tuple[Name, ...]
    model: str
    attribute: str
    value: Any

    def run(self, machine: Machine) -> Any:
        instances = [machine[name] for name in self.names]
        if not all(is_saved(instance) for instance in instances):
            return "not saved"
        for instance in instances:
            setattr(instance, self.attribute, self.value)
        return manager_of(self.model).bulk_update(instances, [self.attribute])


@dataclass(frozen=True, repr=False)
class Update(Line):
    """``filter(...).update(...)``, by a step if there is one."""

    model: str
    where: Mapping[str, Any]
    attribute: str
    value: Any = None
    step: int | None = None

    def run(self, machine: Machine) -> Any:
        value = self.value if self.step is None else F(self.attribute) + self.step
        rows = manager_of(self.model).filter(**machine.resolve(self.where))
        return rows.update(**{self.attribute: value})


@dataclass(frozen=True, repr=False)
class DeleteWhere(Line):
    model: str
    where: Mapping[str, Any]

    def run(self, machine: Machine) -> Any:
        return manager_of(self.model).filter(**machine.resolve(self.where)).delete()


# --- relations


@dataclass(frozen=True, repr=False)
class Relate(Line):
    """``book.tags.add(tag)``, and ``remove``, ``set`` and ``clear``."""

    name: Name
    relation: str
    action: str
    targets: tuple[Name, ...] = ()
    by_key: bool = False

    def run(self, machine: Machine) -> Any:
        instance = machine[self.name]
        targets = [machine[name] for name in self.targets]
        if not all(is_saved(one) for one in (instance, *targets)):
            return "not saved"
        manager = getattr(instance, self.relation)
        if not hasattr(manager, self.action):
            return f"no {self.action}"
        passed = [target.pk for target in targets] if self.by_key else targets
        if self.action == "clear":
            manager.clear()
        elif self.action == "set":
            manager.set(passed)
        else:
            getattr(manager, self.action)(*passed)
        return "done"


@dataclass(frozen=True, repr=False)
class RelatedCreate(Line):
    """``author.books.create(...)``."""

    makes = ("name",)
    name: Name
    owner: Name
    relation: str
    values: Mapping[str, Any]
    get: bool = False

    def run(self, machine: Machine) -> Any:
        if not is_saved(machine[self.owner]):
            return "not saved"
        manager = getattr(machine[self.owner], self.relation)
        values = machine.resolve(self.values)
        if self.get:
            made, created = manager.get_or_create(**values)
        else:
            made, created = manager.create(**values), True
        machine.bind(self.name, made)
        return created


@dataclass(frozen=True, repr=False)
class Related(Line):
    """What an object's manager of related rows sees."""

    name: Name
    relation: str

    def run(self, machine: Machine) -> Any:
        if not is_saved(machine[self.name]):
            return "not saved"
        rows = getattr(machine[self.name], self.relation)
        return rows.count(), [seen(row) for row in rows.order_by("pk")]


@dataclass(frozen=True, repr=False)
class Reorder(Line):
    """``set_lesson_order()``, turned round."""

    name: Name

    def run(self, machine: Machine) -> Any:
        course = machine[self.name]
        if not is_saved(course):
            return "not saved"
        keys = list(course.get_lesson_order())
        course.set_lesson_order(keys[::-1])
        return [row["_order"] for row in course.lessons.order_by("pk").values("_order")]


# --- reading


def as_list(rows: models.QuerySet[Any]) -> Any:
    return [seen(row) for row in rows]


def first_attribute(model: type[models.Model]) -> str:
    """Name a column that every row of the model has, and that is not its key."""
    plain = [f for f in model._meta.concrete_fields if not f.primary_key and not f.is_relation]
    return (plain or model._meta.pk_fields)[0].attname


def as_values(rows: models.QuerySet[Any]) -> Any:
    columns = list(rows.model._meta.concrete_fields)
    return [
        [normal(column, row[column.attname], row) for column in columns]
        for row in rows.values(*(column.attname for column in columns))
    ]


def as_names(rows: models.QuerySet[Any]) -> Any:
    name = first_attribute(rows.model)
    return list(rows.order_by(name).values_list(name, flat=True).distinct())


def in_bulk(rows: models.QuerySet[Any]) -> Any:
    keys = [row.pk for row in rows]
    return as_list(rows.filter(pk__in=keys)), len(rows.order_by().in_bulk(keys))


def by_raw(rows: models.QuerySet[Any]) -> Any:
    meta = rows.model._meta
    if meta.parents or len(meta.pk_fields) > 1:
        return "not by a plain SELECT"
    quote = connection.ops.quote_name
    order = ", ".join(quote(str(f.column)) for f in meta.pk_fields)
    sql = f"SELECT * FROM {quote(meta.db_table)} ORDER BY {order}"
    return [seen(row) for row in rows.model._base_manager.raw(sql)]


def by_cursor(rows: models.QuerySet[Any]) -> Any:
    quote = connection.ops.quote_name
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT COUNT(*) FROM {quote(rows.model._meta.db_table)}")
        return cursor.fetchone()


def by_view(rows: models.QuerySet[Any]) -> Any:
    """Read the table of the books by their unmanaged model."""
    return as_list(model_of("BookRow")._base_manager.order_by("pk"))


def with_parents(rows: models.QuerySet[Any]) -> Any:
    names = [
        each.name
        for each in rows.model._meta.fields
        if isinstance(each, models.ForeignKey) and each.related_model._meta.app_label == "app"
    ]
    return [
        (seen(row), [seen(parent) for name in names if (parent := getattr(row, name)) is not None])
        for row in (rows.select_related(*names) if names else rows)
    ]


def by_subquery(rows: models.QuerySet[Any]) -> Any:
    """Ask for the rows of whatever points at these."""
    found = []
    for relation in rows.model._meta.related_objects:
        if relation.related_model._meta.app_label == "app" and not relation.parent_link:
            others = relation.related_model._base_manager.filter(
                **{f"{relation.field.name}__in": rows.order_by()}
            )
            found.append(others.count())
    return found


def by_exists(rows: models.QuerySet[Any]) -> Any:
    """Ask which rows have another of the same name."""
    name = first_attribute(rows.model)
    same = rows.model._base_manager.filter(**{name: OuterRef(name)}).exclude(pk=OuterRef("pk"))
    return list(rows.annotate(twice=Exists(same)).values_list("twice", flat=True))


def by_union(rows: models.QuerySet[Any]) -> Any:
    name = first_attribute(rows.model)
    if not isinstance(rows.model._meta.get_field(name), models.CharField):
        return "no text"
    both = (
        rows.order_by().values_list(name).union(model_of("Tag")._base_manager.values_list("word"))
    )
    return len(both)


def reversed_pairs(rows: models.QuerySet[Any]) -> Any:
    """Join with whatever points at these rows."""
    return [
        list(rows.annotate(how_many=Count(relation.name)).values_list("how_many", flat=True))
        for relation in rows.model._meta.related_objects
        if relation.related_model._meta.app_label == "app"
        and not isinstance(relation.model._meta.pk, models.CompositePrimaryKey)
    ]


def with_children(rows: models.QuerySet[Any]) -> Any:
    """Prefetch whatever points at these rows."""
    names = [
        name
        for relation in rows.model._meta.related_objects
        if relation.related_model._meta.app_label == "app" and not relation.one_to_one
        if (name := relation.get_accessor_name()) is not None
    ]
    return [
        [len(getattr(row, name).all()) for name in names] for row in rows.prefetch_related(*names)
    ]


WAYS: dict[str, Callable[[models.QuerySet[Any]], Any]] = {
    "exists": lambda rows: rows.exists(),
    "count": lambda rows: rows.count(),
    "list": as_list,
    "get": lambda rows: seen(rows.get()),
    "first": lambda rows: (row := rows.first()) and seen(row),
    "last": lambda rows: (row := rows.last()) and seen(row),
    "values": as_values,
    "names": as_names,
    "aggregate": lambda rows: rows.aggregate(n=Count(first_attribute(rows.model)))["n"],
    "in_bulk": in_bulk,
    "iterator": lambda rows: [seen(row) for row in rows.iterator(chunk_size=2)],
    "for_update": lambda rows: as_list(rows.select_for_update()),
    "raw": by_raw,
    "cursor": by_cursor,
    "view": by_view,
    "select_related": with_parents,
    "prefetch": with_children,
    "subquery": by_subquery,
    "exists_subquery": by_exists,
    "union": by_union,
    "reverse_join": reversed_pairs,
}


@dataclass(frozen=True, repr=False)
class Query(Line):
    """A question; the answer is part of the log."""

    model: str
    way: str
    where: Mapping[str, Any] = field(default_factory=dict)
    excluding: bool = False

    def run(self, machine: Machine) -> Any:
        where = machine.resolve(self.where)
        rows = manager_of(self.model).all()
        rows = rows.exclude(**where) if self.excluding and where else rows.filter(**where)
        return WAYS[self.way](rows.order_by("pk"))


@dataclass(frozen=True, repr=False)
class RawUpdate(Line):
    """An UPDATE through a cursor."""

    model: str
    attribute: str
    value: Any

    def run(self, machine: Machine) -> Any:
        model = model_of(self.model)
        column: Any = model._meta.get_field(self.attribute)
        quote = connection.ops.quote_name
        with connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE {quote(column.model._meta.db_table)} SET {quote(column.column)} = %s",
                [self.value],
            )


@dataclass(frozen=True, repr=False)
class CheckConstraints(Line):
    """``connection.check_constraints()``: what is deferred is checked now."""

    def run(self, machine: Machine) -> Any:
        check_constraints()


def check_constraints() -> None:
    """Check what is deferred; where nothing can be, a single table, as all take a second."""
    if connection.features.can_defer_constraint_checks:
        connection.check_constraints()
    else:
        connection.check_constraints([model_of("Town")._meta.db_table])


# --- transactions and receivers


@dataclass(frozen=True, repr=False)
class Atomic(Line):
    """A block, left in one of three ways: normally, by an exception, or by a silent rollback.

    ``how`` is "atomic", "joined" (``savepoint=False``), "savepoint" (by hand) or "coalesce".
    """

    body: tuple[Line, ...]
    how: str = "atomic"
    ending: str = "normal"
    catches: bool = True

    def needs(self) -> set[Name]:
        return set()

    def run(self, machine: Machine) -> Any:
        with machine.block(self):
            with self.context(machine):
                machine.execute(self.body)
                if self.ending == "raise":
                    raise Stop
                if self.ending == "rollback":
                    machine.set_rollback()

    def context(self, machine: Machine) -> AbstractContextManager[Any]:
        if self.how == "coalesce":
            return machine.unit_of_work()
        with ExitStack() as stack:
            for alias in machine.aliases:
                if self.how == "savepoint":
                    stack.enter_context(by_hand(alias))
                else:
                    stack.enter_context(transaction.atomic(alias, savepoint=self.how != "joined"))
            return stack.pop_all()

    def __repr__(self) -> str:
        words = "".join(
            f", {each.name}={getattr(self, each.name)!r}"
            for each in fields(self)[1:]
            if getattr(self, each.name) != each.default
        )
        return f"Atomic((\n{indented(self.body)}){words})"


@contextmanager
def by_hand(alias: str) -> Iterator[None]:
    """Make a savepoint by the functions of `transaction`, as one may.

    Django forgets the callbacks of a rolled-back `atomic()`, but not of such a savepoint. An error
    that comes later may have let one more be registered; so they are forgotten here.
    """
    callbacks = len(connections[alias].run_on_commit)
    savepoint = create_savepoint(alias)
    try:
        yield
        if not transaction.get_rollback(alias):
            transaction.savepoint_commit(savepoint, alias)
            return
    except BaseException:
        del connections[alias].run_on_commit[callbacks:]
        transaction.set_rollback(False, alias)
        transaction.savepoint_rollback(savepoint, alias)
        raise
    transaction.set_rollback(False, alias)
    transaction.savepoint_rollback(savepoint, alias)


@dataclass(frozen=True, repr=False)
class OnCommit(Line):
    """Lines that run when the transaction has committed."""

    body: tuple[Line, ...]

    def needs(self) -> set[Name]:
        return set()

    def run(self, machine: Machine) -> Any:
        machine.on_commit(self)

    def __repr__(self) -> str:
        return f"OnCommit((\n{indented(self.body)}))"


@dataclass(frozen=True, repr=False)
class React(Line):
    """Switch a receiver on or off; see `machine.REACTIONS`."""

    to: str
    on: bool = True

    def run(self, machine: Machine) -> Any:
        if self.on:
            machine.reactions.add(self.to)
        else:
            machine.reactions.discard(self.to)


@dataclass(frozen=True, repr=False)
class Program(Script):
    """Lines within one unit of work on some databases, and how it is left.

    ``beside`` names the databases that are in a transaction too, but in no unit of work.
    """

    lines: tuple[Line, ...]
    ending: str = "normal"
    using: tuple[str, ...] = ("default",)
    beside: tuple[str, ...] = ()

    def __repr__(self) -> str:
        words = "".join(
            f", {each.name}={getattr(self, each.name)!r}"
            for each in fields(self)[1:]
            if getattr(self, each.name) != each.default
        )
        return f"Program((\n{indented(self.lines)}){words})"


class Vocabulary(dict[str, Any]):
    """The words of a script; any other is a name."""

    def __missing__(self, word: str) -> Name:
        return Name(word)


def read(script: str) -> Program:
    """Read a program as its repr prints it."""
    words: dict[str, Any] = {kind.__name__: kind for kind in (Program, *Line.__subclasses__())}
    words |= {"datetime": datetime, "Decimal": decimal.Decimal, "UUID": uuid.UUID}
    program = eval(script.strip(), {}, Vocabulary(words))
    assert isinstance(program, Program)
    return program
