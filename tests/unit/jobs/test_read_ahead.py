"""Parts of a result are read before their turn: a bounded number, in order, and nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import UUID

import pytest

from pipeline.jobs.damage import JobDamaged
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.part_encryption import PartCipher, PartKey
from pipeline.jobs.part_store import PartStore
from pipeline.jobs.read_ahead import ReadAhead
from pipeline.jobs.receipts import FilePosition, Manifest
from pipeline.storage import StoreUnavailable
from pipeline.storage.testing import MemoryStore

REF = JobRef("acme", UUID(int=1))
AT = FilePosition(byte=0, record=0, line=1)
BEYOND_INLINE = 40
"""Number of the first part: those with lower numbers may be stored in their manifests."""


class SlowStore(MemoryStore):
    """Each read takes some turns of the loop; counts those that are under way."""

    def __init__(self) -> None:
        super().__init__()
        self.reading: set[str] = set()
        self.most = 0
        self.read: list[str] = []
        self.refused = ""
        self.stuck = ""

    async def stream(self, key: str, *, chunk_bytes: int = 1 << 18) -> AsyncGenerator[bytes, None]:
        self.reading.add(key)
        self.most = max(self.most, len(self.reading))
        self.read.append(key)
        try:
            for _ in range(20):
                await asyncio.sleep(0)
            if key == self.stuck:
                await asyncio.Event().wait()
            if key == self.refused:
                raise StoreUnavailable("refused")
            async for piece in super().stream(key, chunk_bytes=chunk_bytes):
                yield piece
        finally:
            self.reading.discard(key)


class Result:
    """A result of some parts of 100 bytes, in clear."""

    def __init__(self, parts: int, *, inline: int = 0) -> None:
        self.store = SlowStore()
        self.jobs = PartStore(self.store, PartCipher(encrypts=False))
        self.inline = inline
        self.numbers = [*range(inline), *range(BEYOND_INLINE, BEYOND_INLINE + parts)]
        self.data = [b"%03d" % number + b"x" * 97 for number in self.numbers]
        self.manifests: list[Manifest] = []

    async def write(self) -> Result:
        for number, data in zip(self.numbers, self.data, strict=True):
            part = await self.jobs.write_part(REF, "g", number, data)
            assert (part.inline is not None) == (number < BEYOND_INLINE)
            self.manifests.append(
                Manifest(
                    number=number,
                    start=AT,
                    end=AT,
                    ok=1,
                    failed=0,
                    size=len(data),
                    crc32=part.crc32,
                    data=part.key,
                    sealed=part.sealed,
                    inline=part.inline,
                )
            )
        return self

    async def streamed(self, ahead: ReadAhead | None = None) -> bytes:
        return b"".join([piece async for piece in self.jobs.stream(self.manifests, ahead)])


async def test_so_many_parts_are_read_at_a_time_and_all_come_in_order() -> None:
    result = await Result(20).write()
    ahead = ReadAhead(parts=4, total=1000)
    assert await result.streamed(ahead) == b"".join(result.data)
    assert result.store.most == 4
    assert result.store.read == [one.data for one in result.manifests]
    assert ahead.free == 1000
    assert result.store.reading == set()


async def test_without_bounds_each_part_is_read_in_its_turn() -> None:
    result = await Result(5).write()
    assert await result.streamed() == b"".join(result.data)
    assert result.store.most == 1


@pytest.mark.parametrize(("total", "most"), [(250, 2), (100, 1), (99, 1), (0, 1)])
async def test_the_bytes_ahead_are_bounded(total: int, most: int) -> None:
    """A part that does not fit is read in its turn, so a result of large parts comes all the same."""
    result = await Result(6).write()
    ahead = ReadAhead(parts=4, total=total)
    assert await result.streamed(ahead) == b"".join(result.data)
    assert result.store.most == most
    assert ahead.free == total


async def test_all_uploads_of_a_worker_share_the_bytes() -> None:
    results = [await Result(10).write() for _ in range(3)]
    ahead = ReadAhead(parts=4, total=500)
    least = 500

    async def run(result: Result) -> bytes:
        nonlocal least
        pieces = []
        async for piece in result.jobs.stream(result.manifests, ahead):
            least = min(least, ahead.free)
            pieces.append(piece)
            await asyncio.sleep(0)
        return b"".join(pieces)

    assert await asyncio.gather(*map(run, results)) == [b"".join(result.data) for result in results]
    assert 0 <= least < 500
    assert ahead.free == 500


async def test_parts_in_manifests_are_read_from_there() -> None:
    result = await Result(3, inline=2).write()
    assert await result.streamed(ReadAhead(parts=4, total=1000)) == b"".join(result.data)
    assert len(result.store.read) == 3


@pytest.mark.parametrize("fault", ["changed", "missing", "refused"])
async def test_a_part_that_cannot_be_read_fails_in_its_turn(fault: str) -> None:
    """What lies before it has come, and what was begun behind it is over when the error comes."""
    result = await Result(10).write()
    key = result.manifests[5].data
    if fault == "changed":
        result.store.objects[key] = b"y" * 100
    elif fault == "missing":
        del result.store.objects[key]
    else:
        result.store.refused = key
    result.store.stuck = result.manifests[7].data
    ahead = ReadAhead(parts=4, total=1000)
    pieces: list[bytes] = []

    async def run() -> None:
        async for piece in result.jobs.stream(result.manifests, ahead):
            pieces.append(piece)  # noqa: PERF401 - those before the error count

    with pytest.raises(StoreUnavailable if fault == "refused" else JobDamaged):
        await run()
    assert pieces == result.data[:5]
    assert result.store.reading == set()
    assert ahead.free == 1000


async def test_a_result_that_nobody_takes_any_more_leaves_no_read() -> None:
    """A PUT that breaks off is begun again, with reads of its own."""
    result = await Result(10).write()
    ahead = ReadAhead(parts=4, total=1000)
    async with aclosing(result.jobs.stream(result.manifests, ahead)) as pieces:
        await anext(pieces)
        await asyncio.sleep(0)
        assert result.store.reading == {result.manifests[4].data}
    assert result.store.reading == set()
    assert ahead.free == 1000
    assert await result.streamed(ahead) == b"".join(result.data)


async def test_a_cancelled_upload_leaves_no_read() -> None:
    result = await Result(10).write()
    result.store.stuck = result.manifests[2].data
    ahead = ReadAhead(parts=4, total=1000)
    task = asyncio.create_task(result.streamed(ahead))
    async with asyncio.timeout(20):
        while len(result.store.read) < 6:  # noqa: ASYNC110 - the store has no event
            await asyncio.sleep(0)
    assert result.store.stuck in result.store.reading
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert result.store.reading == set()
    assert ahead.free == 1000


async def test_an_upload_that_is_cancelled_twice_gives_its_bytes_back() -> None:
    """The second cancellation comes while the reads end: otherwise a worker reads ahead less and less."""
    result = await Result(10).write()
    result.store.stuck = result.manifests[2].data
    ahead = ReadAhead(parts=4, total=1000)
    task = asyncio.create_task(result.streamed(ahead))
    async with asyncio.timeout(20):
        while len(result.store.read) < 6:  # noqa: ASYNC110 - the store has no event
            await asyncio.sleep(0)
    turns = 0
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
        turns += 1
    assert turns > 2
    await asyncio.sleep(0)
    assert task.cancelled()
    assert result.store.reading == set()
    assert ahead.free == 1000


async def test_encrypted_parts_come_in_clear() -> None:
    result = Result(0)
    result.jobs = PartStore(result.store, PartCipher([PartKey("one", bytes(range(32)))]))
    data = [bytes([number]) * 300_000 for number in range(3)]
    for number, one in enumerate(data):
        part = await result.jobs.write_part(REF, "g", number, one)
        result.manifests.append(
            Manifest(
                number=number,
                start=AT,
                end=AT,
                ok=1,
                failed=0,
                size=len(one),
                crc32=part.crc32,
                data=part.key,
                sealed=part.sealed,
            )
        )
    assert await result.streamed(ReadAhead()) == b"".join(data)
    assert result.store.most == 3
