"""Foreign records in the pipeline's topics: none may stop a worker, damage the store, or be passed on."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from support.job_world import JOB, World

from pipeline.contracts import Record, Topic, first_values
from pipeline.errors import PoisonRecord

INTEGRATION = ("pipeline_integration", b"acme")
ID = ("ce_id", b"0123456789abcdef0123456789abcdef")


@pytest.mark.parametrize("event", [b"", b"../../../../etc/passwd", b"a/b", b"\xff" * 32, b"0" * 31, b"a b", b"A" * 32])
async def test_an_event_id_that_is_none_never_becomes_a_store_key(event: bytes) -> None:
    """The store would refuse the key with an unexpected error, again after every restart."""
    world = World()
    record = replace(world.announce(), headers=(INTEGRATION, ("ce_id", event)))
    for stage in (world.process, world.watch):
        with pytest.raises(PoisonRecord, match="ce_id"):
            await world.deliver(stage, record)
    assert world.memory.objects == {}


@pytest.mark.parametrize(
    ("name", "key"),
    [(b"other", "acme"), *((name, key) for name in (b"../acme", b"\xff", b"x" * 100_000) for key in ("acme", "{}"))],
)
async def test_an_integration_that_no_ingress_can_have_named_is_refused(name: bytes, key: str) -> None:
    """It would become part of a store key; and a job that waits is filed under the integration in its key."""
    world = World()
    key = f"{key.format(name.decode(errors='replace'))}/{JOB}"
    record = replace(world.announce(), key=key, headers=(("pipeline_integration", name), ID))
    for stage in (world.process, world.watch):
        with pytest.raises(PoisonRecord, match="integration"):
            await world.deliver(stage, record)
    assert world.memory.objects == {}


@pytest.mark.parametrize(
    "expires_at",
    ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "1999-12-31T23:59:59Z", "9999-12-31T23:59:59-12:00"],
)
async def test_a_time_that_cannot_be_calculated_with_is_refused(expires_at: str) -> None:
    """A margin is taken off, a retry is added, and the minute is a key of twelve digits."""
    world = World()
    with pytest.raises(PoisonRecord, match="expires_at"):
        await world.deliver(world.process, world.announce(expires_at=expires_at))


@pytest.mark.parametrize(
    "extra",
    [
        b'"x":' + b"[" * 200 + b"]" * 200,
        b'"record_count":1' + b"0" * 4200,
        b'"x":NaN',
        b'"job_guid":"cffde776-1d2a-4614-8023-a5148e411462"',
        b'"x":"\\ud800"',
    ],
    ids=["deep", "huge", "nan", "twice", "surrogate"],
)
async def test_what_could_be_stored_but_not_read_again_is_refused(extra: bytes) -> None:
    """The store nests an announcement one level deeper, so a document at the limit could not be read back."""
    world = World()
    record = world.announce()
    with pytest.raises(PoisonRecord):
        await world.deliver(world.process, replace(record, value=record.value[:-1] + b"," + extra + b"}"))
    assert world.memory.objects == {}


@pytest.mark.parametrize("attempt", [10**7, 10**300, -1])
async def test_an_attempt_that_never_was_is_refused_before_it_is_a_store_key(attempt: int) -> None:
    """A folder takes no name of 300 characters: that would be tried again for ever."""
    world = World()
    await world.run(world.announce())
    for topic, stage in ((Topic.BATCH_PROCESSED, world.upload), (Topic.BATCH_UPLOADED, world.confirm)):
        [record] = world.records(topic)
        message = json.loads(record.value) | {"attempt": attempt}
        with pytest.raises(PoisonRecord, match="attempt"):
            await world.deliver(stage, replace(record, value=json.dumps(message).encode()))


@pytest.mark.parametrize("traceparent", [b"x" * 500_000, b"\xff", b"00-card 4111111111111111-01", b"a\r\nb"])
async def test_a_trace_that_is_none_is_not_carried_on(traceparent: bytes) -> None:
    """Every record of the job would repeat it: a large one would make them all too large."""
    world = World()
    record = world.announce()
    headers = tuple(header for header in record.headers if header[0] != "traceparent")
    await world.run(replace(record, headers=(*headers, ("traceparent", traceparent))))
    assert len(world.ecs.calls) == 1
    assert all("traceparent" not in first_values(one.headers) for one in world.bus.published)


def records_of(world: World) -> list[Record]:
    """Return everything that was ever published about jobs."""
    topics = (Topic.BATCH_PROCESSED, Topic.BATCH_UPLOADED, Topic.BATCH_FAILED)
    return [record for topic in topics for record in world.records(topic)]


async def test_a_replay_of_everything_into_an_empty_store_is_poison_and_nothing_else() -> None:
    """Records of another cluster, or of a store that was lost."""
    old, new = World(), World()
    await old.run(old.announce())
    for record in records_of(old):
        stage = new.upload if record.topic is Topic.BATCH_PROCESSED else new.confirm
        with pytest.raises(PoisonRecord) as caught:
            await new.deliver(stage, record)
        assert caught.value.code == "receipt_missing"
    assert new.ecs.calls == []
    assert new.objects.put == []
