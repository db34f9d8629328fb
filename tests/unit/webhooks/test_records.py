"""Records of requests, without a server."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime

from pipeline.contracts import event_id, first_values
from pipeline.contracts.strict_json import Finding, InvalidBody
from pipeline.observability import continue_trace
from pipeline.webhooks.records import quarantined
from pipeline.webhooks.sources import WebhookRequest
from pipeline.webhooks.testing import ecs_webhook
from pipeline.webhooks.webhook import Received

NOW = datetime(2026, 1, 22, tzinfo=UTC)
GZIP = (("content-encoding", b"gzip"),)


def test_a_repeat_in_quarantine_has_one_id_however_it_is_compressed() -> None:
    """A source of somebody else's may name no id with its findings."""
    body = b'{"odd": "' + b"x" * 500 + b'"}'
    requests = [
        WebhookRequest.received("", (), body),
        *(WebhookRequest.received("", GZIP, gzip.compress(body, level, mtime=level)) for level in (1, 9)),
    ]
    invalid = InvalidBody([Finding("odd", "unknown", "")])
    trace = continue_trace(None, lambda size: "1" * 2 * size)
    records = [quarantined(Received(ecs_webhook(), one, "key", NOW, trace), invalid) for one in requests]
    assert {first_values(one.headers)["ce_id"] for one in records} == {event_id("acme", body)}
