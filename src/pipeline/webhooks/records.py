"""The records and audit events of a request, and their durable publication."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Collection
from typing import Final

from pipeline.contracts import (
    CLIENT_HEADER,
    FACTS_HEADER,
    INTEGRATION_HEADER,
    PATH_HEADER,
    VERIFIED_BY_HEADER,
    AuditAction,
    AuditEvent,
    EventHeaders,
    Headers,
    OutgoingRecord,
    TopicName,
    accepted_event,
    audit_record,
    event_id,
)
from pipeline.contracts.strict_json import InvalidBody
from pipeline.errors import Overloaded, TransientError
from pipeline.kafka.deadlines import Deadlines
from pipeline.kafka.errors import RecordTooLarge
from pipeline.kafka.protocols import Publisher
from pipeline.webhooks.answers import Answer, Problem, temporary
from pipeline.webhooks.sources import Identified
from pipeline.webhooks.webhook import Received

REASONS: Final = "pipeline_quarantine_reasons"
QUARANTINED_TYPE: Final = "webhook.quarantined"
ACTOR: Final = "ingress"

_MAX_REASONS: Final = 16


def accepted(received: Received, found: Identified, *, audited: bool = False) -> OutgoingRecord:
    """Return the record of an event: the body as received, with all other facts in headers.

    Args:
        received: The request.
        found: The event.
        audited: Whether the record gets the headers from which AUDIT builds the audit event. AUDIT assumes that nobody
            publishes the audit event of such a record.
    """
    headers = EventHeaders(
        id=found.id,
        source=received.webhook.path,
        type=found.type,
        subject=found.subject,
        time=received.at,
        partition_key=found.key,
        content_type=received.request.content_type,
        traceparent=received.trace.traceparent,
        dataschema=found.dataschema,
        content_encoding=received.request.encoding,
    )
    extra = (*_audit_headers(received, found), *_extra(received)) if audited else _extra(received)
    return OutgoingRecord(found.topic, found.key, received.request.body, headers.encode(extra))


def audited(received: Received, found: Identified, audited_topics: Collection[TopicName]) -> list[OutgoingRecord]:
    """Return the records of an audited event: its own, and an audit event if AUDIT does not read its topic."""
    record = accepted(received, found, audited=True)
    event = None if found.topic in audited_topics else accepted_event(record)
    if event is None:
        return [record]
    return [accepted(received, found), audit_record(event, traceparent=received.trace.traceparent)]


def _audit_headers(received: Received, found: Identified) -> Headers:
    facts = json.dumps(dict(found.facts), separators=(",", ":"))
    named = {CLIENT_HEADER: received.request.client, VERIFIED_BY_HEADER: received.verified_by, FACTS_HEADER: facts}
    return tuple((name, value.encode()) for name, value in named.items())


def quarantined(received: Received, invalid: InvalidBody) -> OutgoingRecord:
    """Return the quarantine record. A repeated request gets the same id, so that readers recognise the repeat."""
    integration = received.webhook.integration
    headers = EventHeaders(
        id=_quarantine_id(received, invalid),
        source=received.webhook.path,
        type=QUARANTINED_TYPE,
        subject=integration,
        time=received.at,
        partition_key=integration,
        content_type=received.request.content_type,
        traceparent=received.trace.traceparent,
        content_encoding=received.request.encoding,
    )
    extra = (*_extra(received), (REASONS, ",".join(_reasons(invalid)).encode()))
    topic = received.webhook.source.quarantine(received.request)
    return OutgoingRecord(topic, integration, received.request.body, headers.encode(extra))


def _quarantine_id(received: Received, invalid: InvalidBody) -> str:
    return invalid.id or event_id(received.webhook.integration, received.request.repeated_body)


def _extra(received: Received) -> Headers:
    request = received.request
    integration = (INTEGRATION_HEADER, received.webhook.integration.encode())
    path = ((PATH_HEADER, request.path.encode()),) if request.path else ()
    return (integration, *path, *request.headers)


def _reasons(invalid: InvalidBody) -> list[str]:
    return [f"{finding.field or 'body'}:{finding.rule}" for finding in invalid.findings[:_MAX_REASONS]]


def quarantined_event(received: Received, invalid: InvalidBody) -> AuditEvent:
    """Return the audit event of an authentic but invalid webhook; its repeat has the same id."""
    integration = received.webhook.integration
    return AuditEvent(
        id=AuditEvent.id_of(AuditAction.WEBHOOK_QUARANTINED, integration, _quarantine_id(received, invalid)),
        action=AuditAction.WEBHOOK_QUARANTINED,
        at=received.at,
        actor=ACTOR,
        integration=integration,
        detail={
            "body_sha256": hashlib.sha256(received.request.body).hexdigest(),
            "bytes": len(received.request.body),
            "client": received.request.client,
            "verified_by": received.verified_by,
            "reasons": [*_reasons(invalid)],
        },
    )


class DurablePublishing:
    """Publishes records one after another, so that the audit log never mentions an event that its topic lacks."""

    def __init__(self, publisher: Publisher, *, deadline_seconds: float) -> None:
        """Take the deadline in seconds for all records of a request together."""
        self._publisher = publisher
        self._deadline = deadline_seconds
        self._deadlines = Deadlines(deadline_seconds, _Deadline.expire)

    async def all(self, *records: OutgoingRecord) -> None:
        """Publish records; return when every in-sync replica has all of them.

        After a failure the first record may be durable. A repeat is safe, because ids are deterministic.

        Raises:
            Problem: 413 if a record is too large for the broker; 503 for any temporary fault.
        """
        try:
            async with asyncio.timeout(self._deadline):
                for record in records:
                    await self._publisher.publish(record)
        except (TimeoutError, Overloaded, RecordTooLarge, TransientError) as error:
            raise _problem(error) from error

    async def one(self, record: OutgoingRecord) -> None:
        """Publish one record like :meth:`all`. One timer serves all such publications."""
        deadline = _Deadline()
        self._deadlines.add(deadline)
        try:
            await self._publisher.publish(record)
        except asyncio.CancelledError:
            if deadline.ended_it():
                raise temporary(Answer.BROKER_UNAVAILABLE, "deadline") from None
            raise
        except (TimeoutError, Overloaded, RecordTooLarge, TransientError) as error:
            raise _problem(error) from error
        finally:
            deadline.over = True


def _problem(error: Exception) -> Problem:
    """Return the answer to a failed publication."""
    if isinstance(error, TimeoutError):
        return temporary(Answer.BROKER_UNAVAILABLE, "deadline")
    if isinstance(error, Overloaded):
        return temporary(Answer.OVERLOADED, error.code)
    if isinstance(error, TransientError):
        return temporary(Answer.BROKER_UNAVAILABLE, error.code, error.retry_after)
    return Problem(Answer.RECORD_TOO_LARGE)


class _Deadline:
    """A timeout for one task's work, like ``asyncio.timeout`` but without its own timer."""

    __slots__ = ("_cancelling", "_expired", "_task", "over")

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - made in coroutines only
        self._task = task
        self._cancelling = task.cancelling()
        self._expired = False
        self.over = False
        """Whether the work has ended."""

    def done(self) -> bool:
        """Return whether the work has ended."""
        return self.over

    def expire(self) -> None:
        """Cancel the task."""
        self._expired = True
        self._task.cancel()

    def ended_it(self) -> bool:
        """Return whether this deadline alone caused the cancellation."""
        return self._expired and self._task.uncancel() <= self._cancelling
