"""The audit stage: a batch in, a segment out, poison aside."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from structlog.testing import capture_logs
from support.audit_log import JOB, START, Log, entry

from pipeline.audit import MAX_EVENT_BYTES
from pipeline.audit.home import HomePartitions
from pipeline.audit.stage import AuditStage
from pipeline.audit.verify import verify
from pipeline.contracts import (
    AuditAction,
    AuditEvent,
    EventHeaders,
    OutgoingRecord,
    Record,
    Topic,
    accepted_event,
    audit_record,
    first_values,
)
from pipeline.errors import LeaseLost, TransientError
from pipeline.kafka.dead_letters import DeadLetters
from pipeline.kafka.testing import MemoryPublisher
from pipeline.observability import Metrics
from pipeline.storage import StoreUnavailable


class World:
    """One member of the audit group on a log in memory."""

    def __init__(self, log: Log | None = None) -> None:
        self.log = log or Log()
        self.metrics = Metrics()
        self.publisher = MemoryPublisher()
        letters = DeadLetters(self.publisher, group="audit", metrics=self.metrics)
        home = HomePartitions(self.log.store, self.publisher, count=self._count, partition_of=lambda _key, _count: 2)
        self.stage = AuditStage(self.log.writing, letters, self.metrics, home)

    async def _count(self) -> int:
        return 4

    async def handle(self, *records: Record) -> None:
        await self.stage.handle_batch(records, self.log.lease)

    def counted(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"pipeline_{name}_total", labels)


def record(offset: int, name: str | None = None, *, value: bytes | None = None) -> Record:
    outgoing: OutgoingRecord = audit_record(entry(offset, name).event)
    return Record(
        topic=Topic.AUDIT_EVENTS,
        partition=2,
        offset=offset,
        key=outgoing.key,
        value=outgoing.value if value is None else value,
        headers=outgoing.headers,
        timestamp_ms=0,
    )


async def test_a_batch_becomes_a_segment_and_is_counted() -> None:
    world = World()
    await world.stage.assigned(Topic.AUDIT_EVENTS, 2)
    await world.handle(record(1), record(2), record(3, "2"))
    assert world.log.keys == ["audit/audit.events/00002/00000/000000000000.jsonl"]
    assert world.log.offsets() == [1, 2]
    assert world.counted("audit_events", result="appended") == 2
    assert world.counted("audit_events", result="repeated") == 1
    assert world.counted("audit_segments") == 1
    assert world.counted("audit_window_cuts") == 0


async def test_fields_that_the_model_does_not_know_are_kept() -> None:
    world = World()
    await world.handle(record(1, value=json.dumps({**entry(1).fields, "invented": {"later": [1, None]}}).encode()))
    line = json.loads(world.log.lines(world.log.keys[0])[1])
    assert line["event"]["invented"] == {"later": [1, None]}


@pytest.mark.parametrize(
    ("value", "code", "words"),
    [
        (b"", "audit_event_invalid", "Invalid JSON"),
        (b"\xff\xfe", "audit_event_invalid", "Invalid JSON"),
        (b"[" * 5000, "audit_event_invalid", "Invalid JSON"),
        (b'{"id": "1"}', "audit_event_invalid", "action"),
        (json.dumps({**entry(1).fields, "action": "4111111111111111"}).encode(), "audit_event_invalid", "action"),
        (json.dumps({**entry(1).fields, "detail": {"n": float("nan")}}).encode(), "audit_event_invalid", "number"),
        (b" " * (MAX_EVENT_BYTES + 1), "audit_event_too_large", "1048577 bytes"),
    ],
    ids=["empty", "no text", "too deep", "incomplete", "unknown action", "not a number", "too large"],
)
async def test_what_is_no_audit_event_is_put_aside_and_the_rest_goes_on(value: bytes, code: str, words: str) -> None:
    world = World()
    poison = record(2, value=value)
    await world.handle(record(1), poison, record(3))
    assert world.log.offsets() == [1, 3]
    [letter] = world.publisher.on(Topic.AUDIT_DEAD_LETTER)
    assert (letter.value, letter.key) == (value, poison.key)
    headers = first_values(letter.headers)
    assert (headers["dlq_code"], headers["dlq_offset"], headers["dlq_partition"]) == (code, "2", "2")
    assert words in headers["dlq_message"]
    assert "4111" not in headers["dlq_message"]


async def test_a_poison_record_that_cannot_be_kept_yet_holds_the_batch() -> None:
    world = World()

    async def refuse(_: OutgoingRecord) -> None:
        raise TransientError("broker", "gone")

    world.publisher.before = refuse
    with pytest.raises(TransientError):
        await world.handle(record(1), record(2, value=b""))
    assert world.log.keys == []


async def test_a_batch_of_poison_alone_writes_no_segment() -> None:
    world = World()
    await world.handle(record(1, value=b"{}"))
    assert world.log.keys == []
    assert len(world.publisher.published) == 1


async def test_an_unreachable_store_holds_the_batch_and_loses_nothing() -> None:
    world = World()
    await world.stage.assigned(Topic.AUDIT_EVENTS, 2)
    world.log.store.lose_answers = 1
    with pytest.raises(StoreUnavailable):
        await world.handle(record(1), record(2))
    await world.handle(replace(record(1), attempt=2), replace(record(2), attempt=2))
    assert world.log.offsets() == [1, 2]
    assert (await verify(world.log.store)).ok


async def test_two_members_on_one_partition_append_each_event_once() -> None:
    """The zombie loses the creation, drops its work, and continues from the existing segments afterwards."""
    log = Log()
    zombie, heir = World(log), World(log)
    for world in (zombie, heir):
        await world.stage.assigned(Topic.AUDIT_EVENTS, 2)
    await heir.handle(record(1), record(2))
    with pytest.raises(LeaseLost):
        await zombie.handle(record(1), record(2))
    await zombie.handle(record(2), record(3))
    assert log.offsets() == [1, 2, 3]
    assert (await verify(log.store)).ok


async def test_without_the_lease_nothing_is_written() -> None:
    world = World()
    world.log.lease.lost = True
    with pytest.raises(LeaseLost):
        await world.handle(record(1))
    with pytest.raises(LeaseLost):
        await world.handle(record(2, value=b""))
    assert world.log.keys == []
    assert world.publisher.published == []


async def test_a_partition_that_comes_back_is_read_again() -> None:
    world, other = World(), None
    await world.handle(record(1))
    other = World(world.log)
    await other.handle(record(2))
    await world.stage.assigned(Topic.AUDIT_EVENTS, 2)
    await world.handle(record(1), record(2), record(3))
    assert world.log.offsets() == [1, 2, 3]


def webhook(offset: int, name: str = "1", *, key: str = f"acme/{JOB}", marks: bool = True) -> Record:
    """Return the record of an announcement, the same one for the same name."""
    extra = [("pipeline_integration", b"acme")]
    if marks:
        extra += [("pipeline_client", b"198.51.100.9"), ("pipeline_verified_by", b"current")]
    headers = EventHeaders(
        id=name,
        source="/webhooks/ecs/acme",
        type="card-batch.requested",
        subject=str(JOB),
        time=START,
        partition_key=key,
    )
    return Record(Topic.BATCH_REQUESTED, 2, offset, key, b'{"secret": "url"}', headers.encode(extra), 0)


async def test_accepted_webhooks_become_audit_events_in_a_chain_of_their_topic() -> None:
    """A repeat by the sender, or a record that landed twice, has the id of the first; the value is not kept."""
    world = World()
    await world.handle(webhook(4, "a"), webhook(5, "a"), webhook(6, "b"))
    await world.handle(webhook(7, "b"), webhook(9, "c"))
    assert world.log.keys == [f"audit/card-batch.requested/00002/00000/00000000000{number}.jsonl" for number in (0, 1)]
    assert world.log.offsets() == [4, 6, 9]
    line = json.loads(world.log.lines(world.log.keys[0])[1])
    assert line["event"] == json.loads(accepted_event(webhook(4, "a")).model_dump_json())  # type: ignore[union-attr]
    assert (line["id"], line["actor"]) == (AuditEvent.id_of(AuditAction.WEBHOOK_ACCEPTED, "acme", "a"), "ingress")
    assert b"secret" not in b"".join(world.log.store.objects.values())
    assert (await verify(world.log.store)).ok


async def test_other_records_of_webhook_topics_are_passed_over() -> None:
    """Other stages dead-letter them; an older ingress published the audit event of those without the marks itself."""
    world = World()
    poison = replace(webhook(2), headers=(), value=b"4111111111111111")
    with capture_logs() as logs:
        await world.handle(webhook(1, marks=False), poison)
        await world.handle(replace(poison, offset=3), webhook(4, "d"), replace(poison, offset=5))
    assert world.log.offsets() == [4]
    assert world.publisher.published == []
    assert "4111" not in repr(logs)


async def test_events_and_webhooks_have_chains_of_their_own() -> None:
    world = World()
    await world.handle(record(1))
    await world.handle(webhook(1))
    await world.handle(record(2))
    assert world.log.keys == [
        "audit/audit.events/00002/00000/000000000000.jsonl",
        "audit/audit.events/00002/00000/000000000001.jsonl",
        "audit/card-batch.requested/00002/00000/000000000000.jsonl",
    ]
    report = await verify(world.log.store)
    assert (report.ok, report.events) == (True, 3)
