"""Steps are identified by their facts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from pipeline.contracts import AuditAction, AuditEvent

AT = datetime(2026, 1, 21, 12, 0, tzinfo=UTC)


def test_a_step_published_twice_has_one_id_and_another_step_another() -> None:
    facts = ("acme", "cffde776-1d2a-4614-8023-a5148e411462", "1")
    assert AuditEvent.id_of(AuditAction.JOB_STARTED, *facts) == AuditEvent.id_of(AuditAction.JOB_STARTED, *facts)
    assert AuditEvent.id_of(AuditAction.JOB_STARTED, *facts) != AuditEvent.id_of(AuditAction.JOB_PROCESSED, *facts)


def test_an_event_survives_its_journey() -> None:
    event = AuditEvent(id="1", action=AuditAction.JOB_CONFLICT, at=AT, actor="process", detail={"records": 3})
    assert AuditEvent.model_validate_json(event.model_dump_json()) == event


def test_a_moment_without_zone_is_refused() -> None:
    with pytest.raises(ValidationError, match="at"):
        AuditEvent(id="1", action=AuditAction.JOB_STARTED, at=AT.replace(tzinfo=None), actor="process")
