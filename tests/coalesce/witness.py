"""Run a situation with and without a block, and compare all that Python can see of it.

A situation is a function that gets a `Witness`, tells it what it sees, and leaves nothing behind:
each run is rolled back. Only the values of generated keys may differ; each is named by when it
turned up first.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.core.files import File
from django.db import connections, models, transaction
from django.db.models.signals import ModelSignal, post_init, post_save, pre_save
from django.test.utils import isolate_apps, override_settings

from carpool.coalescing import coalesce
from tests.app.router import Router

Situation = Callable[["Witness"], None]

BOTH = ("default", "other")


class Witness:
    """What one run has seen, in order."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.stack = ExitStack()
        self._keys: dict[Any, int] = {}

    def __call__(self, *things: Any) -> None:
        """Write down things as they are now; of an instance, all that it consists of."""
        self.seen.extend(self.of(thing) for thing in things)

    def error(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        """Write down what a call raises."""
        try:
            self(("no error", function(*args, **kwargs)))
        except Exception as error:
            self((type(error).__name__, str(error)))

    def signals(self, *signals: ModelSignal) -> None:
        """Write down all that receivers of these signals get, to the end of the run."""
        for signal in signals or (post_init, pre_save, post_save):
            self.receive(signal, self._note(signal))

    def receive(
        self, signal: ModelSignal, receiver: Callable[..., Any], sender: Any = None
    ) -> None:
        """Connect a receiver to the end of the run."""
        signal.connect(receiver, sender=sender, weak=False)
        self.stack.callback(signal.disconnect, receiver, sender=sender)

    def routers(self) -> None:
        """Write down how routers are called."""
        self.stack.enter_context(override_settings(DATABASE_ROUTERS=[_Noting(self)]))

    def patched(self, patch: AbstractContextManager[Any]) -> Any:
        """Keep a patch to the end of the run."""
        return self.stack.enter_context(patch)

    def _note(self, signal: ModelSignal) -> Callable[..., None]:
        def note(**kwargs: Any) -> None:
            self([(name, v) for name, v in kwargs.items() if name != "signal"])

        return note

    def of(self, thing: Any) -> Any:
        """Return a thing as it is compared."""
        if isinstance(thing, models.Model):
            return self._instance(thing)
        if isinstance(thing, list | tuple):
            return [self.of(part) for part in thing]
        if isinstance(thing, dict):
            return [(name, self.of(value)) for name, value in thing.items()]
        if isinstance(thing, File):
            return type(thing).__name__, thing.name
        if hasattr(thing, "resolve_expression"):
            return type(thing).__name__
        return thing

    def _instance(self, obj: models.Model) -> Any:
        fields = {f.attname: f for f in obj._meta.concrete_fields}
        generic = {getattr(f, "fk_field", None) for f in obj._meta.private_fields}
        values = []
        for name in obj.__dict__:
            if name == "_state":
                values.append((name, self._state(obj)))
            elif name in generic:
                values.append((name, type(getattr(obj, name)).__name__))
            elif name in fields and isinstance(_pointed_at(fields[name]), models.AutoField):
                values.append((name, self._key(fields[name], getattr(obj, name))))
            else:
                values.append((name, self.of(obj.__dict__[name])))
        return type(obj).__name__, values

    def _key(self, field: Any, value: Any) -> Any:
        if value is None or hasattr(value, "resolve_expression"):
            return self.of(value)
        known = (_pointed_at(field).model._meta.db_table, value)
        return type(value).__name__, self._keys.setdefault(known, len(self._keys))

    def _state(self, obj: models.Model) -> Any:
        state: Any = obj._state
        related = [(name, type(value).__name__) for name, value in state.fields_cache.items()]
        mode = type(getattr(state, "fetch_mode", None)).__name__  # from Django 6.1 on
        return type(state).__name__, state.adding, state.db, related, mode


def _pointed_at(field: Any) -> Any:
    """Return the field that a foreign key takes its values from, or the field itself."""
    while field.remote_field is not None:
        field = field.target_field
    return field


class _Noting(Router):
    """The test app's router, with a note of each call."""

    def __init__(self, witness: Witness) -> None:
        self.witness = witness

    def db_for_read(self, model: type[models.Model], **hints: Any) -> str | None:
        self.witness("db_for_read", model.__name__, hints)
        return super().db_for_read(model, **hints)

    def db_for_write(self, model: type[models.Model], **hints: Any) -> str | None:
        self.witness("db_for_write", model.__name__, hints)
        return super().db_for_write(model, **hints)

    def allow_relation(self, obj1: Any, obj2: Any, **hints: Any) -> bool | None:
        self.witness("allow_relation", type(obj1).__name__, type(obj2).__name__, hints)
        return super().allow_relation(obj1, obj2, **hints)


def seen_by(situation: Situation, block: AbstractContextManager[Any]) -> list[Any]:
    """Run a situation; return what was seen, with the warnings and the transactions' state."""
    witness = Witness()
    ContentType.objects.clear_cache()
    with (
        isolate_apps(),  # without the test app, whose receivers would be connected anew
        transaction.atomic("default"),
        transaction.atomic("other"),
        warnings.catch_warnings(record=True) as warned,
    ):
        warnings.simplefilter("always")
        with witness.stack:
            try:
                with block:
                    situation(witness)
                    witness([connections[alias].needs_rollback for alias in BOTH])
            finally:
                for alias in BOTH:
                    transaction.set_rollback(True, alias)
    seen = [(w.category.__name__, str(w.message), w.filename, w.lineno) for w in warned]
    return [*witness.seen, *seen]


def assert_same(situation: Situation) -> None:
    """Fail if a block makes a difference that Python can see."""
    plain = seen_by(situation, nullcontext())
    in_block = seen_by(situation, coalesce(BOTH))
    assert plain
    for number, (one, other) in enumerate(zip(plain, in_block, strict=False)):
        assert other == one, f"{number}:\n  plain     {one!r}\n  in a block {other!r}"
    assert len(in_block) == len(plain), (plain, in_block)[len(in_block) > len(plain)][-1]
