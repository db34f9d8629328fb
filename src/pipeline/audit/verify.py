"""Verifies the whole log. Heads that are kept elsewhere reveal a chain that was cut off or rewritten."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pipeline.audit.reading import Damage, DamageKind, SegmentReader, find_tail, read_segment
from pipeline.audit.segments import GENESIS, ROOT, Closing, PublicKeys, SegmentPosition, parse_folder
from pipeline.errors import PermanentError
from pipeline.storage import ObjectNotFound, ObjectStore


class Head(BaseModel):
    """The end of one partition's chain at some time.

    Attributes:
        segment: Running number of the last segment.
        hash: Closing hash of that segment; it covers every byte of the chain up to there.
        events: Number of events in the partition up to there.
    """

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    topic: str
    partition: int = Field(ge=0)
    epoch: int = Field(ge=0)
    segment: int = Field(ge=0)
    hash: str = Field(pattern="^[0-9a-f]{64}$")
    events: int = Field(ge=0)


_READS_AHEAD: Final = 8
"""Segments read at the same time."""

_Read = tuple[SegmentReader, Closing | Damage]

_HEADS: Final = TypeAdapter(list[Head])


class Report(BaseModel):
    """The result of a verification: the whole log is sound, or the first damage.

    Attributes:
        segment: Running number of the damaged segment.
        line: Its damaged line, from 1; None for the segment as a whole.
        key: Key of the damaged object.
        segments: Number of segments that are sound.
        events: Number of events in them.
        heads: Number of heads that were compared.
    """

    model_config = ConfigDict(defer_build=True, frozen=True)

    ok: bool
    topic: str | None = None
    partition: int | None = None
    epoch: int | None = None
    segment: int | None = None
    line: int | None = None
    kind: DamageKind | None = None
    key: str | None = None
    detail: str | None = None
    segments: int = 0
    events: int = 0
    heads: int = 0


async def verify(store: ObjectStore, *, keys: PublicKeys | None = None, heads: Sequence[Head] = ()) -> Report:
    """Read every segment of every partition and return the first damage, in the order of keys.

    It detects any changed, missing, swapped, forked or cut line or segment, but not two things: a chain whose end was
    cut off at a segment's boundary, and a log that was rewritten as a whole. ``heads`` kept elsewhere reveal both.
    ``keys`` reveal the second, because nobody else can sign. Memory does not grow with the log: it reads a few segments
    at the same time, and holds one line of each.

    Args:
        store: The store that holds the log; the audit stage may write to it meanwhile.
        keys: Public keys. From the first signed segment of a partition on, all must be signed, and at least one must
            be. Its signature also covers the unsigned segments before it (written before a key was configured).
        heads: What :func:`pipeline.audit.read_heads` returned at an earlier time.

    Raises:
        StoreUnavailable: The storage did not answer.
    """
    walk = _Walk(store, keys)
    by_partition: dict[tuple[str, int], list[Head]] = {}
    for head in heads:
        by_partition.setdefault((head.topic, head.partition), []).append(head)
    try:
        async for topic, partition in _partitions(store):
            await walk.partition(topic, partition, by_partition.pop((topic, partition), []))
        for (topic, partition), left in sorted(by_partition.items()):
            await walk.partition(topic, partition, left)
    except _Found as found:
        position, damage = found.position, found.damage
        return Report(
            ok=False,
            topic=position.topic,
            partition=position.partition,
            epoch=position.epoch,
            segment=position.number,
            line=damage.line,
            kind=damage.kind,
            key=found.key,
            detail=damage.detail,
            segments=walk.segments,
            events=walk.events,
            heads=walk.heads,
        )
    return Report(ok=True, segments=walk.segments, events=walk.events, heads=walk.heads)


async def read_heads(store: ObjectStore) -> list[Head]:
    """Return the head of every partition, in order. It reads the last segments only: verify the log too.

    Raises:
        FatalError: A chain's end is damaged (``audit_chain_damaged``).
        StoreUnavailable: Try again.
    """
    found = []
    for topic in await store.folders(ROOT):
        for name in await store.folders(f"{ROOT}{topic}/"):
            partition = parse_folder(name)
            tail = None if partition is None else await find_tail(store, topic, partition)
            if tail is not None:
                found.append(
                    Head(
                        topic=topic,
                        partition=tail.position.partition,
                        epoch=tail.position.epoch,
                        segment=tail.position.number,
                        hash=tail.closing.hash,
                        events=tail.closing.total,
                    )
                )
    return found


def dump_heads(heads: Sequence[Head]) -> str:
    """Return the heads as JSON. Keep the file where the log's writers cannot change it."""
    return _HEADS.dump_json(list(heads), indent=2).decode() + "\n"


def load_heads(text: str | bytes) -> list[Head]:
    """Return the heads that :func:`dump_heads` wrote.

    Raises:
        PermanentError: The text is something else (``audit_heads_invalid``).
    """
    try:
        return _HEADS.validate_json(text)
    except ValidationError as error:
        raise PermanentError(
            "audit_heads_invalid", "The file of heads is not the output of `pipeline audit head --json`"
        ) from error


@dataclass(slots=True)
class _Link:
    """The end of the sound part of a chain, and what must follow it."""

    position: SegmentPosition
    previous: str = GENESIS
    total: int = 0
    last_offset: int | None = None
    signed: bool = False
    sound: int = 0


class _Found(Exception):
    """The first damage."""

    def __init__(self, position: SegmentPosition, damage: Damage, key: str = "") -> None:
        super().__init__(damage.detail)
        self.position = position
        self.damage = damage
        self.key = key or position.key


def _found(position: SegmentPosition, kind: DamageKind, detail: str, *, key: str = "") -> _Found:
    return _Found(position, Damage(kind, None, detail), key)


@dataclass(slots=True)
class _Walk:
    store: ObjectStore
    keys: PublicKeys | None
    segments: int = 0
    events: int = 0
    heads: int = 0

    async def partition(self, topic: str, partition: int, heads: Iterable[Head]) -> None:
        """Follow one chain to its end."""
        link = _Link(SegmentPosition(topic, partition, 0, 0))
        waiting: dict[int, list[Head]] = {}
        for head in heads:
            waiting.setdefault(head.segment, []).append(head)
        folder = f"{ROOT}{topic}/{partition:05d}/"
        for epoch in await self.store.folders(folder):
            if parse_folder(epoch) is None:
                raise _found(link.position, DamageKind.FORKED, "this folder is not an epoch", key=folder + epoch)
            async with aclosing(self._segments(f"{folder}{epoch}/")) as segments:
                async for key, read in segments:
                    self._segment(key, read, link)
                    self._compare(waiting.pop(link.position.number - 1, []), link)
        if waiting:
            raise _found(link.position, DamageKind.MISSING, f"a head kept elsewhere names segment {max(waiting)}")
        if self.keys is not None and link.sound and not link.signed:
            raise _found(
                SegmentPosition(topic, partition, 0, 0), DamageKind.SIGNATURE, "no segment of the partition is signed"
            )

    async def _segments(self, folder: str) -> AsyncGenerator[tuple[str, _Read | None]]:
        """Yield the key and content of each object of an epoch, in order; read a few ahead."""
        ahead: deque[tuple[str, asyncio.Task[_Read | None]]] = deque()
        try:
            async for info in self.store.list(folder):
                ahead.append((info.key, asyncio.create_task(self._read(info.key))))
                if len(ahead) == _READS_AHEAD:
                    key, task = ahead.popleft()
                    yield key, await task
            while ahead:
                key, task = ahead.popleft()
                yield key, await task
        finally:
            for _, task in ahead:
                task.cancel()
            await asyncio.gather(*(task for _, task in ahead), return_exceptions=True)

    async def _read(self, key: str) -> _Read | None:
        """Return the content of a segment; None if the object is not a segment or has vanished."""
        position = SegmentPosition.parse(key)
        try:
            return await read_segment(self.store, position) if position else None
        except ObjectNotFound:
            return None

    def _segment(self, key: str, read: _Read | None, link: _Link) -> None:
        position = SegmentPosition.parse(key)
        if position is None:
            raise _found(link.position, DamageKind.FORKED, "this object is not a segment", key=key)
        _check_position(position, link.position)
        if read is None:
            raise _found(position, DamageKind.MISSING, "the segment vanished")
        reader, found = read
        if isinstance(found, Damage):
            raise _Found(position, found)
        damage = _link_damage(reader, found, link) or self._signature_damage(reader, found, link)
        if damage is not None:
            raise _Found(position, damage)
        self._go_on(found, link)

    def _signature_damage(self, reader: SegmentReader, closing: Closing, link: _Link) -> Damage | None:
        if self.keys is None or (closing.signed_by is None and not link.signed):
            return None
        return reader.signature_damage(self.keys)

    def _go_on(self, closing: Closing, link: _Link) -> None:
        position = link.position
        ended = closing.next_epoch is not None
        epoch = position.epoch if closing.next_epoch is None else closing.next_epoch
        link.position = SegmentPosition(position.topic, position.partition, epoch, position.number + 1)
        link.previous, link.total = closing.hash, closing.total
        link.last_offset = None if ended else closing.last_offset
        link.signed = link.signed or closing.signed_by is not None
        link.sound += 1
        self.segments += 1
        self.events += closing.events

    def _compare(self, heads: Iterable[Head], link: _Link) -> None:
        for head in heads:
            self.heads += 1
            if (head.hash, head.events) != (link.previous, link.total):
                position = SegmentPosition(head.topic, head.partition, head.epoch, head.segment)
                raise _found(
                    position, DamageKind.FORKED, "the head kept elsewhere has another hash or count for this segment"
                )


async def _partitions(store: ObjectStore) -> AsyncIterator[tuple[str, int]]:
    for topic in await store.folders(ROOT):
        position = SegmentPosition(topic, 0, 0, 0)
        if SegmentPosition.parse(position.key) is None:
            raise _found(position, DamageKind.FORKED, "this folder is not a topic", key=f"{ROOT}{topic}/")
        for name in await store.folders(f"{ROOT}{topic}/"):
            partition = parse_folder(name)
            if partition is None:
                key = f"{ROOT}{topic}/{name}/"
                raise _found(position, DamageKind.FORKED, "this folder is not a partition", key=key)
            yield topic, partition


def _check_position(position: SegmentPosition, wanted: SegmentPosition) -> None:
    if position == wanted:
        return
    if position.number > wanted.number:
        raise _found(wanted, DamageKind.MISSING, f"segment {position.number} follows")
    if position.number < wanted.number:
        raise _found(position, DamageKind.FORKED, "a second segment of this number")
    raise _found(position, DamageKind.SWAPPED, f"the chain continues in epoch {wanted.epoch}")


def _link_damage(reader: SegmentReader, closing: Closing, link: _Link) -> Damage | None:
    if reader.previous != link.previous:
        return Damage(DamageKind.FORKED, 1, "the segment does not continue the one before")
    if closing.total != link.total + closing.events:
        return Damage(DamageKind.CHANGED, None, "the closing line's total does not match the chain")
    if link.last_offset is not None and closing.first_offset is not None and closing.first_offset <= link.last_offset:
        return Damage(DamageKind.FORKED, None, f"offset {closing.first_offset} follows offset {link.last_offset}")
    return None
