"""The objects of the job store: small JSON documents, each created once and never changed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID, uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from pipeline.jobs.job_tree import JobRef, WaitingMarker
from pipeline.jobs.part_encryption import Sealed
from pipeline.jobs.partners import JobAnnouncement

_SIGNED: Final = re.compile(r"[?#@]")


def _nonce() -> str:
    return uuid4().hex


class Receipt(BaseModel):
    """Base of all stored objects. The nonce shows a worker its own object if the answer to its write was lost."""

    model_config = ConfigDict(
        defer_build=True, frozen=True, extra="ignore", ser_json_bytes="base64", val_json_bytes="base64"
    )

    nonce: str = Field(default_factory=_nonce)


class Difference(BaseModel):
    """One field in which a later announcement of a job differs from the first one."""

    model_config = ConfigDict(defer_build=True, frozen=True)

    field: str
    first: str
    later: str


class JobIdentity(Receipt):
    """The identity of a job, from its first announcement. A later announcement that differs is a conflict."""

    merchant_guid: UUID
    record_count: int
    announcement: str

    def differences(self, later: JobIdentity) -> tuple[Difference, ...]:
        """Return the fields in which a later announcement contradicts this one."""
        values = {name: (getattr(self, name), getattr(later, name)) for name in ("merchant_guid", "record_count")}
        return tuple(
            Difference(field=name, first=str(one), later=str(other))
            for name, (one, other) in values.items()
            if one != other
        )


class Announcement(Receipt):
    """One distinct announcement. Its URLs are bearer secrets, until they are erased at the end of the job.

    Attributes:
        id: 16 hex digits, the beginning of the record's ``ce_id``.
        attempt: Which attempt of the job it belongs to; decided by the creation of this object.
        deadline: When work must have ended: the earliest expiry of the two URLs, less the margin.
        traceparent: Trace context of the announcement, for work without a message: the watch, commands.
        value: The announcement as received, so that a command can repeat it. Like the request, it holds bearer secrets.
        erased: Names of the request's fields that were emptied when the job ended; None before.
    """

    id: str
    attempt: int = Field(ge=1)
    deadline: AwareDatetime
    stored_at: AwareDatetime
    traceparent: str | None = None
    request: JobAnnouncement = Field(repr=False)
    value: bytes | None = Field(default=None, repr=False)
    erased: tuple[str, ...] | None = None

    def without_urls(self) -> Announcement:
        """Return a copy without signed URLs, without the value, and without the partner's own fields.

        The callback URL stays, unless it has a query, a fragment or credentials and so may be signed.
        """
        urls = {"input_file_url": "", "result_upload_url": ""}
        if _SIGNED.search(self.request.callback_url):
            urls["callback_url"] = ""
        kept = {name: getattr(self.request, name) for name in JobAnnouncement.model_fields}
        erased = tuple(sorted({*(self.erased or ()), *urls}))
        return self.model_copy(update={"request": JobAnnouncement(**kept | urls), "value": None, "erased": erased})


class Conflict(Receipt):
    """A later announcement that contradicts the first one. The job uses only the first.

    Attributes:
        id: 16 hex digits, the beginning of the record's ``ce_id``.
        attempt: The job's attempt at that time.
    """

    id: str
    attempt: int = Field(ge=1)
    differences: tuple[Difference, ...]
    stored_at: AwareDatetime


class FilePosition(BaseModel):
    """A position between two records of the input file (see ``csv_engine.Position``)."""

    model_config = ConfigDict(defer_build=True, frozen=True)

    byte: int
    record: int
    line: int


class Manifest(Receipt):
    """One finished chunk. It is created only once, and decides which data object is part of the result.

    Attributes:
        size: Length of the result bytes.
        crc32: CRC-32 of the data object after encryption: a checksum of the cards themselves would help to guess them.
        data: Key of the data object.
        sealed: Which key encrypted it; None if it is in clear.
        inline: The bytes of the data object, if the manifest itself holds them; then ``data`` is the manifest's key.
    """

    number: int = Field(ge=0)
    start: FilePosition
    end: FilePosition
    ok: int
    failed: int
    size: int
    crc32: int
    data: str
    sealed: Sealed | None = None
    inline: bytes | None = Field(default=None, repr=False)


class Source(Receipt):
    """The source of a generation of parts, stored beside its manifests.

    Attributes:
        plan: Hash of chunk bounds, CSV settings, processor, its version and options.
        header: The input file's header record, for a restart in the middle of the file; None if it has none.
    """

    plan: str
    etag: str
    size: int | None
    encoding: Literal["identity", "gzip"]
    header: bytes | None = None


class PlanPage(Receipt):
    """The positions of a run of chunks of a shared file.

    Attributes:
        first: Number of the first chunk.
        start: Where the first chunk begins.
        ends: Byte, record and line at the end of each chunk. A chunk begins where the one before ends.
    """

    first: int
    start: FilePosition
    ends: tuple[tuple[int, int, int], ...]


class Plan(Receipt):
    """The plan of a shared file, created after its last page, when all chunks are known.

    Attributes:
        chunks: Number of chunks.
        records: Data records of the file.
        announcement: The announcement whose URL was used to read the file.
    """

    announcement: str
    chunks: int = Field(ge=1)
    records: int
    at: AwareDatetime


class SourceDiffers(Receipt):
    """A worker found that the input is not the generation's file."""

    number: int
    at: AwareDatetime


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The parts of an earlier run.

    Attributes:
        manifests: By chunk number; may have gaps, because several chunks are processed at a time.
    """

    generation: str
    source: Source
    manifests: dict[int, Manifest]

    @property
    def gapless(self) -> int:
        """The number of the first chunk that is not finished."""
        number = 0
        while number in self.manifests:
            number += 1
        return number


class Started(Receipt):
    """A worker began to work on the file. A start without an end means that the worker died.

    Attributes:
        chunks: Number of chunks that were finished at that time, in all generations.
        worker: Id of the process.
        host: Name of its host, for operators.
    """

    number: int = Field(ge=1)
    chunks: int
    worker: str
    host: str = ""
    at: AwareDatetime


class StartEnded(Receipt):
    """The work of one start has ended, and its worker did not die.

    Attributes:
        reason: Error code; ``shared`` if the worker ran the suspect alone for a while and then let others run beside
            it.
        chunks: The same as in the start.
    """

    number: int = Field(ge=1)
    reason: str
    chunks: int
    at: AwareDatetime


class Processed(Receipt):
    """Every card is decided. The parts of ``generation`` are the result."""

    announcement: str
    generation: str
    parts: int
    records: int
    ok: int
    failed: int
    result_bytes: int
    at: AwareDatetime


class Outcome(Receipt):
    """How the job ended. It is created only once, and every callback repeats its ``body`` and ``request_id``.

    Attributes:
        reason: Error code of a failure; None for ``completed``.
        body: The callback body, exactly the bytes that are sent (text, UTF-8). It and the request id are empty if the
            partner was not known when an operator cancelled the job.
        decided_by: ``process``, ``upload``, ``watch`` or ``cli:<user>``.
    """

    outcome: Literal["completed", "failed"]
    reason: str | None
    message: str | None
    body: str
    request_id: str
    announcement: str
    generation: str | None
    records: int
    ok: int
    failed: int
    result_bytes: int
    result_etag: str
    decided_by: str
    at: AwareDatetime


class NotificationAttempt(Receipt):
    """One callback, recorded before it is sent."""

    number: int
    at: AwareDatetime


class NotificationAnswer(Receipt):
    """The partner's answer to one callback, if there was an answer that is not a confirmation."""

    number: int
    status: int
    code: str
    detail: str
    at: AwareDatetime


class NotificationResult(Receipt):
    """How one notification ended: the partner confirmed or refused it. The stored format names the field."""

    told: Literal["confirmed", "refused"]
    tries: int
    status: int
    code: str
    detail: str
    at: AwareDatetime


class Waiting(Receipt):
    """A job was parked: its record waits here until it is due. Created once per wait of one record.

    Attributes:
        stage: The stage that could not do the job: ``process``, ``upload``, ``confirm`` or ``watch``.
        record_id: Id of the waiting record (16 hex digits): an announcement, or the message of a stage.
        count: How often this record has waited, from 1.
        code: Error code of the last try, or of the condition that prevented a try.
        message: Message of that error, masked.
        tries: Number of tries between the previous wait and this one.
        first_at: When the record began to wait for the first time.
        due: When the record is published to its topic again, unless somebody resumes the job earlier; a whole second.
        worker: The host that parked it.
        deadline: The job's deadline at that time; None if it was not known, or its announcement is not stored.
        topic, partition, key, value, headers: The record. The value of an announcement holds bearer secrets.
    """

    integration: str
    job_guid: UUID
    attempt: int
    stage: str
    record_id: str
    count: int
    code: str
    message: str
    tries: int
    first_at: AwareDatetime
    at: AwareDatetime
    due: AwareDatetime
    worker: str
    deadline: AwareDatetime | None = None
    topic: str
    partition: int
    key: str
    value: bytes = Field(repr=False)
    headers: tuple[tuple[str, bytes], ...] = Field(repr=False)

    @property
    def ref(self) -> JobRef:
        """The job's attempt."""
        return JobRef(self.integration, self.job_guid, self.attempt)

    @property
    def marker(self) -> WaitingMarker:
        """The marker under which it is filed."""
        return WaitingMarker(self.ref, self.stage, self.record_id, self.count, self.code, self.due)


def millis(moment: datetime) -> int:
    """Return epoch milliseconds, never negative."""
    return max(0, int(moment.timestamp() * 1000))
