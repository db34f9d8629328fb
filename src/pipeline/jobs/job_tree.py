"""The key of each object of a job (docs/decisions/0002-job-store-tree.md shows the whole tree)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, get_args
from uuid import UUID

_MINUTE_FORMAT: Final = "%Y%m%d%H%M"
_SECOND_FORMAT: Final = "%Y%m%d%H%M%S"

MarkerKind = Literal["open", "decided", "purge"]
"""The lists of attempts.

``open``: the partner is not notified yet; sorted by deadline. ``decided``: the same, after the deadline has passed.
``purge``: there are parts to delete; sorted by the time of deletion.
"""

_KINDS: Final[Mapping[str, MarkerKind]] = {kind: kind for kind in get_args(MarkerKind)}

WAITING_MARKERS: Final = "due/"
"""Prefix of the markers of all parked jobs, in the order in which they are due."""

WAITING_RECEIPT: Final = re.compile(r"(?P<record>(?P<stage>[a-z]+)-[0-9a-f]{16})-(?P<count>[0-9]{4,9})\.json")
"""Name of the receipt of a wait, in :attr:`JobRef.waiting`."""

_WAITING_MARKER: Final = re.compile(
    r"due/(?P<due>\d{14})/(?P<integration>[a-z0-9-]+)/(?P<guid>[0-9a-f-]{36})\.(?P<attempt>\d{1,7})\."
    r"(?P<stage>[a-z]+)-(?P<record>[0-9a-f]{16})-(?P<count>\d{4,9})\.(?P<code>[a-z0-9_]+)"
)
_CODE_LIMIT: Final = 64
_MARKER_PARTS: Final = 4


@dataclass(frozen=True, slots=True, order=True)
class JobRef:
    """One attempt of one job. Attempts after the first exist only where the integration asks for them."""

    integration: str
    job_guid: UUID
    attempt: int = 1

    @property
    def root(self) -> str:
        """Prefix of the objects that all attempts share."""
        return f"jobs/{self.integration}/{self.job_guid}/"

    @property
    def work(self) -> str:
        """Prefix of this attempt's parts and receipts."""
        return self.root if self.attempt == 1 else f"{self.root}attempts/{self.attempt}/"

    def parts(self, generation: str = "") -> str:
        """Return the prefix of all parts, or of the parts of one generation."""
        return f"{self.work}parts/{generation}/" if generation else f"{self.work}parts/"

    def manifest(self, generation: str, number: int) -> str:
        """Return the key of a chunk's manifest; zero-padded, so that a listing is in order."""
        return f"{self.parts(generation)}{number:08d}.json"

    def plan(self, generation: str) -> str:
        """Return the key of the plan of a generation whose chunks are shared."""
        return f"{self.parts(generation)}plan.json"

    def plan_page(self, generation: str, number: int) -> str:
        """Return the key of one page of a plan, which says where its chunks end."""
        return f"{self.parts(generation)}plan/{number:08d}.json"

    def chunk_starts(self, generation: str, number: int) -> str:
        """Return the prefix of the recorded starts of one shared chunk."""
        return f"{self.parts(generation)}started/{number:08d}/"

    def source_changed(self, generation: str) -> str:
        """Return the key of a worker's receipt that the input is not the generation's file."""
        return f"{self.parts(generation)}changed.json"

    def notification(self, again: str | None) -> str:
        """Return the prefix of one notification: of the first, or of the repeated one with this name."""
        return f"{self.work}again/{again}/" if again else self.work

    @property
    def waiting(self) -> str:
        """Prefix of the receipts of the job's waits, those of all attempts."""
        return f"{self.root}waiting/"

    def marker(self, kind: MarkerKind, due: datetime) -> str:
        """Return the key under which this attempt is filed for a minute."""
        return (
            f"{kind}/{due.astimezone(UTC).strftime(_MINUTE_FORMAT)}/{self.integration}/{self.job_guid}.{self.attempt}"
        )

    def ended(self, at: datetime, outcome: str) -> str:
        """Return the key under which this attempt is filed once nothing more happens to it."""
        return f"{ended_folder(self.integration, at)}{self.job_guid}.{self.attempt}.{outcome}"


def ended_folder(integration: str, minute: datetime) -> str:
    """Return the prefix of the attempts of an integration that ended in a minute."""
    return f"ended/{integration}/{minute.astimezone(UTC):%Y%m%d/%H%M}/"


@dataclass(frozen=True, slots=True)
class Marker:
    """A marker of a filed job: the job, and the minute from which on it is due."""

    key: str
    minute: datetime
    ref: JobRef

    @property
    def over(self) -> datetime:
        """The end of the minute under which the job is filed."""
        return self.minute + timedelta(minutes=1)


def parse_marker(key: str) -> Marker | None:
    """Return the marker with this key; None if the pipeline never makes such a key."""
    parts = key.split("/")
    if len(parts) != _MARKER_PARTS:
        return None
    kind, minute, integration, name = _KINDS.get(parts[0]), *parts[1:]
    guid, _, attempt = name.rpartition(".")
    try:
        marker = Marker(
            key=key,
            minute=datetime.strptime(minute, _MINUTE_FORMAT).replace(tzinfo=UTC),
            ref=JobRef(integration, UUID(guid), int(attempt)),
        )
    except ValueError:
        return None
    return marker if kind and marker.ref.attempt > 0 and marker.ref.marker(kind, marker.minute) == key else None


def parse_ended(key: str) -> tuple[JobRef, str] | None:
    """Return the attempt and the outcome in the key of an ended attempt; None for a foreign object."""
    try:
        _, integration, _, _, name = key.split("/")
        guid, attempt, outcome = name.split(".")
        return JobRef(integration, UUID(guid), int(attempt)), outcome
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class WaitingMarker:
    """A marker of a parked job: which record waits, why, and until when.

    Attributes:
        record: Which record of the job waits (16 hex digits).
        count: How often that record has waited, from 1.
        due: When it is published to its topic again; a whole second.
    """

    ref: JobRef
    stage: str
    record: str
    count: int
    code: str
    due: datetime

    @property
    def key(self) -> str:
        """Key of the marker. It has all data that a listing of parked jobs needs."""
        due = self.due.astimezone(UTC).strftime(_SECOND_FORMAT)
        code = re.sub(r"[^a-z0-9_]", "_", self.code)[:_CODE_LIMIT] or "_"
        ref = self.ref
        return f"{WAITING_MARKERS}{due}/{ref.integration}/{ref.job_guid}.{ref.attempt}.{self._wait}.{code}"

    @property
    def receipt(self) -> str:
        """Key of the receipt, which holds the record."""
        return f"{self.ref.waiting}{self._wait}.json"

    @property
    def _wait(self) -> str:
        return f"{self.stage}-{self.record}-{self.count:04d}"


def parse_waiting_marker(key: str) -> WaitingMarker | None:
    """Return the marker of a parked job with this key, or None if the key is not of one."""
    match = _WAITING_MARKER.fullmatch(key)
    if match is None:
        return None
    try:
        return WaitingMarker(
            ref=JobRef(match["integration"], UUID(match["guid"]), int(match["attempt"])),
            stage=match["stage"],
            record=match["record"],
            count=int(match["count"]),
            code=match["code"],
            due=datetime.strptime(match["due"], _SECOND_FORMAT).replace(tzinfo=UTC),
        )
    except ValueError:
        return None
