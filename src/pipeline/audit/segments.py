"""The segments of the audit log and the signatures of their closing hashes (docs/explanation/audit-log.md).

A segment is an object of JSON lines: a header, one line per event, a closing line. Each line ends with its hash::

    hash = SHA-256(hash of the line before, 64 hex digits + the line's text before `,"hash":`)

For the header, the line before is the closing line of the previous segment, or 64 zeros. So a closing hash covers every
byte of the chain up to itself, and `sha256sum` is enough to check it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from pydantic import JsonValue

from pipeline.contracts import AuditEvent
from pipeline.errors import FatalError

FORMAT: Final = 1
GENESIS: Final = "0" * 64
"""The previous hash in the first segment of a partition."""

MAX_EVENT_BYTES: Final = 1 << 20
"""Larger events are dead-lettered; the stages' events have about 500 bytes."""

MAX_LINE_BYTES: Final = 8 * MAX_EVENT_BYTES
"""No line is longer (JSON may grow when it is written in ASCII), so readers need no more memory."""

ROOT: Final = "audit/"
_KEY: Final = re.compile(r"audit/([a-zA-Z0-9._-]+)/([0-9]{5})/([0-9]{5})/([0-9]{12})\.jsonl")
_FOLDER: Final = re.compile(r"[0-9]{5}")

_PURPOSE: Final = b"card-pipeline audit segment 1\n"
"""Signed before the hash, so that a signature made for another purpose never fits."""

CHECKPOINT: Final = b"card-pipeline audit checkpoint 1\n"
"""Signed before the hash of a checkpoint, for the same reason."""

PublicKeys = Mapping[str, Ed25519PublicKey]
"""Public keys by key id."""


@dataclass(frozen=True, slots=True, order=True)
class SegmentPosition:
    """The position of a segment in the log.

    Attributes:
        topic: Logical topic whose records it holds.
        epoch: Increases when the topic is created again, because its offsets then start from 0 again.
        number: Running number from 0 within the partition; it continues across epochs.
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
        """The object's key. Its numbers are padded, so that keys sort by number."""
        return f"{self.folder}{self.number:012d}.jsonl"

    @staticmethod
    def parse(key: str) -> SegmentPosition | None:
        """Return the position that a key names, or None if it is not the key of a segment."""
        match = _KEY.fullmatch(key)
        return SegmentPosition(match[1], int(match[2]), int(match[3]), int(match[4])) if match else None


def parse_folder(name: str) -> int | None:
    """Return the number of the partition or epoch whose folder has this name, or None."""
    return int(name) if _FOLDER.fullmatch(name) else None


@dataclass(frozen=True, slots=True)
class Entry:
    """One event to append.

    Attributes:
        offset: Offset of its record in the partition.
        fields: The event as it was received, unknown fields included.
        size: Bytes of the record's value.
    """

    offset: int
    event: AuditEvent
    fields: dict[str, JsonValue] = field(repr=False)
    size: int

    def line(self, topic: str, partition: int, number: int) -> bytes:
        """Return the line's text without its hash."""
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
    """The content of a closing line.

    Attributes:
        events: Number of events in this segment.
        total: Number of events in the partition up to this line.
        first_offset: First offset of this segment's events; None if it has none.
        last_offset: Last offset of this segment's events; None if it has none.
        next_epoch: Set in the last segment of an epoch: the topic was created again, and the chain continues there.
        signed_by: Key id of the signature, or None.
        hash: Covers everything up to this line; the next segment's header repeats it.
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

    position: SegmentPosition
    at: datetime
    ids: Sequence[str]
    closing: Closing
    data: bytes = field(repr=False)


class Signer:
    """Signs with one private key.

    Attributes:
        key_id: First 16 hex digits of the SHA-256 of the raw public key.
    """

    def __init__(self, pem: bytes) -> None:
        """Load the key.

        Raises:
            FatalError: The text is not an Ed25519 private key in PEM, or is encrypted (``audit_key_invalid``).
        """
        try:
            key = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise _invalid("private") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise _invalid("private")
        self._key = key
        self.key_id = _id_of(key.public_key())

    def sign(self, digest: str, purpose: bytes = _PURPOSE) -> str:
        """Return the signature of a hash, as 128 hex digits."""
        return self._key.sign(purpose + digest.encode()).hex()

    def has_signed(self, digest: str, signature: str, purpose: bytes = _PURPOSE) -> bool:
        """Return whether this key made the signature."""
        return is_signed(digest, signature, self._key.public_key(), purpose)


def load_public_keys(pems: Iterable[bytes]) -> PublicKeys:
    """Return the keys by id; there are several once the signing key has changed.

    Raises:
        FatalError: A text is not an Ed25519 public key in PEM (``audit_key_invalid``).
    """
    found: dict[str, Ed25519PublicKey] = {}
    for pem in pems:
        try:
            key = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise _invalid("public") from error
        if not isinstance(key, Ed25519PublicKey):
            raise _invalid("public")
        found[_id_of(key)] = key
    return found


def is_signed(digest: str, signature: str, key: Ed25519PublicKey, purpose: bytes = _PURPOSE) -> bool:
    """Return whether the key's private half made the signature (hex digits) over this hash."""
    try:
        key.verify(bytes.fromhex(signature), purpose + digest.encode())
    except (InvalidSignature, ValueError):
        return False
    return True


def _id_of(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _invalid(half: str) -> FatalError:
    return FatalError(
        "audit_key_invalid",
        f"The audit log's {half} key must be an unencrypted Ed25519 key in PEM: openssl genpkey -algorithm ed25519 "
        "makes one",
    )


def build(
    position: SegmentPosition,
    entries: Sequence[Entry],
    *,
    previous: str,
    total: int,
    writer: str,
    at: datetime,
    next_epoch: int | None = None,
    signer: Signer | None = None,
) -> Built:
    """Return a whole segment. This is CPU work: call it in a thread.

    Args:
        position: The segment's position.
        entries: Its events, offsets increasing.
        previous: Closing hash of the segment before, or :data:`GENESIS`.
        total: Events of the partition before this segment.
        writer: Random text, different for each writer, so that two segments for one position always differ.
        at: Time of writing.
        next_epoch: The next epoch, if this segment ends one.
        signer: Signs the closing line, if given.
    """
    header: dict[str, JsonValue] = {
        "line": 1,
        "kind": "segment",
        "format": FORMAT,
        "topic": position.topic,
        "partition": position.partition,
        "epoch": position.epoch,
        "segment": position.number,
        "previous": previous,
        "writer": writer,
        "at": at.isoformat(),
    }
    line, running = _hashed(_text(header), previous)
    lines = [line]
    for number, entry in enumerate(entries, start=2):
        line, running = _hashed(entry.line(position.topic, position.partition, number), running)
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
        position=position,
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
    # without the closing brace: the hash follows as the last member
    return json.dumps(members, separators=(",", ":"), allow_nan=False).encode()[:-1]


def _hashed(text: bytes, previous: str) -> tuple[bytes, str]:
    digest = digest_of(text, previous)
    return b'%b,"hash":"%b"}\n' % (text, digest.encode()), digest
