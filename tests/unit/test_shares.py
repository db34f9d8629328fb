"""A limit shared between flows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.shares import Shares


def _filled(shares: Shares, *flows: str) -> dict[str, int]:
    """Let each flow in turn take one as long as any may; return what each holds."""
    while any(shares.room(flow) > 0 for flow in flows):
        for flow in flows:
            if shares.room(flow) > 0:
                shares.take(flow)
    return {flow: shares.held(flow) for flow in flows}


def test_one_busy_flow_gets_two_thirds() -> None:
    """The rest stays free, however long the flow goes on asking."""
    shares = Shares(300)
    assert _filled(shares, "busy") == {"busy": 200}
    assert shares.free == 100


def test_two_busy_flows_get_equal_parts_and_a_third_finds_room() -> None:
    """A flow that comes late finds room at once."""
    shares = Shares(500)
    assert _filled(shares, "a", "b") == {"a": 200, "b": 200}
    assert shares.room("c") == 100


@pytest.mark.parametrize(("total", "held"), [(1, 1), (2, 1), (3, 2), (4, 3), (5, 4)])
def test_a_small_limit_leaves_room_for_another_flow(total: int, held: int) -> None:
    """Only a limit of one can be taken whole: the last unit is for a flow that holds nothing."""
    shares = Shares(total)
    assert _filled(shares, "busy") == {"busy": held}
    assert shares.room("other") == total - held


def test_what_is_given_back_is_free_and_not_remembered() -> None:
    """A flow that holds nothing is forgotten."""
    shares = Shares(10)
    shares.take("a", 4)
    shares.give("a", 4)
    assert (shares.free, shares.used, shares.held("a")) == (10, 0, 0)
    assert not shares._held


@given(st.integers(2, 200), st.lists(st.sampled_from("abcd"), max_size=600))
def test_a_flow_that_holds_nothing_finds_room_beside_any_one_other(total: int, wishes: list[str]) -> None:
    """Whatever up to four flows take, the limit holds; one alone never leaves nothing."""
    shares = Shares(total)
    for flow in wishes:
        if shares.room(flow) > 0:
            shares.take(flow)
        assert shares.free >= 0
        assert sum(shares.held(one) for one in "abcd") == shares.used
    holding = [one for one in "abcd" if shares.held(one)]
    if len(holding) <= 1:
        assert shares.room("e") > 0
