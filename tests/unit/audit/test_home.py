"""Growing the partitions of ``audit.events`` writes no event twice."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from support.audit_log import HeldLease, Log, entry

from pipeline.audit.home import KEY, HomePartitions
from pipeline.audit.stage import AuditStage
from pipeline.audit.verify import verify
from pipeline.contracts import OutgoingRecord, Record, Topic, audit_record
from pipeline.errors import FatalError, LeaseLost, TransientError
from pipeline.kafka import partition_of_key
from pipeline.kafka.dead_letters import DeadLetters
from pipeline.kafka.testing import MemoryPublisher
from pipeline.observability import Metrics


class Topics:
    """The topic, whose partitions grow, and the members of the audit group."""

    def __init__(self, partitions: int) -> None:
        self.log = Log()
        self.partitions = partitions
        self.publisher = MemoryPublisher(self._append)
        self.records: dict[int, list[Record]] = defaultdict(list)
        self.done: Counter[int] = Counter()
        self.start()

    def start(self) -> None:
        letters = DeadLetters(self.publisher, group="audit", metrics=Metrics())
        self.home = HomePartitions(self.log.store, self.publisher, count=self._count, partition_of=partition_of_key)
        self.stage = AuditStage(self.log.writing, letters, Metrics(), self.home)

    async def _count(self) -> int:
        return self.partitions

    async def _append(self, outgoing: OutgoingRecord) -> None:
        number = outgoing.partition
        if number is None:
            number = partition_of_key(outgoing.key, self.partitions)
        assert number < self.partitions
        held = self.records[number]
        held.append(
            Record(outgoing.topic, number, len(held), outgoing.key, outgoing.value, outgoing.headers, timestamp_ms=0)
        )

    async def publish(self, name: int) -> None:
        """Publish an event; its job, and so its key, is that of others too."""
        await self.publisher.publish(replace(audit_record(entry(name, str(name)).event), key=f"acme/{name % 7}"))

    async def consume(self) -> None:
        """Let AUDIT handle what is there, until nothing comes any more."""
        while waiting := [number for number in self.records if self.done[number] < len(self.records[number])]:
            for number in waiting:
                batch = self.records[number][self.done[number] :]
                await self.stage.handle_batch(batch, self.log.lease)
                self.done[number] += len(batch)

    def logged(self) -> Counter[str]:
        """Return how often each event is in the log."""
        lines = [json.loads(line) for key in self.log.keys for line in self.log.lines(key)]
        return Counter(line["id"] for line in lines if line["kind"] == "event")


async def test_an_event_that_comes_again_after_the_topic_has_grown_is_written_once() -> None:
    topics = Topics(4)
    for name in range(50):
        await topics.publish(name)
    await topics.consume()
    topics.partitions = 12
    topics.start()
    with capture_logs() as logs:
        for name in range(100):
            await topics.publish(name)
        await topics.consume()
    assert set(topics.logged().values()) == {1}
    assert len(topics.logged()) == 100
    assert any(number >= 4 and held for number, held in topics.records.items())
    assert (await verify(topics.log.store)).ok
    assert [line["began_with"] for line in logs if line["event"] == "audit_partitions_grown"] == [4]


async def test_a_member_that_runs_while_the_topic_grows_needs_to_know_nothing() -> None:
    topics = Topics(4)
    for name in range(30):
        await topics.publish(name)
        await topics.consume()
    topics.partitions = 9
    for name in range(60):
        await topics.publish(name)
        await topics.consume()
    assert (len(topics.logged()), set(topics.logged().values())) == (60, {1})


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 5),
    st.lists(st.one_of(st.integers(0, 40), st.sampled_from(["grow", "consume", "restart"])), max_size=60),
)
async def test_whatever_happens_each_event_is_written_once(partitions: int, steps: list[int | str]) -> None:
    topics = Topics(partitions)
    await topics.home.prepare()
    published = set()
    for step in steps:
        if step == "grow":
            topics.partitions += 3
        elif step == "restart":
            topics.start()
        elif step == "consume":
            await topics.consume()
        else:
            published.add(step)
            await topics.publish(int(step))
    await topics.consume()
    assert (len(topics.logged()), set(topics.logged().values()) | {1}) == (len(published), {1})
    assert (await verify(topics.log.store)).ok


async def test_without_growth_nothing_is_sent_on() -> None:
    topics = Topics(4)
    for name in range(50):
        await topics.publish(name)
    await topics.consume()
    assert len(topics.publisher.published) == 50


async def test_fewer_partitions_than_the_log_began_with_stop_the_stage() -> None:
    topics = Topics(4)
    await topics.home.prepare()
    topics.partitions = 3
    topics.start()
    with pytest.raises(FatalError, match=r"audit_partitions_missing.*has 3 partitions, but its log began with 4"):
        await topics.stage.assigned(Topic.AUDIT_EVENTS, 0)


async def test_two_members_that_begin_a_log_agree_on_its_partitions() -> None:
    """The topic grows between the first member's count and the second one's."""
    first, second = Topics(4), Topics(12)
    second.log = first.log
    second.start()
    await first.home.prepare()
    await second.home.prepare()
    assert json.loads(first.log.store.objects[KEY]) == {"partitions": 4}
    assert await second.home.keep_own([_record(7)], first.log.lease) == []


async def test_a_member_that_dies_when_it_begins_a_log_leaves_one_that_others_can_go_on_with() -> None:
    topics = Topics(4)
    topics.log.store.lose_answers = 1
    with pytest.raises(TransientError):
        await topics.home.prepare()
    topics.partitions = 6
    topics.start()
    await topics.home.prepare()
    assert json.loads(topics.log.store.objects[KEY]) == {"partitions": 4}


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"partitions": 0}'])
async def test_a_damaged_number_stops_the_stage(damage: bytes) -> None:
    topics = Topics(4)
    topics.log.store.objects[KEY] = damage
    with pytest.raises(FatalError, match="audit_settings_damaged"):
        await topics.stage.assigned(Topic.AUDIT_EVENTS, 0)


async def test_an_event_that_cannot_be_sent_on_holds_its_batch() -> None:
    topics = Topics(4)
    await topics.home.prepare()

    async def fail(_: OutgoingRecord) -> None:
        raise TransientError("broker_unavailable", "by the test")

    topics.publisher.before = fail
    with pytest.raises(TransientError, match="by the test"):
        await topics.stage.handle_batch([_record(7)], topics.log.lease)
    assert topics.logged() == {}


async def test_without_the_lease_nothing_is_sent_on() -> None:
    topics = Topics(4)
    await topics.home.prepare()
    with pytest.raises(LeaseLost):
        await topics.home.keep_own([_record(7)], HeldLease(lost=True))
    assert topics.publisher.published == []


def _record(partition: int) -> Record:
    outgoing = audit_record(entry(0).event)
    return Record(Topic.AUDIT_EVENTS, partition, 0, outgoing.key, outgoing.value, outgoing.headers, timestamp_ms=0)
