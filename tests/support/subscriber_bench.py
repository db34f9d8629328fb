"""Subscribers on a log in memory, that may be killed and started again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from support.fake_log import FakeLog
from support.members import until

from pipeline.subscriber import Event, Subscriber, SubscriberSettings

QUICK = SubscriberSettings(
    retry={"first_seconds": 0.001, "max_seconds": 0.002},
    commit_interval_seconds=0.005,
    stop_grace_seconds=0.2,
    signals=False,
    session_timeout_seconds=1.0,
)


def with_tries(most: int) -> SubscriberSettings:
    """Return quick settings with another bound on the calls for one event."""
    return QUICK.model_copy(update={"retry": QUICK.retry.model_copy(update={"max_tries": most})})


def subscriber_of(log: FakeLog, settings: SubscriberSettings = QUICK, group: str = "fraud") -> Subscriber:
    """Return a subscriber of everything in the log."""
    return Subscriber(
        "127.0.0.1:1", group=group, topics=[log.topic], settings=settings, cluster=log, connect=log.connect
    )


class Notes:
    """A handler that records its calls, and behaves as the test says."""

    def __init__(self, act: Callable[[Event[Any]], Any] | None = None) -> None:
        self.begun: list[Event[Any]] = []
        self.done: list[Event[Any]] = []
        self.act = act

    async def __call__(self, event: Event[Any]) -> None:
        self.begun.append(event)
        if self.act:
            await self.act(event)
        self.done.append(event)

    def ids(self) -> list[str]:
        return [event.id for event in self.done]


@asynccontextmanager
async def running(subscriber: Subscriber) -> AsyncIterator[asyncio.Task[None]]:
    """Run it; stop it at the end and let its error out."""
    task = asyncio.create_task(subscriber.run())
    try:
        yield task
        subscriber.stop()
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def kill(log: FakeLog, task: asyncio.Task[None]) -> None:
    """End a subscriber as ``kill -9`` would: nothing is committed any more."""
    for member in log.members:
        member.dead = True
    task.cancel()
    await asyncio.wait([task])


def count(subscriber: Subscriber, name: str) -> float:
    """Return the sum of a counter, over its labels."""
    samples = (sample for family in subscriber.registry.collect() for sample in family.samples)
    return sum(sample.value for sample in samples if sample.name == f"pipeline_{name}")


__all__ = ["QUICK", "Notes", "count", "kill", "running", "subscriber_of", "until"]
