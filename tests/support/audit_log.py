"""A log in memory, and events to put into it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from pipeline.audit import AuditSettings, Chain, Entry, Signer, Writing
from pipeline.audit.chain import SEGMENT_BYTES, SEGMENT_EVENTS
from pipeline.audit.segments import ROOT
from pipeline.contracts import AuditAction, AuditEvent
from pipeline.errors import LeaseLost
from pipeline.storage.testing import MemoryStore

TOPIC = "audit.events"
JOB = UUID("11111111-2222-3333-4444-555555555555")
START = datetime(2026, 1, 22, 12, 0, tzinfo=UTC)


def entry(offset: int, name: str | None = None) -> Entry:
    """Return an event, the same one for the same name."""
    event = AuditEvent(
        id=AuditEvent.id_of(AuditAction.JOB_PROCESSED, name or str(offset)),
        action=AuditAction.JOB_PROCESSED,
        at=START,
        actor="process",
        integration="acme",
        job_guid=JOB,
        detail={"records": offset},
    )
    value = event.model_dump_json()
    return Entry(offset, event, json.loads(value), len(value))


def entries(*offsets: int) -> list[Entry]:
    return [entry(offset) for offset in offsets]


@dataclass
class HeldLease:
    """A lease that can be lost."""

    lost: bool = False
    asked: int = 0

    async def ensure(self) -> None:
        self.asked += 1
        if self.lost:
            raise LeaseLost("lease_lost", "taken by the test")


@dataclass
class Log:
    """A log in memory and what its writers need."""

    store: MemoryStore = field(default_factory=MemoryStore)
    settings: AuditSettings = field(default_factory=AuditSettings)
    segment_events: int = SEGMENT_EVENTS
    segment_bytes: int = SEGMENT_BYTES
    signer: Signer | None = None
    now: datetime = START
    lease: HeldLease = field(default_factory=HeldLease)
    writers: int = 0

    @property
    def writing(self) -> Writing:
        return Writing(
            self.store,
            self.settings,
            self.signer,
            lambda: self.now,
            self._nonce,
            self.segment_events,
            self.segment_bytes,
        )

    def _nonce(self) -> str:
        self.writers += 1
        return f"writer-{self.writers}"

    async def open(self, partition: int = 0) -> Chain:
        return await Chain.open(self.writing, TOPIC, partition)

    async def fill(self, *batches: list[Entry], partition: int = 0) -> Chain:
        """Append batches, a minute apart."""
        chain = await self.open(partition)
        for batch in batches:
            await chain.append(batch, self.lease)
            self.now += timedelta(minutes=1)
        return chain

    @property
    def keys(self) -> list[str]:
        """Keys of the segments, in order."""
        return sorted(key for key in self.store.objects if key.startswith(ROOT))

    def lines(self, key: str) -> list[bytes]:
        return self.store.objects[key].splitlines(keepends=True)

    def put(self, key: str, lines: list[bytes]) -> None:
        self.store.objects[key] = b"".join(lines)

    def offsets(self) -> list[int]:
        """Return the offsets of all events, in the order of the chain."""
        found = [json.loads(line) for key in self.keys for line in self.lines(key)]
        return [line["offset"] for line in found if line["kind"] == "event"]


@dataclass(frozen=True)
class KeyPair:
    private: bytes
    public: bytes


def new_key() -> KeyPair:
    key = Ed25519PrivateKey.generate()
    return KeyPair(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )
