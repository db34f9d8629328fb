"""Decodes announcement records and stores them, with the deadline of their job. For PROCESS and the deadline watch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from pydantic import ValidationError

from pipeline.contracts import INTEGRATION_HEADER, RETRY_FIRST_AT_HEADER, Record, first_values, job_key, parse_job_key
from pipeline.contracts.strict_json import InvalidBody
from pipeline.errors import PoisonRecord, Untried
from pipeline.jobs.job_store import Announced, JobStore
from pipeline.jobs.partners import JobAnnouncement, Partner
from pipeline.jobs.receipts import Announcement
from pipeline.jobs.settings import JobLimits, JobPolicies
from pipeline.jobs.transfer import job_deadline
from pipeline.observability import parse_traceparent


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRules:
    """The rules of an integration that every stage needs."""

    partner: Partner
    limits: JobLimits
    policies: JobPolicies


@dataclass(frozen=True, slots=True)
class Request:
    """One decoded announcement record."""

    integration: str
    announcement: str
    body: JobAnnouncement
    value: bytes
    traceparent: str | None
    appended: datetime | None
    """When the record was appended to its topic; None if the broker keeps no times (the embedded one)."""


R = TypeVar("R")

_EVENT_ID: Final = re.compile(r"[0-9a-f]{32}")
_FIRST_MS: Final = 946_684_800_000
_LAST_MS: Final = 7_258_118_400_000
"""The years 2000 to 2199. Other timestamps are not real times."""


class IntegrationUnknown(Untried):
    """The worker's settings lack the integration: it was added after the worker started, or it was removed."""

    CODE: Final = "integration_unknown"

    def __init__(self, name: str) -> None:
        super().__init__(
            "integration_unknown",
            f"No integration {name!r} is configured in this worker. Add [ecs.{name}] to its settings and restart it; "
            "the jobs then continue without a command.",
        )


def rules_for(integrations: Mapping[str, R], name: str) -> R:
    """Return an integration's rules.

    Raises:
        IntegrationUnknown: It is not configured here, or not any more.
    """
    try:
        return integrations[name]
    except KeyError:
        raise IntegrationUnknown(name) from None


def decode_request(record: Record, integrations: Mapping[str, JobRules]) -> Request:
    """Decode an announcement record in the format of its integration's partner.

    Raises:
        IntegrationUnknown: Its integration is not configured here, or not any more.
        PoisonRecord: It names no integration, its key belongs to another one, or its value is not an announcement. The
            ingress never publishes such a record.
    """
    headers = first_values(record.headers)
    integration, event = headers.get(INTEGRATION_HEADER), headers.get("ce_id")
    # the id becomes part of a store key
    if not integration or not event or not _EVENT_ID.fullmatch(event):
        raise PoisonRecord(
            "announcement_invalid", f"the record needs the headers {INTEGRATION_HEADER} and ce_id (32 hex digits)"
        )
    job = parse_job_key(record.key)
    # a job that waits is stored under its key
    if job is None or job[0] != integration or record.key != job_key(*job):
        raise PoisonRecord(
            "announcement_invalid", f"the record's key must name the job and the integration of {INTEGRATION_HEADER}"
        )
    partner = rules_for(integrations, integration).partner
    try:
        body = partner.decode(record.value)
    except InvalidBody as error:
        raise PoisonRecord("announcement_invalid", error.message) from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "value"
        raise PoisonRecord("announcement_invalid", f"{where}: {first['msg']}") from None
    trace = parse_traceparent(headers.get("traceparent"))
    return Request(
        integration,
        event[:16],
        body,
        record.value,
        trace.traceparent if trace else None,
        _appended(record, headers.get(RETRY_FIRST_AT_HEADER)),
    )


def _appended(record: Record, first_wait: str | None) -> datetime | None:
    """Return when the record was first appended. A copy of a job that waited has this time in a header."""
    if not _FIRST_MS <= record.timestamp_ms <= _LAST_MS:
        return None
    appended = datetime.fromtimestamp(record.timestamp_ms / 1000, UTC)
    try:
        return min(appended, datetime.fromisoformat(first_wait)) if first_wait else appended
    except (ValueError, TypeError):
        return appended  # a foreign header: not a time, or without a time zone


def announced_deadline(announcement: JobAnnouncement, margin_seconds: float) -> datetime:
    """Return the time by which work with an announcement's URLs must end."""
    return job_deadline(
        announcement.input_file_url,
        announcement.result_upload_url,
        expires_at=announcement.expires_at,
        margin_seconds=margin_seconds,
    )


async def announce(jobs: JobStore, request: Request, rules: JobRules, now: datetime) -> Announced:
    """Store an announcement; safe to repeat, and to run at the same time as another worker."""
    deadline = announced_deadline(request.body, rules.limits.deadline_margin_seconds)
    if request.appended is not None:
        # the topic keeps a record for a limited time: a restart would lose a job that waits longer
        deadline = min(deadline, request.appended + timedelta(hours=rules.limits.max_job_hours))
    return await jobs.announce(
        request.integration,
        Announcement(
            id=request.announcement,
            attempt=1,
            deadline=deadline,
            stored_at=now,
            traceparent=request.traceparent,
            request=request.body,
            value=request.value,
        ),
        new_attempt_after_failure=rules.policies.reannouncement_after_failure == "new_attempt",
    )
