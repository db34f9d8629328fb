"""Reads segments and finds the last one, without trusting their content."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pipeline.audit.segments import MAX_LINE_BYTES, ROOT, Closing, PublicKeys, SegmentPosition, digest_of, is_signed
from pipeline.errors import FatalError
from pipeline.storage import ObjectNotFound, ObjectStore

_HASH: Final = re.compile(rb',"hash":"([0-9a-f]{64})"}')
_HASH_BYTES: Final = 75
_SIGNATURE: Final = re.compile(rb',"signature":"([0-9a-f]{128})"')
_SIGNATURE_BYTES: Final = 143
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class DamageKind(StrEnum):
    """What happened to a line or a segment, as far as the reader sees; part of the contract (docs/reference/cli.md)."""

    CHANGED = "changed"
    """Bytes differ from those that were hashed, or were added."""
    MISSING = "missing"
    """A line or segment that others refer to is missing, or the chain is shorter than a head kept elsewhere."""
    SWAPPED = "swapped"
    """A line or segment is in the position of another."""
    FORKED = "forked"
    """A second line or segment has this number, or a segment does not continue the one before."""
    CUT = "cut"
    """The segment ends before its closing line."""
    SIGNATURE = "signature"
    """The segment is not signed although earlier ones are, its key is unknown, or its signature does not fit."""


@dataclass(frozen=True, slots=True)
class Damage:
    """One damage within a segment.

    Attributes:
        line: From 1; None for the segment as a whole.
        detail: One sentence for a person.
    """

    kind: DamageKind
    line: int | None
    detail: str


class _Line(BaseModel):
    model_config = ConfigDict(defer_build=True, strict=True, extra="ignore")
    line: int


class _Header(_Line):
    kind: Literal["segment"]
    format: Literal[1]
    topic: str
    partition: int
    epoch: int
    segment: int
    previous: _Digest
    at: AwareDatetime


class _Event(_Line):
    kind: Literal["event"]
    topic: str
    partition: int
    offset: int
    id: str


class _Closing(_Line):
    kind: Literal["closing"]
    events: int
    total: int
    first_offset: int | None
    last_offset: int | None
    next_epoch: int | None
    signed_by: str | None
    hash: str


_LATER: Final[TypeAdapter[_Event | _Closing]] = TypeAdapter(Annotated[_Event | _Closing, Field(discriminator="kind")])


class SegmentReader:
    """Checks one segment as its bytes arrive; it holds one line in memory.

    Args:
        position: The position that the object's key names.
        on_event: Called with the id of each sound event.

    Attributes:
        previous: The closing hash of the segment before, as the header says; None until the reader has the header.
        at: When the segment was written; None until the reader has the header.
    """

    def __init__(self, position: SegmentPosition, on_event: Callable[[str], None] | None = None) -> None:
        """Begin before the first byte."""
        self._position = position
        self._on_event = on_event
        self._rest = b""
        self._lines = 0
        self._running = ""
        self._events = 0
        self._first: int | None = None
        self._last: int | None = None
        self._signed: tuple[str, str] | None = None
        self._damage: Damage | None = None  # the first; later lines can only change its kind
        self._closing: Closing | None = None
        self.previous: str | None = None
        self.at: datetime | None = None

    def feed(self, data: bytes) -> None:
        """Check the next bytes. This is CPU work: call it in a thread."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line)
        if len(self._rest) > MAX_LINE_BYTES:
            self._harm(DamageKind.CHANGED, "the line is longer than any line of a segment")
            self._rest = b""

    def finish(self) -> Closing | Damage:
        """Return the closing line of a sound segment, or its first damage; call it after the last byte."""
        if self._closing is None:
            return self._harm(DamageKind.CUT, "the segment ends before the end of its closing line", self._lines + 1)
        if self._rest:
            return self._harm(DamageKind.CHANGED, "something follows the closing line", self._lines + 1)
        return self._damage or self._closing

    def signature_damage(self, keys: PublicKeys) -> Damage | None:
        """Return what is wrong with the signature of a sound segment, or None."""
        closing = self._closing
        if closing is None or closing.signed_by is None or self._signed is None:
            return Damage(DamageKind.SIGNATURE, self._lines, "the segment is not signed")
        key = keys.get(closing.signed_by)
        if key is None:
            return Damage(DamageKind.SIGNATURE, self._lines, f"signed by the unknown key {closing.signed_by}")
        if not is_signed(*self._signed, key):
            return Damage(DamageKind.SIGNATURE, self._lines, f"the signature was not made with key {closing.signed_by}")
        return None

    def _take(self, raw: bytes) -> None:
        if self._damage is not None:
            self._name_better(raw)
            return
        self._lines += 1
        if self._closing is not None:
            self._harm(DamageKind.CHANGED, "something follows the closing line")
            return
        text, digest = raw[:-_HASH_BYTES], _HASH.fullmatch(raw[-_HASH_BYTES:])
        running = self._running if self._lines > 1 else _previous_of(raw)
        if digest is None or digest_of(text, running) != digest[1].decode():
            self._name(raw)
            return
        try:
            self._read(raw, text, running)
        except ValidationError:
            self._harm(DamageKind.CHANGED, "a field of the line is missing or invalid")
        self._running = digest[1].decode()

    def _read(self, raw: bytes, text: bytes, running: str) -> None:
        if self._lines == 1:
            self._read_header(_Header.model_validate_json(raw))
            return
        line = _LATER.validate_json(raw)
        if line.line != self._lines:
            self._harm(DamageKind.SWAPPED, f"the line says it is line {line.line}")
        elif isinstance(line, _Event):
            self._read_event(line)
        else:
            self._read_closing(line, text, running)

    def _read_header(self, header: _Header) -> None:
        if (header.topic, header.partition, header.epoch, header.segment) != (
            self._position.topic,
            self._position.partition,
            self._position.epoch,
            self._position.number,
        ):
            self._harm(
                DamageKind.SWAPPED,
                f"the segment says it is {header.topic}/{header.partition}/{header.epoch}/{header.segment}",
            )
        self.previous, self.at = header.previous, header.at

    def _read_event(self, event: _Event) -> None:
        if (event.topic, event.partition) != (self._position.topic, self._position.partition):
            self._harm(DamageKind.SWAPPED, "the event belongs to another partition")
            return
        if self._last is not None and event.offset <= self._last:
            self._harm(DamageKind.FORKED, f"offset {event.offset} follows offset {self._last}")
            return
        self._first = event.offset if self._first is None else self._first
        self._last = event.offset
        self._events += 1
        if self._on_event:
            self._on_event(event.id)

    def _read_closing(self, said: _Closing, text: bytes, running: str) -> None:
        if (said.events, said.first_offset, said.last_offset) != (self._events, self._first, self._last):
            self._harm(DamageKind.CHANGED, "the closing line's counts do not match the segment's events")
            return
        signature = _SIGNATURE.fullmatch(text[-_SIGNATURE_BYTES:])
        if signature:
            self._signed = digest_of(text[:-_SIGNATURE_BYTES], running), signature[1].decode()
        self._closing = Closing(**said.model_dump(exclude={"line", "kind"}))

    def _name(self, raw: bytes) -> None:
        """Record the kind of damage, by the line number in the line itself."""
        number = _number_of(raw)
        if number is None or number == self._lines:
            self._harm(DamageKind.CHANGED, "the line is not the one that was hashed")
        elif number > self._lines:
            self._harm(DamageKind.MISSING, f"found line {number} instead")
        else:
            self._harm(DamageKind.FORKED, f"found a second line {number} instead")

    def _name_better(self, raw: bytes) -> None:
        """Record two lines as swapped when the one that seemed to be missing comes later."""
        if self._damage and self._damage.kind is DamageKind.MISSING and _number_of(raw) == self._damage.line:
            self._damage = Damage(DamageKind.SWAPPED, self._damage.line, "the line comes later in the segment")

    def _harm(self, kind: DamageKind, detail: str, line: int | None = None) -> Damage:
        self._damage = self._damage or Damage(kind, line or max(self._lines, 1), detail)
        return self._damage


async def read_segment(
    store: ObjectStore, position: SegmentPosition, on_event: Callable[[str], None] | None = None
) -> tuple[SegmentReader, Closing | Damage]:
    """Read a whole segment and return its reader and what it found.

    Raises:
        ObjectNotFound: There is no segment at this position.
        StoreUnavailable: Try again.
    """
    reader = SegmentReader(position, on_event)
    async with aclosing(store.stream(position.key)) as pieces:
        async for piece in pieces:
            await asyncio.to_thread(reader.feed, piece)
    return reader, reader.finish()


@dataclass(frozen=True, slots=True)
class Tail:
    """The last segment of a partition.

    Attributes:
        epochs: Number of the first segment of each epoch.
    """

    position: SegmentPosition
    closing: Closing
    epochs: Sequence[int]

    def position_of(self, number: int) -> SegmentPosition:
        """Return the position of an earlier segment."""
        epoch = max(epoch for epoch, first in enumerate(self.epochs) if first <= number)
        return SegmentPosition(self.position.topic, self.position.partition, epoch, number)


async def find_tail(store: ObjectStore, topic: str, partition: int) -> Tail | None:
    """Return the last segment, or None if there is none yet. It makes about 2 log2(segments) small requests.

    Raises:
        FatalError: The first or the last segment is damaged or missing (``audit_chain_damaged``): nothing can be
            chained to it.
    """
    first = SegmentPosition(topic, partition, 0, 0)
    epochs: list[int] = []
    tail: Tail | None = None
    while await _exists(store, first):
        epochs.append(first.number)
        last = await _last_of_epoch(store, first)
        _, closing = await read_segment(store, last)
        if isinstance(closing, Damage):
            raise _damaged(last)
        tail = Tail(last, closing, epochs)
        if closing.next_epoch is None:
            return tail
        first = SegmentPosition(topic, partition, closing.next_epoch, last.number + 1)
    if tail is None and await store.folders(f"{ROOT}{topic}/{partition:05d}/"):
        raise _damaged(first)
    return tail


async def tail_after(store: ObjectStore, known: SegmentPosition) -> tuple[Tail, Sequence[SegmentPosition]]:
    """Return the last segment, and all that follow a known one. It makes a few requests, one per 1,000 segments.

    Raises:
        FatalError: The first or the last segment is damaged or missing (``audit_chain_damaged``).
    """
    first = SegmentPosition(known.topic, known.partition, 0, 0)
    if not await _exists(store, first):
        raise _damaged(first)
    folder = f"{ROOT}{known.topic}/{known.partition:05d}/"
    found = [SegmentPosition.parse(info.key) async for info in store.scan(folder, after=known.key)]
    later = [position for position in found if position is not None and position.number > known.number]
    last = max(later, key=lambda position: position.number, default=known)
    try:
        _, closing = await read_segment(store, last)
    except ObjectNotFound:
        raise _damaged(last) from None
    if isinstance(closing, Damage):
        raise _damaged(last)
    return Tail(last, closing, ()), later


async def _last_of_epoch(store: ObjectStore, first: SegmentPosition) -> SegmentPosition:
    low, step = first.number, 1
    while await _exists(store, _numbered(first, low + step)):
        low, step = low + step, step * 2
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        if await _exists(store, _numbered(first, middle)):
            low = middle
        else:
            high = middle
    return _numbered(first, low)


async def _exists(store: ObjectStore, position: SegmentPosition) -> bool:
    try:
        await store.get(position.key, start=0, end=1)
    except ObjectNotFound:
        return False
    return True


def _numbered(position: SegmentPosition, number: int) -> SegmentPosition:
    return SegmentPosition(position.topic, position.partition, position.epoch, number)


def _damaged(position: SegmentPosition) -> FatalError:
    return FatalError(
        "audit_chain_damaged",
        f"{position.key} is damaged or missing, so nothing can be chained to it. Run `pipeline audit verify`, keep the "
        "evidence, and restore the object from the store's versions or a backup",
    )


def _previous_of(header: bytes) -> str:
    try:
        return _Header.model_validate_json(header).previous
    except ValidationError:
        return ""


def _number_of(raw: bytes) -> int | None:
    try:
        return _Line.model_validate_json(raw).line
    except ValidationError:
        return None
