"""The hot path of one request: receive, verify, identify, publish, answer."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Final

import structlog
from aiohttp import web

from pipeline.contracts import Headers, OutgoingRecord, Topic, TopicName, accepted_event, audit_record, first_values
from pipeline.contracts.bodies import BodyTooLarge
from pipeline.contracts.strict_json import InvalidBody
from pipeline.http_server import OtherVersion
from pipeline.kafka.protocols import Publisher
from pipeline.observability import Metrics, TraceContext, bound_trace, continue_trace
from pipeline.plugins import fault_of, is_cancellation
from pipeline.webhooks import records
from pipeline.webhooks.alarms import AlarmKind, Alarms
from pipeline.webhooks.answers import Answer, Problem, temporary
from pipeline.webhooks.capture import Capture, RefusedRequest
from pipeline.webhooks.http_request import (
    arrived_body,
    check_framing,
    check_media_type,
    client_address,
    headers_of,
    read_body,
    values_of,
)
from pipeline.webhooks.limits import SourceLimits, gave_way
from pipeline.webhooks.records import DurablePublishing
from pipeline.webhooks.refusals import RefusalCounts, RefusalLog
from pipeline.webhooks.settings import IngressSettings
from pipeline.webhooks.sources import UNKNOWN_PATH, Identified, Verified, WebhookRequest
from pipeline.webhooks.url_checks import PROVED, UrlChecked
from pipeline.webhooks.verification import Fault, Reason, SignatureRefused
from pipeline.webhooks.webhook import Received, Routes, Webhook

log = structlog.get_logger(__name__)

_UNKNOWN: Final = "unknown"
_METHOD: Final = "POST"
_SERVER: Final = "card-pipeline"
_BAD_REQUEST: Final = 400
_UNAUTHORIZED: Final = 401
_TOO_LARGE: Final = 413
_LOGGED_ELSEWHERE: Final = frozenset(
    {
        Answer.ACCEPTED,
        Answer.KEPT,
        Answer.URL_CHECKED,
        Answer.UNVERIFIED,
        Answer.UNSIGNED_PATH,
        Answer.NO_ACTIVE_SECRET,
        Answer.SOURCE_OVERLOADED,
    }
)
"""Answers with their own log lines. Alarm lines are rate-limited, so that a flood of requests never floods the log."""
_CHALLENGE: Final = {"WWW-Authenticate": "Webhook"}
"""RFC 9110, section 15.5.2, requires a challenge with each 401. No registered scheme fits webhooks."""


@dataclass(frozen=True, slots=True)
class _Head:
    """A request with the values that were read from its head.

    Attributes:
        known: What log lines say about the event once it is verified: ``event_id`` and ``subject``.
    """

    request: web.BaseRequest
    path_below: str
    headers: Headers
    client: str
    trace: TraceContext
    known: dict[str, str] = field(default_factory=dict)


class Ingress:
    """Answers requests. A 2xx means that every in-sync replica has the event. AUDIT builds its audit event from that.

    What the head decides comes first and takes no slot: path 404, method 405, media type 415, framing 400, announced
    size 413. A body that arrived with its head is verified next (size 413, signature 401), and only an authentic
    request takes a slot. For a body that is still to come, the head of the signature is checked (401); then the request
    needs a slot while its body is awaited: rate, requests in flight and bytes in flight 503, time 408, size 413,
    signature 401. Then, for both: rate and sends in flight 503, body 422 (once durable in quarantine), record size 413,
    publication 503. An unexpected fault is a 500 without details. A source's policy may skip the media type, answer 503
    if no secret verifies a request, and answer with success once a request is durable in quarantine.

    Args:
        webhooks: Each needs a path of its own.
        publisher: Makes records durable.
        settings: Limits and times.
        metrics: Counts answers.
        refusals: Counts unauthenticated requests.
        clock: Aware UTC time.
        new_hex: Returns the given number of random bytes in hex, for trace ids.
        monotonic: Seconds of a clock that never goes back; for the rates of sources and of alarm lines.
        capture: Stores refused requests while a person asks for them.
        audited_topics: Topics that AUDIT reads. An audited event of another topic has its audit event published too.

    Raises:
        ValueError: Two webhooks have the same path.
    """

    def __init__(
        self,
        *,
        webhooks: Sequence[Webhook],
        publisher: Publisher,
        settings: IngressSettings,
        metrics: Metrics,
        refusals: RefusalCounts,
        clock: Callable[[], datetime],
        new_hex: Callable[[int], str] = secrets.token_hex,
        monotonic: Callable[[], float] = time.monotonic,
        capture: Capture | None = None,
        audited_topics: Collection[TopicName] = (Topic.BATCH_REQUESTED,),
    ) -> None:
        self._routes = Routes(webhooks)
        self._settings = settings
        self._answered = cache(
            lambda integration, status, reason: metrics.ingress_requests.labels(integration, str(status), reason)
        )
        self._seconds = cache(metrics.ingress_request_seconds.labels)
        self.metrics: Final = metrics
        self._refusals = refusals
        self.refusal_log: Final = RefusalLog()
        self._alarms = Alarms(metrics, interval=settings.alarm_interval_seconds, monotonic=monotonic)
        self._capture = capture
        self._audited_topics = frozenset(audited_topics)
        self._clock = clock
        self._new_hex = new_hex
        self._publishing = DurablePublishing(publisher, deadline_seconds=settings.deadline_seconds)
        self.limits: Final = SourceLimits(webhooks, settings, metrics, monotonic)
        self.draining = False
        """While True, each answer closes its connection, so that senders and proxies turn to another instance."""

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Return the answer to any request; never raises, except for cancellation."""
        if isinstance(request, OtherVersion):
            return self.unparsed(Answer.MALFORMED)
        started = time.perf_counter()
        headers = headers_of(request)
        webhook, path_below = self._routes.find(request.path)
        client = client_address(request.remote, values_of(headers, "x-forwarded-for"), self._settings.trusted_proxies)
        traceparents = values_of(headers, "traceparent")
        trace = continue_trace(traceparents[0] if len(traceparents) == 1 else None, self._new_hex)
        with bound_trace(trace):
            head = _Head(request, path_below, headers, client, trace)
            response, answer, reason = await self._respond(head, webhook)
            integration = webhook.integration if webhook else _UNKNOWN
            self._count(integration, response.status, reason, time.perf_counter() - started)
            if answer not in _LOGGED_ELSEWHERE:
                self.refusal_log.refused(integration, response.status, reason, client, head.known)
        malformed = response.status == _BAD_REQUEST  # where its body ends is not sure
        return self._finished(response, close=self.draining or malformed or not request.content.is_eof())

    async def _respond(self, head: _Head, webhook: Webhook | None) -> tuple[web.Response, Answer, str]:
        """Return the response, which answer it is, and the reason for metric and log."""
        try:
            found = self._checked_route(head, webhook)
            answer = await self._handle(head, found)
        except UrlChecked as checked:
            # anybody can send the other checks, so their lines could flood the log
            write = log.info if checked.check in PROVED else log.debug
            integration = webhook.integration if webhook else _UNKNOWN
            write("webhook_url_checked", integration=integration, check=checked.check, client=head.client)
            return checked.response(), Answer.URL_CHECKED, Answer.URL_CHECKED.value
        except Problem as problem:
            if webhook is not None and problem.row.answer is Answer.SOURCE_OVERLOADED:
                self._alarm(webhook, AlarmKind.SOURCE_OVERLOADED, problem.reason)
            if webhook is not None and problem.status == _TOO_LARGE and webhook.policy.invalid == "keep":
                self._alarm(webhook, AlarmKind.TOO_LARGE, problem.reason)
            return problem.response(head.trace.trace_id), problem.row.answer, problem.reason
        except BaseException as error:
            # the outermost frame of a request: our own fault, or that of somebody's source, becomes a bare 500
            if is_cancellation(error):
                raise
            fault = fault_of(error)
            log.error("answer_failed", error=fault.kind, where=fault.where, frames=fault.lines, **head.known)  # noqa: TRY400 - its text may repeat what was received
            unexpected = Answer.UNEXPECTED
            return Problem(unexpected).response(head.trace.trace_id), unexpected, unexpected.value
        return web.Response(status=found.policy.success), answer, answer.value

    async def _handle(self, head: _Head, webhook: Webhook) -> Answer:
        """Check the head, wait for the body if it is still to come, verify the request, and make its event durable."""
        self._check_head(head, webhook)
        body = arrived_body(head.request, self._settings.max_body_bytes)
        if body is None:
            self._check_signature_head(head, webhook)
            body = await self._awaited_body(head, webhook)
        received = self._received(head, webhook, body)
        with self.limits.publishing(webhook, head.client, len(body)):
            return await self._publish(received, head.known)

    def _checked_route(self, head: _Head, webhook: Webhook | None) -> Webhook:
        """Return the webhook of a request that its path and method do not refuse, and that is no check of its URL."""
        if webhook is None:
            raise Problem(Answer.UNKNOWN_PATH)
        request, checks = head.request, webhook.url_checks
        if request.method == _METHOD:
            return webhook
        try:
            checks.check_head(request.method, request.rel_url.raw_query_string, head.headers, self._clock())
        except SignatureRefused as refused:
            raise self._refusal(webhook, refused) from None
        raise Problem(Answer.METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(checks.methods)})

    def _check_head(self, head: _Head, webhook: Webhook) -> None:
        """Refuse a request that its head decides about."""
        if not webhook.policy.any_media_type:
            check_media_type(head.headers)
        check_framing(head.request, head.headers, self._settings.max_body_bytes)

    def _received(self, head: _Head, webhook: Webhook, body: bytes) -> Received:
        """Verify the request; keep only the headers that are stored with the record."""
        now, most = self._clock(), self._settings.max_body_bytes
        request = WebhookRequest.received(head.path_below, head.headers, body, head.client, most)
        try:
            verified = self._verify(head, webhook, request, now)
            request.check_expansion()
        except BodyTooLarge:
            raise Problem(Answer.BODY_TOO_LARGE, detail=f"The body expands to more than {most} bytes") from None
        if webhook.url_checks:
            try:
                webhook.url_checks.check_body(request, head.headers, verified.by)
            except SignatureRefused as refused:
                raise self._refusal(webhook, refused) from None
        stored = tuple(header for header in head.headers if header[0] in webhook.verifier.stored_headers)
        return Received(webhook, request.as_stored(verified.path, stored), verified.by, now, head.trace)

    def _check_signature_head(self, head: _Head, webhook: Webhook) -> None:
        """Refuse a request that no body could make authentic, unless a person captures whole requests of its source."""
        if self._capture is not None and self._capture.wants(_source(webhook)):
            return
        try:
            webhook.verifier.check_head(WebhookRequest(head.path_below, head.headers, b"", head.client), self._clock())
        except SignatureRefused as refused:
            self._check_unsigned(head, webhook)
            raise self._refusal(webhook, refused) from None

    async def _awaited_body(self, head: _Head, webhook: Webhook) -> bytes:
        limit, seconds = self._settings.max_body_bytes, self._settings.read_timeout_seconds
        deadline = asyncio.timeout(seconds)

        def stop() -> None:
            if not deadline.expired():
                deadline.reschedule(0)

        with self.limits.waiting(webhook, head.client, stop) as waiting:
            try:
                return await read_body(head.request, limit=limit, deadline=deadline, on_bytes=waiting.received)
            except TimeoutError:
                if waiting.gave_way:
                    raise gave_way() from None
                detail = f"The body did not come within {seconds:g} s"
                raise Problem(Answer.BODY_TIMEOUT, detail=detail) from None
            except Problem as problem:
                if problem.row.answer is Answer.BODY_INCOMPLETE and webhook.policy.invalid == "keep":
                    # a sender that never repeats after 400 may repeat after 408
                    raise Problem(Answer.BODY_TIMEOUT, reason=problem.reason, detail=problem.row.cause) from None
                raise

    def _check_unsigned(self, head: _Head, webhook: Webhook) -> None:
        """Raise UrlChecked if a request that is no authentic event is a check that its sender does not sign."""
        if webhook.url_checks:
            query = head.request.rel_url.raw_query_string
            webhook.url_checks.check_head(_METHOD, query, head.headers, self._clock())

    def _verify(self, head: _Head, webhook: Webhook, request: WebhookRequest, now: datetime) -> Verified:
        try:
            return webhook.verifier.verify(request, now)
        except SignatureRefused as refused:
            self._check_unsigned(head, webhook)
            if self._capture is not None:
                captured = RefusedRequest(now, refused.reason.value, request)
                self._capture.refused(_source(webhook), captured)
            raise self._refusal(webhook, refused) from None

    def _refusal(self, webhook: Webhook, refused: SignatureRefused) -> Problem:
        reason = refused.reason.value
        if refused.reason is Reason.UNSIGNED_PATH:
            self._alarm(webhook, AlarmKind.UNSIGNED_PATH, reason)
            return temporary(Answer.UNSIGNED_PATH, reason)
        if refused.fault is Fault.CONFIGURATION:
            self._alarm(webhook, AlarmKind.NO_ACTIVE_SECRET, reason)
            return temporary(Answer.NO_ACTIVE_SECRET, reason)
        self._refusals.count(webhook.integration, reason)
        if refused.reason is Reason.NOT_VERIFIED and webhook.policy.unverified != _UNAUTHORIZED:
            self._alarm(webhook, AlarmKind.UNVERIFIED, reason)
            return temporary(Answer.UNVERIFIED, reason)
        return Problem(Answer.UNAUTHENTICATED, reason=reason, headers=_CHALLENGE)

    async def _publish(self, received: Received, known: dict[str, str]) -> Answer:
        """Identify the event and make it durable. A request that does not fit becomes durable in quarantine instead."""
        webhook = received.webhook
        try:
            found = webhook.source.identify(received.request)
        except InvalidBody as invalid:
            return await self._quarantine(received, invalid, known)
        known["event_id"] = found.id
        if found.subject_in_logs:
            known["subject"] = found.subject
        if webhook.policy.audit_accepted:
            await self._publishing.all(*self._audited(received, found))
            log.info("webhook_accepted", **_log_fields(received), subject=known.get("subject"), event_id=found.id)
        else:
            await self._publishing.all(records.accepted(received, found))
            log.debug("webhook_taken", integration=webhook.integration, event_id=found.id)
        return Answer.ACCEPTED

    def _audited(self, received: Received, found: Identified) -> list[OutgoingRecord]:
        """Return what to publish of an event that is audited: its record, and the audit event if AUDIT needs one."""
        record = records.accepted(received, found, audited=True)
        event = None if found.topic in self._audited_topics else accepted_event(record)
        if event is None:
            return [record]
        return [records.accepted(received, found), audit_record(event, traceparent=received.trace.traceparent)]

    async def _quarantine(self, received: Received, invalid: InvalidBody, known: dict[str, str]) -> Answer:
        """Make a request that does not fit durable in quarantine; then refuse it, or keep it, as the policy says."""
        webhook = received.webhook
        event = records.quarantined_event(received, invalid)
        record = records.quarantined(received, invalid)
        known["event_id"] = first_values(record.headers)["ce_id"]
        await self._publishing.all(record, audit_record(event, traceparent=received.trace.traceparent))
        log.warning("webhook_quarantined", **_log_fields(received), **known, reasons=event.detail["reasons"])
        if webhook.policy.invalid == "refuse":
            raise Problem(Answer.INVALID, findings=invalid.findings)
        rules = {finding.rule for finding in invalid.findings}
        kind = AlarmKind.UNKNOWN_PATH if UNKNOWN_PATH in rules else AlarmKind.QUARANTINED
        self._alarm(webhook, kind, min(rules))
        return Answer.KEPT

    def unparsed(self, answer: Answer) -> web.Response:
        """Return the answer to bytes that are not an HTTP request, and to a request for which :meth:`answer` failed."""
        problem = Problem(answer)
        self._count(_UNKNOWN, problem.status, problem.reason, 0.0)
        self.refusal_log.refused(_UNKNOWN, problem.status, problem.reason, "-", {})
        return self._finished(problem.response(), close=True)

    @staticmethod
    def _finished(response: web.Response, *, close: bool) -> web.Response:
        response.headers["Server"] = _SERVER  # otherwise the library sends its version and Python's
        if close:
            response.force_close()
        return response

    def _count(self, integration: str, status: int, reason: str, seconds: float) -> None:
        self._answered(integration, status, reason).inc()
        self._seconds(integration).observe(seconds)

    def _alarm(self, webhook: Webhook, kind: AlarmKind, reason: str) -> None:
        self._alarms.sound(webhook.kind, webhook.integration, kind, reason)


def _source(webhook: Webhook) -> str:
    return f"{webhook.kind}.{webhook.integration}"


def _log_fields(received: Received) -> dict[str, str]:
    return {
        "integration": received.webhook.integration,
        "client": received.request.client,
        "verified_by": received.verified_by,
    }
