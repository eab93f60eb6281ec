"""What a run can be: every way from one state to another has its reason."""

from __future__ import annotations

import itertools

import pytest

from carpool.journal.states import EDGES, State, check_edge


@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: f"{edge[0]} to {edge[1]}")
def test_every_edge_has_a_reason(edge: tuple[State, State]) -> None:
    """The reason is in words, and the edge is allowed."""
    assert len(EDGES[edge].split()) >= 1
    assert EDGES[edge].strip() == EDGES[edge] != ""
    check_edge(*edge)


@pytest.mark.parametrize(
    ("before", "after"),
    [edge for edge in itertools.product(State, State) if edge not in EDGES],
    ids=str,
)
def test_any_other_change_is_refused(before: State, after: State) -> None:
    """A change that nobody has given a reason for names both states."""
    with pytest.raises(ValueError, match=rf"{before} can't become {after}"):
        check_edge(before, after)


def test_every_end_can_be_taken_up_again() -> None:
    """Whatever a run has come to, a call of the same name runs it again."""
    for state in State:
        if state is not State.RUNNING:
            check_edge(state, State.RUNNING)


def test_every_state_can_be_reached() -> None:
    """There is a way from new to each of them."""
    reached = {State.NEW}
    for _ in State:
        reached |= {after for before, after in EDGES if before in reached}
    assert reached == set(State)
