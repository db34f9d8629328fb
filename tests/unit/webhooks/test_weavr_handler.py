"""What the ingress answers Weavr, over real HTTP: 4xx and 429 lose an event for good, 408 and 5xx bring it again."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from pipeline.contracts import AuditAction, AuditEvent, OutgoingRecord, Topic, accepted_event, event_id, first_values
from pipeline.errors import Overloaded
from pipeline.kafka import BrokerUnavailable, RecordTooLarge
from pipeline.kafka.testing import MemoryPublisher
from pipeline.sandbox.weavr.bodies import body_of
from pipeline.webhooks.capture import Capture, ask, captured_file, read_captured
from pipeline.webhooks.settings import IngressSettings
from pipeline.webhooks.testing import API_KEY, Serving, ecs_webhook, serving, weavr_webhook

BASE = "/webhooks/weavr/acme"
PATH = "/managed_cards/authorisations/watch"
UNSIGNED = "/bulk_process_end/watch"
NOW = datetime(2026, 1, 22, 22, 44, tzinfo=UTC)
TIME = str(int(NOW.timestamp() * 1000))
RNG = Random(5)  # noqa: S311 - synthetic bodies, the same each time
BODY = json.dumps(body_of(PATH, RNG), indent=1).encode()
SEGMENT = "synthetic-path-segment-1"


def signed(body: bytes = BODY, *, key: str = API_KEY, call_ref: str | None = "ref-1", at: str = TIME) -> dict[str, str]:
    message = (call_ref or "").encode() + body + at.encode()
    signature = base64.b64encode(hmac.digest(key.encode(), message, "sha256")).decode()
    headers = {"Content-Type": "application/json", "Published-Timestamp": at, "Signature-V2": signature}
    return headers if call_ref is None else headers | {"Call-Ref": call_ref}


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def _post(
    client: aiohttp.ClientSession,
    here: Serving,
    body: bytes = BODY,
    headers: Mapping[str, str] | list[tuple[str, str]] | None = None,
    *,
    path: str = f"{BASE}{PATH}",
) -> tuple[int, Mapping[str, str], bytes]:
    given = signed(body) if headers is None else headers
    async with client.post(
        here.server.url + path, data=body, headers=given, skip_auto_headers=["Content-Type"]
    ) as response:
        return response.status, response.headers, await response.read()


def _serving(publisher: MemoryPublisher, **options: Any) -> Any:
    return serving(publisher, webhooks=[ecs_webhook(), weavr_webhook(**options)], clock=lambda: NOW)


def _alarms(here: Serving, kind: str) -> float:
    labels = {"integration": "acme", "kind": kind}
    return here.metrics.registry.get_sample_value("pipeline_ingress_alarms_total", labels) or 0.0


async def test_an_event_is_one_record_with_the_body_as_received(client: aiohttp.ClientSession) -> None:
    """The record alone is the evidence: there is no audit event beside it."""
    publisher = MemoryPublisher()
    async with _serving(publisher) as here:
        status, _, body = await _post(client, here)
    assert (status, body) == (204, b"")
    (record,) = publisher.published
    known = dict(first_values(record.headers))
    assert known.pop("traceparent").startswith("00-")
    subject = "card/" + json.loads(BODY)["id"]["id"]
    assert (record.topic, record.key, record.value) == (Topic.EVENTS_MANAGED_CARDS, f"acme/{subject}", BODY)
    assert known == {
        "ce_specversion": "1.0",
        "ce_id": event_id("acme", PATH, b"ref-1", BODY),
        "ce_source": BASE,
        "ce_type": "weavr.managed_cards.authorisations",
        "ce_subject": subject,
        "ce_time": "2026-01-22T22:44:00Z",
        "ce_partitionkey": f"acme/{subject}",
        "ce_dataschema": "urn:card-pipeline:schema:weavr.managed_cards.authorisations:v1",
        "content-type": "application/json",
        "pipeline_integration": "acme",
        "pipeline_path": PATH,
        "call-ref": "ref-1",
        "published-timestamp": TIME,
        "signature-v2": signed()["Signature-V2"],
    }


async def test_accepted_events_are_audited_where_configured(client: aiohttp.ClientSession) -> None:
    """AUDIT builds the audit event from the record, if it reads the topic; otherwise the ingress publishes it."""
    read, unread = MemoryPublisher(), MemoryPublisher()
    for publisher, topics in ((read, [Topic.EVENTS_MANAGED_CARDS]), (unread, [Topic.EVENTS_LOGIN])):
        webhook = weavr_webhook(audit_accepted=True)
        async with serving(publisher, webhooks=[webhook], clock=lambda: NOW, audited_topics=topics) as here:
            assert (await _post(client, here))[0] == 204
    (record,) = read.published
    built = accepted_event(record)
    assert built is not None
    assert (built.action, built.integration, built.job_guid) == (AuditAction.WEBHOOK_ACCEPTED, "acme", None)
    assert built.detail["event_type"] == "weavr.managed_cards.authorisations"
    record, audit = unread.published
    assert accepted_event(record) is None, "AUDIT would write it to a second chain"
    assert (audit.topic, audit.key) == (Topic.AUDIT_EVENTS, "acme")
    assert AuditEvent.model_validate_json(audit.value) == built


async def test_an_event_that_is_not_audited_implies_no_audit_event(client: aiohttp.ClientSession) -> None:
    publisher = MemoryPublisher()
    async with _serving(publisher) as here:
        assert (await _post(client, here))[0] == 204
    (record,) = publisher.published
    assert accepted_event(record) is None


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/json; charset=latin-1"])
async def test_the_media_type_does_not_matter(client: aiohttp.ClientSession, content_type: str | None) -> None:
    """A 415 would lose the event; the type is stored as received."""
    publisher = MemoryPublisher()
    headers = signed() | {"Content-Encoding": "identity"}
    del headers["Content-Type"]
    if content_type is not None:
        headers["Content-Type"] = content_type
    async with _serving(publisher) as here:
        assert (await _post(client, here, headers=headers))[0] == 204
    (record,) = publisher.published
    assert first_values(record.headers)["content-type"] == (content_type or "application/octet-stream")


async def test_what_no_key_verifies_comes_again_and_raises_an_alarm(client: aiohttp.ClientSession) -> None:
    """A key that changed unnoticed costs no event, as long as somebody fixes it within four hours."""
    publisher = MemoryPublisher()
    with capture_logs() as logs:
        async with _serving(publisher) as here:
            answers = [await _post(client, here, headers=signed(key="another-key")) for _ in range(20)]
            assert _alarms(here, "unverified") == 20
    assert {status for status, _, _ in answers} == {503}
    status, headers, body = answers[0]
    assert (status, headers["Retry-After"], json.loads(body)["rule"]) == (503, "5", "unverified")
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["webhook_alarm"]
    assert [record.topic for record in publisher.published] == [Topic.AUDIT_EVENTS]  # the count of refusals


async def test_what_no_key_verifies_is_401_where_configured(client: aiohttp.ClientSession) -> None:
    async with _serving(MemoryPublisher(), unverified_status=401) as here:
        assert (await _post(client, here, headers=signed(key="another-key")))[0] == 401
        assert _alarms(here, "unverified") == 0


@pytest.mark.parametrize(
    "headers",
    [
        signed() | {"Signature-V2": "no base64"},
        {name: value for name, value in signed().items() if name != "Signature-V2"},
        signed(at=str(int(TIME) - 6 * 3_600_000)),
        signed(at=f" {TIME}x"),
        [*signed().items(), ("Call-Ref", "ref-1")],
        [*signed().items(), ("signature-v2", "again")],
    ],
    ids=["malformed", "missing", "stale", "no-time", "call-ref-twice", "signature-twice"],
)
async def test_what_repeating_would_not_fix_is_401(client: aiohttp.ClientSession, headers: Any) -> None:
    async with _serving(MemoryPublisher()) as here:
        status, _, body = await _post(client, here, headers=headers)
        assert _alarms(here, "unverified") == 0
    assert (status, json.loads(body)["rule"]) == (401, "unauthenticated")


async def test_a_kind_that_weavr_adds_tomorrow_is_not_lost(client: aiohttp.ClientSession) -> None:
    publisher = MemoryPublisher()
    async with _serving(publisher) as here:
        status, _, _ = await _post(client, here, path=f"{BASE}/novelties/watch")
        assert _alarms(here, "unknown_path") == 1
    record, audit = publisher.published
    known = first_values(record.headers)
    assert (status, record.topic, record.key, record.value) == (204, Topic.EVENTS_QUARANTINE, "acme", BODY)
    assert known["pipeline_path"] == "/novelties/watch"
    assert known["pipeline_quarantine_reasons"] == "path:unknown_path"
    assert known["ce_id"] == event_id("acme", "/novelties/watch", b"ref-1", BODY)
    assert json.loads(audit.value)["action"] == "webhook.quarantined"


@pytest.mark.parametrize(
    ("path", "topic"),
    [(PATH, Topic.EVENTS_QUARANTINE), ("/stepup/watch", Topic.EVENTS_STEPUP_QUARANTINE)],
)
async def test_an_event_that_is_not_understood_is_kept_and_never_shown(
    client: aiohttp.ClientSession, path: str, topic: Topic
) -> None:
    publisher = MemoryPublisher()
    body = b'{"authToken": "planted-token", "authToken": "planted-token"'
    with capture_logs() as logs:
        async with _serving(publisher) as here:
            status, _, answer = await _post(client, here, body, path=f"{BASE}{path}")
            assert (status, answer) == (204, b"")
            assert _alarms(here, "quarantined") == 1
            metrics = generate_latest(here.metrics.registry).decode()
    record, audit = publisher.published
    assert (record.topic, record.value) == (topic, body)
    for text in (repr(logs), metrics, audit.value.decode(), repr(record.headers)):
        assert "planted" not in text


async def test_a_path_without_signature_is_asked_for_again_until_somebody_says_what_protects_it(
    client: aiohttp.ClientSession,
) -> None:
    """503 comes again for four hours: a fix of the configuration loses nothing."""
    headers = {"Published-Timestamp": TIME, "Request-Ref": "bulk-1"}
    publisher = MemoryPublisher()
    async with _serving(publisher) as here:
        status, answered, body = await _post(client, here, b'{"bulkId": "7"}', headers, path=f"{BASE}{UNSIGNED}")
        assert (status, answered["Retry-After"], json.loads(body)["rule"]) == (503, "5", "unsigned_path")
        assert _alarms(here, "unsigned_path") == 1
    rule = {"path": UNSIGNED, "source_addresses": ["127.0.0.0/8"]}
    body = json.dumps(body_of(UNSIGNED, RNG)).encode()
    async with _serving(publisher, unsigned_paths=[rule]) as here:
        assert (await _post(client, here, body, headers, path=f"{BASE}{UNSIGNED}"))[0] == 204
    (record,) = publisher.published
    assert record.topic is Topic.EVENTS_BULK_OPERATIONS
    assert first_values(record.headers)["request-ref"] == "bulk-1"


async def test_the_secret_segment_is_kept_nowhere(client: aiohttp.ClientSession) -> None:
    publisher = MemoryPublisher()
    paths = [PATH, "/novelties/watch", UNSIGNED, "/stepup/watch"]
    with capture_logs() as logs:
        async with _serving(publisher, path_secret=SEGMENT) as here:
            answers = [await _post(client, here, path=f"{BASE}/{SEGMENT}{path}") for path in paths]
            answers.append(await _post(client, here, headers={}, path=f"{BASE}/{SEGMENT}{PATH}"))
            metrics = generate_latest(here.metrics.registry).decode()
    assert first_values(publisher.published[0].headers)["pipeline_path"] == PATH
    for text in (repr(logs), metrics, repr(publisher.published), repr(answers)):
        assert SEGMENT not in text


@pytest.mark.parametrize(
    ("error", "status", "alarms"),
    [
        (BrokerUnavailable("broker_unavailable", "away"), 503, 0),
        (Overloaded("sends_in_flight", "many"), 503, 0),
        (RecordTooLarge("record_too_large", "large"), 413, 1),
    ],
)
async def test_what_is_not_durable_is_not_accepted(
    client: aiohttp.ClientSession, error: Exception, status: int, alarms: int
) -> None:
    """Overload is 503, never 429; a record that no broker takes is lost, with an alarm."""

    async def fail(_: OutgoingRecord) -> None:
        raise error

    async with _serving(MemoryPublisher(fail)) as here:
        assert (await _post(client, here))[0] == status
        assert _alarms(here, "too_large") == alarms


async def test_a_body_above_the_limit_raises_an_alarm(client: aiohttp.ClientSession) -> None:
    settings = IngressSettings(port=0, max_body_bytes=1024)
    async with serving(MemoryPublisher(), webhooks=[weavr_webhook()], settings=settings) as here:
        assert (await _post(client, here, b"x" * 1025))[0] == 413
        assert _alarms(here, "too_large") == 1


async def test_a_repeat_is_the_same_event(client: aiohttp.ClientSession) -> None:
    publisher = MemoryPublisher()
    async with _serving(publisher) as here:
        await _post(client, here)
        await _post(client, here, headers=signed(at=str(int(TIME) + 10_000)))
    first, second = (first_values(record.headers)["ce_id"] for record in publisher.published)
    assert first == second


async def test_a_request_that_nothing_verifies_can_be_captured(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    wanted = ask(tmp_path, "weavr.acme", until=NOW + timedelta(minutes=1), limit=10)
    capture = Capture(tmp_path, clock=lambda: NOW)
    capture.poll()
    async with serving(MemoryPublisher(), webhooks=[weavr_webhook()], clock=lambda: NOW, capture=capture) as here:
        await _post(client, here, headers=signed(key="another-key"))
        await _post(client, here)
    (refused,) = read_captured(captured_file(tmp_path, wanted))
    assert (refused.reason, refused.request.path, refused.request.body) == ("not_verified", PATH, BODY)
