"""Where the chain of a partition ends, found without listing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.audit.damage import Damage
from pipeline.audit.reading import read_segment
from pipeline.audit.segments import ROOT, Closing, Place
from pipeline.errors import FatalError
from pipeline.storage import ObjectNotFound, ObjectStore


@dataclass(frozen=True, slots=True)
class Tail:
    """The last segment of a partition.

    Attributes:
        epochs: Number of the first segment of each epoch.
    """

    place: Place
    closing: Closing
    epochs: Sequence[int]

    def place_of(self, number: int) -> Place:
        """Return the place of an earlier segment."""
        epoch = max(epoch for epoch, first in enumerate(self.epochs) if first <= number)
        return Place(self.place.topic, self.place.partition, epoch, number)


async def find_tail(store: ObjectStore, topic: str, partition: int) -> Tail | None:
    """Return the last segment, or None where there is no segment yet. About 2 log2(segments) small requests.

    Raises:
        FatalError: The first or the last segment is damaged or missing (``audit_chain_damaged``): what follows could
            not be chained to it.
    """
    first = Place(topic, partition, 0, 0)
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
        first = Place(topic, partition, closing.next_epoch, last.number + 1)
    if tail is None and await store.folders(f"{ROOT}{topic}/{partition:05d}/"):
        raise _damaged(first)
    return tail


async def _last_of_epoch(store: ObjectStore, first: Place) -> Place:
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


async def _exists(store: ObjectStore, place: Place) -> bool:
    try:
        await store.get(place.key, start=0, end=1)
    except ObjectNotFound:
        return False
    return True


def _numbered(place: Place, number: int) -> Place:
    return Place(place.topic, place.partition, place.epoch, number)


def _damaged(place: Place) -> FatalError:
    return FatalError(
        "audit_chain_damaged",
        f"{place.key} is damaged or missing, so nothing can be chained to it. Run `pipeline audit verify`, keep the "
        "evidence, and restore the object from the store's versions or a backup",
    )
