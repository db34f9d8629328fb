"""A keyed consumer in a simulated cluster: random records, errors, rebalances and crashes, and what must hold always.

A test gives the seed. Everything random is drawn from it, and time is virtual, so a failure happens again.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence

from pipeline.contracts import OutgoingRecord, Record, Topic
from pipeline.errors import LeaseLost, Overloaded, PermanentError, TransientError
from pipeline.kafka import ConsumerSettings, DeadLetters, KafkaSettings, KeyedConsumer, Lease
from pipeline.kafka.dead_letters import DeadLetter
from pipeline.kafka.protocols import Partition, RebalanceListener
from pipeline.kafka.testing import MemoryPublisher
from pipeline.observability import Metrics

TOPIC = Topic.BATCH_REQUESTED
STALE = 1e9


class Bug(Exception):
    """What no handler should raise."""


def flow_of(record: Record) -> str:
    """Return the flow of a record of the simulation."""
    return dict(record.headers)["flow"].decode()


class World:
    """The cluster, what was done, and the rules: each ``check`` method raises AssertionError where one is broken.

    Attributes:
        logs: The records of each partition. Offsets may have gaps.
        committed: The offsets that the broker has.
        done: Records that were handled, or whose dead letter is written and noted.
        troubled: Whether errors, rebalances and crashes happen.
        stuck: Set to a flow whose handler does not return while it is set.

    Args:
        seed: Of everything random.
        stuck: Whether a flow will be stuck: then the slots suffice for another one, keys belong to one flow each, and
            the records fit into the bound on repetitions, which knows nothing of flows.
    """

    def __init__(self, seed: int, *, stuck: bool = False) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a seed, no secret
        pick = self.random.choice
        self.with_gate, self.with_arrival = pick([False, True]), pick([False, True])
        self.flows = pick(["a", "abc"[: pick([2, 3])]]) if not stuck else "ab"
        self.stuck: str | None = None
        self._own_keys = stuck
        max_span = 10_000 if stuck else pick([1, 2, 3, 5, 20])
        self.fetch_ahead = pick([0, max_span, 4 * max_span])
        self.settings = ConsumerSettings(
            max_span=max_span,
            slots=pick([2, 3, 5] if stuck else [1, 2, 5]),
            concurrency=pick([1, 2, 4]),
            arrivals=pick([1, 3]),
            max_poll_records=pick([1, 3, 50]),
            max_span_bytes=8_000_000 if stuck else pick([30, 8_000_000]),
            retry={"first_seconds": 0.05, "max_seconds": 0.4},
            commit_interval_seconds=pick([0.1, 2.0]),
            commit_timeout_seconds=0.5,
            poll_interval_seconds=0.1,
            stop_grace_seconds=pick([0.0, 0.2, 5.0]),
        )
        self.metrics = Metrics()
        self.partitions = [Partition(TOPIC, number) for number in range(pick([1, 2, 3]))]
        self.logs: dict[Partition, list[Record]] = {partition: [] for partition in self.partitions}
        self.committed: dict[Partition, int] = {}
        self.done: set[tuple[int, int]] = set()
        self.poison: set[tuple[int, int]] = set()
        self.refused: set[tuple[int, int]] = set()
        self.running: dict[tuple[int, str], Record] = {}
        self.arrived: set[tuple[int, int]] = set()
        self.calls: dict[tuple[int, str], int] = defaultdict(int)
        self.client = SimulatedClient(self)
        self.troubled = True
        self.bug: Bug | None = None
        self.handled = self.repeated = 0

    # records

    def append(self, count: int) -> None:
        """Write records to random partitions."""
        for _ in range(count):
            partition = self.random.choice(self.partitions)
            log = self.logs[partition]
            offset = log[-1].offset + 1 if log else self.random.choice([0, 7])
            if self.random.random() < 0.05:
                offset += self.random.randrange(1, 30)
            key = self.random.choice(["", "a", "b", "c", "d"])
            flow = self.random.choice(self.flows)
            if key and self._own_keys:
                key = f"{flow}/{key}"
            headers = (("flow", flow.encode()),)
            log.append(Record(TOPIC, partition.number, offset, key, b"x" * self.random.randrange(20), headers, 1))
            if self.random.random() < 0.1:
                self.poison.add((partition.number, offset))
            if self.with_gate and self.random.random() < 0.3:
                self.refused.add((partition.number, offset))

    def start_of(self, partition: Partition) -> int:
        log = self.logs[partition]
        return self.committed.get(partition, log[0].offset if log else 0)

    def unfinished(self, partition: Partition, end: int) -> list[Record]:
        """Return the unfinished records before an offset, in order."""
        out = self.done | self.refused
        return [one for one in self.logs[partition] if one.offset < end and (one.partition, one.offset) not in out]

    def unfinished_of_others(self) -> list[Record]:
        """Return the unfinished records of every flow but the stuck one."""
        unfinished = [one for partition in self.partitions for one in self.unfinished(partition, 1 << 60)]
        return [one for one in unfinished if flow_of(one) != self.stuck]

    @property
    def over(self) -> bool:
        """Whether everything is finished and committed."""
        return all(not log or self.committed.get(one) == log[-1].offset + 1 for one, log in self.logs.items())

    # rules

    def check_begin(self, record: Record) -> None:
        """A call may begin now: the partition is ours, the record within the bound that a crash repeats."""
        partition = Partition(TOPIC, record.partition)
        assert partition in self.client.partitions
        assert not self.client.limbo
        assert (record.partition, record.offset) not in self.refused
        start = self.start_of(partition)
        first = next(one.offset for one in self.logs[partition] if one.offset >= start)
        assert first <= record.offset < first + self.settings.max_span

    def check_turn(self, record: Record) -> None:
        """The record is handled or dead-lettered in order: every earlier one of its key is finished."""
        self.check_begin(record)
        if self.with_arrival:
            assert (record.partition, record.offset) in self.arrived
        if record.key:
            earlier = self.unfinished(Partition(TOPIC, record.partition), record.offset)
            assert [one for one in earlier if one.key == record.key] == []
            assert (record.partition, record.key) not in self.running

    def check_shares(self) -> None:
        """One flow never has all slots while there is another."""
        if len(self.flows) > 1 and self.settings.slots > 1:
            for flow in self.flows:
                assert sum(count for one, count in self.calls.items() if one[1] == flow) < self.settings.slots

    def check_commit(self, partition: Partition, offset: int) -> None:
        """Nothing is committed past an unfinished record, and no offset goes back."""
        assert self.unfinished(partition, offset) == []
        assert offset >= self.committed.get(partition, 0)

    # what happens to calls

    async def pass_time(self, most: float = 0.3) -> None:
        """Wait a random time, often none."""
        for _ in range(self.random.choice([0, 0, 1, 2])):
            await asyncio.sleep(self.random.choice([0.0, self.random.random() * most]))

    def trouble(self) -> None:
        """Raise a random error, or none."""
        if not self.troubled:
            return
        draw = self.random.random()
        if draw < 0.1:
            raise TransientError("source_timeout", "again", retry_after=self.random.choice([None, None, 1.0]))
        if draw < 0.15:
            raise Overloaded("busy", "later")
        if draw < 0.2:
            raise LeaseLost("decided", "by another worker")
        if draw < 0.203 and self.bug is None:
            self.bug = Bug()
            raise self.bug

    def decide(self, record: Record) -> None:
        """Raise a random error; of poison that which says so."""
        self.trouble()
        if (record.partition, record.offset) in self.poison:
            raise PermanentError("poison", "never")

    async def on_arrival(self, record: Record) -> None:
        """See OnArrival."""
        self.check_begin(record)
        try:
            await self.pass_time()
            self.decide(record)
        except PermanentError:
            self.arrived.add((record.partition, record.offset))
            raise
        self.arrived.add((record.partition, record.offset))

    async def handle(self, record: Record, lease: Lease) -> None:
        """See Handle. The effect comes last, right after a look at the lease."""
        self.check_turn(record)
        call = record.partition, flow_of(record)
        assert sum(self.calls.values()) < self.settings.slots
        assert self.calls[call] < self.settings.concurrency
        self.calls[call] += 1
        self.check_shares()
        self.running[record.partition, record.key] = record
        try:
            await self.pass_time()
            while self.stuck == call[1]:  # noqa: ASYNC110 - the simulation sets it from outside
                await asyncio.sleep(1.0)
            self.decide(record)
            await lease.ensure()
            assert Partition(TOPIC, record.partition) in self.client.partitions
            assert not self.client.limbo
            position = (record.partition, record.offset)
            self.repeated += position in self.done
            self.handled += 1
            self.done.add(position)
            await self.pass_time(0.05)
            self.trouble()
        finally:
            self.calls[call] -= 1
            self.running.pop((record.partition, record.key), None)

    async def before_letter(self, letter: OutgoingRecord) -> None:
        """See MemoryPublisher."""
        facts = dict(letter.headers)
        position = (int(facts["dlq_partition"]), int(facts["dlq_offset"]))
        assert position in self.poison
        [record] = [one for one in self.logs[Partition(TOPIC, position[0])] if one.offset == position[1]]
        self.check_turn(record)
        await self.pass_time()
        self.trouble()

    async def on_dead_letter(self, letter: DeadLetter) -> None:
        """See OnDeadLetter."""
        await self.pass_time(0.05)
        self.trouble()
        self.done.add((letter.record.partition, letter.record.offset))

    # members

    def member(self) -> KeyedConsumer:
        """Make a member with a client of its own."""
        client = self.client = SimulatedClient(self)
        self.arrived.clear()
        self.bug = None

        async def connect() -> SimulatedClient:
            return client

        return KeyedConsumer(
            self.handle,
            on_arrival=self.on_arrival if self.with_arrival else None,
            gate=(lambda _topic, number: SimulatedGate(self, Partition(TOPIC, number))) if self.with_gate else None,
            dead_letters=DeadLetters(
                MemoryPublisher(self.before_letter),
                group="process",
                metrics=self.metrics,
                on_dead_letter=self.on_dead_letter,
            ),
            group="process",
            topics=[TOPIC],
            kafka=KafkaSettings(bootstrap_servers="127.0.0.1:1"),
            settings=self.settings,
            flow_of=flow_of,
            flows=len(self.flows),
            fetch_ahead=self.fetch_ahead,
            metrics=self.metrics,
            connect=connect,
        )


class SimulatedGate:
    """Refuses what the world says; wants to see every record of its partition once, in order."""

    def __init__(self, world: World, partition: Partition) -> None:
        self._world = world
        self._partition = partition
        self._expected: int | None = None

    async def open(self, first: Record) -> None:
        await self._world.pass_time()
        if self._world.troubled and self._world.random.random() < 0.3:
            raise TransientError("broker_unavailable", "again")
        log = self._world.logs[self._partition]
        self._expected = next(number for number, record in enumerate(log) if record.offset == first.offset)

    def admit(self, record: Record) -> bool:
        assert self._expected is not None
        assert record == self._world.logs[self._partition][self._expected]
        self._expected += 1
        return (record.partition, record.offset) not in self._world.refused


class SimulatedClient:
    """One member's view of the world, as aiokafka would give it: see ``pipeline.kafka.protocols.GroupClient``.

    Attributes:
        limbo: Whether a rebalance is under way.
        dead: Whether the process has crashed: nothing reaches the broker any more.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.heartbeat_age = 0.0
        self.membership: tuple[str, int] | None = None
        self.partitions: frozenset[Partition] = frozenset()
        self.limbo = False
        self.dead = False
        self._listener: RebalanceListener | None = None
        self._last_generation = 0
        self._positions: dict[Partition, int] = {}
        self._paused: set[Partition] = set()

    # what the simulation does

    async def rebalance(self, *, lost: bool) -> None:
        """Take all partitions, give some back; where they are ``lost``, others have had them in between."""
        world, listener = self._world, self._listener
        if listener is None:
            return
        if lost and world.random.random() < 0.3:
            self.membership = None
        await listener.on_revoked()
        self.limbo = True
        await asyncio.sleep(world.random.random())
        kept = [one for one in world.partitions if not world.troubled or world.random.random() < 0.7]
        name, last = self.membership or ("me", self._last_generation)
        if lost:
            name = world.random.choice([name, name + "'"])
            last += 1
        for partition in world.partitions:
            if partition in self.partitions and (lost or partition not in kept):
                self._others_work(partition)
        self.membership, self._last_generation = (name, last + 1), last + 1
        self.partitions = frozenset(kept)
        self._positions.clear()
        self._paused.clear()
        self.limbo = False
        await listener.on_assigned(self.partitions)

    def _others_work(self, partition: Partition) -> None:
        world = self._world
        unfinished = world.unfinished(partition, 1 << 60)
        for record in unfinished[: world.random.randrange(4)]:
            world.done.add((record.partition, record.offset))
        left = world.unfinished(partition, 1 << 60)
        log = world.logs[partition]
        if log and world.random.random() < 0.7:
            world.committed[partition] = left[0].offset if left else log[-1].offset + 1

    async def freeze(self) -> None:
        """Let heartbeats fail for a while; the group notices nothing."""
        self.heartbeat_age = STALE
        await asyncio.sleep(self._world.random.random())
        self.heartbeat_age = 0.0

    # what the member calls

    def subscribe(self, listener: RebalanceListener) -> None:
        self._listener = listener

    async def fetch(self, max_records: int, wait: float) -> Mapping[Partition, Sequence[Record]]:
        await self._world.pass_time(wait)
        while self.limbo or self.dead:  # noqa: ASYNC110 - the simulation sets them from outside
            await asyncio.sleep(wait)
        found: dict[Partition, list[Record]] = {}
        ready = sorted(self.partitions - self._paused)
        self._world.random.shuffle(ready)
        for partition in ready:
            at = self._positions.setdefault(partition, self._world.start_of(partition))
            most = self._world.random.randint(1, max_records) if max_records else 0
            records = [one for one in self._world.logs[partition] if one.offset >= at][:most]
            if records:
                found[partition] = records
                max_records -= len(records)
                self._positions[partition] = records[-1].offset + 1
        if not found:
            await asyncio.sleep(wait)
        return found

    async def commit(self, offsets: Mapping[Partition, int]) -> bool:
        world, sent_as = self._world, self.membership
        answer = world.random.random() if world.troubled else 1.0
        if answer < 0.05:
            await asyncio.sleep(60)
        await world.pass_time(0.1)
        if self.dead or self.limbo or sent_as != self.membership or answer < 0.1:
            return False
        for partition, offset in offsets.items():
            world.check_commit(partition, offset)
            world.committed[partition] = offset
        return answer > 0.2

    async def start_offset(self, partition: Partition) -> int | None:
        await self._world.pass_time()
        return None if self._world.troubled and self._world.random.random() < 0.3 else self._world.start_of(partition)

    def assignment(self) -> frozenset[Partition]:
        return self.partitions

    def pause(self, partition: Partition) -> None:
        self._paused.add(partition)

    def resume(self, partition: Partition) -> None:
        self._paused.discard(partition)

    def seek(self, partition: Partition, offset: int) -> None:
        self._positions[partition] = offset

    async def refresh_ends(self, partitions: Sequence[Partition]) -> None:
        assert partitions

    def end(self, partition: Partition) -> int | None:
        log = self._world.logs[partition]
        return log[-1].offset + 1 if log else None

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109 - as the protocol has it
        assert timeout > 0
