"""The item functions with the items to run them on: what the contract is held to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db import connection

from tests.app.functions import committing, crossing, finding, relating, saving
from tests.app.models import Tag
from tests.app.receivers import Recorded
from tests.snapshot import empty_tables

Item = dict[str, Any]

#: What goes wrong with an item, by its number: at the function after and before its writes, at a
#: statement, and at COMMIT.
BAD = {1: "raise", 2: "unique", 3: "early raise", 5: "foreign key"}


@dataclass(frozen=True)
class Case:
    """A function, and how its items are made.

    ``repeatable``: a rollback undoes all that the function does, so that nothing is left behind
    when it runs again for an item whose neighbour failed.
    ``late``: meets an error of the database that, coalesced, comes after the signals that, in a
    loop, would never have been sent.
    ``alone``: items depend on the ones before, so only one worker can do what a loop does.
    """

    function: Callable[[Any], Any]
    repeatable: bool = True
    alone: bool = False
    late: bool = False
    objections: tuple[str, ...] = ()
    features: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.function.__name__

    def items(self, prefix: str, bad: dict[int, str] = BAD, number: int = 7) -> Iterator[Item]:
        for n in range(number):
            item: Item = {"key": f"{prefix}{n:02}", "n": n}
            if self.repeatable and n in bad:
                item["bad"] = bad[n]
            if self.objections:
                item["objection"] = self.objections[n % len(self.objections)]
            yield item

    def is_possible(self) -> bool:
        return all(getattr(connection.features, feature) for feature in self.features)


CASES = [
    Case(saving.create_account),
    Case(saving.stamp),
    Case(saving.store_file, repeatable=False),
    Case(saving.save_uuid),
    Case(saving.save_natural),
    Case(saving.save_composite),
    Case(saving.save_converted),
    Case(saving.save_db_default),
    Case(saving.save_generated, features=("supports_stored_generated_columns",)),
    Case(saving.save_parents_late),
    Case(saving.save_inherited),
    Case(saving.save_child_of_saved_parent),
    Case(saving.save_diamond),
    Case(saving.save_proxy),
    Case(saving.save_hidden),
    Case(saving.save_selected),
    Case(saving.save_types),
    Case(saving.save_twice),
    Case(saving.save_deferred),
    Case(saving.save_copy),
    Case(saving.save_by_another_model),
    Case(saving.create_in_bulk),
    Case(saving.pop_everything),
    Case(relating.tag_books),
    Case(relating.tag_from_the_other_side),
    Case(relating.join_clubs),
    Case(relating.befriend),
    Case(relating.remark),
    Case(relating.order_lessons),
    Case(relating.number_receipts),
    Case(relating.number_shared_receipts, alone=True),
    Case(relating.make_receivers_react),
    Case(relating.object_to, objections=("", "pre_save", "", "post_save", "")),
    Case(relating.update_shared_parent),
    Case(relating.share_tags, alone=True),
    Case(finding.get_or_create),
    Case(finding.update_or_create),
    Case(finding.catch_within_savepoint, late=True),
    Case(finding.nest),
    Case(finding.delete_rows),
    Case(finding.save_deleted),
    Case(finding.read_by_cursor),
    Case(finding.iterate_while_writing),
    Case(finding.swap_slots, features=("supports_deferrable_unique_constraints",)),
    Case(committing.write_on_commit),
    Case(committing.delete_on_commit),
    Case(committing.commit_within_savepoints),
    Case(committing.raise_robustly_on_commit),
    Case(crossing.write_to_both, repeatable=False),
    Case(crossing.write_with_using, repeatable=False),
    Case(crossing.write_to_other, repeatable=False),
]
FUNCTIONS = {case.name: case.function for case in CASES}


def wrong(items: Iterable[Item]) -> set[int]:
    """Tell the indexes of the items that are to fail."""
    return {index for index, item in enumerate(items) if item.get("bad") or item.get("objection")}


def start_afresh() -> None:
    """Empty the tables, and make the rows that some functions expect."""
    empty_tables()
    Tag.objects.bulk_create(Tag(word=f"shared-{n}") for n in range(3))


def all_items() -> list[Item]:
    """Mix the items of the cases that many workers may share, about one in five of them bad."""
    possible = [c for c in CASES if c.is_possible() and c.repeatable and not c.alone and not c.late]
    kinds = list(BAD.values())
    columns = [
        [
            item | {"case": case.name}
            for item in case.items(f"k{n:02}-", {n % 5: kinds[n % len(kinds)]}, 4)
        ]
        for n, case in enumerate(possible)
    ]
    return [item for row in zip(*columns, strict=True) for item in row]


def run_named(item: Item) -> Any:
    """Run the function that the item names."""
    return FUNCTIONS[item["case"]](item)


recorded_run_named = Recorded(run_named)
