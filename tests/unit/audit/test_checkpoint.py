"""Opening a chain by its checkpoint: what it costs, and when a checkpoint is not used."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.audit_log import TOPIC, Log, entries, entry, new_key

from pipeline.audit import Chain, Signer
from pipeline.audit.checkpoint import CHECKPOINTS, Checkpoint, KnownIds
from pipeline.audit.segments import SegmentPosition
from pipeline.audit.verify import verify
from pipeline.errors import FatalError
from pipeline.storage import ObjectInfo, StoreUnavailable
from pipeline.storage.testing import MemoryStore


class Counting(MemoryStore):
    """A store that counts its reads and the streams that are open at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: Counter[str] = Counter()
        self.streams = self.most = 0

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        self.requests["get"] += 1
        return await super().get(key, start=start, end=end)

    async def stream(self, key: str, *, chunk_bytes: int = 1 << 18) -> AsyncGenerator[bytes, None]:
        self.streams += 1
        self.most = max(self.most, self.streams)
        await asyncio.sleep(0)
        try:
            async for piece in super().stream(key, chunk_bytes=chunk_bytes):
                yield piece
        finally:
            self.streams -= 1

    async def scan(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        self.requests["list"] += 1
        async for info in super().scan(prefix, after=after):
            yield info

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        self.requests["list"] += 1
        async for info in super().list(prefix):
            yield info


def checkpoints(log: Log) -> list[str]:
    return sorted(key for key in log.store.objects if key.startswith(CHECKPOINTS))


async def filled(count: int, **given: Any) -> tuple[Log, Counting]:
    """Return a log of segments of one event, one a minute."""
    store = Counting()
    log = Log(store=store, **given)
    await log.fill(*(entries(number) for number in range(count)))
    store.requests.clear()
    return log, store


async def test_opening_a_chain_of_2000_segments_reads_few_objects() -> None:
    """Without checkpoints it took 4,024 requests. Every event is known in both cases."""
    log, store = await filled(2000)
    assert len(checkpoints(log)) == 1
    chain = await log.open()
    assert store.requests.total() <= 64 + 10
    store.requests.clear()
    result = await chain.append(entries(*range(2000)), log.lease)
    assert (result.appended, result.repeated) == (0, 2000)
    assert (await chain.append(entries(2000), log.lease)).appended == 1
    report = await verify(store)
    assert (report.ok, report.segments, report.events) == (True, 2001, 2001)
    assert 2 <= store.most <= 8


@pytest.mark.parametrize("after", [0, 1, 63])
async def test_what_follows_the_checkpoint_is_known_too(after: int) -> None:
    log, _ = await filled(128 + after)
    result = await (await log.open()).append(entries(*range(129 + after)), log.lease)
    assert (result.appended, result.repeated) == (1, 128 + after)
    assert (await verify(log.store)).ok


async def test_a_log_without_checkpoints_gets_one_when_it_is_opened() -> None:
    log, store = await filled(100)
    for key in checkpoints(log):
        del store.objects[key]
    await log.open()
    assert [key.rpartition("/")[2] for key in checkpoints(log)] == [f"{99:012d}"]
    store.requests.clear()
    chain = await log.open()
    assert store.requests.total() <= 6
    assert (await chain.append(entries(*range(101)), log.lease)).repeated == 100


async def test_a_recreated_topic_is_followed_across_the_checkpoint() -> None:
    log, _ = await filled(64)
    chain = await log.open()
    await chain.append([entry(0, "new 0")], log.lease)
    chain = await log.open()
    result = await chain.append([entry(0, "new 0"), entry(1, "new 1"), entry(63)], log.lease)
    assert (result.appended, result.repeated) == (1, 2)
    assert (await verify(log.store)).ok


async def test_a_checkpoint_is_used_only_if_the_signing_key_signed_it() -> None:
    """Otherwise an attacker with write access to the store could make the stage leave out an event."""
    key = new_key()
    log, store = await filled(64, signer=Signer(key.private))
    (name,) = checkpoints(log)
    before = Checkpoint.load(store.objects[name], log.signer)
    assert before is not None
    known = KnownIds(timedelta(days=10), 1000)
    known.add([entry(64).event.id], log.now)
    forged = Checkpoint(before.position, before.closing, known.groups(), known.packed())
    for signer in (None, Signer(new_key().private)):
        store.objects[name] = forged.dump(signer)
        result = await (await log.open()).append(entries(63, 64), log.lease)
        assert (result.appended, result.repeated) == (1, 1)
        store.objects = {key: data for key, data in store.objects.items() if f"{64:012d}" not in key}


@pytest.mark.parametrize("damage", [b"", b"{}", b"\n\n", b"not at all\n{}\nx"])
async def test_a_damaged_checkpoint_is_not_used(damage: bytes) -> None:
    log, store = await filled(70)
    (name,) = checkpoints(log)
    for data in (damage, store.objects[name][:-1], store.objects[name] + b"x" * 16):
        store.objects[name] = data
        assert (await (await log.open()).append(entries(*range(70)), log.lease)).repeated == 70


@pytest.mark.parametrize("groups", ["[[AT,-1],[AT,1]]", "[[AT,1],[AT,-1]]", '[["0001-01-01T00:00:00Z",0]]', "[]"])
async def test_a_checkpoint_that_somebody_made_up_never_stops_the_stage(groups: str) -> None:
    """Without a signing key, a forged checkpoint cannot be distinguished from a real one."""
    log, store = await filled(70)
    (name,) = checkpoints(log)
    true = json.loads(store.objects[name].partition(b"\n")[0])
    head = json.dumps({**true, "groups": json.loads(groups.replace("AT", json.dumps(true["groups"][0][0])))}).encode()
    proof = json.dumps({"sha256": hashlib.sha256(head + b"\n").hexdigest(), "signature": None}).encode()
    store.objects[name] = head + b"\n" + proof + b"\n"
    assert (await (await log.open()).append(entries(70), log.lease)).appended == 1
    assert (await verify(store)).ok


async def test_a_checkpoint_of_another_log_is_not_used() -> None:
    """Its ids are those of a chain whose segments have other hashes."""
    other, theirs = await filled(64)
    (name,) = checkpoints(other)
    log = Log(store=Counting())
    await log.fill(*(entries(number) for number in range(1000, 1070)))
    log.store.objects[name] = theirs.objects[name]
    result = await (await log.open()).append(entries(0, *range(1000, 1070)), log.lease)
    assert (result.appended, result.repeated) == (1, 70)


async def test_an_end_that_is_gone_although_a_checkpoint_names_it_stops_the_stage() -> None:
    log, store = await filled(64)
    del store.objects[SegmentPosition(TOPIC, 0, 0, 63).key]
    with pytest.raises(FatalError, match="audit_chain_damaged"):
        await log.open()


async def test_a_checkpoint_that_cannot_be_written_holds_up_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    real = log.store.create

    async def create(key: str, data: bytes) -> bool:
        if key.startswith(CHECKPOINTS):
            raise StoreUnavailable("by the test")
        return await real(key, data)

    monkeypatch.setattr(log.store, "create", create)
    chain = await log.fill(*(entries(number) for number in range(65)))
    assert checkpoints(log) == []
    monkeypatch.undo()
    await chain.append(entries(65), log.lease)
    assert len(checkpoints(log)) == 1
    assert log.offsets() == list(range(66))


async def test_a_writer_that_dies_at_a_checkpoint_leaves_a_log_that_goes_on() -> None:
    """Before its creation, and between it and the deletion of the one before."""
    for died in ("create", "delete_all"):
        log, store = await filled(127)

        async def dies(*_: object, _real: Any = store.create, _died: str = died) -> bool:
            if _died == "delete_all" or str(_[0]).startswith(CHECKPOINTS):
                raise RuntimeError("killed")
            return bool(await _real(*_))

        setattr(store, died, dies)
        with pytest.raises(RuntimeError):
            await (await log.open()).append(entries(127), log.lease)
        delattr(store, died)
        assert len(checkpoints(log)) == (1 if died == "create" else 2)
        result = await (await log.open()).append(entries(*range(129)), log.lease)
        assert (result.appended, result.repeated) == (1, 128)
        assert (await verify(store)).ok


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 5)), max_size=30))
def test_ids_come_back_as_they_were_written(groups: Sequence[tuple[int, int]]) -> None:
    log, known, number = Log(), KnownIds(timedelta(days=10), 40), 0
    at = log.now
    for minutes, count in groups:
        at += timedelta(minutes=minutes)
        known.add([f"id {number + n}" for n in range(count)], at)
        number += count
    written = Checkpoint(SegmentPosition(TOPIC, 0, 0, 7), "0" * 64, known.groups(), known.packed())
    read = Checkpoint.load(written.dump(None), None)
    assert read == Checkpoint(written.position, written.closing, tuple(written.groups), written.ids)
    again = KnownIds(timedelta(days=10), 40)
    again.unpack(read.groups, read.ids)
    assert (again.packed(), len(again)) == (known.packed(), len(known))


async def test_a_chain_that_nobody_began_costs_few_requests() -> None:
    store = Counting()
    await Chain.open(Log(store=store).writing, TOPIC, 3)
    assert store.requests.total() <= 3
