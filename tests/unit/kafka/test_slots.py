from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kafka.slots import SharedSlots

FLOWS = ("a", "b", "c")


class Holder:
    """Takes a slot, and holds it until its end."""

    def __init__(self, slots: SharedSlots, flow: str) -> None:
        self.flow = flow
        self.holds = False
        self._end = asyncio.Event()
        self.task = asyncio.create_task(self._hold(slots))

    async def _hold(self, slots: SharedSlots) -> None:
        async with slots.share(self.flow):
            self.holds = True
            await self._end.wait()
        self.holds = False

    def end(self) -> None:
        self._end.set()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def held(slots: SharedSlots, flow: str, wanted: int) -> list[Holder]:
    holders = [Holder(slots, flow) for _ in range(wanted)]
    await settle()
    return holders


def count(holders: list[Holder]) -> int:
    return sum(one.holds for one in holders)


@pytest.mark.parametrize(("total", "most"), [(2, 1), (3, 2), (5, 4), (16, 11), (24, 16), (64, 43)])
async def test_one_busy_flow_leaves_room_for_another(total: int, most: int) -> None:
    slots = SharedSlots(total, flows=2)
    busy = await held(slots, "a", total)
    assert count(busy) == most
    other = await held(slots, "b", 1)
    assert count(other) == 1
    for one in (*busy, *other):
        one.task.cancel()


@pytest.mark.parametrize(("total", "flows"), [(1, 1), (5, 1), (1, 3)])
async def test_a_single_flow_takes_every_slot(total: int, flows: int) -> None:
    slots = SharedSlots(total, flows=flows)
    busy = await held(slots, "a", total + 2)
    assert (count(busy), slots.free) == (total, 0)
    for one in busy:
        one.task.cancel()


async def test_waiting_flows_take_turns() -> None:
    """Many waiting calls of one flow do not come before a waiting call of another flow."""
    slots = SharedSlots(1, flows=3)
    [first] = await held(slots, "a", 1)
    crowd = await held(slots, "a", 20)
    others = [*await held(slots, "b", 2), *await held(slots, "c", 1)]
    order: list[str] = []
    current = first
    for _ in range(5):
        current.end()
        await settle()
        [current] = [one for one in (*crowd, *others) if one.holds]
        order.append(current.flow)
    assert order == ["a", "b", "c", "a", "b"]
    for one in crowd:
        one.task.cancel()


async def test_a_slot_that_comes_with_the_cancellation_goes_to_the_next() -> None:
    slots = SharedSlots(1)
    [first, second, third] = await held(slots, "", 3)
    first.end()
    await asyncio.sleep(0)  # gives it to the second, which has not run since
    second.task.cancel()
    await settle()
    assert [second.holds, third.holds] == [False, True]
    third.end()
    await settle()
    assert slots.free == 1


Step = st.tuples(st.sampled_from(["take", "take", "end", "cancel"]), st.integers(0, 1000))


@settings(max_examples=200)
@given(total=st.integers(1, 6), flows=st.integers(1, 3), steps=st.lists(Step, max_size=60))
def test_whatever_happens(total: int, flows: int, steps: list[tuple[str, int]]) -> None:
    asyncio.run(_live(total, flows, steps))


async def _live(total: int, flows: int, steps: list[tuple[str, int]]) -> None:
    """Take, give back and cancel at random; after each step every rule holds."""
    slots = SharedSlots(total, flows=flows)
    alive: list[Holder] = []
    for number, (step, pick) in enumerate(steps):
        if step == "take":
            alive.append(Holder(slots, FLOWS[pick % flows]))
        elif alive:
            one = alive[pick % len(alive)]
            one.end() if step == "end" and one.holds else one.task.cancel()
        if number % 3:  # some steps come at the same moment
            continue
        await settle()
        alive = [one for one in alive if not one.task.done()]
        _check(slots, total, flows, alive)
    for one in alive:
        one.end()
    await asyncio.gather(*(one.task for one in alive), return_exceptions=True)
    assert slots.free == total, "everybody who waited was served, and every slot came back"


def _check(slots: SharedSlots, total: int, flows: int, alive: list[Holder]) -> None:
    holding: dict[str, int] = defaultdict(int)
    for one in alive:
        holding[one.flow] += one.holds
    free = total - sum(holding.values())
    assert slots.free == free >= 0
    if flows > 1 and total > 1:
        assert max(holding.values(), default=0) < total, "one flow holds every slot"
    for one in alive:
        if not one.holds:  # why it waits: there is no slot, or its flow holds its share
            assert not free or (flows > 1 and holding[one.flow] >= min(2 * free, 1 if free == 1 else total))
