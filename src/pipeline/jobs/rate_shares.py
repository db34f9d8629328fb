"""Divides the rate of a card service among the workers that have cards for it (docs/decisions/0021-one-rate.md)."""

from __future__ import annotations

import asyncio
import math
import re
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NoReturn

import structlog

from pipeline.outbound import Grant, Pace
from pipeline.storage import ObjectStore, StoreUnavailable

log = structlog.get_logger(__name__)

PERIOD_SECONDS: Final = 4.0
"""Shares are valid for one period. A longer period needs fewer requests to the store, but a new worker waits longer."""
_ASK_BEFORE: Final = 1.0
"""A wish for a period must be stored this long before the period begins, so that every worker reads it in time."""
_LOOK_BEFORE: Final = 0.5
"""Workers read the wishes this long before the period begins. Clocks may differ by the time in between."""
_AHEAD: Final = 1.0
"""A worker begins to store its wish this long before the wish must be stored."""
_HEADROOM: Final = 1.25
"""A worker wishes for its recent rate times this factor."""
_LEAST: Final = 20
"""Minimum wish of a worker, in thousandths of the limit."""
_ALL: Final = 1000
_IDLE_PERIODS: Final = 2
"""After this many periods without a card, a worker has no more wishes."""
_DELETE_EVERY: Final = 16
"""Number of objects deleted with one request."""
_STALE_PERIODS: Final = 100
"""An object older than this many periods was left by a killed worker."""
_RETRY_SECONDS: Final = 0.25
"""Pause after a failure of the store."""

_WISH: Final = re.compile(r"rates/[^/]+/(?P<period>\d{12})/(?P<worker>[0-9a-f]{16})\.(?P<wish>\d{4})")
_FIRST: Final = "first"


@dataclass(frozen=True, slots=True)
class _Time:
    """The same moment by the machine's clock and by the monotonic clock."""

    wall: float
    monotonic: float

    @property
    def period(self) -> int:
        """The number of the current period."""
        return int(self.wall // PERIOD_SECONDS)

    def begin(self, period: int) -> float:
        """Return when a period begins, by the monotonic clock."""
        return self.monotonic + period * PERIOD_SECONDS - self.wall


class RateShares:
    """Sets one worker's shares of the limits. Run it beside the stages.

    Time is divided into periods of four seconds. Before a period begins, each worker that has cards stores its wish for
    the period. Then every worker reads all wishes and computes the same shares, which add up to 1.

    A worker that starts in the middle of a period has no share of that period. But if no worker has a share of it, the
    first worker to ask gets the rest of the period for itself.

    Args:
        store: The object store that all workers use.
        paces: The paces that have a limit, by integration.
        clock: The machine's clock (aware).
        monotonic: Returns the seconds of a clock that never goes back.
        worker: Name of this worker, 16 hex digits; default: a random one.
    """

    def __init__(
        self,
        store: ObjectStore,
        paces: Mapping[str, Pace],
        clock: Callable[[], datetime],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        worker: str | None = None,
    ) -> None:
        self._store = store
        self._paces = paces
        self._clock = clock
        self._monotonic = monotonic
        self._worker = worker or secrets.token_hex(8)

    async def run(self) -> NoReturn:
        """Store wishes and set shares until cancelled."""
        divisions = [_Division(self._store, name, pace, self._now, self._worker) for name, pace in self._paces.items()]
        async with asyncio.TaskGroup() as group:
            for division in divisions:
                group.create_task(division.serve())
            await asyncio.Event().wait()  # do not return even without a pace: if a service ends, its process stops
        raise AssertionError("unreachable")  # pragma: no cover

    def _now(self) -> _Time:
        return _Time(self._clock().timestamp(), self._monotonic())


class _Division:
    """One worker's part in dividing the rate of one integration."""

    def __init__(self, store: ObjectStore, integration: str, pace: Pace, now: Callable[[], _Time], worker: str) -> None:
        self._store = store
        self._integration = integration
        self._pace = pace
        self._now = now
        self._worker = worker
        self._mine: list[tuple[int, str]] = []
        self._cleaned = False
        self._outage: tuple[str, int] | None = None

    async def serve(self) -> NoReturn:
        """Take part in the division while there are cards, until cancelled."""
        while True:
            try:
                await self._wait_for_cards()
                await self._clean()
                await self._take_first()
                await self._take_part()
            except StoreUnavailable as error:
                self._failed(error)
                await asyncio.sleep(_RETRY_SECONDS)

    def _failed(self, error: StoreUnavailable) -> None:
        """Log a failure of the store, unless the last try failed in the same way."""
        code, tries = self._outage or ("", 0)
        self._outage = error.code, tries + 1
        if code != error.code:
            log.warning("rate_share_unavailable", integration=self._integration, code=error.code, message=error.message)

    def _worked(self) -> None:
        """Log the end of an outage."""
        if self._outage is not None:
            log.info("rate_share_restored", integration=self._integration, failures=self._outage[1])
            self._outage = None

    async def _wait_for_cards(self) -> None:
        """Delete this worker's objects, and wait until there is a card."""
        if self._mine:
            with suppress(TimeoutError):
                async with asyncio.timeout(_IDLE_PERIODS * PERIOD_SECONDS):
                    await self._pace.demand.wait()
            await self._delete_mine(all_of_them=True)
        await self._pace.demand.wait()

    async def _take_first(self) -> None:
        """Take the rest of the current period, if no other worker has a wish for it.

        A wish of this worker itself does not matter: it came too late for a share.
        """
        now = self._now()
        if any(self._worker not in key for key in await self._keys(now.period)):
            return
        key = f"{self._folder(now.period)}{_FIRST}"
        self._mine.append((now.period, key))
        if await self._store.create(key, self._worker.encode()):
            self._pace.grant(Grant(self._now().monotonic, now.begin(now.period + 1), 1.0))

    async def _take_part(self) -> None:
        """Store a wish and compute the share for each period, until there have been no cards for some periods."""
        pace, idle, wish, last = self._pace, 0, _ALL, 0
        sent, since = pace.sent, self._now().monotonic
        while idle < _IDLE_PERIODS:
            now = self._now()
            if last > now.period + 2:
                return  # the machine's clock was set back: begin again
            period = max(math.floor((now.wall + _ASK_BEFORE) / PERIOD_SECONDS) + 1, last + 1)
            if last:
                await self._sleep_until(period * PERIOD_SECONDS - _ASK_BEFORE - _AHEAD)
                now, used, hungry = self._now(), pace.sent - sent, pace.hungry
                busy = hungry or used > 0
                pace.hungry = False
                pace.demand.clear()
                rate = used / max(now.monotonic - since, _AHEAD) * _HEADROOM / (pace.limit or 1)
                wish = _ALL if hungry else min(max(math.ceil(rate * _ALL), _LEAST), _ALL)
                idle = 0 if busy else idle + 1
                sent, since = pace.sent, now.monotonic
            last = period
            in_time = await self._wished(period, wish)
            if period > self._now().period + 1:  # it is too late to wish for the period before it
                await self._sleep_until((period - 1) * PERIOD_SECONDS)
                await self._take_first()
            if in_time:
                await self._sleep_until(period * PERIOD_SECONDS - _LOOK_BEFORE)
                await self._look(period)
            else:
                await self._sleep_until(period * PERIOD_SECONDS)
                await self._take_first()
            await self._delete_mine()
            self._worked()

    async def _wished(self, period: int, wish: int) -> bool:
        """Store a wish, and return whether it was stored in time."""
        key = f"{self._folder(period)}{self._worker}.{wish:04d}"
        self._mine.append((period, key))
        await self._store.create(key, self._worker.encode())
        return self._now().wall <= period * PERIOD_SECONDS - _ASK_BEFORE

    async def _look(self, period: int) -> None:
        """Compute this worker's share of a period from all wishes for it."""
        wishes: dict[str, int] = {}
        for key in await self._keys(period):
            found = _WISH.fullmatch(key)
            if found is not None:
                wishes[found["worker"]] = int(found["wish"])
        begin, before = self._now().begin(period), 0.0
        shares = fair_shares(wishes)
        for worker, share in shares.items():
            if worker == self._worker:
                break
            before += share
        mine = shares.get(self._worker, 0.0)
        self._pace.grant(Grant(begin, begin + PERIOD_SECONDS, mine, phase=min(before, 1.0)))

    async def _clean(self) -> None:
        """Delete the objects that killed workers have left. It does so only once."""
        if self._cleaned:
            return
        self._cleaned = True
        oldest = self._folder(self._now().period - _STALE_PERIODS)
        listed = self._store.list(f"rates/{self._integration}/")
        await self._store.delete_all([info.key async for info in listed if info.key < oldest])

    async def _delete_mine(self, *, all_of_them: bool = False) -> None:
        """Delete this worker's objects of past periods, many at a time."""
        period = self._now().period
        past = [one for one in self._mine if one[0] < period]
        if past and (all_of_them or len(past) >= _DELETE_EVERY):
            await self._store.delete_all([key for _, key in past])
            self._mine = [one for one in self._mine if one[0] >= period]

    async def _keys(self, period: int) -> list[str]:
        return [info.key async for info in self._store.list(self._folder(period))]

    def _folder(self, period: int) -> str:
        return f"rates/{self._integration}/{period:012d}/"

    async def _sleep_until(self, wall: float) -> None:
        await asyncio.sleep(min(max(0.0, wall - self._now().wall), 2 * PERIOD_SECONDS))


def fair_shares(wishes: Mapping[str, int]) -> dict[str, float]:
    """Return each worker's share of the limit, given the wishes in thousandths. The shares add up to 1.

    No worker gets more than its wish while another gets less than its own. What is left after all wishes are met is
    divided evenly.
    """
    shares: dict[str, float] = {}
    left = 1.0
    for count, worker in enumerate(sorted(wishes, key=lambda one: (wishes[one], one))):
        shares[worker] = min(wishes[worker] / _ALL, left / (len(wishes) - count))
        left -= shares[worker]
    return {worker: share + left / len(wishes) for worker, share in shares.items()}
