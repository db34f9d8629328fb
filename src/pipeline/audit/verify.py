"""Reading the whole log, believing nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from pipeline.audit.damage import Damage, DamageKind
from pipeline.audit.heads import Head
from pipeline.audit.reading import SegmentReader, read_segment
from pipeline.audit.segments import GENESIS, ROOT, Closing, Place, parse_folder
from pipeline.audit.signing import PublicKeys
from pipeline.storage import ObjectNotFound, ObjectStore


class Report(BaseModel):
    """What the verification found: all is sound, or the first damage.

    Attributes:
        segment: Running number of the damaged segment.
        line: Its damaged line, from 1; None where the segment as a whole is meant.
        key: The object.
        segments: Segments that were read and are sound.
        events: Events in them.
        heads: Heads that were compared.
    """

    model_config = ConfigDict(frozen=True)

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

    Finds any changed, missing, swapped, forked or cut line or segment, except that the end of a chain was cut off at a
    segment's boundary, or that the log was written anew as a whole: against these compare with ``heads`` kept
    elsewhere. With ``keys`` also the second is found, as nobody else can sign. Memory does not grow with the log.

    Args:
        store: Where the log lies; it may be written to meanwhile.
        keys: Public keys. From the first signed segment of a partition on all must be signed; unsigned ones before
            it (written before a key was configured) are vouched for by its signature; one at least must be signed.
        heads: What :func:`pipeline.audit.read_heads` returned at an earlier time.

    Raises:
        StoreUnavailable: The storage did not answer; nothing can be said.
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
        place, damage = found.place, found.damage
        return Report(
            ok=False,
            topic=place.topic,
            partition=place.partition,
            epoch=place.epoch,
            segment=place.number,
            line=damage.line,
            kind=damage.kind,
            key=found.key,
            detail=damage.detail,
            segments=walk.segments,
            events=walk.events,
            heads=walk.heads,
        )
    return Report(ok=True, segments=walk.segments, events=walk.events, heads=walk.heads)


@dataclass(slots=True)
class _Link:
    """Where the chain of a partition stands, and what must come next."""

    place: Place
    previous: str = GENESIS
    total: int = 0
    last_offset: int | None = None
    signed: bool = False
    sound: int = 0


class _Found(Exception):
    """The first damage."""

    def __init__(self, place: Place, damage: Damage, key: str = "") -> None:
        super().__init__(damage.detail)
        self.place = place
        self.damage = damage
        self.key = key or place.key


def _found(place: Place, kind: DamageKind, detail: str, *, key: str = "") -> _Found:
    return _Found(place, Damage(kind, None, detail), key)


@dataclass(slots=True)
class _Walk:
    store: ObjectStore
    keys: PublicKeys | None
    segments: int = 0
    events: int = 0
    heads: int = 0

    async def partition(self, topic: str, partition: int, heads: Iterable[Head]) -> None:
        """Follow one chain to its end."""
        link = _Link(Place(topic, partition, 0, 0))
        waiting: dict[int, list[Head]] = {}
        for head in heads:
            waiting.setdefault(head.segment, []).append(head)
        folder = f"{ROOT}{topic}/{partition:05d}/"
        for epoch in await self.store.folders(folder):
            if parse_folder(epoch) is None:
                raise _found(link.place, DamageKind.FORKED, "a folder stands here that is no epoch", key=folder + epoch)
            async for info in self.store.list(f"{folder}{epoch}/"):
                await self._segment(info.key, link)
                self._compare(waiting.pop(link.place.number - 1, []), link)
        if waiting:
            raise _found(
                link.place, DamageKind.MISSING, f"a head kept elsewhere knows segments up to {max(waiting)} here"
            )
        if self.keys is not None and link.sound and not link.signed:
            raise _found(Place(topic, partition, 0, 0), DamageKind.SIGNATURE, "no segment of the partition is signed")

    async def _segment(self, key: str, link: _Link) -> None:
        place = Place.parse(key)
        if place is None:
            raise _found(link.place, DamageKind.FORKED, "an object stands here that is no segment", key=key)
        _check_place(place, link.place)
        try:
            reader, found = await read_segment(self.store, place)
        except ObjectNotFound:
            raise _found(place, DamageKind.MISSING, "the segment vanished") from None
        if isinstance(found, Damage):
            raise _Found(place, found)
        damage = _link_damage(reader, found, link) or self._signature_damage(reader, found, link)
        if damage is not None:
            raise _Found(place, damage)
        self._go_on(found, link)

    def _signature_damage(self, reader: SegmentReader, closing: Closing, link: _Link) -> Damage | None:
        if self.keys is None or (closing.signed_by is None and not link.signed):
            return None
        return reader.signature_damage(self.keys)

    def _go_on(self, closing: Closing, link: _Link) -> None:
        place = link.place
        ended = closing.next_epoch is not None
        epoch = place.epoch if closing.next_epoch is None else closing.next_epoch
        link.place = Place(place.topic, place.partition, epoch, place.number + 1)
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
                place = Place(head.topic, head.partition, head.epoch, head.segment)
                raise _found(place, DamageKind.FORKED, "the head kept elsewhere knows another segment of this number")


async def _partitions(store: ObjectStore) -> AsyncIterator[tuple[str, int]]:
    for topic in await store.folders(ROOT):
        place = Place(topic, 0, 0, 0)
        if Place.parse(place.key) is None:
            raise _found(place, DamageKind.FORKED, "a folder stands here that is no topic", key=f"{ROOT}{topic}/")
        for name in await store.folders(f"{ROOT}{topic}/"):
            partition = parse_folder(name)
            if partition is None:
                key = f"{ROOT}{topic}/{name}/"
                raise _found(place, DamageKind.FORKED, "a folder stands here that is no partition", key=key)
            yield topic, partition


def _check_place(place: Place, wanted: Place) -> None:
    if place == wanted:
        return
    if place.number > wanted.number:
        raise _found(wanted, DamageKind.MISSING, f"segment {place.number} follows")
    if place.number < wanted.number:
        raise _found(place, DamageKind.FORKED, "a second segment of this number")
    raise _found(place, DamageKind.SWAPPED, f"the chain goes on in epoch {wanted.epoch}")


def _link_damage(reader: SegmentReader, closing: Closing, link: _Link) -> Damage | None:
    if reader.previous != link.previous:
        return Damage(DamageKind.FORKED, 1, "the segment does not go on from the one before")
    if closing.total != link.total + closing.events:
        return Damage(DamageKind.CHANGED, None, "the closing line's total is not that of the chain")
    if link.last_offset is not None and closing.first_offset is not None and closing.first_offset <= link.last_offset:
        return Damage(DamageKind.FORKED, None, f"offset {closing.first_offset} follows offset {link.last_offset}")
    return None
