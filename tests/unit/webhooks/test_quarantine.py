from __future__ import annotations

import gzip
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from pipeline.contracts import AuditAction, OutgoingRecord, Record, Topic, event_id, first_values
from pipeline.contracts.strict_json import InvalidBody
from pipeline.errors import PoisonRecord
from pipeline.kafka.testing import MemoryPublisher
from pipeline.outbound import HostRules
from pipeline.webhooks.quarantine import Quarantined, findings_now, read_quarantined, release, shown
from pipeline.webhooks.sources import EcsSource, Identified, WebhookRequest
from pipeline.webhooks.sources.configured import Hmac
from pipeline.webhooks.sources.settings import HmacOptions
from pipeline.webhooks.testing import SECRET_HEADERS, ecs_webhook, serving

GUID = "cffde776-1d2a-4614-8023-a5148e411462"
CARD = "4111111111111111"
ANNOUNCEMENT: dict[str, Any] = {
    "job_guid": GUID,
    "partner_reference_id": f"location two, {CARD}",
    "merchant_guid": "4933e450-d3c4-406f-9b9b-3afb812a5b7c",
    "external_location_ids": [CARD],
    "record_count": 200,
    "input_file_url": f"https://files.example.com/input.csv?X-Amz-Signature={CARD}",
    "result_upload_url": f"https://user:{CARD}@files.example.com/output.csv",
    "expires_at": "2026-01-22T22:43:59.295Z",
    "callback_url": "https://new.example.org/told?token=sesame",
    CARD: CARD,
    "note": CARD,
}
VALID = ANNOUNCEMENT | {"result_upload_url": "https://files.example.com/output.csv?X-Amz-Signature=x"}
RECEIVED = datetime(2026, 1, 21, 22, 43, 59, tzinfo=UTC)
LATER = datetime(2026, 1, 21, 23, 0, tzinfo=UTC)
FIXED_HOSTS = HostRules(input=("*.example.com",), result=("*.example.com",), callback=("new.example.org",))
FIXED = EcsSource("acme", FIXED_HOSTS)


def _record(outgoing: OutgoingRecord) -> Record:
    return Record(outgoing.topic, 0, 7, outgoing.key, outgoing.value, outgoing.headers, 0)


async def _posted(body: bytes, *, hosts: HostRules | None = None) -> list[OutgoingRecord]:
    publisher = MemoryPublisher()
    webhook = ecs_webhook() if hosts is None else ecs_webhook(hosts=hosts)
    async with (
        serving(publisher, webhooks=[webhook], clock=lambda: RECEIVED) as here,
        aiohttp.ClientSession() as client,
        client.post(here.server.url + webhook.path, data=body, headers=SECRET_HEADERS),
    ):
        return publisher.published


async def _quarantined(body: bytes) -> Quarantined:
    record, _ = await _posted(body)
    assert record.topic is Topic.BATCH_QUARANTINE
    return read_quarantined(_record(record))


async def test_record_of_the_ingress_is_read_back() -> None:
    body = json.dumps(VALID).encode()
    item = await _quarantined(body)
    assert item.id == event_id("acme", body)
    assert (item.integration, item.path, item.at) == ("acme", "/webhooks/ecs/acme", RECEIVED)
    assert item.reasons == ("callback_url:host_not_allowed",)
    assert item.request.body == body
    assert item.kept == (("pipeline_integration", b"acme"),)
    assert CARD not in repr(item)


async def test_display_holds_no_secret_and_no_card() -> None:
    view = shown(await _quarantined(json.dumps(ANNOUNCEMENT).encode()))
    assert view["body"] == {
        "job_guid": GUID,
        "merchant_guid": ANNOUNCEMENT["merchant_guid"],
        "partner_reference_id": "location two, [digits]",
        "external_location_ids": "1 elements",
        "record_count": 200,
        "expires_at": "2026-01-22T22:43:59.295Z",
        "input_file_url": "https://files.example.com/input.csv",
        "result_upload_url": "(malformed URL)",
        "callback_url": "https://new.example.org/told",
        "other_fields": 2,
    }
    text = json.dumps(view)
    assert CARD not in text
    assert "sesame" not in text


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("job_guid", CARD, "(not shown)"),
        ("merchant_guid", 5, "(int, not shown)"),
        ("record_count", int(CARD), "(not shown)"),
        ("record_count", -3, -3),
        ("record_count", CARD, "(str, not shown)"),
        ("partner_reference_id", [CARD], "(list, not shown)"),
        ("expires_at", "tomorrow", "tomorrow"),
        ("external_location_ids", {"a": CARD}, "(dict, not shown)"),
        ("input_file_url", f"ftp//x?{CARD}", "(malformed URL)"),
        ("input_file_url", f"https://{CARD}.example.com/{CARD}/a?{CARD}", "https://[digits].example.com/[digits]/a"),
        ("callback_url", "https://files.example.com/cards/100001", "https://files.example.com/cards/[digits]"),
        ("callback_url", None, "(NoneType, not shown)"),
    ],
)
async def test_value_of_another_shape_is_not_shown(field: str, value: Any, expected: Any) -> None:
    view = shown(await _quarantined(json.dumps(ANNOUNCEMENT | {field: value}).encode()))
    assert isinstance(view["body"], dict)
    assert view["body"][field] == expected


@pytest.mark.parametrize("body", [b"not json " + CARD.encode(), b"[4111111111111111]", b"[" * 100_000, b"\xff"])
async def test_body_that_is_no_object_is_shown_by_size_and_digest_only(body: bytes) -> None:
    view = shown(await _quarantined(body))
    assert view["body"] is None
    assert view["bytes"] == len(body)
    assert CARD not in json.dumps(view)


async def test_findings_are_those_of_the_present_configuration() -> None:
    item = await _quarantined(json.dumps(VALID).encode())
    strict = EcsSource("acme", HostRules())
    assert [finding.field for finding in findings_now(item, strict)] == [
        "input_file_url",
        "result_upload_url",
        "callback_url",
    ]
    assert findings_now(item, FIXED) == ()


async def test_release_is_the_event_that_the_sender_would_cause_by_repeating() -> None:
    """It lacks what AUDIT builds `webhook.accepted` from: a release has an audit event of its own."""
    body = json.dumps(VALID).encode()
    released = release(await _quarantined(body), FIXED, now=LATER, actor="cli:ann").record
    hosts = HostRules(input=("*.example.com",), result=("*.example.com",), callback=("new.example.org",))
    (repeated,) = await _posted(body, hosts=hosts)

    def known(record: OutgoingRecord) -> dict[str, str]:
        return {name: value for name, value in first_values(record.headers).items() if name != "traceparent"}

    assert replace(released, headers=()) == replace(repeated, headers=())
    for_audit = {"pipeline_client", "pipeline_verified_by", "pipeline_facts"}
    assert known(released) == {name: value for name, value in known(repeated).items() if name not in for_audit}
    assert for_audit <= known(repeated).keys()
    assert first_values(released.headers)["ce_id"] == event_id("acme", GUID, body)


async def test_release_keeps_trace_and_signature_headers_and_is_repeatable() -> None:
    item = await _quarantined(json.dumps(VALID).encode())
    item = replace(item, kept=(*item.kept, ("x-webhook-signature", b"sha256=ab")))
    first, second = (release(item, FIXED, now=LATER, actor="cli:ann") for _ in range(2))
    assert first == second
    known = first_values(first.record.headers)
    assert known["traceparent"] == item.traceparent
    assert known["x-webhook-signature"] == "sha256=ab"
    assert "pipeline_quarantine_reasons" not in known


async def test_release_is_audited_once_however_often_it_is_repeated() -> None:
    item = await _quarantined(json.dumps(VALID).encode())
    event = release(item, FIXED, now=LATER, actor="cli:ann").event
    again = release(item, FIXED, now=RECEIVED, actor="cli:bob").event
    assert (event.action, event.at, event.actor) == (AuditAction.QUARANTINE_RELEASED, LATER, "cli:ann")
    assert event.id == again.id
    assert str(event.job_guid) == GUID
    assert event.detail["quarantine_id"] == item.id
    assert CARD not in event.model_dump_json()


async def test_facts_of_a_source_do_not_replace_which_event_was_released() -> None:
    class Boastful(EcsSource):
        def identify(self, request: WebhookRequest) -> Identified:
            found = super().identify(request)
            return replace(found, facts={**found.facts, "event_id": "x", "quarantine_id": "x", "received_at": "x"})

    item = await _quarantined(json.dumps(VALID).encode())
    event = release(item, Boastful("acme", FIXED_HOSTS), now=LATER, actor="cli:ann").event
    assert event == release(item, FIXED, now=LATER, actor="cli:ann").event


async def test_what_is_still_invalid_is_not_released() -> None:
    item = await _quarantined(json.dumps(ANNOUNCEMENT).encode())
    with pytest.raises(InvalidBody) as caught:
        release(item, FIXED, now=LATER, actor="cli:ann")
    assert [finding.rule for finding in caught.value.findings] == ["url_userinfo"]


@pytest.mark.parametrize("missing", ["ce_id", "ce_source", "ce_time", "content-type", "pipeline_integration"])
async def test_record_of_someone_else_is_poison(missing: str) -> None:
    record, _ = await _posted(b"{}")
    headers = tuple(header for header in record.headers if header[0] != missing)
    with pytest.raises(PoisonRecord, match="quarantine_unreadable"):
        read_quarantined(_record(replace(record, headers=headers)))


async def test_time_that_is_none_is_poison() -> None:
    record, _ = await _posted(b"{}")
    headers = tuple((name, b"soon" if name == "ce_time" else value) for name, value in record.headers)
    with pytest.raises(PoisonRecord):
        read_quarantined(_record(replace(record, headers=headers)))


def test_a_compressed_request_is_shown_and_released_as_it_came() -> None:
    packed = gzip.compress(json.dumps({"kind": "x", "number": CARD}).encode())
    headers = (
        ("ce_id", b"1"),
        ("pipeline_integration", b"shop"),
        ("ce_source", b"/webhooks/sources/shop"),
        ("ce_time", b"2026-01-21T22:43:59Z"),
        ("pipeline_quarantine_reasons", b"type:required"),
        ("content-type", b"application/json"),
        ("content-encoding", b"gzip"),
    )
    item = read_quarantined(Record(Topic.WEBHOOK_QUARANTINE, 0, 7, "shop", packed, headers, 0))
    view = shown(item)
    assert (view["content_type"], view["content_encoding"], view["bytes"]) == ("application/json", "gzip", len(packed))
    assert view["body"] == {"other_fields": 2}
    source = Hmac().source("shop", HmacOptions.model_validate({"event": {"type": "json:/kind"}}))
    released = release(item, source, now=LATER, actor="cli:operator").record
    assert (released.value, released.topic) == (packed, "webhook-events.shop")
    assert [value for name, value in released.headers if name == "content-encoding"] == [b"gzip"]
