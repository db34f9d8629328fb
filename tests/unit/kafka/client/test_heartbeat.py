from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, SyncGroupRequest

from pipeline.errors import FatalError
from pipeline.kafka.client.group import Pulse

HEARTBEAT = HeartbeatRequest("group", 1, "me")
SYNC = SyncGroupRequest("group", 1, "me", None, [])
JOIN = JoinGroupRequest("group", 10, 10, "me", None, "consumer", [])


class Coordinator:
    def __init__(self) -> None:
        self.member_id, self.generation = "me", 1
        self.error_code = 0
        self.now = 100.0

    async def _send_req(self, _request: Any) -> Any:
        self.now += 2.0  # an answer takes time
        return SimpleNamespace(error_code=self.error_code)


@pytest.fixture
def coordinator() -> Coordinator:
    return Coordinator()


@pytest.fixture
def pulse(coordinator: Coordinator) -> Pulse:
    made = Pulse(lambda: coordinator.now)
    made.attach(coordinator)
    return made


async def test_a_heartbeat_counts_from_when_it_was_sent(coordinator: Coordinator, pulse: Pulse) -> None:
    assert pulse.age == float("inf")
    await coordinator._send_req(HEARTBEAT)
    assert pulse.age == 2.0
    coordinator.now += 5.0
    assert pulse.age == 7.0


@pytest.mark.parametrize(
    ("request_", "error_code", "counts"),
    [
        (HEARTBEAT, 0, True),
        (HEARTBEAT, 27, True),  # a rebalance is under way: the session goes on
        (HEARTBEAT, 25, False),  # unknown member
        (HEARTBEAT, 22, False),  # illegal generation
        (SYNC, 0, True),
        (SYNC, 27, False),
        (JOIN, 0, False),  # may have waited long for others
    ],
)
async def test_only_answers_to_a_member_count(
    coordinator: Coordinator,
    pulse: Pulse,
    request_: object,
    error_code: int,
    counts: bool,  # noqa: FBT001 - a parameter
) -> None:
    coordinator.error_code = error_code
    await coordinator._send_req(request_)
    assert (pulse.age == 2.0) is counts


def test_a_member_that_was_forgotten_has_no_membership(coordinator: Coordinator, pulse: Pulse) -> None:
    before = pulse.membership
    coordinator.member_id, coordinator.generation = "", -1
    assert (before, pulse.membership) == (("me", 1), None)
    assert Pulse().membership is None


def test_another_aiokafka_is_refused_by_name() -> None:
    with pytest.raises(FatalError, match="_send_req"):
        Pulse().attach(SimpleNamespace(member_id="", generation=1))


def test_aiokafka_still_sends_everything_through_the_one_method() -> None:
    """Fails when an upgrade changes what the pulse relies on."""
    assert {"_send_req", "_do_heartbeat", "reset_generation"} <= set(vars(GroupCoordinator))
    assert "_send_req" in GroupCoordinator._do_heartbeat.__code__.co_names
