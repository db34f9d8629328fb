"""What the ingress answers, over real HTTP."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from prometheus_client import generate_latest
from pydantic import SecretStr
from structlog.testing import capture_logs
from support.loud_processors import LOUD, shout

from pipeline.contracts import AuditAction, AuditEvent, OutgoingRecord, Topic, accepted_event, event_id, first_values
from pipeline.errors import FatalError, Overloaded
from pipeline.kafka import BrokerUnavailable, RecordTooLarge
from pipeline.kafka.testing import MemoryPublisher
from pipeline.outbound import HostRules
from pipeline.webhooks.settings import IngressSettings
from pipeline.webhooks.sources import ConfiguredSource, EcsSource, SchemeVerifier, SuccessStatus, WebhookRequest
from pipeline.webhooks.sources.settings import EventAttributes
from pipeline.webhooks.testing import SECRET, SECRET_HEADERS, Serving, ecs_webhook, serving
from pipeline.webhooks.verification import HmacSpec, Secret, scheme_of
from pipeline.webhooks.webhook import Webhook

GUID = "cffde776-1d2a-4614-8023-a5148e411462"
SIGNED = "X-Amz-Signature=5d672d79c15b13162d9279b0855cfba6"
ANNOUNCEMENT: dict[str, Any] = {
    "job_guid": GUID,
    "partner_reference_id": "integrator-merchant1-location-002",
    "merchant_guid": "4933e450-d3c4-406f-9b9b-3afb812a5b7c",
    "external_location_ids": ["46691"],
    "record_count": 200,
    "input_file_url": f"https://files.example.com/input.csv?{SIGNED}",
    "result_upload_url": f"https://files.example.com/output.csv?{SIGNED}",
    "expires_at": "2026-01-22T22:43:59.295Z",
    "callback_url": "https://ecs.example.com/told",
}
BODY = json.dumps(ANNOUNCEMENT, indent=1).encode()
NOW = datetime(2026, 1, 21, 22, 43, 59, tzinfo=UTC)
PATH = "/webhooks/ecs/acme"


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


class Answer:
    """What came back."""

    def __init__(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = body

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["Content-Type"] == "application/problem+json"
        document = json.loads(self.body)
        assert document["status"] == self.status
        assert isinstance(document, dict)
        return document


async def _post(
    client: aiohttp.ClientSession,
    serving_: Serving,
    body: Any = BODY,
    headers: Any = SECRET_HEADERS,
    *,
    path: str = PATH,
    method: str = "POST",
) -> Answer:
    async with client.request(method, serving_.server.url + path, data=body, headers=headers) as response:
        return Answer(response, await response.read())


def _requests(serving_: Serving, integration: str, status: int, reason: str) -> float:
    labels = {"integration": integration, "status": str(status), "reason": reason}
    return serving_.metrics.registry.get_sample_value("pipeline_ingress_requests_total", labels) or 0.0


@pytest.mark.parametrize("status", [200, 202, 204])
async def test_success_has_the_status_that_the_integration_wants(
    client: aiohttp.ClientSession, status: SuccessStatus
) -> None:
    publisher = MemoryPublisher()
    async with serving(publisher, webhooks=[ecs_webhook(success_status=status)]) as here:
        answer = await _post(client, here)
        assert (answer.status, answer.body) == (status, b"")
        assert answer.headers["Server"] == "card-pipeline"
        assert _requests(here, "acme", status, "accepted") == 1


async def test_record_is_the_body_as_received_with_everything_known_in_headers(client: aiohttp.ClientSession) -> None:
    publisher = MemoryPublisher()
    headers = SECRET_HEADERS | {"Content-Type": "application/json; charset=UTF-8"}
    async with serving(publisher, clock=lambda: NOW) as here:
        await _post(client, here, headers=headers)
    (record,) = publisher.on(Topic.BATCH_REQUESTED)
    known = dict(first_values(record.headers))
    assert record.value == BODY
    assert record.key == f"acme/{GUID}"
    assert known.pop("traceparent").startswith("00-")
    assert known == {
        "ce_specversion": "1.0",
        "ce_id": event_id("acme", GUID, BODY),
        "ce_source": PATH,
        "ce_type": "card-batch.requested",
        "ce_subject": GUID,
        "ce_time": "2026-01-21T22:43:59Z",
        "ce_partitionkey": f"acme/{GUID}",
        "ce_dataschema": "urn:card-pipeline:schema:card-batch.requested:v1",
        "content-type": "application/json; charset=UTF-8",
        "pipeline_integration": "acme",
        "pipeline_client": "127.0.0.1",
        "pipeline_verified_by": "current",
        "pipeline_facts": '{"merchant_guid":"4933e450-d3c4-406f-9b9b-3afb812a5b7c","record_count":200,'
        '"expires_at":"2026-01-22T22:43:59.295000+00:00"}',
    }


async def test_an_announcement_is_published_once_and_its_record_implies_the_audit_event(
    client: aiohttp.ClientSession,
) -> None:
    """The audit event of a repeat has the same id; it says of the body no more than its length and hash."""
    publisher = MemoryPublisher()
    async with serving(publisher, clock=lambda: NOW) as here:
        await _post(client, here)
        await _post(client, here)
    assert [record.topic for record in publisher.published] == [Topic.BATCH_REQUESTED] * 2
    first, second = (accepted_event(record) for record in publisher.published)
    assert first == second
    assert first is not None
    assert first.model_dump(mode="json") == {
        "id": AuditEvent.id_of(AuditAction.WEBHOOK_ACCEPTED, "acme", event_id("acme", GUID, BODY)),
        "action": "webhook.accepted",
        "at": "2026-01-21T22:43:59Z",
        "actor": "ingress",
        "integration": "acme",
        "job_guid": GUID,
        "detail": {
            "body_sha256": hashlib.sha256(BODY).hexdigest(),
            "bytes": len(BODY),
            "client": "127.0.0.1",
            "verified_by": "current",
            "event_id": event_id("acme", GUID, BODY),
            "merchant_guid": "4933e450-d3c4-406f-9b9b-3afb812a5b7c",
            "record_count": 200,
            "expires_at": "2026-01-22T22:43:59.295000+00:00",
        },
    }


async def test_shared_secret_is_kept_nowhere(client: aiohttp.ClientSession) -> None:
    publisher = MemoryPublisher()
    with capture_logs() as logs:
        async with serving(publisher) as here:
            await _post(client, here)
            await _post(client, here, b"{}")
    assert SECRET not in repr(publisher.published)
    assert SECRET not in repr(logs)
    assert SIGNED not in repr(logs)


def _hmac_webhook() -> Webhook:
    spec = HmacSpec(
        scheme="hmac",
        header="X-Signature",
        signed=("timestamp", "text:.", "body"),
        timestamp="header:X-Time",
    )
    scheme = scheme_of(spec, [Secret("k", SecretStr("whsec-synthetic-1"))])
    return Webhook("acme", "ecs", PATH, SchemeVerifier(scheme), EcsSource("acme", HostRules()))


async def test_signature_headers_are_kept_so_that_a_subscriber_can_verify_again(client: aiohttp.ClientSession) -> None:
    """The vector is openssl's, over 1769121839.{...}; the body is invalid, so it shows in quarantine."""
    body = b'{"job_guid":"cffde776-1d2a-4614-8023-a5148e411462","record_count":200}'
    signature = "b44665ee76ad61573a0ce098990a33338c6b200d5309408221a6564e478be196"
    headers = {"Content-Type": "application/json", "X-Time": "1769121839", "X-SIGNATURE": signature}
    publisher = MemoryPublisher()
    now = datetime.fromtimestamp(1769121840, UTC)
    async with serving(publisher, webhooks=[_hmac_webhook()], clock=lambda: now) as here:
        assert (await _post(client, here, body, headers)).status == 422
    (record,) = publisher.on(Topic.BATCH_QUARANTINE)
    known = first_values(record.headers)
    assert (known["x-signature"], known["x-time"]) == (signature, "1769121839")


async def test_trace_is_continued_with_a_span_of_our_own(client: aiohttp.ClientSession) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    publisher = MemoryPublisher()
    async with serving(publisher) as here:
        await _post(client, here, headers=SECRET_HEADERS | {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
        twice = [*SECRET_HEADERS.items(), *[("traceparent", f"00-{trace}-00f067aa0ba902b7-01")] * 2]
        await _post(client, here, headers=twice)
        await _post(client, here, b"{}", SECRET_HEADERS | {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
    traces = [first_values(record.headers)["traceparent"] for record in publisher.published]
    first, second, quarantined, audit = traces
    assert first.startswith(f"00-{trace}-")
    assert quarantined.startswith(f"00-{trace}-")
    assert quarantined == audit
    assert "00f067aa0ba902b7" not in first
    assert trace not in second


async def test_unknown_path(client: aiohttp.ClientSession) -> None:
    async with serving(MemoryPublisher()) as here:
        for path in ("/", "/webhooks/ecs/other", f"{PATH}/", "/webhooks/ECS/acme"):
            answer = await _post(client, here, path=path)
            assert answer.status == 404
            assert answer.problem["field"] == "path"
        assert _requests(here, "unknown", 404, "unknown_path") == 4


async def test_query_behind_the_path_is_ignored(client: aiohttp.ClientSession) -> None:
    async with serving(MemoryPublisher()) as here:
        assert (await _post(client, here, path=f"{PATH}?a=b")).status == 202


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_other_methods(client: aiohttp.ClientSession, method: str) -> None:
    async with serving(MemoryPublisher()) as here:
        answer = await _post(client, here, method=method)
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize(
    "types",
    [
        [],
        ["text/plain"],
        ["application/jsonp"],
        ["application/json; charset=latin-1"],
        ["application/json;charset=utf-8;charset=utf-16"],
        ["application/json; x=\xe4"],
    ],
)
async def test_content_type_that_is_not_json_in_utf8(client: aiohttp.ClientSession, types: list[str]) -> None:
    headers = [("X-Webhook-Secret", SECRET), *(("Content-Type", one) for one in types)]
    async with (
        serving(MemoryPublisher()) as here,
        client.post(here.server.url + PATH, data=BODY, headers=headers, skip_auto_headers=["Content-Type"]) as response,
    ):
        assert response.status == 415
        assert (await response.json(content_type=None))["field"] == "Content-Type"


@pytest.mark.parametrize("kind", ['application/json;charset="utf-8"', "Application/JSON ; profile=x ; Charset=UTF-8"])
async def test_content_type_may_have_parameters(client: aiohttp.ClientSession, kind: str) -> None:
    async with serving(MemoryPublisher()) as here:
        assert (await _post(client, here, headers=SECRET_HEADERS | {"Content-Type": kind})).status == 202


async def test_compressed_body_is_refused_unread(client: aiohttp.ClientSession) -> None:
    async with serving(MemoryPublisher()) as here:
        headers = SECRET_HEADERS | {"Content-Encoding": "gzip"}
        answer = await _post(client, here, gzip.compress(BODY), headers)
        assert (answer.status, answer.problem["rule"]) == (415, "content_encoding")
        headers = SECRET_HEADERS | {"Content-Encoding": "identity"}
        assert (await _post(client, here, headers=headers)).status == 202


async def test_announced_size_over_the_limit(client: aiohttp.ClientSession) -> None:
    async with serving(MemoryPublisher(), settings=IngressSettings(port=0, max_body_bytes=2048)) as here:
        answer = await _post(client, here, b"x" * 2049)
        assert (answer.status, answer.problem["rule"]) == (413, "body_too_large")
        assert "2048" in answer.problem["detail"]
        assert (await _post(client, here, BODY + b" " * (2048 - len(BODY)))).status == 202


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "header_missing"),
        ({"X-Webhook-Secret": "wrong"}, "not_verified"),
        ([("X-Webhook-Secret", SECRET)] * 2, "header_repeated"),
    ],
)
async def test_unauthenticated_callers_learn_nothing_but_metric_and_log_do(
    client: aiohttp.ClientSession, headers: Any, reason: str
) -> None:
    publisher = MemoryPublisher()
    sent = [("Content-Type", "application/json"), *(headers.items() if isinstance(headers, dict) else headers)]
    with capture_logs() as logs:
        async with serving(publisher) as here:
            answer = await _post(client, here, headers=sent)
            assert _requests(here, "acme", 401, reason) == 1
            assert answer.headers["WWW-Authenticate"] == "Webhook"
            problem = answer.problem
            del problem["trace_id"]
            assert problem == {
                "type": "urn:card-pipeline:problem:unauthenticated",
                "title": "Not authenticated",
                "status": 401,
                "detail": "The secret or signature is missing, wrong, repeated, expired, "
                "or its timestamp is too far from our clock.",
                "field": "signature",
                "rule": "unauthenticated",
                "remedy": "Send the secret or signature as agreed for this webhook; "
                "if it worked before, compare secrets and clocks",
            }
            assert publisher.published == []
    refusals = [line for line in logs if line["event"] == "webhook_refused"]
    assert not {"event_id", "subject"} & {name for line in refusals for name in line}, "anybody could have sent it"
    assert [(line["reason"], line["client"], line["log_level"]) for line in refusals] == [
        (reason, "127.0.0.1", "warning")
    ]


async def test_no_log_line_names_a_subject_that_the_sender_chose(client: aiohttp.ClientSession) -> None:
    class Shop(ConfiguredSource):
        policy = replace(ConfiguredSource.policy, audit_accepted=True)  # type: ignore[misc]

    attributes = EventAttributes.model_validate({"type": "text:sold", "key": "json:/job_guid"})
    webhook = replace(ecs_webhook(), source=Shop("shop", attributes, lambda _: b""))
    publisher = MemoryPublisher()
    with capture_logs() as logs:
        async with serving(publisher, webhooks=[webhook]) as here:
            assert (await _post(client, here, b'{"job_guid": "100001"}')).status == 200
    [accepted] = [line for line in logs if line["event"] == "webhook_accepted"]
    assert accepted["event_id"] == first_values(publisher.published[0].headers)["ce_id"]
    assert "100001" not in repr(logs)


async def test_without_an_active_secret_the_sender_is_asked_to_come_again(client: aiohttp.ClientSession) -> None:
    """It is our fault, so we are alarmed."""
    source = ecs_webhook()
    spec = HmacSpec(scheme="hmac")
    expired = Secret("old", SecretStr(SECRET), not_after=NOW)
    source = replace(source, verifier=SchemeVerifier(scheme_of(spec, [expired])))
    async with serving(MemoryPublisher(), webhooks=[source], clock=lambda: NOW + timedelta(days=1)) as here:
        answer = await _post(client, here)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert answer.problem["rule"] == "no_active_secret"
        assert _requests(here, "acme", 503, "no_active_secret") == 1
        alarm = {"integration": "acme", "kind": "no_active_secret"}
        assert here.metrics.registry.get_sample_value("pipeline_ingress_alarms_total", alarm) == 1


async def test_invalid_body_is_durable_before_it_is_refused(client: aiohttp.ClientSession) -> None:
    publisher = MemoryPublisher()
    body = json.dumps(ANNOUNCEMENT | {"record_count": -1, "callback_url": "https://evil.example/"}).encode()
    async with serving(publisher, clock=lambda: NOW) as here:
        answer = await _post(client, here, body)
        assert _requests(here, "acme", 422, "invalid") == 1
    problem = answer.problem
    assert (problem["field"], problem["rule"], problem["remedy"]) == ("record_count", "too_small", "Send at least 0")
    assert [(error["field"], error["rule"]) for error in problem["errors"]] == [
        ("record_count", "too_small"),
        ("callback_url", "host_not_allowed"),
    ]
    record, audit = publisher.published
    known = first_values(record.headers)
    assert (record.topic, record.key, record.value) == (Topic.BATCH_QUARANTINE, "acme", body)
    assert known["pipeline_quarantine_reasons"] == "record_count:too_small,callback_url:host_not_allowed"
    assert known["pipeline_integration"] == "acme"
    assert known["ce_time"] == "2026-01-21T22:43:59Z"
    assert known["ce_id"] == event_id("acme", body)
    event = json.loads(audit.value)
    assert (audit.topic, audit.key, event["action"]) == (Topic.AUDIT_EVENTS, "acme", "webhook.quarantined")
    assert event["detail"]["reasons"] == ["record_count:too_small", "callback_url:host_not_allowed"]


async def test_single_broken_rule_needs_no_list(client: aiohttp.ClientSession) -> None:
    async with serving(MemoryPublisher()) as here:
        problem = (await _post(client, here, b"[]")).problem
        assert problem["rule"] == "not_an_object"
        assert "errors" not in problem
        assert "field" not in problem


def _failing(topic: Topic, error: BaseException) -> MemoryPublisher:
    async def fail(record: OutgoingRecord) -> None:
        if record.topic is topic:
            raise error

    return MemoryPublisher(fail)


AWAY = BrokerUnavailable("broker_unavailable", "no confirmation in time")


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (AWAY, 503, "broker_unavailable"),
        (Overloaded("sends_in_flight", "too many"), 503, "sends_in_flight"),
        (RecordTooLarge("record_too_large", "too large"), 413, "record_too_large"),
        (FatalError("kafka_gone", "stop"), 500, "unexpected"),
        (ZeroDivisionError("4111111111111111"), 500, "unexpected"),
    ],
)
@pytest.mark.parametrize(
    ("body", "second"), [(BODY, 0), (b"{}", 0), (b"{}", 1)], ids=["valid", "invalid-record", "invalid-audit"]
)
async def test_nothing_is_accepted_nor_refused_before_it_is_durable(
    client: aiohttp.ClientSession, *, error: Exception, status: int, reason: str, body: bytes, second: int
) -> None:
    """Whichever publication fails, the one of a valid or the two of an invalid body: neither 2xx nor 422."""
    first = Topic.BATCH_REQUESTED if body == BODY else Topic.BATCH_QUARANTINE
    publisher = _failing(Topic.AUDIT_EVENTS if second else first, error)
    with capture_logs() as logs:
        async with serving(publisher) as here:
            answer = await _post(client, here, body)
            assert (answer.status, answer.problem["status"]) == (status, status)
            assert ("Retry-After" in answer.headers) == (status == 503)
            assert _requests(here, "acme", status, reason) == 1
    assert len(publisher.published) == second
    [refused] = [line for line in logs if line["event"] == "webhook_refused"]
    working = MemoryPublisher()
    async with serving(working) as here:
        await _post(client, here, body)
    assert refused["event_id"] == first_values(working.published[0].headers)["ce_id"]
    assert refused.get("subject") == (GUID if body == BODY else None)
    assert "4111111111111111" not in repr(logs) + answer.body.decode()


async def test_pause_that_the_broker_asks_for_is_passed_on(client: aiohttp.ClientSession) -> None:
    publisher = _failing(Topic.BATCH_REQUESTED, BrokerUnavailable("broker_unavailable", "", retry_after=17.2))
    async with serving(publisher) as here:
        assert (await _post(client, here)).headers["Retry-After"] == "17"


async def test_broker_that_never_answers_ends_in_503_at_the_deadline(client: aiohttp.ClientSession) -> None:

    async def hang(_: OutgoingRecord) -> None:
        await asyncio.Event().wait()

    settings = IngressSettings(port=0, deadline_seconds=0.03)
    async with serving(MemoryPublisher(hang), settings=settings) as here:
        answer = await _post(client, here)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert answer.problem["rule"] == "broker_unavailable"
        assert _requests(here, "acme", 503, "deadline") == 1


async def test_deadline_covers_record_and_audit_event_together(client: aiohttp.ClientSession) -> None:

    async def slow(_: OutgoingRecord) -> None:
        await asyncio.sleep(0.03)

    async with serving(MemoryPublisher(slow), settings=IngressSettings(port=0, deadline_seconds=0.05)) as here:
        assert (await _post(client, here, b"{}")).status == 503


async def test_one_request_too_many_is_answered_at_once(client: aiohttp.ClientSession) -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def wait(_: OutgoingRecord) -> None:
        arrived.set()
        await go.wait()

    async with serving(MemoryPublisher(wait), settings=IngressSettings(port=0, max_in_flight=1)) as here:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(_post(client, here))
            await arrived.wait()
            second = await _post(client, here)
            assert (second.status, second.headers["Retry-After"]) == (503, "5")
            assert second.problem["rule"] == "overloaded"
            assert _requests(here, "acme", 503, "requests_in_flight") == 1
            go.set()
        assert first.result().status == 202
        assert (await _post(client, here)).status == 202


@pytest.mark.parametrize(
    ("changes", "body", "status"),
    [
        ({"X-Webhook-Secret": "wrong"}, BODY, 401),
        ({"Content-Type": "text/plain"}, BODY, 415),
        ({}, b"x" * 2049, 413),
    ],
)
async def test_a_refusal_that_needs_no_slot_takes_none(
    client: aiohttp.ClientSession, changes: dict[str, str], body: bytes, status: int
) -> None:
    """Where all slots are in use, the answer to a request that is refused anyhow is the same as always."""
    settings = IngressSettings(port=0, max_in_flight=1, max_body_bytes=2048)
    async with serving(MemoryPublisher(), settings=settings) as here:
        with here.ingress.limits.publishing(ecs_webhook(), "192.0.2.1", 0):
            assert (await _post(client, here)).status == 503
            assert (await _post(client, here, body, SECRET_HEADERS | changes)).status == status


async def test_a_refused_request_that_came_whole_leaves_its_connection_open(client: aiohttp.ClientSession) -> None:
    """A proxy in front need not connect again after each refusal."""
    async with serving(MemoryPublisher()) as here:
        answer = await _post(client, here, headers=SECRET_HEADERS | {"Content-Type": "text/plain"})
        assert (answer.status, answer.headers.get("Connection")) == (415, None)


async def test_client_behind_a_trusted_proxy_is_named(client: aiohttp.ClientSession) -> None:
    settings = IngressSettings.model_validate({"port": 0, "trusted_proxies": ["127.0.0.0/8"]})
    publisher = MemoryPublisher()
    async with serving(publisher, settings=settings) as here:
        await _post(client, here, headers=SECRET_HEADERS | {"X-Forwarded-For": "1.1.1.1, 198.51.100.9"})
        await _post(client, here, b"{}", SECRET_HEADERS | {"X-Forwarded-For": "1.1.1.1, 198.51.100.9"})
    accepted, _, quarantined = publisher.published
    event = accepted_event(accepted)
    assert event is not None
    assert event.detail["client"] == "198.51.100.9"
    assert json.loads(quarantined.value)["detail"]["client"] == "198.51.100.9"


async def test_several_integrations_have_their_own_paths_and_keys(client: aiohttp.ClientSession) -> None:
    publisher = MemoryPublisher()
    async with serving(publisher, webhooks=[ecs_webhook("acme"), ecs_webhook("other")]) as here:
        await _post(client, here, path="/webhooks/ecs/other")
    (record,) = publisher.on(Topic.BATCH_REQUESTED)
    assert record.key == f"other/{GUID}"


async def test_two_integrations_cannot_have_one_path() -> None:
    with pytest.raises(ValueError, match=PATH):
        async with serving(MemoryPublisher(), webhooks=[ecs_webhook(), ecs_webhook()]):
            pass  # pragma: no cover


async def test_fault_before_anything_was_looked_at_is_500_not_400(
    client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even what breaks outside of the outermost frame is our own fault, and says nothing."""

    def broken(_: int) -> str:
        raise ZeroDivisionError(SECRET)

    with capture_logs() as logs:
        async with serving(MemoryPublisher()) as here:
            monkeypatch.setattr(here.ingress, "_new_hex", broken)
            answer = await _post(client, here)
            assert (answer.status, answer.problem["rule"]) == (500, "unexpected")
    assert {"event": "answer_failed", "error": "ZeroDivisionError", "log_level": "error"} in logs
    assert SECRET not in repr(logs) + answer.body.decode()


CARD = "4111111111111111"


class LoudSource:
    """A source that shouts the request."""

    policy = ecs_webhook().policy

    def __init__(self, way: str) -> None:
        self._way = way

    def identify(self, request: WebhookRequest) -> Any:
        shout(self._way, f"{SECRET} {request.body!r}")

    def quarantine(self, _request: WebhookRequest) -> Topic:
        return Topic.BATCH_QUARANTINE  # pragma: no cover


@pytest.mark.parametrize("way", list(LOUD))
async def test_whatever_a_source_raises_is_one_request_s_500(client: aiohttp.ClientSession, way: str) -> None:
    """Nothing ends, the other sources are served, and the log says where, never what."""
    publisher = MemoryPublisher()
    loud = replace(ecs_webhook("loud"), source=LoudSource(way))
    with capture_logs() as logs:
        async with serving(publisher, webhooks=[loud, ecs_webhook()]) as here:
            answer = await _post(client, here, path="/webhooks/ecs/loud")
            assert (answer.status, answer.problem["rule"]) == (500, "unexpected")
            assert (await _post(client, here)).status == 202
    (line,) = [line for line in logs if line["event"] == "answer_failed"]
    assert line["error"] == LOUD[way].__name__
    assert line["where"].startswith(("webhooks/test_handler.py:", "support/loud_processors.py:"))
    assert SECRET not in repr(logs) + answer.body.decode()
    assert GUID not in repr(line)


@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        (f"/{CARD}?pin={CARD}", {}, BODY),
        (PATH, {"X-Webhook-Secret": CARD, CARD: CARD, "traceparent": CARD, "X-Forwarded-For": CARD}, BODY),
        (PATH, {"Content-Type": f"text/{CARD}"}, BODY),
        (PATH, {"Content-Encoding": CARD}, BODY),
        (PATH, {CARD: CARD}, CARD.encode()),
        (PATH, {}, json.dumps(ANNOUNCEMENT | dict.fromkeys(ANNOUNCEMENT, CARD) | {CARD: CARD}).encode()),
        (PATH, {}, b'{"%b": 1, "%b": 1}' % (CARD.encode(), CARD.encode())),
        (PATH, {}, json.dumps(ANNOUNCEMENT | {CARD: CARD, "input_file_url": f"https://{CARD}.example.com/"}).encode()),
    ],
)
async def test_planted_card_number_shows_nowhere_but_in_the_body_that_is_kept(
    client: aiohttp.ClientSession, path: str, headers: dict[str, str], body: bytes
) -> None:
    publisher = MemoryPublisher()
    with capture_logs() as logs:
        async with serving(publisher) as here:
            answer = await _post(client, here, body, SECRET_HEADERS | headers, path=path)
            metrics = generate_latest(here.metrics.registry)
    audits = [record.value for record in publisher.on(Topic.AUDIT_EVENTS)]
    audits += [repr(accepted_event(record)).encode() for record in publisher.published]
    around = [(record.key, record.headers) for record in publisher.published]
    assert CARD not in repr((answer.body, answer.headers, logs, metrics, audits, around))


async def test_time_of_each_request_is_measured(client: aiohttp.ClientSession) -> None:
    async with serving(MemoryPublisher()) as here:
        await _post(client, here)
        name = "pipeline_ingress_request_seconds_count"
        assert here.metrics.registry.get_sample_value(name, {"integration": "acme"}) == 1
