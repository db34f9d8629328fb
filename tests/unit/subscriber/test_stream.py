"""``async for event in subscriber``."""

from __future__ import annotations

import asyncio

import pytest
from support.fake_log import FakeLog
from support.subscriber_bench import Notes, subscriber_of

from pipeline.errors import FatalError


async def test_events_come_one_by_one_and_are_finished_when_the_next_is_asked_for(log: FakeLog) -> None:
    for ident in "abac":
        log.append(ident, key=ident)
    subscriber = subscriber_of(log)
    seen = []
    async for event in subscriber:
        await asyncio.sleep(0.01)
        assert log.committed.get(0, 0) <= event.offset
        seen.append(event.id)
        if event.id == "c":
            subscriber.stop()
    assert seen == ["a", "b", "c"]
    assert log.committed == {0: 4}


async def test_an_error_in_the_body_leaves_its_event_unfinished(log: FakeLog) -> None:
    """What came before is committed; the event comes again."""
    for ident in "ab":
        log.append(ident)

    async def stumble() -> None:
        async for event in subscriber_of(log):
            if event.id == "b":
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await stumble()
    await _until_left(log)
    assert log.committed == {0: 1}
    subscriber = subscriber_of(log)
    seen = []
    async for event in subscriber:
        seen.append(event.id)
        subscriber.stop()
    assert seen == ["b"]


async def test_a_break_leaves_its_event_unfinished(log: FakeLog) -> None:
    for ident in "ab":
        log.append(ident)
    async for event in subscriber_of(log):
        if event.id == "b":
            break
    await _until_left(log)
    assert log.committed == {0: 1}


async def test_a_stop_from_outside_ends_a_loop_that_waits(log: FakeLog) -> None:
    subscriber = subscriber_of(log)
    asyncio.get_running_loop().call_later(0.02, subscriber.stop)
    assert [event async for event in subscriber] == []


async def test_what_ends_the_subscriber_ends_the_loop(log: FakeLog) -> None:
    log.absent = ["fraud.dead-letter"]
    with pytest.raises(FatalError):
        async for _ in subscriber_of(log):
            pass


async def test_a_record_that_is_no_event_does_not_end_the_loop(log: FakeLog) -> None:
    log.append("a", value=b"no json")
    log.append("b")
    subscriber = subscriber_of(log)
    seen = []
    async for event in subscriber:
        seen.append(event.id)
        subscriber.stop()
    assert seen == ["b"]
    assert len(log.dead_letters.published) == 1


async def test_a_loop_and_handlers_exclude_each_other(log: FakeLog, notes: Notes) -> None:
    subscriber = subscriber_of(log)
    subscriber.on_any(notes)
    with pytest.raises(RuntimeError, match="without handlers"):
        async for _ in subscriber:
            pass


async def test_a_lost_partition_takes_its_waiting_event_back(log: FakeLog) -> None:
    """An event in the body whose partition went away is not finished by asking for the next one."""
    for ident in "ab":
        log.append(ident)
    subscriber = subscriber_of(log)
    seen = []
    async for event in subscriber:
        seen.append(event.id)
        if len(seen) == 1:
            await log.members[0].revoke()
            await log.members[0].assign(0, generation=9)
            await asyncio.sleep(0.02)
        if len(seen) == 3:
            subscriber.stop()
    assert seen == ["a", "a", "b"]
    assert log.committed == {0: 2}


async def _until_left(log: FakeLog) -> None:
    """The loop's clean-up runs as a task of its own."""
    async with asyncio.timeout(2):
        while not log.members[-1].closed:  # noqa: ASYNC110 - a test looks from outside
            await asyncio.sleep(0.001)
