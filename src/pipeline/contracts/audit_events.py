"""Audit events: one for each step of a job."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, JsonValue

from pipeline.contracts.jobs import IntegrationName, event_id


class AuditAction(StrEnum):
    """All steps. Their names are in the past tense, because an event is written after its step."""

    WEBHOOK_ACCEPTED = "webhook.accepted"
    WEBHOOK_QUARANTINED = "webhook.quarantined"
    WEBHOOK_REFUSALS = "webhook.refusals"
    """Number of unauthenticated requests in one interval. One event each would let an attacker fill the log."""
    QUARANTINE_RELEASED = "quarantine.released"
    JOB_ANNOUNCED = "job.announced"
    JOB_RENEWED = "job.renewed"
    JOB_CONFLICT = "job.conflict"
    JOB_STARTED = "job.started"
    JOB_PROCESSED = "job.processed"
    RESULT_UPLOADED = "result.uploaded"
    OUTCOME_DECIDED = "outcome.decided"
    CALLBACK_CONFIRMED = "callback.confirmed"
    CALLBACK_REFUSED = "callback.refused"
    CLOCK_COMPARED = "clock.compared"
    """A process compares its clock with Kafka's before a decision that depends on the time."""
    RECORD_DEAD_LETTERED = "record.dead_lettered"
    JOB_PURGED = "job.purged"
    JOB_CANCELLED = "job.cancelled"
    JOB_RETRIED = "job.retried"
    CALLBACK_REPEATED = "callback.repeated"
    """An operator asked for a refused callback to be sent again."""
    INTEGRATION_PAUSED = "integration.paused"
    INTEGRATION_RESUMED = "integration.resumed"
    BATCH_SKIPPED = "batch.skipped"
    DEAD_LETTER_REPLAYED = "dead_letter.replayed"
    DEAD_LETTER_DISCARDED = "dead_letter.discarded"
    STORE_CLEANED = "store.cleaned"
    """An operator deleted what nobody needed any more in the job store."""


class AuditEvent(BaseModel):
    """One step. ``id`` is deterministic, so the log holds a step once even if its event is published twice."""

    model_config = ConfigDict(defer_build=True, frozen=True)

    id: str
    action: AuditAction
    at: AwareDatetime
    actor: str
    """Who took the step: ``ingress``, ``process``, ``upload``, ``confirm``, ``watch``, or ``cli:<user>``."""
    integration: IntegrationName | None = None
    job_guid: UUID | None = None
    detail: dict[str, JsonValue] = {}
    """Counts, codes, hashes. Never a URL query, a token or card data."""

    @staticmethod
    def id_of(action: AuditAction, *facts: str) -> str:
        """Return the id of a step, made from the facts that identify it (job, attempt, ...), not from the time."""
        return event_id(action.value, *facts)
