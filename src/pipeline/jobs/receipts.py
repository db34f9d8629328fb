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
    """Base of all stored objects. By the nonce a worker recognises its own write after a lost answer."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_bytes="base64", val_json_bytes="base64")

    nonce: str = Field(default_factory=_nonce)


class Difference(BaseModel):
    """One field in which a later announcement of a job differs from the first one."""

    model_config = ConfigDict(frozen=True)

    field: str
    first: str
    later: str


class JobIdentity(Receipt):
    """The identity of a job, from its first announcement. A later one that differs is a conflict."""

    merchant_guid: UUID
    record_count: int
    announcement: str

    def differences(self, later: JobIdentity) -> tuple[Difference, ...]:
        """Return in which fields a later announcement contradicts this one."""
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
        traceparent: Trace context of the announcement, for work that no message starts: the watch, commands.
        value: The announcement as received, so that a command can repeat it. Holds bearer secrets, as the request does.
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
        """Return it without signed URLs, without its value, and without the fields that only the partner knows.

        The address of callbacks stays, unless it may be signed: it has a query, a fragment or credentials.
        """
        urls = {"input_file_url": "", "result_upload_url": ""}
        if _SIGNED.search(self.request.callback_url):
            urls["callback_url"] = ""
        kept = {name: getattr(self.request, name) for name in JobAnnouncement.model_fields}
        erased = tuple(sorted({*(self.erased or ()), *urls}))
        return self.model_copy(update={"request": JobAnnouncement(**kept | urls), "value": None, "erased": erased})


class Conflict(Receipt):
    """A later announcement that contradicts the first one. The first decides; this one is not used.

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

    model_config = ConfigDict(frozen=True)

    byte: int
    record: int
    line: int


class Manifest(Receipt):
    """One finished chunk. Created once: it decides which data object is part of the result.

    Attributes:
        size: Length of the result bytes.
        crc32: Of the data object, which is encrypted: a checksum of the cards themselves would help to guess them.
        data: Key of the data object.
        sealed: Which key encrypted it; None: it is in clear.
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
        header: The input file's header record, which a restart in mid-file needs; None without one.
    """

    plan: str
    etag: str
    size: int | None
    encoding: Literal["identity", "gzip"]
    header: bytes | None = None


class PlanPage(Receipt):
    """Where a run of chunks of a shared file ends.

    Attributes:
        first: Number of the first of them.
        start: Where it begins.
        ends: Byte, record and line at the end of each: a chunk begins where the one before ends.
    """

    first: int
    start: FilePosition
    ends: tuple[tuple[int, int, int], ...]


class Plan(Receipt):
    """All chunks of a shared file are known. Created after the last page.

    Attributes:
        chunks: How many there are.
        records: Data records of the file.
        announcement: The announcement with whose URL the file was read.
    """

    announcement: str
    chunks: int = Field(ge=1)
    records: int
    at: AwareDatetime


class SourceDiffers(Receipt):
    """A worker found that the input is another file than that of the generation."""

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
        """How many chunks from the first on are finished without a gap: the number of the next chunk."""
        number = 0
        while number in self.manifests:
            number += 1
        return number


class Started(Receipt):
    """A worker begins to work on the file. Only its death leaves a start without an end.

    Attributes:
        chunks: How many chunks were finished then, in all generations.
        worker: Identifies the process.
        host: Where it runs, for operators.
    """

    number: int = Field(ge=1)
    chunks: int
    worker: str
    host: str = ""
    at: AwareDatetime


class StartEnded(Receipt):
    """The work of one start ended, and its worker lived.

    Attributes:
        reason: Error code; ``shared``: the worker lived on for a while, and then let other suspects run beside it.
        chunks: As its start has it.
    """

    number: int = Field(ge=1)
    reason: str
    chunks: int
    at: AwareDatetime


class Processed(Receipt):
    """Every card is decided; names the generation whose parts are the result."""

    announcement: str
    generation: str
    parts: int
    records: int
    ok: int
    failed: int
    result_bytes: int
    at: AwareDatetime


class Outcome(Receipt):
    """How the job ended. Created once: it decides, and every callback repeats ``body`` and ``request_id``.

    Attributes:
        reason: Error code of a failure; None for ``completed``.
        body: The callback body, exactly the bytes that are sent (text, UTF-8). Empty, as the request id, if the partner
            was not known when an operator cancelled the job.
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
    """The partner's answer to one callback, unless it was a confirmation or there was none."""

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
        record_id: Which record of the job waits (16 hex digits): an announcement, or the message of a stage.
        count: How often this record has waited, from 1.
        code: Error code of the last try, or of the condition because of which there was none.
        message: The same in words, masked.
        tries: How many tries there were before this wait, since the one before.
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
