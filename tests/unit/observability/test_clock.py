"""The machine's clock compared with those of Kafka and of partners."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from pipeline.errors import TransientError
from pipeline.observability import CheckedClock, ClockWrong, Metrics
from pipeline.observability.clock import KAFKA

NOW = datetime(2026, 1, 21, 12, tzinfo=UTC)


class World:
    """A clock, and the seconds of one that is never set."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.seconds = 1000.0
        self.asked = 0
        self.answer: timedelta | None = None
        self.clock = CheckedClock(lambda: NOW, self.metrics.clock_offset_seconds, monotonic=lambda: self.seconds)

    def compare(self, witness: str, ahead: float) -> None:
        """Let a witness say that the clock is so many seconds ahead of its own."""
        self.clock.compare(witness, NOW - timedelta(seconds=ahead), began=NOW, ended=NOW)

    async def ask(self) -> None:
        self.asked += 1
        if self.answer is not None:
            self.compare(KAFKA, self.answer.total_seconds())

    def offset(self, witness: str) -> float | None:
        return self.metrics.registry.get_sample_value("pipeline_clock_offset_seconds", {"witness": witness})


@pytest.mark.parametrize(
    ("at", "offset"),
    [(0, 0), (2, 0), (5, 0), (-1, 1), (-600, 600), (6, -1), (605, -600)],
)
def test_the_offset_is_the_least_that_explains_the_witness(at: float, offset: float) -> None:
    """Something happened within five seconds of this clock; the witness says when."""
    world = World()
    world.clock.compare(KAFKA, NOW + timedelta(seconds=at), began=NOW, ended=NOW + timedelta(seconds=5))
    assert world.offset(KAFKA) == offset


def test_a_witness_that_cuts_its_times_is_given_that_much() -> None:
    """A Date header has whole seconds."""
    world = World()
    world.clock.compare(
        "a.example",
        NOW,
        began=NOW + timedelta(seconds=0.9),
        ended=NOW + timedelta(seconds=1),
        precision=timedelta(seconds=1),
    )
    assert world.offset("a.example") == 0


@pytest.mark.parametrize(
    ("offsets", "ok", "message"),
    [
        ({}, True, "not compared with others yet"),
        ({KAFKA: 59}, True, "agrees with others"),
        ({KAFKA: 600}, False, "the clock of this machine is 600 s ahead of kafka: set it, e.g. by NTP"),
        ({KAFKA: -61}, False, "the clock of this machine is 61 s behind kafka: set it, e.g. by NTP"),
        ({KAFKA: 0, "a.example": 600}, True, "the clock is 600 s ahead of a.example, but agrees with others"),
        ({KAFKA: 600, "a.example": 0}, True, "the clock is 600 s ahead of kafka, but agrees with others"),
        (
            {KAFKA: 600, "a.example": 599},
            False,
            "the clock of this machine is 599 s ahead of a.example, 600 s ahead of kafka: set it, e.g. by NTP",
        ),
    ],
)
def test_the_clock_is_wrong_if_a_witness_differs_and_none_agrees(
    *,
    offsets: dict[str, float],
    ok: bool,
    message: str,
) -> None:
    world = World()
    for witness, ahead in offsets.items():
        world.compare(witness, ahead)
    health = world.clock.check()
    assert (health.ok, health.message) == (ok, message)


def test_an_old_comparison_says_nothing_and_a_change_is_logged_once() -> None:
    """Somebody may have set the clock."""
    world = World()
    with capture_logs() as logs:
        world.compare(KAFKA, 600)
        world.compare(KAFKA, 601)
        world.compare(KAFKA, 0)
    assert [(line["event"], line["log_level"], line["ok"]) for line in logs] == [
        ("clock_compared", "error", False),
        ("clock_compared", "info", True),
    ]
    world.compare(KAFKA, 600)
    world.seconds += 300
    assert world.clock.check().ok


async def test_a_decision_asks_for_a_comparison_that_is_not_old() -> None:
    world = World()
    world.answer = timedelta(0)
    for _ in range(3):
        await world.clock.ensure(world.ask)
    assert world.asked == 1
    world.seconds += 60
    world.answer = timedelta(seconds=600)
    with pytest.raises(ClockWrong, match="clock_wrong: the clock of this machine is 600 s ahead of kafka") as caught:
        await world.clock.ensure(world.ask)
    assert isinstance(caught.value, TransientError)
    assert world.asked == 2


async def test_a_broker_without_times_is_asked_once_a_minute() -> None:
    """The embedded one, or topics without append times: nothing is known, so the clock is trusted."""
    world = World()
    for _ in range(3):
        await world.clock.ensure(world.ask)
    assert world.asked == 1
