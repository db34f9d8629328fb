"""A keyed consumer on a fake group, with a gate that does what the test says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from support.bus_bench import KAFKA, NOON, MemberBench, until
from support.fake_group import FakeGroup

from pipeline.contracts import Record, Topic
from pipeline.kafka import DeadLetters, GroupClientFactory, KeyedConsumer, Lease

TOPIC = Topic.EVENTS_FEES


class ListedGate:
    """Admits all but the listed values."""

    def __init__(self, bench: EventBench) -> None:
        self._bench = bench
        self.opened: list[int] = []
        self.seen: list[int] = []

    async def open(self, first: Record) -> None:
        self.opened.append(first.offset)
        await self._bench.on_open(first)

    def admit(self, record: Record) -> bool:
        self.seen.append(record.offset)
        return record.value not in self._bench.refused


class EventBench(MemberBench[KeyedConsumer]):
    """A keyed consumer with a gate, on a fake group.

    Attributes:
        gates: One per time that a partition was given to the member.
        refused: Values that no gate admits.
    """

    stage = "fraud"

    def __init__(self) -> None:
        super().__init__(FakeGroup(TOPIC))
        self.gates: list[ListedGate] = []
        self.refused: set[bytes] = set()
        self.begun: list[Record] = []
        self.done: list[bytes] = []
        self.on_handle: Callable[[Record], Awaitable[None]] | None = None
        self.on_open: Callable[[Record], Awaitable[None]] = _at_once

    async def handle(self, record: Record, _lease: Lease) -> None:
        self.begun.append(record)
        if self.on_handle:
            await self.on_handle(record)
        self.done.append(record.value)

    def gate(self, _topic: str, _partition: int) -> ListedGate:
        made = ListedGate(self)
        self.gates.append(made)
        return made

    def make(self, connect: GroupClientFactory) -> KeyedConsumer:
        return KeyedConsumer(
            self.handle,
            gate=self.gate,
            dead_letters=DeadLetters(
                self.publisher,
                group=self.stage,
                metrics=self.metrics,
                clock=lambda: NOON,
                address=lambda topic: f"fraud.of.{topic}.dead-letter",
            ),
            group=self.stage,
            topics=[TOPIC],
            kafka=KAFKA,
            settings=self.settings,
            fetch_ahead=2 * self.settings.max_span,
            metrics=self.metrics,
            connect=connect,
        )


async def _at_once(_first: Record) -> None:
    """Open the gate."""


__all__ = ["EventBench", "until"]
