"""Appends to the hash chain of one partition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from pipeline.audit.checkpoint import Checkpoint, KnownIds, checkpoints_of
from pipeline.audit.reading import Damage, Tail, find_tail, read_segment, tail_after
from pipeline.audit.segments import GENESIS, Built, Closing, Entry, SegmentPosition, Signer, build
from pipeline.audit.settings import AuditSettings
from pipeline.errors import LeaseLost, TransientError, most_severe
from pipeline.kafka.protocols import Lease
from pipeline.storage import ObjectNotFound, ObjectStore

log = structlog.get_logger(__name__)

SEGMENT_EVENTS: Final = 500
"""Maximum number of events in a segment. It equals the audit stage's batch size, so that a batch becomes one
segment.
"""

SEGMENT_BYTES: Final = 4_000_000
"""A segment with this many bytes gets no further event, so that several segments fit into memory at a time."""

_READS_AT_ONCE: Final = 8
"""Number of segments read at the same time to get the ids back; each may have :data:`SEGMENT_BYTES`."""

_CHECKPOINT_EVERY: Final = 64
"""A checkpoint follows after this many segments, so that opening the chain reads fewer segments than that."""

_LINE_OVERHEAD: Final = 400
"""Approximate bytes of a line besides the event."""


@dataclass(frozen=True, slots=True)
class Writing:
    """Dependencies and limits for writing chains.

    Attributes:
        clock: UTC, aware.
        nonce: Random text, new at each call.
        segment_events: Most events of a segment; a larger batch becomes several segments.
        segment_bytes: Bytes after which a segment takes no further event.
    """

    store: ObjectStore
    settings: AuditSettings
    signer: Signer | None
    clock: Callable[[], datetime]
    nonce: Callable[[], str]
    segment_events: int = SEGMENT_EVENTS
    segment_bytes: int = SEGMENT_BYTES


@dataclass(slots=True)
class Appended:
    """The result of appending a batch.

    Attributes:
        appended: Events written.
        repeated: Events that the chain held already.
        segments: Objects created.
        forgotten: Ids that the window dropped early, because it held too many.
    """

    appended: int = 0
    repeated: int = 0
    segments: int = 0
    forgotten: int = 0


class Chain:
    """The end of one partition's chain, as one writer knows it.

    Only one writer can continue the chain: the one that creates the next segment. Any other gets LeaseLost and must
    open the chain again. After any other error :meth:`append` can be called again with the same records.
    """

    def __init__(self, writing: Writing, topic: str, partition: int, tail: Tail | None) -> None:
        """Use :meth:`open`."""
        self._writing = writing
        self._writer = writing.nonce()
        self._topic = topic
        self._partition = partition
        self._epoch = 0
        self._number = 0
        self._previous = GENESIS
        self._total = 0
        self._last_offset: int | None = None
        self._known = KnownIds(writing.settings.id_window, writing.settings.id_window_max)
        self._pending: Built | None = None
        self._checkpoints: list[str] = []
        self._since_checkpoint = 0
        if tail is not None:
            self._go_to(tail)

    @classmethod
    async def open(cls, writing: Writing, topic: str, partition: int) -> Chain:
        """Find the end of the chain and the ids of the window.

        The ids come from the last checkpoint and the few segments after it. Without a checkpoint, it reads each segment
        of the window once. The window bounds the memory.

        Raises:
            FatalError: The last segment is damaged (``audit_chain_damaged``).
            StoreUnavailable: Try again.
        """
        checkpoint, keys = await _last_checkpoint(writing, topic, partition)
        chain = await cls._open_at(writing, checkpoint) if checkpoint else None
        if chain is None:
            tail = await find_tail(writing.store, topic, partition)
            chain = cls(writing, topic, partition, tail)
            if tail is None:
                return chain
            await chain._read_back(tail.position_of, 0, tail.position.number + 1)
            chain._checkpoints = keys
            if chain._since_checkpoint >= _CHECKPOINT_EVERY:
                await chain._write_checkpoint(tail.position, tail.closing)
        chain._checkpoints = chain._checkpoints or keys
        log.info(
            "audit_chain_opened",
            topic=topic,
            partition=partition,
            epoch=chain._epoch,
            segment=chain._number,
            known_ids=len(chain._known),
        )
        return chain

    @classmethod
    async def _open_at(cls, writing: Writing, checkpoint: Checkpoint) -> Chain | None:
        """Continue from a checkpoint; return None if the log does not continue from there."""
        before = checkpoint.position
        tail, later = await tail_after(writing.store, before)
        following = {position.number: position for position in later}
        chain = cls(writing, before.topic, before.partition, tail)
        chain._known.unpack(checkpoint.groups, checkpoint.ids)
        first = before.number + 1
        if not later:
            return chain if tail.closing.hash == checkpoint.closing else None
        reader, _ = await read_segment(writing.store, following.get(first, tail.position))
        if reader.previous != checkpoint.closing:
            return None
        await chain._read_back(
            lambda number: following.get(number, SegmentPosition(before.topic, before.partition, before.epoch, number)),
            first,
            tail.position.number + 1,
        )
        return chain

    async def append(self, entries: Sequence[Entry], lease: Lease) -> Appended:
        """Append the events that the chain does not hold yet; when it returns, all are durable.

        If an unknown id has an offset that is not greater than the last one, the topic was created again. Then a
        segment closes the epoch, and the next epoch begins.

        Args:
            entries: In the order of their offsets.
            lease: Checked before each segment.

        Raises:
            LeaseLost: Another writer continued the chain; open it again.
            StoreUnavailable: Nothing is lost; call again with the same entries.
        """
        result = Appended()
        await self._settle(lease, result)
        fresh = self._fresh(entries)
        result.repeated = len(entries) - len(fresh)
        if fresh and self._last_offset is not None and fresh[0].offset <= self._last_offset:
            log.warning(
                "audit_epoch_opened",
                topic=self._topic,
                partition=self._partition,
                epoch=self._epoch + 1,
                offset=fresh[0].offset,
                last_offset=self._last_offset,
            )
            await self._write([], lease, result, next_epoch=self._epoch + 1)
        for some in self._cut(fresh):
            await self._write(some, lease, result)
        return result

    def _fresh(self, entries: Sequence[Entry]) -> list[Entry]:
        fresh: dict[str, Entry] = {}
        for entry in entries:
            if entry.event.id not in self._known:
                fresh.setdefault(entry.event.id, entry)
        return list(fresh.values())

    def _cut(self, entries: Sequence[Entry]) -> list[Sequence[Entry]]:
        """Cut a batch into segments within the limits of events and bytes."""
        cuts, size, start = [], 0, 0
        for index, entry in enumerate(entries):
            size += entry.size + _LINE_OVERHEAD
            if index + 1 - start >= self._writing.segment_events or size >= self._writing.segment_bytes:
                cuts.append(entries[start : index + 1])
                start, size = index + 1, 0
        return [*cuts, entries[start:]] if start < len(entries) else cuts

    async def _write(
        self, entries: Sequence[Entry], lease: Lease, result: Appended, *, next_epoch: int | None = None
    ) -> None:
        built = await asyncio.to_thread(
            build,
            SegmentPosition(self._topic, self._partition, self._epoch, self._number),
            entries,
            previous=self._previous,
            total=self._total,
            writer=self._writer,
            at=self._writing.clock(),
            next_epoch=next_epoch,
            signer=self._writing.signer,
        )
        await lease.ensure()
        await self._create(built, result)

    async def _settle(self, lease: Lease, result: Appended) -> None:
        """Repeat, byte for byte, a creation whose answer was lost: the segment may or may not exist."""
        if self._pending is not None:
            await lease.ensure()
            await self._create(self._pending, result)

    async def _create(self, built: Built, result: Appended) -> None:
        self._pending = built
        won = await self._writing.store.create(built.position.key, built.data)
        if not won:
            raise LeaseLost("audit_segment_taken", f"Another writer created {built.position.key}")
        self._pending = None
        self._previous = built.closing.hash
        self._total = built.closing.total
        self._number += 1
        if built.closing.next_epoch is not None:
            self._epoch, self._last_offset = built.closing.next_epoch, None
        else:
            self._last_offset = built.closing.last_offset
        result.appended += len(built.ids)
        result.segments += 1
        result.forgotten += self._remember(built.ids, built.at)
        self._since_checkpoint += 1
        if self._since_checkpoint >= _CHECKPOINT_EVERY:
            await self._write_checkpoint(built.position, built.closing)

    async def _write_checkpoint(self, position: SegmentPosition, closing: Closing) -> None:
        """Store the known ids. If this fails, the next opening reads more segments."""
        checkpoint = Checkpoint(position, closing.hash, self._known.groups(), self._known.packed())
        store = self._writing.store
        try:
            await store.create(checkpoint.key, await asyncio.to_thread(checkpoint.dump, self._writing.signer))
            await store.delete_all([key for key in self._checkpoints if key != checkpoint.key])
        except TransientError as error:
            log.warning("audit_checkpoint_postponed", code=error.code, message=error.message)
            return  # try again after the next segment
        self._checkpoints = [checkpoint.key]
        self._since_checkpoint = 0

    def _remember(self, ids: Sequence[str], at: datetime) -> int:
        forgotten = self._known.add(ids, at)
        if forgotten:
            log.warning(
                "audit_window_cut",
                topic=self._topic,
                partition=self._partition,
                forgotten=forgotten,
                limit=self._writing.settings.id_window_max,
            )
        return forgotten

    def _go_to(self, tail: Tail) -> None:
        closing = tail.closing
        self._number = tail.position.number + 1
        self._previous = closing.hash
        self._total = closing.total
        if closing.next_epoch is not None:
            self._epoch = closing.next_epoch
        else:
            self._epoch, self._last_offset = tail.position.epoch, closing.last_offset

    async def _read_back(self, position_of: Callable[[int], SegmentPosition], first: int, end: int) -> None:
        """Read the window's segments, the last ones first, and remember their ids, the oldest ones first.

        Args:
            position_of: Returns the position of a segment.
            first: Number of the first segment that may be read.
            end: Number after the last one.
        """
        begin = self._writing.clock() - self._writing.settings.id_window
        left = self._writing.settings.id_window_max
        found: list[_Ids] = []
        while end > first and left > 0 and not (found and found[-1].at < begin):
            start = max(first, end - _READS_AT_ONCE)
            some = await self._read_ids([position_of(number) for number in range(start, end)])
            found.extend(reversed(some))
            left -= sum(len(one.ids) for one in some)
            end = start
        for one in reversed(found):
            self._remember(one.ids, one.at)
        self._since_checkpoint = len(found)

    async def _read_ids(self, positions: Sequence[SegmentPosition]) -> list[_Ids]:
        """Return the ids of the segments that exist. Damage is only logged: the verifier reports it."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._read_ids_of(position)) for position in positions]
        except BaseExceptionGroup as errors:
            raise most_severe(errors) from None  # the runner handles single errors
        return [read for task in tasks if (read := task.result()) is not None]

    async def _read_ids_of(self, position: SegmentPosition) -> _Ids | None:
        ids: list[str] = []
        try:
            reader, found = await read_segment(self._writing.store, position, ids.append)
        except ObjectNotFound:
            log.error("audit_segment_damaged", segment=position.key, damage="missing")  # noqa: TRY400 - nothing to trace
            return None
        if isinstance(found, Damage):
            log.error("audit_segment_damaged", segment=position.key, damage=found.kind.value)
        return _Ids(reader.at, ids) if reader.at is not None else None


@dataclass(frozen=True, slots=True)
class _Ids:
    at: datetime
    ids: Sequence[str]


async def _last_checkpoint(writing: Writing, topic: str, partition: int) -> tuple[Checkpoint | None, list[str]]:
    """Return the last checkpoint of a chain, if it can be used, and the keys of all checkpoints."""
    keys = [info.key async for info in writing.store.scan(checkpoints_of(topic, partition))]
    if not keys:
        return None, []
    try:
        data = await writing.store.get(max(keys))
    except ObjectNotFound:
        return None, []  # its successor replaced it meanwhile
    found = await asyncio.to_thread(Checkpoint.load, data, writing.signer)
    if found is None or found.key != max(keys):
        log.warning("audit_checkpoint_unusable", checkpoint=max(keys))
        return None, keys
    return found, keys
