"""Moving a stopped group to another place in its topics: the plan first, then the deed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from pipeline.contracts import TopicName
from pipeline.errors import PermanentError
from pipeline.kafka._group import Partition
from pipeline.kafka._group_client import GroupBusy, open_group
from pipeline.kafka._places import Point
from pipeline.kafka.names import Names
from pipeline.kafka.reader import Bounds
from pipeline.kafka.settings import KafkaSettings

__all__ = ["Client", "GroupBusy", "GroupUnknown", "Move", "Point", "Rewind", "TopicUnknown", "plan_rewind", "rewind"]


class GroupUnknown(PermanentError):
    """No such group has committed anything."""


class TopicUnknown(PermanentError):
    """There is no such topic in the cluster."""


class Client(Protocol):
    """What moving a group needs of a Kafka client; see :class:`pipeline.kafka._group_client.GroupClient`."""

    async def members(self) -> int: ...  # noqa: D102 - see GroupClient
    async def committed(self) -> dict[Partition, int]: ...  # noqa: D102
    async def partitions(self, topics: Iterable[TopicName]) -> list[Partition]: ...  # noqa: D102
    async def bounds(self, partitions: Sequence[Partition]) -> dict[Partition, Bounds]: ...  # noqa: D102
    async def offsets(self, bounds: Mapping[Partition, Bounds], point: Point) -> dict[Partition, int]: ...  # noqa: D102
    async def commit(self, offsets: Mapping[Partition, int]) -> None: ...  # noqa: D102


Connect = Callable[[KafkaSettings, str], AbstractAsyncContextManager[Client]]


@asynccontextmanager
async def _connected(settings: KafkaSettings, group: str) -> AsyncIterator[Client]:
    async with open_group(settings, group) as client:
        yield client


@dataclass(frozen=True, slots=True)
class Move:
    """What becomes of one partition of a group.

    Attributes:
        committed: Where the group stands; None: it has committed nothing here.
        becomes: Where it will stand.
        again: Records that it will get once more.
        skipped: Records that it will not get.
    """

    topic: TopicName
    partition: int
    committed: int | None
    becomes: int
    again: int
    skipped: int


@dataclass(frozen=True, slots=True)
class Rewind:
    """What becomes of a group.

    Attributes:
        group: Its name in the cluster.
        moves: By topic and partition.
    """

    group: str
    moves: tuple[Move, ...]


async def plan_rewind(
    settings: KafkaSettings,
    group: str,
    to: Point,
    *,
    topics: Sequence[TopicName] = (),
    connect: Connect = _connected,
) -> Rewind:
    """Return what :func:`rewind` would do now; nothing is changed.

    Args:
        settings: The cluster.
        group: Its name in the cluster; of a stage, the name alone will do, without ``kafka.group_prefix``.
        to: Where the group shall stand.
        topics: Default: all in which it has committed something.
        connect: Opens a client.

    Raises:
        GroupUnknown: It has committed nothing.
        TopicUnknown: A topic is not there.
        GroupBusy: It has live members.
        BrokerUnavailable: No answer in time.
    """
    return await _rewound(settings, group, to, topics, connect, execute=False)


async def rewind(
    settings: KafkaSettings,
    group: str,
    to: Point,
    *,
    topics: Sequence[TopicName] = (),
    connect: Connect = _connected,
) -> Rewind:
    """Let a stopped group go on from another place; return what was done. Repeating is safe.

    A member that joins at the same moment is not overrun: the broker refuses then, and nothing is changed. Arguments
    and errors as of :func:`plan_rewind`.
    """
    return await _rewound(settings, group, to, topics, connect, execute=True)


async def _rewound(
    settings: KafkaSettings, group: str, to: Point, topics: Sequence[TopicName], connect: Connect, *, execute: bool
) -> Rewind:
    # subscribers' groups are called as they please, those of stages have our prefix
    for name in dict.fromkeys((group, Names(settings).group(group))):
        async with connect(settings, name) as client:
            if not await client.committed():
                continue
            moves = await _plan(client, name, to, topics)
            if execute:
                await client.commit({Partition(move.topic, move.partition): move.becomes for move in moves})
            return Rewind(name, tuple(moves))
    raise GroupUnknown("group_unknown", f"{group} has committed nothing in this cluster; is the name right?")


async def _plan(client: Client, group: str, to: Point, topics: Sequence[TopicName]) -> list[Move]:
    committed = await client.committed()
    if members := await client.members():
        raise GroupBusy(group, f"{members} live member{'s' if members > 1 else ''}")
    wanted = sorted(set(topics) or {one.topic for one in committed})
    partitions = await client.partitions(wanted)
    there = {one.topic for one in partitions}
    if gone := [topic for topic in wanted if topic not in there]:
        raise TopicUnknown("topic_unknown", f"there is no topic {', '.join(gone)} in this cluster")
    bounds = await client.bounds(partitions)
    targets = await client.offsets(bounds, to)
    return [_move(one, committed.get(one), targets[one], bounds[one]) for one in sorted(partitions)]


def _move(partition: Partition, committed: int | None, target: int, there: Bounds) -> Move:
    # what retention has taken is neither handled again nor skipped
    stands = there.first if committed is None else max(committed, there.first)
    again = 0 if committed is None else max(0, stands - target)
    return Move(partition.topic, partition.number, committed, target, again, max(0, target - stands))
