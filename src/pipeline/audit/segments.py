"""What a segment of the audit log looks like (docs/audit.md).

A segment is an object of JSON lines: a header, one line per event, a closing line. Each line ends with its hash::

    hash = SHA-256(hash of the line before, 64 hex digits + the line's text before `,"hash":`)

The header's line before is the closing line of the segment before, or 64 zeros. So a closing hash covers every byte of
the chain up to itself, and `sha256sum` is enough to check it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from pydantic import JsonValue

from pipeline.audit.signing import Signer
from pipeline.contracts import AuditEvent

FORMAT: Final = 1
GENESIS: Final = "0" * 64
"""What the first segment of a partition names as the hash before it."""

MAX_EVENT_BYTES: Final = 1 << 20
"""A larger event does not go into the log; ours have about 500 bytes."""

MAX_LINE_BYTES: Final = 8 * MAX_EVENT_BYTES
"""No line is longer (JSON may grow when it is written in ASCII), so readers need no more memory."""

ROOT: Final = "audit/"
_KEY: Final = re.compile(r"audit/([a-zA-Z0-9._-]+)/([0-9]{5})/([0-9]{5})/([0-9]{12})\.jsonl")
_FOLDER: Final = re.compile(r"[0-9]{5}")


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Which segment.

    Attributes:
        topic: Logical topic whose records it holds.
        epoch: Counts incarnations of the topic: a recreated one starts over with its offsets.
        number: Running number from 0 within the partition; goes on across epochs.
    """

    topic: str
    partition: int
    epoch: int
    number: int

    @property
    def folder(self) -> str:
        """Prefix of the epoch."""
        return f"{ROOT}{self.topic}/{self.partition:05d}/{self.epoch:05d}/"

    @property
    def key(self) -> str:
        """The object's key; padded, so that keys are in the order of numbers."""
        return f"{self.folder}{self.number:012d}.jsonl"

    @staticmethod
    def parse(key: str) -> Place | None:
        """Return the place that a key names, or None for a key that names none."""
        match = _KEY.fullmatch(key)
        return Place(match[1], int(match[2]), int(match[3]), int(match[4])) if match else None


def parse_folder(name: str) -> int | None:
    """Return the partition or epoch that a folder's name stands for, or None."""
    return int(name) if _FOLDER.fullmatch(name) else None


@dataclass(frozen=True, slots=True)
class Entry:
    """One event to append.

    Attributes:
        offset: Where its record stands in the partition.
        fields: The event as it was received, unknown fields included.
        size: Bytes of the record's value.
    """

    offset: int
    event: AuditEvent
    fields: dict[str, JsonValue] = field(repr=False)
    size: int

    def line(self, topic: str, partition: int, number: int) -> bytes:
        """Return the line's text, its hash still missing."""
        return _text(
            {
                "line": number,
                "kind": "event",
                "topic": topic,
                "partition": partition,
                "offset": self.offset,
                "id": self.event.id,
                "at": self.event.at.isoformat(),
                "actor": self.event.actor,
                "event": self.fields,
            }
        )


@dataclass(frozen=True, slots=True)
class Closing:
    """What the closing line says.

    Attributes:
        events: Events of this segment.
        total: Events of the partition up to here.
        first_offset: Of this segment's events; None without any.
        last_offset: Likewise.
        next_epoch: Set in the last segment of an epoch: the topic was recreated, the chain goes on there.
        signed_by: Key id of the signature, or None.
        hash: Covers everything up to here; the next segment's header repeats it.
    """

    events: int
    total: int
    first_offset: int | None
    last_offset: int | None
    next_epoch: int | None
    signed_by: str | None
    hash: str


@dataclass(frozen=True, slots=True)
class Built:
    """A segment, ready to be created."""

    place: Place
    at: datetime
    ids: Sequence[str]
    closing: Closing
    data: bytes = field(repr=False)


def build(
    place: Place,
    entries: Sequence[Entry],
    *,
    previous: str,
    total: int,
    writer: str,
    at: datetime,
    next_epoch: int | None = None,
    signer: Signer | None = None,
) -> Built:
    """Return a whole segment. CPU work: call it in a thread.

    Args:
        place: Where it will stand.
        entries: Its events, offsets increasing.
        previous: Closing hash of the segment before, or :data:`GENESIS`.
        total: Events of the partition before this segment.
        writer: Random text, different for each writer, so that two segments of one place always differ.
        at: Time of writing.
        next_epoch: The epoch that follows, where this segment ends one.
        signer: Signs the closing line, if given.
    """
    header: dict[str, JsonValue] = {
        "line": 1,
        "kind": "segment",
        "format": FORMAT,
        "topic": place.topic,
        "partition": place.partition,
        "epoch": place.epoch,
        "segment": place.number,
        "previous": previous,
        "writer": writer,
        "at": at.isoformat(),
    }
    line, running = _hashed(_text(header), previous)
    lines = [line]
    for number, entry in enumerate(entries, start=2):
        line, running = _hashed(entry.line(place.topic, place.partition, number), running)
        lines.append(line)
    closing: dict[str, JsonValue] = {
        "line": len(lines) + 1,
        "kind": "closing",
        "events": len(entries),
        "total": total + len(entries),
        "first_offset": entries[0].offset if entries else None,
        "last_offset": entries[-1].offset if entries else None,
        "next_epoch": next_epoch,
        "signed_by": signer.key_id if signer else None,
    }
    text = _text(closing)
    if signer:
        text += b',"signature":"%b"' % signer.sign(digest_of(text, running)).encode()
    line, running = _hashed(text, running)
    lines.append(line)
    return Built(
        place=place,
        at=at,
        ids=[entry.event.id for entry in entries],
        closing=Closing(
            events=len(entries),
            total=total + len(entries),
            first_offset=entries[0].offset if entries else None,
            last_offset=entries[-1].offset if entries else None,
            next_epoch=next_epoch,
            signed_by=signer.key_id if signer else None,
            hash=running,
        ),
        data=b"".join(lines),
    )


def digest_of(text: bytes, previous: str) -> str:
    """Return the hash of a line's text after the line with hash ``previous``."""
    return hashlib.sha256(previous.encode() + text).hexdigest()


def _text(members: dict[str, JsonValue]) -> bytes:
    # open at its end: the hash is the last member
    return json.dumps(members, separators=(",", ":"), allow_nan=False).encode()[:-1]


def _hashed(text: bytes, previous: str) -> tuple[bytes, str]:
    digest = digest_of(text, previous)
    return b'%b,"hash":"%b"}\n' % (text, digest.encode()), digest
