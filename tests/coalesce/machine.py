"""Run a program, and write down everything that can be observed of it.

The log is one list of what the lines returned and what the receivers saw, in their order. A block
is a list within the list, with how it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import (
    MultipleObjectsReturned,
    ObjectDoesNotExist,
    ValidationError,
)
from django.db import Error, connection, connections, models, transaction
from django.db.models import F
from django.db.models.signals import (
    m2m_changed,
    post_delete,
    post_save,
    pre_delete,
    pre_save,
)

from tests.app.models import Membership, Slugged, Tag
from tests.app.reactions import Objection
from tests.app.receivers import natural_name
from tests.coalesce.language import Atomic, Line, Name, OnCommit, Program, Stop, names_in
from tests.coalesce.values import key_of, normal, normal_keys, seen
from tests.snapshot import ALIASES, tables

#: Opens a unit of work on some databases.
Opener = Callable[[tuple[str, ...]], AbstractContextManager[Any]]

#: What a line may raise without leaving its block.
ANSWERS = (ObjectDoesNotExist, MultipleObjectsReturned, ValidationError)
#: What a program may raise; anything else is a fault of the program's language.
EXPECTED = (*ANSWERS, Error, Stop, Objection, ValueError)


@dataclass
class Block:
    """What was seen in a block, and how it was left."""

    how: str
    entries: list[Any] = field(default_factory=list)
    error: str = ""
    is_database_error: bool = False
    is_rolled_back: bool = False


@dataclass
class Outcome:
    """Everything that two runs of a program must have in common."""

    root: Block
    objects: list[Any]
    rows: dict[str, list[Any]]
    callbacks_left: int


class Callback:
    """Lines put off until the commit."""

    def __init__(self, machine: Machine, line: OnCommit) -> None:
        self.machine = machine
        self.line = line

    def __call__(self) -> None:
        self.machine.here.append("on commit")
        try:
            self.machine.execute(self.line.body)
        except EXPECTED as error:
            self.machine.here.append(("raised", type(error).__name__))


def read_key(machine: Machine, sender: Any, instance: Any) -> Any:
    return key_of(instance)


def count_rows(machine: Machine, sender: Any, instance: Any) -> Any:
    return sender._base_manager.count()


def save_again(machine: Machine, sender: Any, instance: Any) -> Any:
    instance.save()


def save_another(machine: Machine, sender: Any, instance: Any) -> Any:
    Slugged.objects.create(name=natural_name(instance)[:40])


def find_tag(machine: Machine, sender: Any, instance: Any) -> Any:
    return Tag.objects.get_or_create(word="a")[1]


def count_use(machine: Machine, sender: Any, instance: Any) -> Any:
    return Tag.objects.filter(word="a").update(uses=F("uses") + 1)


def put_off(machine: Machine, sender: Any, instance: Any) -> Any:
    machine.on_commit(OnCommit(()))


def objects_to_b(machine: Machine, sender: Any, instance: Any) -> Any:
    if natural_name(instance) == "b":
        raise Objection("b")


def catch_inside(machine: Machine, sender: Any, instance: Any) -> Any:
    """Try what may fail, within a savepoint."""
    with machine.block(Atomic(())), transaction.atomic():
        Tag.objects.create(word="a")


#: What the receivers of every model do besides looking on: signal → name → function.
REACTIONS: dict[str, dict[str, Callable[[Machine, Any, Any], Any]]] = {
    "pre_save": {
        "read the key before": read_key,
        "count the rows before": count_rows,
        "object to b before": objects_to_b,
    },
    "post_save": {
        "read the key": read_key,
        "count the rows": count_rows,
        "save again": save_again,
        "save another": save_another,
        "find a tag": find_tag,
        "count a use": count_use,
        "put off": put_off,
        "object to b": objects_to_b,
        "catch inside": catch_inside,
    },
    "m2m_changed": {
        "read the key at m2m": read_key,
        "count the rows at m2m": count_rows,
        "save another at m2m": save_another,
    },
}


class Machine:
    """The names of a running program, and its log."""

    def __init__(self, program: Program, unit: Opener) -> None:
        self.program = program
        self.unit = unit
        self.aliases = (*program.beside, *program.using)
        self.names: dict[Name, models.Model] = {}
        self.here: list[Any] = []
        self.reactions: set[str] = set()
        self.is_reacting = False

    # --- names

    def __getitem__(self, name: Name) -> Any:
        return self.names[name]

    def bind(self, name: Name, instance: models.Model | None) -> None:
        if instance is None:
            self.names.pop(name, None)
        else:
            self.names[name] = instance

    def drop(self, names: Iterable[Name]) -> None:
        for name in names:
            self.names.pop(name, None)

    def resolve(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Put the objects in the place of their names."""
        return {
            attribute: self.names[value] if isinstance(value, Name) else value
            for attribute, value in values.items()
        }

    def reachable(self, names: Iterable[Name]) -> set[Name]:
        """Return the names, and those of the objects that their objects hold."""
        found = set(names)
        waiting = [self.names[name] for name in found if name in self.names]
        held: dict[int, models.Model] = {}
        while waiting:
            instance = waiting.pop()
            if id(instance) not in held:
                held[id(instance)] = instance
                cached = instance._state.fields_cache.values()  # type: ignore[attr-defined]
                waiting.extend(other for other in cached if isinstance(other, models.Model))
        return found | {name for name, instance in self.names.items() if id(instance) in held}

    # --- transactions

    @contextmanager
    def unit_of_work(self) -> Iterator[None]:
        with ExitStack() as stack:
            for alias in self.program.beside:
                stack.enter_context(transaction.atomic(alias))
            stack.enter_context(self.unit(self.program.using))
            yield

    def set_rollback(self) -> None:
        for alias in self.aliases:
            transaction.set_rollback(True, alias)

    # --- lines

    def execute(self, lines: Iterable[Line]) -> None:
        for line in lines:
            self.step(line)

    def step(self, line: Line) -> None:
        if not line.needs() <= self.names.keys():
            self.here.append(f"{type(line).__name__} passed over")
            return
        try:
            value = line.run(self)
        except ANSWERS as error:
            words = getattr(error, "message_dict", None)
            self.here.append((type(line).__name__, type(error).__name__, words))
        else:
            self.here.append((type(line).__name__, value))

    @contextmanager
    def block(self, line: Atomic) -> Iterator[Block]:
        """Log what happens in a block by itself; stop its error if the line says so.

        After a rollback the names that the block mentions stand for nothing: what the objects
        hold by then is nothing to go by, as Django's documentation says. So with the receivers
        that it switched, as an error that comes later lets more lines run.
        """
        block = Block(line.how)
        doomed = self.reachable(names_in(line))
        reactions = set(self.reactions)
        around = self.here
        around.append(block)
        self.here = block.entries
        try:
            yield block
        except EXPECTED as error:
            block.error = type(error).__name__
            block.is_database_error = isinstance(error, Error)
            block.is_rolled_back = True
            self.drop(doomed)
            self.reactions = reactions
            if not line.catches or line.how == "joined":
                raise
        else:
            if line.ending == "rollback":
                block.is_rolled_back = True
                self.drop(doomed)
                self.reactions = reactions
        finally:
            self.here = around

    def on_commit(self, line: OnCommit) -> None:
        transaction.on_commit(Callback(self, line))

    # --- receivers

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note every signal."""
        receivers: dict[Any, Callable[..., None]] = {
            pre_save: self.on_pre_save,
            post_save: self.on_post_save,
            pre_delete: self.on_pre_delete,
            post_delete: self.on_post_delete,
            m2m_changed: self.on_m2m_changed,
        }
        for signal, receiver in receivers.items():
            signal.connect(receiver, weak=False)
        try:
            yield
        finally:
            for signal, receiver in receivers.items():
                signal.disconnect(receiver)

    def note(self, signal: str, sender: Any, instance: Any, *details: Any) -> None:
        self.here.append((signal, sender._meta.label, natural_name(instance), *details))
        self.react(signal, sender, instance)

    def react(self, signal: str, sender: Any, instance: Any) -> None:
        if self.is_reacting:
            return
        self.is_reacting = True
        try:
            for name, function in REACTIONS.get(signal, {}).items():
                if name in self.reactions:
                    self.here.append((name, function(self, sender, instance)))
        finally:
            self.is_reacting = False

    def on_pre_save(
        self, sender: Any, instance: Any, raw: bool, using: str, update_fields: Any, **kwargs: Any
    ) -> None:
        names = None if update_fields is None else sorted(update_fields)
        state = instance._state
        self.note("pre_save", sender, instance, raw, using, names, state.adding, state.db)

    def on_post_save(
        self,
        sender: Any,
        instance: Any,
        created: bool,
        raw: bool,
        using: str,
        update_fields: Any,
        **kwargs: Any,
    ) -> None:
        names = None if update_fields is None else sorted(update_fields)
        state = instance._state
        self.note("post_save", sender, instance, created, raw, using, names, state.adding, state.db)

    def on_pre_delete(
        self, sender: Any, instance: Any, using: str, origin: Any, **kwargs: Any
    ) -> None:
        self.note("pre_delete", sender, instance, using, type(origin).__name__)

    def on_post_delete(
        self, sender: Any, instance: Any, using: str, origin: Any, **kwargs: Any
    ) -> None:
        self.note("post_delete", sender, instance, using, type(origin).__name__)

    def on_m2m_changed(
        self,
        sender: Any,
        instance: Any,
        action: str,
        reverse: bool,
        model: type[models.Model],
        pk_set: set[Any] | None,
        using: str,
        **kwargs: Any,
    ) -> None:
        keys = None if pk_set is None else normal_keys(model, pk_set)
        label = model._meta.label
        self.note("m2m_changed", sender, instance, action, reverse, label, keys, using)


def run(program: Program, unit: Opener) -> Outcome:
    """Run a program in a unit of work, in tables that are empty."""
    machine = Machine(program, unit)
    root = Atomic(program.lines, ending=program.ending)
    with machine.watching():
        with machine.block(root) as block, machine.unit_of_work():
            machine.execute(program.lines)
            if program.ending == "raise":
                raise Stop
            if program.ending == "rollback":
                machine.set_rollback()
        objects = [(name, seen(machine[name])) for name in sorted(machine.names)]
        callbacks = [entry[1] for entry in connection.run_on_commit]
    left = sum(isinstance(callback, Callback) for callback in callbacks)
    return Outcome(block, objects, stored(), left)


def stored() -> dict[str, list[Any]]:
    """Read the tables that hold anything, in the order of their keys."""
    found = {}
    for alias in ALIASES:
        for model in filled(alias):
            fields = list(model._meta.local_concrete_fields)
            order = ["pk"]
            if model is Membership or model._meta.auto_created:
                # Django adds many at once in the order of a set.
                order = [field.attname for field in fields if field.is_relation]
                fields = [field for field in fields if not field.primary_key]
            found[f"{alias} {model._meta.label}"] = [
                [(field.attname, normal(field, row[field.attname], row)) for field in fields]
                for row in model._base_manager.using(alias)
                .order_by(*order)
                .values(*(field.attname for field in fields))
            ]
    return found


def filled(alias: str) -> list[type[models.Model]]:
    """List the models whose tables hold rows, by one question."""
    candidates = tables(alias)
    quote = connections[alias].ops.quote_name
    with connections[alias].cursor() as cursor:
        cursor.execute(
            "SELECT "
            + ", ".join(
                f"EXISTS (SELECT 1 FROM {quote(model._meta.db_table)})" for model in candidates
            )
        )
        return [model for model, holds in zip(candidates, cursor.fetchone(), strict=True) if holds]
