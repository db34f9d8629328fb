"""Where each object of a job lies (docs/decisions/0002-job-store-tree.md shows the whole tree)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

_MINUTE_FORMAT = "%Y%m%d%H%M"
_MARKER_PARTS = 4


@dataclass(frozen=True, slots=True, order=True)
class JobRef:
    """One attempt of one job. Attempts after the first exist only where the integration asks for them."""

    integration: str
    job_guid: UUID
    attempt: int = 1

    @property
    def root(self) -> str:
        """Prefix of what all attempts share."""
        return f"jobs/{self.integration}/{self.job_guid}/"

    @property
    def work(self) -> str:
        """Prefix of this attempt's parts and receipts."""
        return self.root if self.attempt == 1 else f"{self.root}attempts/{self.attempt}/"

    def parts(self, generation: str = "") -> str:
        """Return the prefix of all parts, or of one generation's."""
        return f"{self.work}parts/{generation}/" if generation else f"{self.work}parts/"

    def manifest(self, generation: str, number: int) -> str:
        """Return the key of a chunk's manifest; zero-padded, so that a listing is in order."""
        return f"{self.parts(generation)}{number:08d}.json"

    def notification(self, again: str | None) -> str:
        """Return the prefix of one notification: the first, or a repeated one that has a name."""
        return f"{self.work}again/{again}/" if again else self.work

    def marker(self, kind: str, due: datetime) -> str:
        """Return the key under which this attempt is filed for a minute; ``kind`` is ``open`` or ``purge``."""
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
    """A filed job: what is due, and from which minute on."""

    key: str
    minute: datetime
    ref: JobRef

    @property
    def over(self) -> datetime:
        """When the minute it is filed under has passed."""
        return self.minute + timedelta(minutes=1)


def parse_marker(key: str) -> Marker | None:
    """Return what a marker's key says; None if the pipeline makes no such key."""
    parts = key.split("/")
    if len(parts) != _MARKER_PARTS:
        return None
    kind, minute, integration, name = parts
    guid, _, attempt = name.rpartition(".")
    try:
        marker = Marker(
            key=key,
            minute=datetime.strptime(minute, _MINUTE_FORMAT).replace(tzinfo=UTC),
            ref=JobRef(integration, UUID(guid), int(attempt)),
        )
    except ValueError:
        return None
    return marker if marker.ref.attempt > 0 and marker.ref.marker(kind, marker.minute) == key else None


def parse_ended(key: str) -> tuple[JobRef, str] | None:
    """Return the attempt and its outcome that the key of an ended one names; None for a foreign object."""
    try:
        _, integration, _, _, name = key.split("/")
        guid, attempt, outcome = name.split(".")
        return JobRef(integration, UUID(guid), int(attempt)), outcome
    except ValueError:
        return None
