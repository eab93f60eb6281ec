"""How many items share a savepoint, by how the last ones went."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from carpool.grouping import CHECKED_CHUNKS, LARGE_GROUP, PASSES, SMALL_GROUP, Grouping


def pass_groups(grouping: Grouping, number: int, left: int = 10**6) -> None:
    for _ in range(number):
        grouping.group_passed(grouping.size(left))


def test_the_whole_chunk_is_one_group_until_something_fails() -> None:
    """A clean run pays for one savepoint a chunk."""
    grouping = Grouping()
    pass_groups(grouping, 100)
    assert grouping.size(5000) == 5000


def test_after_a_failure_groups_are_small() -> None:
    """One failure makes the next groups small, at once."""
    grouping = Grouping()
    grouping.group_failed()
    assert grouping.size(5000) == SMALL_GROUP


def test_groups_grow_back_to_the_whole_chunk() -> None:
    """Each streak of passes doubles the size, until the chunk is one group again."""
    grouping = Grouping()
    grouping.group_failed()
    sizes = []
    while grouping.size(5000) < 5000:
        sizes.append(grouping.size(5000))
        pass_groups(grouping, PASSES)
    assert sizes[:3] == [SMALL_GROUP, SMALL_GROUP * 2, SMALL_GROUP * 4]
    assert sizes[-1] < LARGE_GROUP


def test_a_failure_begins_the_streak_anew() -> None:
    """Seven passes, a failure and seven passes are no streak of eight."""
    grouping = Grouping()
    grouping.group_failed()
    pass_groups(grouping, PASSES - 1)
    grouping.group_failed()
    pass_groups(grouping, PASSES - 1)
    assert grouping.size(5000) == SMALL_GROUP


def test_a_group_that_was_not_full_proves_nothing() -> None:
    """Many tiny chunks don't make the groups longer."""
    grouping = Grouping()
    grouping.group_failed()
    for _ in range(100):
        grouping.group_passed(SMALL_GROUP - 1)
    assert grouping.size(5000) == SMALL_GROUP


@given(st.lists(st.booleans(), max_size=200), st.integers(1, 3000))
def test_a_group_holds_at_least_one_item_and_no_more_than_are_left(
    passed: list[bool], left: int
) -> None:
    """Whatever happened before, a group has 1 to `left` items."""
    grouping = Grouping()
    for good in passed:
        size = grouping.size(left)
        assert 1 <= size <= left
        grouping.group_passed(size) if good else grouping.group_failed()


def test_a_refused_commit_turns_early_checks_on_for_a_while() -> None:
    """After a refusal the chunk is run again with checks, and so are the next ones, then none."""
    grouping = Grouping()
    assert not grouping.checks_early
    assert grouping.commit_refused(can_check=True)
    for _ in range(CHECKED_CHUNKS):
        assert grouping.checks_early
        grouping.chunk_passed()
    assert not grouping.checks_early


def test_a_commit_refused_in_spite_of_checks_is_not_tried_again() -> None:
    """Where the checks miss it, the chunk is given back to be split, not run for ever."""
    grouping = Grouping()
    grouping.commit_refused(can_check=True)
    assert not grouping.commit_refused(can_check=True)


def test_a_database_that_cannot_check_is_not_asked() -> None:
    """Where there is no early check, a refused chunk is given back at once."""
    grouping = Grouping()
    assert not grouping.commit_refused(can_check=False)
    assert not grouping.checks_early
