"""The promise as a model: random logs, handlers that fail, and crashes anywhere."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.fake_log import NOON_MS, FakeLog
from support.subscriber_bench import QUICK, kill, running, subscriber_of, until

from pipeline.subscriber import Event, Retry

SPAN = 6
RECORDS = 12
SECONDS = 10
SETTINGS = QUICK.model_copy(
    update={"max_span": SPAN, "repeat_records": RECORDS, "repeat_seconds": SECONDS, "concurrency": 3}
)


@dataclass(frozen=True)
class Step:
    """One record of a random log."""

    ident: str
    skip: int
    later_ms: int


STEPS = st.lists(
    st.builds(
        Step,
        ident=st.sampled_from(["a", "b", "c", "d", "e", "f", "g"]),
        skip=st.sampled_from([0, 0, 0, 1, 5, 20]),
        later_ms=st.sampled_from([0, 10, 1000, 9000, 11_000, -50, -3000]),
    ),
    max_size=40,
)


def first_occurrences(log: FakeLog) -> list[int]:
    """The offsets that the rule lets through."""
    last: dict[bytes, tuple[int, int]] = {}
    found = []
    for record in log.records[0]:
        ident = dict(record.headers)["ce_id"]
        offset, at = last.get(ident, (-RECORDS - 1, 0))
        if record.offset - offset > RECORDS or record.timestamp_ms - at > SECONDS * 1000:
            found.append(record.offset)
        last[ident] = (record.offset, record.timestamp_ms)
    return found


class World:
    """A log, and what was handled of it in every life of the subscriber."""

    def __init__(self, steps: list[Step], stumbles: set[int]) -> None:
        self.log = FakeLog()
        at = NOON_MS
        for step in steps:
            at += step.later_ms
            self.log.append(step.ident, key=step.ident, skip=step.skip, at_ms=at)
        self.stumbles = stumbles
        self.handled: list[int] = []
        self.calls = 0
        self.call = asyncio.Event()

    async def handle(self, event: Event[Any]) -> None:
        self.calls += 1
        self.call.set()
        if self.calls in self.stumbles:
            raise Retry
        await asyncio.sleep(0)
        self.handled.append(event.offset)

    async def crash_after(self, calls: int) -> list[int]:
        """Live for so many calls, then die; return what this life handled although it was handled before."""
        before = set(self.handled)
        committed = self.log.committed.get(0, 0)
        first = next((record.offset for record in self.log.records[0] if record.offset >= committed), committed)
        mark = len(self.handled)
        subscriber = subscriber_of(self.log, SETTINGS)
        subscriber.on_any(self.handle)
        task = asyncio.create_task(subscriber.run())
        end = self.calls + calls
        while self.calls < end and not self.finished():
            self.call.clear()
            try:
                async with asyncio.timeout(0.01):
                    await self.call.wait()
            except TimeoutError:
                assert not task.done()
        await kill(self.log, task)
        again = [offset for offset in self.handled[mark:] if offset in before]
        assert all(first <= offset < first + SPAN for offset in again)
        return again

    async def finish(self) -> None:
        """Live until everything is committed."""
        subscriber = subscriber_of(self.log, SETTINGS)
        subscriber.on_any(self.handle)
        async with running(subscriber):
            await until(self.finished)

    def finished(self) -> bool:
        log = self.log.records[0]
        return not log or self.log.committed.get(0, 0) > log[-1].offset


@settings(max_examples=60)
@given(STEPS, st.lists(st.integers(0, 12), max_size=3), st.sets(st.integers(1, 40), max_size=6))
def test_whatever_crashes_what_is_handled_is_what_the_rule_says(
    steps: list[Step], crashes: list[int], stumbles: set[int]
) -> None:
    """Every first occurrence, no repeat; twice only within the span behind what was committed, once per crash."""

    async def live() -> World:
        world = World(steps, stumbles)
        for calls in crashes:
            await world.crash_after(calls)
        await world.finish()
        return world

    world = asyncio.run(live())
    assert sorted(set(world.handled)) == first_occurrences(world.log)
    times = Counter(world.handled)
    assert all(count <= 1 + len(crashes) for count in times.values())
    assert sum(times.values()) - len(times) <= SPAN * len(crashes)
    # events of one key (here: of one id) in order of their first handling
    for ident in {step.ident for step in steps}:
        mine = [r.offset for r in world.log.records[0] if dict(r.headers)["ce_id"] == ident.encode()]
        firsts = list(dict.fromkeys(offset for offset in world.handled if offset in mine))
        assert firsts == sorted(firsts)
