"""Appending: once each, in order, by one writer at a time."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.audit_log import START, TOPIC, HeldLease, Log, entries, entry

from pipeline.audit import AuditSettings
from pipeline.audit.checkpoint import KnownIds
from pipeline.audit.verify import verify
from pipeline.errors import FatalError, LeaseLost
from pipeline.storage import StoreUnavailable
from pipeline.storage.testing import MemoryStore

DAY = timedelta(days=1)
FOLDER = "audit/audit.events/00003/"


async def test_a_batch_becomes_a_segment_with_header_events_and_closing_line() -> None:
    log = Log()
    await log.fill(entries(5, 6), entries(9), partition=3)
    assert log.keys == [f"{FOLDER}00000/000000000000.jsonl", f"{FOLDER}00000/000000000001.jsonl"]
    header, first, second, closing = map(json.loads, log.lines(log.keys[0]))
    assert header.items() >= {
        "kind": "segment", "format": 1, "topic": TOPIC, "partition": 3, "epoch": 0, "segment": 0, "line": 1,
        "previous": "0" * 64, "writer": "writer-1", "at": START.isoformat(),
    }.items()  # fmt: skip
    assert first.items() >= {
        "kind": "event", "topic": TOPIC, "partition": 3, "offset": 5, "id": entry(5).event.id, "actor": "process",
        "at": START.isoformat(), "event": entry(5).fields, "line": 2,
    }.items()  # fmt: skip
    assert second["offset"] == 6
    assert closing.items() >= {
        "kind": "closing", "events": 2, "total": 2, "first_offset": 5, "last_offset": 6, "next_epoch": None,
        "signed_by": None, "line": 4,
    }.items()  # fmt: skip
    after = [json.loads(line) for line in log.lines(log.keys[1])]
    assert after[0]["previous"] == closing["hash"]
    assert after[-1]["total"] == 3
    assert (await verify(log.store)).events == 3


async def test_hashes_can_be_checked_with_any_sha256() -> None:
    log = Log()
    await log.fill(entries(1, 2), entries(3))
    running = "0" * 64
    for key in log.keys:
        for line in log.lines(key):
            text, _, rest = line.rpartition(b',"hash":"')
            running = hashlib.sha256(running.encode() + text).hexdigest()
            assert rest == running.encode() + b'"}\n'


async def test_a_redelivered_batch_is_appended_once_also_after_a_restart() -> None:
    log = Log()
    chain = await log.fill(entries(1, 2))
    again = await chain.append(entries(1, 2, 3), log.lease)
    assert (again.appended, again.repeated, again.segments) == (1, 2, 1)
    restarted = await log.open()
    nothing = await restarted.append(entries(1, 2, 3), log.lease)
    assert (nothing.appended, nothing.repeated, nothing.segments) == (0, 3, 0)
    assert log.offsets() == [1, 2, 3]
    assert (await verify(log.store)).ok


async def test_an_event_published_twice_is_appended_once() -> None:
    """A producer whose acknowledgement was lost publishes again: same id, another offset."""
    log = Log()
    chain = await log.fill([entry(1, "a"), entry(2, "a"), entry(3, "b")])
    result = await chain.append([entry(4, "b"), entry(5, "c")], log.lease)
    assert (result.appended, result.repeated) == (1, 1)
    assert log.offsets() == [1, 3, 5]


async def test_an_unknown_event_at_an_offset_gone_by_opens_an_epoch() -> None:
    """The topic was created again; the chain says so and continues."""
    log = Log()
    chain = await log.fill(entries(10, 11))
    await chain.append([entry(0, "new 0"), entry(1, "new 1")], log.lease)
    await chain.append([entry(2, "new 2")], log.lease)
    names = [key.removeprefix("audit/audit.events/00000/") for key in log.keys]
    assert names == [f"{epoch:05d}/{number:012d}.jsonl" for epoch, number in [(0, 0), (0, 1), (1, 2), (1, 3)]]
    sealing = [json.loads(line) for line in log.lines(log.keys[1])]
    assert [line["kind"] for line in sealing] == ["segment", "closing"]
    assert sealing[-1]["next_epoch"] == 1
    report = await verify(log.store)
    assert (report.ok, report.events, report.segments) == (True, 5, 4)
    restarted = await log.open()
    again = await restarted.append([entry(1, "new 1"), entry(2, "new 2"), *entries(10)], log.lease)
    assert (again.appended, again.repeated) == (0, 3)


async def test_a_crash_after_closing_an_epoch_goes_on_in_the_next() -> None:
    log = Log()
    chain = await log.fill(entries(10))
    lease = HeldLease()
    log.store.lose_answers = 1
    with pytest.raises(StoreUnavailable):
        await chain.append([entry(0, "new")], lease)
    assert len(log.keys) == 2
    restarted = await log.open()
    await restarted.append([entry(0, "new")], lease)
    assert log.offsets() == [10, 0]
    assert log.keys[-1].endswith("00001/000000000002.jsonl")
    assert (await verify(log.store)).ok


async def test_a_lost_answer_is_found_out_by_repeating() -> None:
    log = Log()
    chain = await log.open()
    log.store.lose_answers = 1
    with pytest.raises(StoreUnavailable):
        await chain.append(entries(1), log.lease)
    result = await chain.append(entries(1, 2), log.lease)
    assert (result.appended, result.repeated, result.segments) == (2, 1, 2)
    assert log.offsets() == [1, 2]
    assert (await verify(log.store)).ok


async def test_an_unreachable_store_loses_nothing() -> None:
    log = Log()
    chain = await log.open()
    log.store.unavailable = True
    with pytest.raises(StoreUnavailable):
        await chain.append(entries(1), log.lease)
    log.store.unavailable = False
    await chain.append(entries(1), log.lease)
    assert log.offsets() == [1]


async def test_of_two_writers_the_second_loses_and_leaves_no_trace() -> None:
    log = Log()
    await log.fill(entries(1))
    here, there = await log.open(), await log.open()
    await here.append(entries(2), log.lease)
    with pytest.raises(LeaseLost):
        await there.append(entries(2), log.lease)
    with pytest.raises(LeaseLost):
        await there.append(entries(3), log.lease)
    reopened = await log.open()
    assert (await reopened.append(entries(2, 3), log.lease)).appended == 1
    assert log.offsets() == [1, 2, 3]
    assert (await verify(log.store)).ok


async def test_a_writer_of_the_old_epoch_cannot_go_on() -> None:
    """The segment that closes the epoch takes the number that the old writer needs."""
    log = Log()
    await log.fill(entries(5))
    old, new = await log.open(), await log.open()
    await new.append([entry(0, "new")], log.lease)
    with pytest.raises(LeaseLost):
        await old.append(entries(6), log.lease)
    assert (await verify(log.store)).ok


async def test_a_lost_lease_stops_before_the_segment() -> None:
    log = Log(lease=HeldLease(lost=True))
    chain = await log.open()
    with pytest.raises(LeaseLost, match="lease_lost"):
        await chain.append(entries(1), log.lease)
    assert log.keys == []


async def test_a_pending_segment_is_not_repeated_without_the_lease() -> None:
    log = Log()
    chain = await log.open()
    log.store.unavailable = True
    with pytest.raises(StoreUnavailable):
        await chain.append(entries(1), log.lease)
    log.store.unavailable, log.lease.lost = False, True
    with pytest.raises(LeaseLost, match="lease_lost"):
        await chain.append(entries(1), log.lease)
    assert log.keys == []


async def test_large_batches_are_cut_by_events_and_by_bytes() -> None:
    log = Log(segment_events=3, segment_bytes=10_000)
    await log.fill(entries(*range(7)))
    assert len(log.keys) == 3
    by_bytes = Log(segment_bytes=10_000)
    await by_bytes.fill(entries(*range(30)))
    assert len(by_bytes.keys) == 2
    assert max(map(len, by_bytes.store.objects.values())) < 11_000
    assert by_bytes.offsets() == list(range(30))
    assert log.lease.asked == 3


async def test_exactly_full_segments_leave_no_empty_one() -> None:
    log = Log(segment_events=2)
    await log.fill(entries(1, 2, 3, 4))
    assert len(log.keys) == 2


async def test_an_empty_batch_writes_nothing() -> None:
    log = Log()
    await log.fill([])
    assert log.keys == []


class TestWindow:
    async def test_ids_older_than_the_window_are_not_read_back(self) -> None:
        log = Log(settings=AuditSettings(id_window_days=1))
        for offset in range(40):
            await log.fill(entries(offset))
            log.now += timedelta(hours=1)
        reads = _count_reads(log.store)
        chain = await log.open()
        assert len(chain._known) in range(23, 34)
        assert len(reads) < 40

    async def test_a_repeat_beyond_the_window_is_appended_twice_in_a_new_epoch(self) -> None:
        """The documented bound: the window must cover every topic that can redeliver."""
        log = Log(settings=AuditSettings(id_window_days=1))
        await log.fill(entries(1))
        log.now += timedelta(days=2)
        chain = await log.fill(entries(2))
        await chain.append(entries(1), log.lease)
        assert log.offsets() == [1, 2, 1]
        assert (await verify(log.store)).ok

    async def test_too_many_ids_are_cut_and_counted(self) -> None:
        log = Log(settings=AuditSettings(id_window_max=5))
        chain = await log.fill(entries(1, 2, 3, 4), entries(5))
        result = await chain.append(entries(6, 7), log.lease)
        assert result.forgotten == 2
        assert (await chain.append(entries(3, 4, 5, 6, 7), log.lease)).repeated == 5
        restarted = await log.open()
        assert len(restarted._known) == 5
        assert (await restarted.append(entries(3, 7), log.lease)).repeated == 2

    async def test_many_segments_are_read_back_across_epochs(self) -> None:
        log = Log(segment_events=1)
        await log.fill(entries(*range(100, 120)), [entry(n, f"new {n}") for n in range(20)])
        restarted = await log.open()
        repeats = [*entries(*range(100, 120)), *(entry(n, f"new {n}") for n in range(20))]
        assert (await restarted.append(repeats, log.lease)).repeated == 40
        assert (await restarted.append([entry(20, "new 20")], log.lease)).appended == 1
        assert (await verify(log.store)).ok


class TestDamageMetByAWriter:
    async def test_a_damaged_end_stops_the_process(self) -> None:
        log = Log()
        await log.fill(entries(1), entries(2))
        log.put(log.keys[1], log.lines(log.keys[1])[:-1])
        with pytest.raises(FatalError, match=r"audit_chain_damaged.*000000000001"):
            await log.open()

    async def test_a_missing_beginning_stops_the_process(self) -> None:
        log = Log()
        await log.fill(entries(1), entries(2))
        del log.store.objects[log.keys[0]]
        with pytest.raises(FatalError, match="audit_chain_damaged"):
            await log.open()

    async def test_damage_further_up_is_logged_and_left_to_the_verifier(self) -> None:
        log = Log()
        await log.fill(entries(1, 2), entries(3), entries(4))
        log.put(log.keys[0], log.lines(log.keys[0])[:2])
        chain = await log.open()
        assert (await chain.append(entries(1, 3, 4, 5), log.lease)).repeated == 3
        assert not (await verify(log.store)).ok

    async def test_a_segment_that_vanishes_while_it_is_read_is_logged(self) -> None:
        log = Log(store=_Vanishing())
        await log.fill(entries(1), entries(2), entries(3))
        chain = await log.open()
        assert len(chain._known) == 2

    async def test_an_unreachable_store_is_reported_as_such(self) -> None:
        log = Log(store=_Failing())
        await log.fill(entries(1), entries(2), entries(3))
        with pytest.raises(StoreUnavailable):
            await log.open()


class _Vanishing(MemoryStore):
    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        if end is None and key.endswith("1.jsonl"):
            self.objects.pop(key, None)
        return await super().get(key, start=start, end=end)


class _Failing(MemoryStore):
    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        if end is None and key.endswith("0.jsonl"):
            raise StoreUnavailable("the test says so")
        return await super().get(key, start=start, end=end)


def _count_reads(store: MemoryStore) -> list[str]:
    reads: list[str] = []
    get = store.get

    async def counted(key: str, *, start: int = 0, end: int | None = None) -> bytes:
        if end is None:
            reads.append(key)
        return await get(key, start=start, end=end)

    store.get = counted  # type: ignore[method-assign]
    return reads


def test_ids_are_forgotten_by_age() -> None:
    known = KnownIds(DAY, 100)
    known.add(["a", "b"], START)
    known.add(["c"], START + DAY)
    assert all(name in known for name in "abc")
    known.add([], START + DAY + timedelta(seconds=1))
    assert [name in known for name in "abc"] == [False, False, True]


def test_a_cut_is_counted() -> None:
    known = KnownIds(DAY, 3)
    assert known.add(["a", "b"], START) == 0
    assert known.add(["c", "d", "e"], START) == 2
    assert known.add(["f"], START) == 1
    assert [name in known for name in "abcdef"] == [False, False, False, True, True, True]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60)), max_size=40), st.integers(1, 12))
def test_there_are_never_too_many_and_the_latest_are_there(groups: list[tuple[int, int]], most: int) -> None:
    known, added, now = KnownIds(timedelta(hours=1), most), list[tuple[str, int]](), 0
    for count, minutes in groups:
        now += minutes
        ids = [f"{len(added) + n}" for n in range(count)]
        added += [(name, now) for name in ids]
        known.add(ids, START + timedelta(minutes=now))
        young = [name for name, at in added if at >= now - 60]
        assert len(known) == min(most, len(young))
        assert all(name in known for name in young[-most:])
