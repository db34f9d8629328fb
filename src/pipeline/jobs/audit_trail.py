"""The audit trail of the stages: each step once, under an id made from what makes it this step."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from pydantic import JsonValue

from pipeline.contracts import AuditAction, AuditEvent, audit_record
from pipeline.jobs.job_tree import JobRef
from pipeline.kafka.protocols import Publisher


class Trail:
    """Publishes audit events on behalf of one stage."""

    def __init__(self, publisher: Publisher, actor: str, clock: Callable[[], datetime]) -> None:
        self._publisher = publisher
        self._actor = actor
        self._clock = clock

    async def note(
        self,
        action: AuditAction,
        ref: JobRef,
        *facts: str,
        traceparent: str | None = None,
        at: datetime | None = None,
        detail: dict[str, JsonValue] | None = None,
    ) -> None:
        """Publish one step; returns when it is durable. Repeating it changes nothing in the log.

        Args:
            action: The step.
            ref: The job's attempt.
            facts: What tells this step from others of the same action and attempt, e.g. the announcement.
            traceparent: Trace context of the work.
            at: When it became true; now, if not given.
            detail: Counts, codes, hashes; never a URL query, a token or card data.
        """
        event = AuditEvent(
            id=AuditEvent.id_of(action, ref.integration, str(ref.job_guid), str(ref.attempt), *facts),
            action=action,
            at=at or self._clock(),
            actor=self._actor,
            integration=ref.integration,
            job_guid=ref.job_guid,
            detail={"attempt": ref.attempt, **(detail or {})},
        )
        await self._publisher.publish(audit_record(event, traceparent=traceparent))
