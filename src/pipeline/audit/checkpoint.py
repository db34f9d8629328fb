"""The ids of the events that a chain holds: in memory, and as checkpoints in the store that make opening it cheap."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, NonNegativeInt, ValidationError

from pipeline.audit.segments import CHECKPOINT, SegmentPosition, Signer

CHECKPOINTS: Final = "audit-checkpoints/"
"""Prefix of all checkpoints. They are not part of the log; they make opening a chain faster."""

_ID_BYTES: Final = 16
_TOGETHER: Final = timedelta(hours=1)
"""In a checkpoint, ids appended within this period share one time, so that it stays small."""


class KnownIds:
    """The recent ids of one partition's chain. It drops old ids, and the oldest ones if there are too many.

    An id takes about 120 bytes of memory. If an event comes again after its id was dropped, it is appended again.

    Args:
        window: Age at which ids are dropped.
        most: Maximum number of ids that are kept.
    """

    def __init__(self, window: timedelta, most: int) -> None:
        """Begin empty."""
        self._window = window
        self._most = most
        self._ids: dict[bytes, None] = {}
        self._groups: deque[tuple[datetime, int]] = deque()

    def __contains__(self, event_id: str) -> bool:
        return _short(event_id) in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, ids: Sequence[str], at: datetime) -> int:
        """Remember ids that were appended at ``at``, which is never earlier than in the call before.

        Returns:
            How many ids within the window were dropped, because there are too many.
        """
        return self._add(list(map(_short, ids)), at)

    def groups(self) -> list[tuple[datetime, int]]:
        """Return the times of the ids, with the number of ids appended then; ids of one hour share its latest time."""
        found: list[tuple[datetime, int]] = []
        begin: datetime | None = None
        for at, count in self._groups:
            if begin is not None and at - begin < _TOGETHER:
                found[-1] = at, found[-1][1] + count
            else:
                begin = at
                found.append((at, count))
        return found

    def packed(self) -> bytes:
        """Return all ids, the oldest first, in 16 bytes each."""
        return b"".join(self._ids)

    def unpack(self, groups: Sequence[tuple[datetime, int]], ids: bytes) -> None:
        """Remember the ids that :meth:`groups` and :meth:`packed` returned."""
        every = (ids[start : start + _ID_BYTES] for start in range(0, len(ids), _ID_BYTES))
        for at, count in groups:
            self._add(list(islice(every, count)), at)

    def _add(self, ids: Sequence[bytes], at: datetime) -> int:
        before = len(self._ids)
        self._ids.update(dict.fromkeys(ids))
        self._groups.append((at, len(self._ids) - before))
        while self._groups and at - self._groups[0][0] > self._window:
            self._forget(self._groups.popleft()[1])
        return self._cut(len(self._ids) - self._most)

    def _cut(self, surplus: int) -> int:
        left = surplus
        while left > 0:
            at, count = self._groups.popleft()
            if count > left:
                self._groups.appendleft((at, count - left))
            self._forget(min(count, left))
            left -= count
        return max(0, surplus)

    def _forget(self, count: int) -> None:
        # a dict keeps the order of insertion: the first ids are the oldest
        for short in list(islice(self._ids, count)):
            del self._ids[short]


def _short(event_id: str) -> bytes:
    return hashlib.blake2b(event_id.encode(), digest_size=_ID_BYTES).digest()


def checkpoints_of(topic: str, partition: int) -> str:
    """Return the prefix of a chain's checkpoints; their names are the numbers of segments, padded."""
    return f"{CHECKPOINTS}{topic}/{partition:05d}/"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A saved state of a chain.

    Attributes:
        position: The last segment at that time.
        closing: The closing hash of that segment: the next segment must name it.
        groups: See :meth:`KnownIds.groups`.
        ids: See :meth:`KnownIds.packed`.
    """

    position: SegmentPosition
    closing: str
    groups: Sequence[tuple[datetime, int]]
    ids: bytes

    @property
    def key(self) -> str:
        """Key of the object."""
        return f"{checkpoints_of(self.position.topic, self.position.partition)}{self.position.number:012d}"

    def dump(self, signer: Signer | None) -> bytes:
        """Return the object's bytes. This is CPU work: call it in a thread."""
        head = _Head(
            topic=self.position.topic,
            partition=self.position.partition,
            epoch=self.position.epoch,
            segment=self.position.number,
            closing=self.closing,
            groups=tuple(self.groups),
        )
        text = head.model_dump_json().encode()
        digest = _digest(text, self.ids)
        proof = _Proof(sha256=digest, signature=signer.sign(digest, CHECKPOINT) if signer else None)
        return b"%b\n%b\n%b" % (text, proof.model_dump_json().encode(), self.ids)

    @staticmethod
    def load(data: bytes, signer: Signer | None) -> Checkpoint | None:
        """Return the checkpoint; None if it is damaged, or is not signed by the given signer.

        With a false checkpoint, an attacker could keep an event out of the log by declaring its id as known. So with a
        signing key, only a checkpoint that this key signed is accepted.
        """
        text, _, rest = data.partition(b"\n")
        proven, _, ids = rest.partition(b"\n")
        try:
            head, proof = _Head.model_validate_json(text), _Proof.model_validate_json(proven)
        except ValidationError:
            return None
        if proof.sha256 != _digest(text, ids) or sum(count for _, count in head.groups) * _ID_BYTES != len(ids):
            return None
        if signer is not None and not signer.has_signed(proof.sha256, proof.signature or "", CHECKPOINT):
            return None
        position = SegmentPosition(head.topic, head.partition, head.epoch, head.segment)
        return Checkpoint(position, head.closing, head.groups, ids)


class _Head(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    topic: str
    partition: int
    epoch: NonNegativeInt
    segment: NonNegativeInt
    closing: str
    groups: tuple[tuple[AwareDatetime, NonNegativeInt], ...]


class _Proof(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    sha256: str
    signature: str | None


def _digest(text: bytes, ids: bytes) -> str:
    return hashlib.sha256(b"%b\n%b" % (text, ids)).hexdigest()
