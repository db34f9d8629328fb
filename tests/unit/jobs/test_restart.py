"""A crash costs the chunks in flight, and nothing else."""

from __future__ import annotations

import pytest
from support.job_world import World

from pipeline.errors import LeaseLost, TransientError
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.part_store import Part, PartStore

ROWS = b"card_number,note\n" + b"".join(b"999999%010d,x\n" % number for number in range(60))


def world_of_chunks(**limits: object) -> World:
    return World(csv_limits={"chunk_records": 10, "chunk_bytes": 1024}, limits=limits)


async def undisturbed() -> bytes:
    world = world_of_chunks()
    await world.run(world.announce(ROWS, record_count=60))
    return world.objects.put[0][1]


@pytest.mark.parametrize("cut", [100, 500, 900, len(ROWS) - 1])
@pytest.mark.parametrize("in_flight", [1, 3])
async def test_a_cut_download_goes_on_where_the_last_finished_chunk_ended(cut: int, in_flight: int) -> None:
    """The result is byte for byte that of an undisturbed run, and the file is not read from its start again."""
    world = world_of_chunks(chunks_in_flight=in_flight)
    record = world.announce(ROWS, record_count=60)
    world.objects.fail_after.append((cut, TransientError("download_cut", "cut")))
    with pytest.raises(TransientError):
        await world.deliver(world.process, record)
    finished = sum("/parts/" in key and key.endswith("0.json") for key in world.memory.objects)
    world.restart()
    await world.run(record)
    assert world.objects.put[0][1] == await undisturbed()
    begun = [start for _, start in world.objects.opened]
    assert begun[0] == 0
    assert (begun[1] > 0) == (finished > 0)


async def test_a_changed_file_is_done_from_its_start_and_meets_no_old_part() -> None:
    world = world_of_chunks()
    record = world.announce(ROWS, record_count=60)
    world.objects.fail_after.append((700, TransientError("download_cut", "cut")))
    with pytest.raises(TransientError):
        await world.deliver(world.process, record)
    changed = ROWS.replace(b",x\n", b",y\n")
    world.objects.inputs[next(iter(world.objects.inputs))] = changed
    await world.run(record)
    assert b",x," not in world.objects.put[0][1]
    assert world.objects.put[0][1].count(b",y,") == 60


async def test_without_an_etag_nothing_is_resumed() -> None:
    world = world_of_chunks()
    world.objects.etags = False
    record = world.announce(ROWS, record_count=60)
    world.objects.fail_after.append((700, TransientError("download_cut", "cut")))
    with pytest.raises(TransientError):
        await world.deliver(world.process, record)
    await world.run(record)
    assert [start for _, start in world.objects.opened] == [0, 0]
    assert world.objects.put[0][1] == await undisturbed()


async def test_another_worker_that_finished_the_chunk_first_makes_this_one_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The manifest decides; the loser deletes its part, so that it leaves no trace."""
    slow, fast = world_of_chunks(), world_of_chunks()
    fast.memory = slow.memory
    fast.jobs = slow.jobs
    fast.restart()
    record = slow.announce(ROWS, record_count=60)
    fast.announce(ROWS, record_count=60)
    real = PartStore.write_part

    async def overtaken(jobs: PartStore, ref: JobRef, generation: str, number: int, data: bytes) -> Part:
        monkeypatch.setattr(PartStore, "write_part", real)
        await fast.deliver(fast.process, record)
        return await real(jobs, ref, generation, number, data)

    monkeypatch.setattr(PartStore, "write_part", overtaken)
    with pytest.raises(LeaseLost, match="chunk_taken"):
        await slow.deliver(slow.process, record)
    assert sum("/parts/" in key and ".csv" in key for key in slow.memory.objects) == 6
    await slow.run(record)
    assert slow.objects.put[0][1] == await undisturbed()


async def test_renewed_urls_reach_a_job_that_is_waiting() -> None:
    """The next attempt uses the newest announcement's URLs and deadline."""
    world = World()
    first = world.announce()
    world.objects.fail_open.append(TransientError("slow_down", "SlowDown"))
    with pytest.raises(TransientError):
        await world.deliver(world.process, first)
    renewed = world.announce(
        input_file_url="https://files.example/in.csv?X-Amz-Signature=second", expires_at="2026-01-21T18:00:00Z"
    )
    await world.process.arrive(renewed)
    world.clock.forward(hours=2)
    await world.run(first)
    assert world.objects.opened[-1][0].endswith("second")
    assert world.ecs.calls[0][2].startswith(b'{"success":true')


async def test_the_audit_log_distinguishes_the_first_announcement_from_later_ones_however_often_they_come() -> None:
    world = World()
    first, second = world.announce(), world.announce(expires_at="2026-01-21T18:00:00Z")
    await world.run(first)
    for record in (second, world.again(first), world.again(second)):
        await world.deliver(world.process, record)
    assert [action for action in world.bus.audit() if action.startswith("job.")] == [
        "job.announced",
        "job.started",
        "job.processed",
        "job.renewed",
    ]
