"""Sends events: connections, rate, repeats, and Weavr's retries."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final
from urllib.parse import urlsplit
from zlib import crc32

import aiohttp
from yarl import URL

from pipeline.sandbox.weavr.events import Event
from pipeline.sandbox.weavr.ledger import Attempt, Entry, Totals, retried

RETRY_PAUSES: Final = (10.0, 60.0, 360.0, 2160.0, 12_960.0)
"""Seconds before each of Weavr's five retries."""

_QUEUED: Final = 16
_WAITING: Final = 2000
"""How many events may wait for a retry. At this number, no new event is sent, which bounds the memory."""
_REPEAT_AFTER: Final = 20
_WATCH_SECONDS: Final = 0.2
_ANSWER_BYTES: Final = 4096

Post = Callable[[Event], Awaitable[int | None]]
"""Sends an event once. Returns the status, or None if there is no answer."""
Sleep = Callable[[float], Awaitable[None]]
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Pace:
    """The speed of sending.

    Attributes:
        connections: Maximum number of parallel requests, without retries.
        rate: Events per second; None: a connection sends the next event as soon as the last one is answered.
        compress_retries: Divides the pauses before retries.
    """

    connections: int = 16
    rate: float | None = None
    compress_retries: float = 1.0

    def pauses(self) -> tuple[float, ...]:
        """Return the seconds before each retry."""
        return tuple(pause / self.compress_retries for pause in RETRY_PAUSES)


def integration_in(url: str) -> str | None:
    """Return the integration's name in a webhook's URL: ``.../webhooks/weavr/NAME``, maybe with a secret after it."""
    parts = urlsplit(url).path.split("/")
    return next((name for before, name in pairwise(parts) if before == "weavr" and name), None)


def wall_clock() -> Clock:
    """Return a monotonic clock in seconds since 1970."""
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()


def poster(session: aiohttp.ClientSession, url: str, *, timeout_seconds: float) -> Post:
    """Return a function that sends events to a webhook. It reads the answers and reuses connections."""
    timeout, start = aiohttp.ClientTimeout(total=timeout_seconds), url.rstrip("/")

    async def post(event: Event) -> int | None:
        try:
            async with session.post(
                URL(start + event.path, encoded=True),
                data=event.body,
                headers=event.headers,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                await response.content.read(_ANSWER_BYTES)
                return response.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    return post


class Sender:
    """Sends events as Weavr does.

    The events of one entity use one connection, and each is sent once the previous one is answered. Retries wait in
    their own tasks and delay no other event. Memory never holds more than a few thousand events, however long the plan
    is.

    Args:
        post: Sends an event once.
        pace: The speed of sending.
        record: Called with each finished entry.
        clock: Returns the seconds since 1970.
        sleep: Waits for the given seconds.
    """

    def __init__(
        self,
        post: Post,
        pace: Pace,
        record: Callable[[Entry], None],
        *,
        clock: Clock,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.totals = Totals()
        self._post = post
        self._pace = pace
        self._record = record
        self._clock = clock
        self._sleep = sleep
        self._waiting = asyncio.Semaphore(_WAITING)

    async def send(self, events: Iterable[Event]) -> Totals:
        """Send all events, with repeats and retries, and return the sums."""
        queues: list[asyncio.Queue[Event | None]] = [asyncio.Queue(_QUEUED) for _ in range(self._pace.connections)]
        async with asyncio.TaskGroup() as group:
            for queue in queues:
                group.create_task(self._connection(queue, group))
            await self._feed(events, queues)
            for queue in queues:
                await queue.put(None)
        return self.totals

    async def _feed(self, events: Iterable[Event], queues: list[asyncio.Queue[Event | None]]) -> None:
        began = self._clock()
        for number, event in enumerate(events):
            if self._pace.rate and (ahead := began + number / self._pace.rate - self._clock()) > 0:
                await self._sleep(ahead)
            await queues[crc32(event.entity.encode()) % len(queues)].put(event)

    async def _connection(self, queue: asyncio.Queue[Event | None], group: asyncio.TaskGroup) -> None:
        repeats: deque[tuple[int, Event, Entry]] = deque()
        sent = 0
        while (event := await queue.get()) is not None:
            sent += 1
            entry = Entry.of(event)
            entry.deliveries.append([await self._try(event)])
            if retried(entry.deliveries[0][0].status):
                await self._waiting.acquire()
                group.create_task(self._retries(event, entry))
            elif event.repeated and entry.accepted:
                repeats.append((sent + _REPEAT_AFTER, event, entry))
            else:
                self._done(entry)
            while repeats and repeats[0][0] <= sent:
                await self._again(*repeats.popleft()[1:])
        for _, event, entry in repeats:
            await self._again(event, entry)

    async def _retries(self, event: Event, entry: Entry) -> None:
        """Retry events whose first try failed."""
        try:
            await self._persist(event, entry.deliveries[0])
            if event.repeated and entry.accepted:
                await self._again(event, entry)
            else:
                self._done(entry)
        finally:
            self._waiting.release()

    async def _again(self, event: Event, entry: Entry) -> None:
        """Send accepted events again."""
        attempts = [await self._try(event)]
        entry.deliveries.append(attempts)
        await self._persist(event, attempts)
        self._done(entry)

    async def _persist(self, event: Event, attempts: list[Attempt]) -> None:
        for pause in self._pace.pauses():
            if not retried(attempts[-1].status):
                return
            await self._sleep(pause)
            attempts.append(await self._try(event))

    async def _try(self, event: Event) -> Attempt:
        at = self._clock()
        status = await self._post(event)
        return Attempt(at, self._clock() - at, status)

    def _done(self, entry: Entry) -> None:
        self.totals.add(entry)
        self._record(entry)


async def send_events(
    url: str,
    events: Iterable[Event],
    pace: Pace,
    record: Callable[[Entry], None],
    *,
    timeout_seconds: float = 30.0,
    watch: Callable[[Totals], None] | None = None,
) -> Totals:
    """Send events to a webhook over HTTP, and return the sums.

    Args:
        url: URL of the webhook; the path of each event is appended.
        events: The events. They are taken one by one while sending.
        pace: The speed of sending.
        record: Called with each finished entry.
        timeout_seconds: How long one answer may take.
        watch: Called with the sums from time to time.
    """
    connector = aiohttp.TCPConnector(limit=2 * pace.connections)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        post = poster(session, url, timeout_seconds=timeout_seconds)
        sender = Sender(post, pace, record, clock=wall_clock())
        if watch is None:
            return await sender.send(events)
        watching = asyncio.create_task(_watching(sender.totals, watch))
        try:
            return await sender.send(events)
        finally:
            watching.cancel()
            watch(sender.totals)


async def _watching(totals: Totals, watch: Callable[[Totals], None]) -> None:
    while True:
        await asyncio.sleep(_WATCH_SECONDS)
        watch(totals)
