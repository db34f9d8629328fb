"""What a restart does again: nothing of what lies behind a job that waits."""

from __future__ import annotations

import asyncio
from collections import Counter
from uuid import UUID

from support.bus_bench import Bench
from support.job_world import CARDS, PART_CIPHER, World

from pipeline.contracts import Record, Topic
from pipeline.errors import TransientError
from pipeline.jobs.job_store import JobStore
from pipeline.kafka.protocols import Lease
from pipeline.storage.testing import MemoryStore

JOBS = 450


class Counting(MemoryStore):
    """Counts creations and reads."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: Counter[str] = Counter()

    async def create(self, key: str, data: bytes) -> bool:
        self.requests["create"] += 1
        return await super().create(key, data)

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        self.requests["get"] += 1
        return await super().get(key, start=start, end=end)


class Process:
    """PROCESS as its consumer calls it."""

    def __init__(self, world: World) -> None:
        self._handler = world.handler("process")
        self.begun: list[int] = []

    async def arrive(self, record: Record) -> None:
        assert self._handler.on_arrival
        await self._handler.on_arrival(record)

    async def handle(self, record: Record, lease: Lease) -> None:
        self.begun.append(record.offset)
        await self._handler.handle(record, lease)


async def test_450_finished_jobs_behind_one_that_waits_are_not_done_again() -> None:
    """The job that waits is parked, so its offset is finished too: the group goes on behind all of them.

    When it held its partition back, a restart cost eight requests for each job behind it.
    """
    world, store = World(), Counting()
    world.memory, world.jobs = store, JobStore(store, PART_CIPHER)
    world.parking._jobs = world.jobs
    world.restart()
    records = []
    for number in range(JOBS + 1):
        url = f"https://files.example/{number}.csv"
        announced = world.announce(CARDS, job_guid=str(UUID(int=number)), input_file_url=url)
        records.append(announced)
    world.objects.fail_open = [TransientError("source_unavailable", "503", retry_after=60.0)]
    bench = Bench()
    bench.handler = process = Process(world)  # type: ignore[assignment]
    bench.set(concurrency=1)
    sent = [Record(one.topic, 0, at, one.key, one.value, one.headers, 0) for at, one in enumerate(records)]
    async with bench.running(0):
        bench.group.deliver(*sent)
        async with asyncio.timeout(120):
            while bench.group.commits[-1:] != [{0: JOBS + 1}]:  # noqa: ASYNC110 - a test looks from outside
                await asyncio.sleep(0.02)
    assert Counter(process.begun) == Counter(range(JOBS + 1))
    assert len(world.bus.on(Topic.BATCH_PROCESSED)) == JOBS
    assert len([key for key in store.objects if key.startswith("due/")]) == 1

    # the next member begins where the group has committed: there is nothing to read
    store.requests.clear()
    world.restart()
    after = Bench()
    after.handler = again = Process(world)  # type: ignore[assignment]
    async with after.running(0):
        after.group.deliver(*sent[bench.group.commits[-1][0] :])
    assert (again.begun, store.requests) == ([], {})

    # and when the wait is over, its own record comes alone
    world.clock.forward(minutes=2)
    await world.due.poll()
    (returned,) = world.returned(Topic.BATCH_REQUESTED)
    assert returned.key == records[0].key
