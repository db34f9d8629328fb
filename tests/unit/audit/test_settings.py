"""Settings of the audit log."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import SecretStr, ValidationError

from pipeline.audit import AuditSettings
from pipeline.contracts import TOPICS, Topic


def test_the_default_window_covers_the_topics_that_can_redeliver() -> None:
    """A repeat may come as late as audit.events keeps it, of a step as late as a card-batch topic redelivers it."""
    kept = {spec.topic: spec.retention_ms for spec in TOPICS}
    consumed = max(spec.retention_ms for spec in TOPICS if spec.dead_letter and spec.topic is not Topic.AUDIT_EVENTS)
    assert AuditSettings().id_window >= timedelta(milliseconds=kept[Topic.AUDIT_EVENTS] + consumed)


def test_the_key_is_never_shown() -> None:
    settings = AuditSettings(signing_key=SecretStr("do-not-show"))
    assert "do-not-show" not in f"{settings!r}{settings.model_dump_json()}"


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="linger"):
        AuditSettings.model_validate({"linger": 1})
