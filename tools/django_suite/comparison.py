"""Compare a plain run with a coalesced one, and with the differences that are allowed.

``tests/django/differences.toml`` lists them, by kind:

``[[queries]]``
    The test counts fewer queries than it expects.
``[[late_error]]``
    The test expects an error at a statement after which nothing follows that would make
    `coalesce()` write its queue: no savepoint, no query of the table, no end of the block.

An entry has a ``reason`` and the ``tests`` that it holds for; ``databases``, if it is not for all;
``since``, Django's first version with these tests, if that is not 5.2; and ``error``, a regular
expression for what the test says, if that is not the kind's usual one.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.django_suite.results import ERROR, FAILED, PASSED, Outcome, Results

DATABASE_ERRORS = "IntegrityError|DataError|DatabaseError|NotUpdated"


def fewer_queries(error: str) -> bool:
    """Whether this is `assertNumQueries` that saw fewer queries than it expected."""
    match = re.match(r"AssertionError: (\d+) != (\d+) : \1 queries executed, \2 expected", error)
    return match is not None and int(match[1]) < int(match[2])


def not_raised(error: str) -> bool:
    """Whether this is `assertRaises` of a database error that had not come yet."""
    return re.match(rf"AssertionError: ({DATABASE_ERRORS}) not raised", error) is not None


#: Tests that assert a time. They pass or fail as they like on a busy machine.
TIMED = frozenset(
    {"serializers.test_deserialization.TestDeserializer.test_crafted_xml_performance"}
)

KINDS: Mapping[str, Callable[[str], bool]] = {
    "queries": fewer_queries,
    "late_error": not_raised,
}


@dataclass(frozen=True)
class Allowed:
    """A difference that the list allows. It says nothing of databases not in ``databases``."""

    test: str
    kind: str
    databases: Sequence[str] | None = None
    error: str | None = None

    def explains(self, error: str) -> bool:
        """Whether this is the error that the entry is about."""
        if self.error is not None:
            return re.search(self.error, error) is not None
        return KINDS[self.kind](error)


@dataclass(frozen=True)
class Difference:
    """A test that passes plain, and how it ends coalesced."""

    test: str
    outcome: Outcome


@dataclass(frozen=True)
class Comparison:
    """What two runs on one database say.

    ``stale``: allowed, though it passes. ``unknown``: allowed, though no such test passes plain.
    ``not_compared``: how many tests fail plain.
    """

    same: int
    allowed: Sequence[Difference]
    wrong: Sequence[Difference]
    stale: Sequence[str]
    unknown: Sequence[str]
    not_compared: int

    @property
    def passed(self) -> int:
        return self.same + len(self.allowed) - len(self.stale)

    @property
    def failed(self) -> int:
        return len(self.wrong) + len(self.stale) + len(self.unknown)

    def __str__(self) -> str:
        first = (
            f"{self.same:,} tests pass in both, {len(self.allowed)} differ as allowed, "
            f"{self.not_compared} can't be compared, since they fail in atomic()"
        )
        lines = [first]
        lines += [f"DIFFERS: {each.test}\n    {each.outcome.error}" for each in self.wrong]
        lines += [f"NO LONGER DIFFERS, though it is listed: {test}" for test in self.stale]
        lines += [f"LISTED, but no test that passes plain: {test}" for test in self.unknown]
        return "\n".join(lines)


def read_allowed(path: Path, django: tuple[int, int]) -> list[Allowed]:
    """Read the list, as far as it is about this version of Django."""
    content = tomllib.loads(path.read_text())
    if unknown := set(content) - set(KINDS):
        raise ValueError(f"{path}: the kinds are {', '.join(KINDS)}, not {', '.join(unknown)}")
    return [
        Allowed(test, kind, entry.get("databases"), entry.get("error"))
        for kind, entries in content.items()
        for entry in entries
        if entry["reason"] and django >= version_of(entry.get("since", "5.2"))
        for test in entry["tests"]
    ]


def version_of(text: str) -> tuple[int, int]:
    """Return "6.0" as (6, 0)."""
    major, minor = text.split(".")
    return int(major), int(minor)


def compare(
    database: str,
    plain: Results,
    coalesced: Results,
    allowed: Sequence[Allowed],
    *,
    complete: bool = True,
) -> Comparison:
    """Compare the tests that pass plain. Unless `complete`, not all that are listed have run."""
    entries = {
        entry.test: entry
        for entry in allowed
        if entry.databases is None or database in entry.databases
    }
    passed = [test for test, outcome in plain.tests.items() if outcome.status == PASSED]
    passed = [test for test in passed if test not in TIMED]
    found = list(differences(passed, coalesced))
    explained = {
        difference
        for difference in found
        if (entry := entries.get(difference.test)) and entry.explains(difference.outcome.error)
    }
    different = {difference.test for difference in found}
    return Comparison(
        same=len(passed) - len(found),
        allowed=[difference for difference in found if difference in explained],
        wrong=[difference for difference in found if difference not in explained],
        stale=[test for test in entries if test in passed and test not in different],
        unknown=[test for test in entries if complete and test not in passed],
        not_compared=sum(outcome.status in {FAILED, ERROR} for outcome in plain.tests.values()),
    )


def differences(passed: Sequence[str], coalesced: Results) -> Iterator[Difference]:
    """Yield which of the tests that pass plain don't pass coalesced."""
    for test in passed:
        other = coalesced.tests.get(test)
        if other is None:
            # unittest names the failure of a class for the class.
            its_class = test.rpartition(".")[0]
            failure = coalesced.tests.get(f"setUpClass ({its_class})")
            other = failure or Outcome("not run")
        if other.status != PASSED:
            yield Difference(test, other)
