"""The request rate of a process: even, lower when the service asks, and rising again by itself."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs
from support.virtual_time import VirtualTimeLoop

from pipeline.observability import Metrics
from pipeline.outbound import Grant, Pace


class Sender:
    """Requests that are sent whenever the pace allows one, on a clock of its own."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.sent: list[float] = []

    async def run(self, seconds: float, *, workers: int = 4) -> int:
        """Send for so long; return how many were sent."""
        before = len(self.sent)
        tasks = [asyncio.create_task(self._send()) for _ in range(workers)]
        await asyncio.sleep(seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return len(self.sent) - before

    async def _send(self) -> None:
        while True:
            await self.pace.turn()
            self.sent.append(asyncio.get_running_loop().time())
            await asyncio.sleep(0.001)


def sender(limit: float | None = None, *, shared: bool = False, metrics: Metrics | None = None) -> Sender:
    """Return a sender on the clock of the running loop."""
    clock = asyncio.get_running_loop().time
    return Sender(Pace(limit, shared=shared, integration="acme", metrics=metrics, clock=clock))


@pytest.fixture
def jumping() -> asyncio.Runner:
    """Return a runner whose clock jumps."""
    return asyncio.Runner(loop_factory=VirtualTimeLoop)


def test_requests_are_spread_evenly(jumping: asyncio.Runner) -> None:
    """No second has more than the limit, but for a burst of a tenth at the start."""

    async def scenario() -> None:
        one = sender(100)
        assert await one.run(10) == pytest.approx(1000, abs=12)
        for second in range(1, 10):
            assert 98 <= sum(second <= at < second + 1 for at in one.sent) <= 102

    with jumping as runner:
        runner.run(scenario())


def test_a_slow_rate_is_kept_too(jumping: asyncio.Runner) -> None:
    async def scenario() -> None:
        assert await sender(0.5).run(9.9) == 5

    with jumping as runner:
        runner.run(scenario())


def test_the_rate_falls_once_a_second_and_rises_by_itself(jumping: asyncio.Runner) -> None:
    async def scenario() -> None:
        metrics = Metrics()
        one = sender(100, metrics=metrics)
        await one.run(2)
        with capture_logs() as logs:
            for _ in range(50):
                one.pace.slow_down()  # the answers to what was under way
            assert await one.run(1) == pytest.approx(72, abs=4)
            assert await one.run(4) == pytest.approx(340, abs=10)
            assert await one.run(10) == pytest.approx(995, abs=10)
        assert [line["event"] for line in logs] == ["card_rate_lowered", "card_rate_restored"]
        level = metrics.registry.get_sample_value("pipeline_card_rate_level", {"integration": "acme"})
        assert level == 1.0

    with jumping as runner:
        runner.run(scenario())


def test_the_rate_never_falls_to_nothing(jumping: asyncio.Runner) -> None:
    """Otherwise the process could not find out that the service works again."""

    async def scenario() -> None:
        one = sender(1000)
        for _ in range(60):
            one.pace.slow_down()
            await one.run(1.01, workers=1)
        one.pace.slow_down()
        assert await one.run(1) >= 10

    with jumping as runner:
        runner.run(scenario())


def test_a_pause_that_the_service_asks_for_applies_to_all_requests(jumping: asyncio.Runner) -> None:
    async def scenario() -> None:
        one = sender(100)
        await one.run(1)
        begin = asyncio.get_running_loop().time()
        one.pace.slow_down(5.0)
        assert await one.run(4.9) == 0
        assert await one.run(1.1) > 50
        assert one.sent[-1] > begin + 5

    with jumping as runner:
        runner.run(scenario())


def test_without_a_limit_nothing_waits_until_the_service_asks(jumping: asyncio.Runner) -> None:
    """Then 70 % of the last second's rate applies, and it grows until it bounds nothing any more."""

    async def scenario() -> None:
        one = sender()
        assert (one.pace.limited, one.pace.limit) == (False, None)
        for _ in range(4):
            await one.run(0.5, workers=1)
            one.pace.sample()
        free = await one.run(1, workers=1)
        one.pace.sample()
        one.pace.slow_down()
        assert (one.pace.limited, one.pace.limit) == (True, None)
        assert await one.run(1, workers=1) == pytest.approx(0.72 * free, rel=0.1)
        for _ in range(40):
            await one.run(1, workers=1)
        assert (one.pace.limited, one.pace.limit) == (False, None)
        assert await one.run(1, workers=1) == pytest.approx(free, rel=0.1)

    with jumping as runner:
        runner.run(scenario())


def test_a_shared_pace_sends_what_it_is_granted(jumping: asyncio.Runner) -> None:
    """Nothing before the first grant, nothing after the last one."""

    async def scenario() -> None:
        one = sender(100, shared=True)
        now = asyncio.get_running_loop().time()
        assert await one.run(1) == 0
        assert one.pace.demand.is_set()
        one.pace.grant(Grant(now + 2, now + 4, 0.5))
        one.pace.grant(Grant(now + 4, now + 6, 1.0))
        assert await one.run(1) == 0
        assert await one.run(2) == pytest.approx(100, abs=4)
        assert await one.run(2) == pytest.approx(200, abs=8)
        assert await one.run(2) <= 1
        assert one.pace.hungry

    with jumping as runner:
        runner.run(scenario())


def test_the_first_request_of_a_share_waits_for_its_turn_among_the_others(jumping: asyncio.Runner) -> None:
    """Also beyond the end of the grant; and a grant that follows another one does not let it wait once more."""

    async def scenario() -> None:
        one = sender(1, shared=True)
        for begin in (0.0, 4.0, 8.0):
            one.pace.grant(Grant(begin, begin + 4, 0.1, phase=0.5))
        await one.run(11.9)
        assert one.sent == [pytest.approx(5.0, abs=0.1)]

    with jumping as runner:
        runner.run(scenario())


def test_who_asks_first_goes_first(jumping: asyncio.Runner) -> None:
    async def scenario() -> None:
        pace = sender(10).pace
        order: list[int] = []

        async def take(number: int) -> None:
            await pace.turn()
            order.append(number)

        await asyncio.gather(*(take(number) for number in range(20)))
        assert order == list(range(20))

    with jumping as runner:
        runner.run(scenario())
