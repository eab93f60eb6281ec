"""Compare two runs of a program, one with each statement sent at once.

What may differ is said here, and nowhere else:

- the values of generated keys. The two runs' keys are paired as they turn up, one to one; what a
  block makes and rolls back is forgotten at its end, since a database may give such a key again;
- when a database error is raised. It may come later, by the end of the innermost savepoint around
  it. What the plain run saw before its error the other must have seen too; what came after, in
  the lines between the cause and the error, is undone in any case. There another error may come
  first, of the program's own or for another row; or none, if the program has rolled back the block
  by then without one.
"""

from __future__ import annotations

from typing import Any

from tests.coalesce.machine import Block, Outcome
from tests.coalesce.values import Key

#: What a bad row is refused with; the last, if the program has stopped the error itself.
REFUSALS = {"IntegrityError", "DataError", "TransactionManagementError"}


class Difference(AssertionError):
    """The two runs are not the same."""


class Pairs:
    """Which key of the one run is which key of the other."""

    def __init__(self) -> None:
        self.there: dict[Key, Key] = {}
        self.back: dict[Key, Key] = {}

    def copy(self) -> Pairs:
        other = Pairs()
        other.there, other.back = dict(self.there), dict(self.back)
        return other

    def are_same(self, key: Key, other: Key) -> bool:
        if key.table != other.table or type(key.value) is not type(other.value):
            return False
        if key.value is None:
            return True
        return (
            self.there.setdefault(key, other) == other and self.back.setdefault(other, key) == key
        )


class Comparison:
    def __init__(self) -> None:
        self.pairs = Pairs()

    def same(self, where: str, plain: Any, other: Any) -> None:
        """Raise `Difference` unless two values are the same."""
        if isinstance(plain, Block) and isinstance(other, Block):
            self.same_block(where, plain, other)
        elif isinstance(plain, Key) and isinstance(other, Key):
            if not self.pairs.are_same(plain, other):
                paired = self.pairs.there.get(plain), self.pairs.back.get(other)
                raise Difference(
                    f"{where}: the key {plain!r} has become {other!r}, but had been paired with"
                    f" {paired[0]!r} (and the other with {paired[1]!r})"
                )
        elif isinstance(plain, tuple | list) and type(plain) is type(other):
            if len(plain) != len(other):
                raise Difference(f"{where}:\n  plain     {plain!r}\n  coalesced {other!r}")
            for position, (one, two) in enumerate(zip(plain, other, strict=True)):
                self.same(f"{where}[{position}]", one, two)
        elif type(plain) is not type(other) or plain != other:
            raise Difference(f"{where}:\n  plain     {plain!r}\n  coalesced {other!r}")

    def same_entries(self, where: str, plain: list[Any], other: list[Any]) -> None:
        for position, (one, two) in enumerate(zip(plain, other, strict=False)):
            try:
                self.same(f"{where}[{position}]", one, two)
            except Difference as difference:
                if isinstance(one, Block):
                    raise
                raise Difference(
                    f"{difference}\n  in plain     {one!r}\n  in coalesced {two!r}"
                ) from None
        if len(other) < len(plain):
            raise Difference(f"{where}: only the plain run saw {plain[len(other)]!r}")

    def same_block(self, where: str, plain: Block, other: Block) -> None:
        before = self.pairs.copy()
        where = f"{where}.{plain.how}" if where else plain.how
        self.same_entries(where, plain.entries, other.entries)
        if plain.is_database_error:
            self.same_refusal(where, plain, other)
        elif plain.error != other.error:
            raise Difference(
                f"{where} ended in {plain.error or 'nothing'}, coalesced {other.error or 'nothing'}"
            )
        elif len(other.entries) > len(plain.entries):
            extra = other.entries[len(plain.entries)]
            raise Difference(f"{where}: only the coalesced run saw {extra!r}")
        if plain.is_rolled_back:
            self.pairs = before

    def same_refusal(self, where: str, plain: Block, other: Block) -> None:
        if plain.how == "joined":
            return  # It has no savepoint: the block around it gets the error.
        if not other.is_rolled_back:
            raise Difference(f"{where} ended in {plain.error}, coalesced in nothing")
        if other.is_database_error and other.error not in REFUSALS | {plain.error}:
            raise Difference(f"{where} ended in {plain.error}, coalesced in {other.error}")


def compare(plain: Outcome, other: Outcome) -> None:
    """Raise `Difference` unless two runs are the same."""
    comparison = Comparison()
    comparison.same("", plain.root, other.root)
    if not plain.root.error:
        comparison.same("objects", plain.objects, other.objects)
    comparison.same("tables", sorted(plain.rows), sorted(other.rows))
    for table, rows in plain.rows.items():
        comparison.same_entries(table, rows, other.rows[table])
        comparison.same(f"rows of {table}", len(rows), len(other.rows[table]))
    comparison.same("callbacks", plain.callbacks_left, other.callbacks_left)
