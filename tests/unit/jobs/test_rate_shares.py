"""One rate for all workers: shares that add up, follow the demand, and survive what workers and stores do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.virtual_time import VirtualTimeLoop

from pipeline.jobs.rate_shares import PERIOD_SECONDS, RateShares, fair_shares
from pipeline.outbound import Pace
from pipeline.storage import StoreUnavailable
from pipeline.storage.testing import MemoryStore

LIMIT = 100.0
EPOCH = datetime(2026, 11, 30, tzinfo=UTC)


class Store(MemoryStore):
    """Counts the requests for shares, and fails while it is down."""

    def __init__(self) -> None:
        super().__init__()
        self.requests = 0
        self.down = False

    async def create(self, key: str, data: bytes) -> bool:
        self._ask()
        return await super().create(key, data)

    def _ask(self) -> None:
        self.requests += 1
        if self.down:
            raise StoreUnavailable("the store is down")

    async def names(self) -> list[str]:
        """Return the keys of all objects about rates."""
        return [info.key async for info in self.list("rates/")]


class Worker:
    """One process with cards for the service."""

    def __init__(self, fleet: Fleet, *, skew: float = 0.0) -> None:
        loop = asyncio.get_running_loop()
        self.pace = Pace(fleet.limit, shared=True, clock=loop.time)
        self.sent: list[float] = []
        clock = lambda: EPOCH + timedelta(seconds=loop.time() + skew)  # noqa: E731 - one line
        shares = RateShares(fleet.store, {"acme": self.pace}, clock, monotonic=loop.time)
        self._tasks: list[asyncio.Task[None]] = [loop.create_task(shares.run())]

    def send(self, every: float = 0.004) -> None:
        """Begin to send requests, each so many seconds after the last one, or whenever the pace allows one."""
        self._tasks.append(asyncio.get_running_loop().create_task(self._send(every)))

    async def _send(self, every: float) -> None:
        while True:
            await self.pace.turn()
            self.sent.append(asyncio.get_running_loop().time())
            await asyncio.sleep(every)

    async def kill(self, *, all_of_it: bool = True) -> None:
        """End the whole process, or only its cards."""
        doomed = self._tasks if all_of_it else self._tasks[1:]
        for task in doomed:
            task.cancel()
        await asyncio.gather(*doomed, return_exceptions=True)
        del self._tasks[0 if all_of_it else 1 :]


class Fleet:
    """All workers of an integration."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.store = Store()
        self.workers: list[Worker] = []

    def add(self, count: int = 1, *, every: float | None = 0.004, skew: float = 0.0) -> list[Worker]:
        """Start workers, with cards unless ``every`` is None."""
        new = [Worker(self, skew=skew) for _ in range(count)]
        for worker in new:
            if every is not None:
                worker.send(every)
        self.workers += new
        return new

    def rate(self, begin: float, end: float, *workers: Worker) -> float:
        """Return the requests per second of workers, default all, as a share of the limit."""
        sent = sum(begin <= at < end for worker in workers or self.workers for at in worker.sent)
        return sent / (end - begin) / self.limit

    def most(self, begin: float, end: float, window: float = 1.0) -> float:
        """Return the largest share of the limit that all together sent in a window of time."""
        steps = int((end - begin - window) / 0.1)
        return max(self.rate(begin + 0.1 * step, begin + 0.1 * step + window) for step in range(steps))


Scenario = Callable[[Fleet], Awaitable[None]]


def play(scenario: Scenario, limit: float = LIMIT) -> list[dict[str, Any]]:
    """Play a scenario; its time costs nothing. Return what was logged."""

    async def played() -> None:
        fleet = Fleet(limit)
        await scenario(fleet)
        for worker in fleet.workers:
            await worker.kill()

    with capture_logs() as logs, asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(played())
    return [dict(line) for line in logs]


def test_four_busy_workers_share_the_rate() -> None:
    """All together send the limit, never a tenth more in any second, and each the same."""

    async def scenario(fleet: Fleet) -> None:
        fleet.add(4)
        await asyncio.sleep(40)
        assert fleet.rate(12, 40) == pytest.approx(1.0, abs=0.05)
        assert fleet.most(0, 40) <= 1.1
        for worker in fleet.workers:
            assert fleet.rate(12, 40, worker) == pytest.approx(0.25, abs=0.02)

    play(scenario)


def test_a_worker_that_is_alone_with_its_cards_has_the_whole_rate_from_the_start() -> None:
    """Workers without cards take no share."""

    async def scenario(fleet: Fleet) -> None:
        fleet.add(3, every=None)
        await asyncio.sleep(11.3)
        (busy,) = fleet.add()
        await asyncio.sleep(20)
        assert fleet.rate(11.4, 31.3, busy) == pytest.approx(1.0, abs=0.03)

    play(scenario)


def test_workers_that_begin_at_the_same_time_do_not_exceed_the_rate() -> None:
    async def scenario(fleet: Fleet) -> None:
        await asyncio.sleep(2.9)
        fleet.add(6)
        await asyncio.sleep(20)
        assert fleet.most(2.9, 20) <= 1.1
        assert fleet.rate(3, 20) >= 0.9

    play(scenario)


@pytest.mark.parametrize(("limit", "workers"), [(1.0, 10), (5.0, 40), (100.0, 40)])
def test_many_workers_do_not_send_all_at_once(limit: float, workers: int) -> None:
    """Not even their first requests, where each has less than one a second."""

    async def scenario(fleet: Fleet) -> None:
        await asyncio.sleep(2.9)
        fleet.add(workers)
        await asyncio.sleep(50)
        assert fleet.most(0, 50) * limit <= limit + 2
        assert fleet.most(0, 50, window=10) * limit * 10 <= limit * 10 + 2
        assert fleet.rate(5, 50) >= 0.95
        assert all(worker.sent for worker in fleet.workers)

    play(scenario, limit)


@pytest.mark.parametrize("skew", [-0.1, 0.1])
def test_a_worker_joins_and_another_is_killed(skew: float) -> None:
    """Within two periods the shares are right again; meanwhile the rate is not exceeded."""

    async def scenario(fleet: Fleet) -> None:
        first, _ = fleet.add(2)
        await asyncio.sleep(20)
        (joined,) = fleet.add(skew=skew)
        await asyncio.sleep(20)
        assert fleet.rate(20 + 2 * PERIOD_SECONDS, 40, joined) == pytest.approx(1 / 3, abs=0.03)
        await first.kill()
        await asyncio.sleep(20)
        assert fleet.rate(40 + 2 * PERIOD_SECONDS, 60) == pytest.approx(1.0, abs=0.05)
        assert fleet.most(0, 60) <= 1.1

    play(scenario)


def test_a_worker_with_few_cards_takes_little_of_the_rate() -> None:
    async def scenario(fleet: Fleet) -> None:
        fleet.add()
        (few,) = fleet.add(every=0.2)
        await asyncio.sleep(60)
        assert fleet.rate(20, 60) >= 0.93
        assert fleet.rate(20, 60, few) == pytest.approx(5 / LIMIT, abs=0.01)
        assert fleet.most(0, 60) <= 1.1

    play(scenario)


def test_the_division_costs_few_requests_and_leaves_nothing_behind() -> None:
    async def scenario(fleet: Fleet) -> None:
        (busy,) = fleet.add()
        await asyncio.sleep(200)
        assert fleet.store.requests <= 200 / PERIOD_SECONDS + 3
        assert len(await fleet.store.names()) <= 20
        await busy.kill(all_of_it=False)
        await asyncio.sleep(5 * PERIOD_SECONDS)
        asked = fleet.store.requests
        assert await fleet.store.names() == []
        await asyncio.sleep(100)
        assert fleet.store.requests == asked

    play(scenario)


def test_what_killed_workers_left_is_deleted() -> None:
    async def scenario(fleet: Fleet) -> None:
        (busy,) = fleet.add()
        await asyncio.sleep(20)
        await busy.kill()
        left = set(await fleet.store.names())
        assert left
        await asyncio.sleep(600)
        fleet.add()
        await asyncio.sleep(1)
        assert left.isdisjoint(await fleet.store.names())

    play(scenario)


def test_without_the_store_nothing_is_sent_beyond_what_was_granted() -> None:
    """Sending continues by itself when the store is back."""

    async def scenario(fleet: Fleet) -> None:
        fleet.add(2)
        await asyncio.sleep(20)
        fleet.store.down = True
        await asyncio.sleep(40)
        assert fleet.rate(20 + 2 * PERIOD_SECONDS, 60) == 0
        fleet.store.down = False
        await asyncio.sleep(20)
        assert fleet.rate(60 + 2 * PERIOD_SECONDS, 80) == pytest.approx(1.0, abs=0.05)
        assert fleet.most(0, 80) <= 1.1

    play(scenario)


def test_an_outage_of_the_store_is_logged_once_and_counted() -> None:
    """It asks four times a second; a log line for each try would fill the log."""

    async def scenario(fleet: Fleet) -> None:
        fleet.add()
        await asyncio.sleep(20)
        fleet.store.down = True
        await asyncio.sleep(40)
        asked = fleet.store.requests
        fleet.store.down = False
        await asyncio.sleep(20)
        assert asked > 100

    lines = [line for line in play(scenario) if line["event"].startswith("rate_share_")]
    assert [line["event"] for line in lines] == ["rate_share_unavailable", "rate_share_restored"]
    assert lines[1]["failures"] > 100


@pytest.mark.parametrize(
    ("wishes", "shares"),
    [
        ({"a": 1000}, {"a": 1.0}),
        ({"a": 1000, "b": 1000}, {"a": 0.5, "b": 0.5}),
        ({"a": 1000, "b": 200}, {"a": 0.8, "b": 0.2}),
        ({"a": 100, "b": 300}, {"a": 0.4, "b": 0.6}),
        ({"a": 1000, "b": 1000, "c": 100}, {"a": 0.45, "b": 0.45, "c": 0.1}),
        ({}, {}),
    ],
)
def test_the_rate_is_divided_by_wishes(wishes: dict[str, int], shares: dict[str, float]) -> None:
    """The shares always add up to the whole rate."""
    assert fair_shares(wishes) == pytest.approx(shares)
