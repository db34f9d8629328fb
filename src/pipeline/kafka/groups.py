"""Moves a stopped group to another offset: rewinds it, or skips a batch that it cannot read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Final

from pipeline.contracts import TopicName
from pipeline.kafka.client.admin import open_group
from pipeline.kafka.errors import BatchUndecodable, GroupBusy, GroupUnknown, SkipRefused, TopicUnknown
from pipeline.kafka.protocols import Bounds, GroupAdmin, Partition, PartitionReader, Point
from pipeline.kafka.settings import KafkaSettings, Names
from pipeline.observability import get_logger

log = get_logger(__name__)

_FETCH_WAIT: Final = 1.0
"""Seconds that one fetch waits for records."""

Connect = Callable[[KafkaSettings, str], AbstractAsyncContextManager[GroupAdmin]]


@dataclass(frozen=True, slots=True)
class Move:
    """The change of one partition of a group.

    Attributes:
        committed: The group's offset; None: it has committed nothing here.
        becomes: Its offset afterwards.
        again: Number of records that it will get again.
        skipped: Number of records that it will not get.
    """

    topic: TopicName
    partition: int
    committed: int | None
    becomes: int
    again: int
    skipped: int


@dataclass(frozen=True, slots=True)
class Rewind:
    """The change of a group.

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
    connect: Connect = open_group,
) -> Rewind:
    """Return what :func:`rewind` would do now; nothing is changed.

    Args:
        settings: The cluster.
        group: Its name in the cluster. For a stage, its name without ``kafka.group_prefix`` is enough.
        to: The point from which the group continues.
        topics: The topics to move. Default: all in which the group has committed offsets.
        connect: Opens a client.

    Raises:
        GroupUnknown: It has committed nothing.
        TopicUnknown: A topic does not exist.
        GroupBusy: It has live members.
        NotAuthorized: The user of the settings may not read one of the topics. The cluster would refuse its offsets but
            accept those of the others.
        BrokerUnavailable: No answer in time.
    """
    return await _rewound(settings, group, to, topics, connect, execute=False)


async def rewind(
    settings: KafkaSettings,
    group: str,
    to: Point,
    *,
    topics: Sequence[TopicName] = (),
    connect: Connect = open_group,
) -> Rewind:
    """Let a stopped group continue from another point; return what was done. Repeating is safe.

    If a member joins at the same moment, the broker refuses and nothing changes. The arguments and errors are those of
    :func:`plan_rewind`.
    """
    return await _rewound(settings, group, to, topics, connect, execute=True)


async def _rewound(
    settings: KafkaSettings, group: str, to: Point, topics: Sequence[TopicName], connect: Connect, *, execute: bool
) -> Rewind:
    for name in _names(settings, group):
        async with connect(settings, name) as admin:
            committed = await admin.committed()
            if not committed:
                continue
            await _ensure_stopped(admin, name)
            moves = await _moves(admin.reader, committed, to, topics)
            if execute:
                await admin.commit({Partition(move.topic, move.partition): move.becomes for move in moves})
            return Rewind(name, tuple(moves))
    raise _unknown(group)


async def _moves(
    reader: PartitionReader, committed: dict[Partition, int], to: Point, topics: Sequence[TopicName]
) -> list[Move]:
    partitions = await _existing(reader, sorted(set(topics) or {one.topic for one in committed}))
    bounds = await reader.bounds(partitions)
    await _ensure_readable(reader, bounds)
    targets = await reader.offsets(bounds, to)
    return [_move(one, committed.get(one), targets[one], bounds[one]) for one in sorted(partitions)]


async def _ensure_readable(reader: PartitionReader, bounds: Mapping[Partition, Bounds]) -> None:
    """Fetch the last record of one partition of each topic, because a fetch needs the same right as a commit."""
    # of each topic, take the partition with the most records: a fetch of an empty one would wait
    longest = {one.topic: one for one in sorted(bounds, key=lambda one: bounds[one].end - bounds[one].first)}
    for one in longest.values():
        reader.start({one: max(bounds[one].first, bounds[one].end - 1)})
        with suppress(BatchUndecodable):
            await reader.fetch([one], _FETCH_WAIT)


def _move(partition: Partition, committed: int | None, target: int, there: Bounds) -> Move:
    # records that retention has deleted are neither handled again nor skipped
    now = _position(committed, there)
    again = 0 if committed is None else max(0, now - target)
    return Move(partition.topic, partition.number, committed, target, again, max(0, target - now))


def _position(committed: int | None, there: Bounds) -> int:
    return there.first if committed is None else max(committed, there.first)


@dataclass(frozen=True, slots=True)
class Skip:
    """The change of a group that skips a batch that cannot be decoded.

    Attributes:
        group: Its name in the cluster.
        committed: The group's offset; None: it has committed nothing here.
        becomes: Its offset afterwards: the one after the batch.
        skipped: Offsets of the batch that the group will not get.
        why: Why the batch cannot be decoded.
    """

    group: str
    topic: TopicName
    partition: int
    committed: int | None
    becomes: int
    skipped: int
    why: str


async def plan_skip(
    settings: KafkaSettings, group: str, partition: Partition, offset: int, *, connect: Connect = open_group
) -> Skip:
    """Return what :func:`skip` would do now; nothing is changed.

    Args:
        settings: The cluster.
        group: Its name in the cluster. For a stage, its name without ``kafka.group_prefix`` is enough.
        partition: Where the batch is.
        offset: The offset that the error ``kafka_batch_undecodable`` names.
        connect: Opens a client.

    Raises:
        GroupUnknown: It has committed nothing.
        TopicUnknown: There is no such topic or partition.
        GroupBusy: It has live members.
        SkipRefused: There is no undecodable batch at this offset, or the group is already past it or not yet at it.
        BrokerUnavailable: No answer in time.
    """
    return await _skipped(settings, group, partition, offset, connect, reason=None)


async def skip(
    settings: KafkaSettings,
    group: str,
    partition: Partition,
    offset: int,
    *,
    reason: str,
    connect: Connect = open_group,
) -> Skip:
    """Let a stopped group continue past a batch that cannot be decoded; return what was done.

    The batch stays in its topic until retention deletes it. The arguments and errors are those of :func:`plan_skip`;
    ``reason`` is logged.
    """
    return await _skipped(settings, group, partition, offset, connect, reason=reason)


async def _skipped(
    settings: KafkaSettings, group: str, partition: Partition, offset: int, connect: Connect, *, reason: str | None
) -> Skip:
    for name in _names(settings, group):
        async with connect(settings, name) as admin:
            committed = await admin.committed()
            if not committed:
                continue
            await _ensure_stopped(admin, name)
            plan = await _plan_of_skip(admin.reader, name, partition, committed.get(partition), offset)
            if reason is not None:
                await admin.commit({partition: plan.becomes})
                log.warning(
                    "batch_skipped",
                    group=name,
                    topic=partition.topic,
                    partition=partition.number,
                    offset=offset,
                    next_offset=plan.becomes,
                    why=plan.why,
                    reason=reason,
                )
            return plan
    raise _unknown(group)


async def _plan_of_skip(
    reader: PartitionReader, group: str, partition: Partition, committed: int | None, offset: int
) -> Skip:
    if partition not in await _existing(reader, [partition.topic]):
        raise TopicUnknown("topic_unknown", f"{partition.topic} has no partition {partition.number}")
    there = (await reader.bounds([partition]))[partition]
    now = _position(committed, there)
    if now > offset:
        raise SkipRefused("skip_refused", f"{group} is at offset {now}, past offset {offset}: there is nothing to skip")
    batch = await _undecodable_at(reader, partition, now, there.end, offset)
    if batch.next_offset is None or not offset < batch.next_offset <= there.end:
        raise SkipRefused(
            "skip_refused",
            f"the batch at offset {offset} does not say where it ends; move the group with pipeline events rewind",
        )
    skipped = batch.next_offset - offset
    return Skip(group, partition.topic, partition.number, committed, batch.next_offset, skipped, batch.why)


async def _undecodable_at(
    reader: PartitionReader, partition: Partition, start: int, end: int, offset: int
) -> BatchUndecodable:
    """Return the batch at the offset; refuse if any record before it was not handled, or if it can be decoded."""
    reader.start({partition: start})
    try:
        while await reader.position(partition) < end:
            for record in (await reader.fetch([partition], _FETCH_WAIT)).get(partition, []):
                if record.offset < offset:
                    raise SkipRefused(
                        "skip_refused",
                        f"the record at offset {record.offset} can be decoded and was not handled yet: "
                        "start the group, it stops at the batch that cannot be decoded",
                    )
                raise SkipRefused("skip_refused", f"the record at offset {record.offset} can be decoded")
    except BatchUndecodable as error:
        if error.offset != offset:
            raise SkipRefused(
                "skip_refused", f"the first batch that cannot be decoded is at offset {error.offset}, not {offset}"
            ) from error
        return error
    raise SkipRefused("skip_refused", f"there is no record at offset {offset} or after it")


# shared by both


def _names(settings: KafkaSettings, group: str) -> Sequence[str]:
    """Return the names to look for: a subscriber's group may have any name, a stage's group has the prefix."""
    return list(dict.fromkeys((group, Names(settings).group(group))))


def _unknown(group: str) -> GroupUnknown:
    return GroupUnknown("group_unknown", f"{group} has committed nothing in this cluster; is the name right?")


async def _ensure_stopped(admin: GroupAdmin, group: str) -> None:
    if members := await admin.members():
        raise GroupBusy(group, f"{members} live member{'s' if members > 1 else ''}")


async def _existing(reader: PartitionReader, topics: Sequence[TopicName]) -> list[Partition]:
    partitions = await reader.partitions(topics)
    there = {one.topic for one in partitions}
    if gone := [topic for topic in topics if topic not in there]:
        raise TopicUnknown("topic_unknown", f"there is no topic {', '.join(gone)} in this cluster")
    return partitions
