"""The plain way of a request: receive, verify, identify, publish, answer.

It can answer every request. :mod:`pipeline.webhooks.hot_path` answers ordinary requests with less work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import cache
from typing import Final

import structlog
from aiohttp import web

from pipeline.contracts import Topic, TopicName, audit_record, first_values
from pipeline.contracts.bodies import BodyTooLarge
from pipeline.contracts.strict_json import InvalidBody
from pipeline.http_server import OtherVersion
from pipeline.kafka.protocols import Publisher
from pipeline.observability import Metrics, RandomHex, bound_trace, continue_trace
from pipeline.plugins import fault_of, is_cancellation
from pipeline.webhooks import records
from pipeline.webhooks.alarms import AlarmKind, Alarms
from pipeline.webhooks.answers import Answer, Problem, temporary
from pipeline.webhooks.capture import Capture, RefusedRequest
from pipeline.webhooks.hot_path import SERVER, Accepted, HotPath
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
from pipeline.webhooks.sources import UNKNOWN_PATH, Verified, WebhookRequest
from pipeline.webhooks.url_checks import PROVED, UrlChecked
from pipeline.webhooks.verification import Fault, Reason, SignatureRefused
from pipeline.webhooks.webhook import Head, Received, Routes, Webhook

log = structlog.get_logger(__name__)

_UNKNOWN: Final = "unknown"
_METHOD: Final = "POST"
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
"""Answers that have their own log lines. Alarm lines are rate-limited, so that requests cannot flood the log."""
_CHALLENGE: Final = {"WWW-Authenticate": "Webhook"}
"""The challenge that RFC 9110, section 15.5.2, requires with each 401. No registered scheme fits webhooks."""


class Ingress:
    """Answers requests. A 2xx means that every in-sync replica has the event. AUDIT builds its audit event from that.

    The order of the checks, with the status of a refusal:

    1. The head, without a slot: path 404, method 405, media type 415, framing 400, announced size 413.
    2. A body that arrived with its head: size 413, signature 401. Only an authentic request takes a slot.
       A body that is still to come: head of the signature 401. Then the request needs a slot while it waits for its
       body: rate, requests in flight and bytes in flight 503, time 408, size 413, signature 401.
    3. For both: rate and sends in flight 503, body 422 (once durable in quarantine), record size 413, publication 503.

    An unexpected fault is a 500 without details. A source's policy may accept any media type, answer 503 if no secret
    verifies a request, and answer with success once a request is durable in quarantine.

    Args:
        webhooks: The webhooks; each needs its own path.
        publisher: Makes records durable.
        settings: Limits and times.
        metrics: Counts answers.
        refusals: Counts unauthenticated requests.
        clock: Aware UTC time.
        new_hex: Returns a number of random bytes in hex, for trace ids; default: :class:`RandomHex`.
        monotonic: Seconds of a monotonic clock, for the rates of sources and of alarm lines.
        capture: Stores refused requests while a person captures them.
        audited_topics: Topics that AUDIT reads. For other topics, the ingress publishes the audit event itself.

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
        new_hex: Callable[[int], str] | None = None,
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
        new_hex = new_hex or RandomHex()
        self._new_hex = new_hex
        self._publishing = DurablePublishing(publisher, deadline_seconds=settings.deadline_seconds)
        self.limits: Final = SourceLimits(webhooks, settings, metrics, monotonic)
        self.hot_path: Final = HotPath(
            webhooks,
            settings=settings,
            limits=self.limits,
            publishing=self._publishing,
            clock=clock,
            new_hex=new_hex,
            audited_topics=self._audited_topics,
            count=self._count,
            failed=self._failed_publication,
        )
        self.draining = False
        """While True, each answer closes its connection, so that senders and proxies switch to another instance."""

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Return the answer to any request; never raises, except for cancellation."""
        if isinstance(request, OtherVersion):
            return self.unparsed(Answer.MALFORMED)
        started = time.perf_counter()
        hot = None if self.draining else await self.hot_path.answer(request, started)
        if not isinstance(hot, Accepted | web.Response):
            return await self._plain_answer(request, started, hot)
        if self.draining and isinstance(hot, Accepted):
            return self._finished(hot.as_plain(), close=True)
        return hot

    async def _plain_answer(self, request: web.BaseRequest, started: float, body: bytes | None) -> web.Response:
        headers = headers_of(request)
        webhook, path_below = self._routes.find(request.path)
        client = client_address(request.remote, values_of(headers, "x-forwarded-for"), self._settings.trusted_proxies)
        traceparents = values_of(headers, "traceparent")
        trace = continue_trace(traceparents[0] if len(traceparents) == 1 else None, self._new_hex)
        with bound_trace(trace):
            head = Head(request, path_below, headers, client, trace, started, body=body)
            return self._ended(head, webhook, *await self._respond(head, webhook))

    def _failed_publication(self, error: BaseException, head: Head, webhook: Webhook) -> web.Response:
        """Return the answer to a request of the hot path after a failed publication."""
        with bound_trace(head.trace):
            return self._ended(head, webhook, *self._refused(error, head, webhook))

    def _ended(
        self, head: Head, webhook: Webhook | None, response: web.Response, answer: Answer, reason: str
    ) -> web.Response:
        """Count and log a request; return its answer, ready to be sent."""
        integration = webhook.integration if webhook else _UNKNOWN
        self._count(integration, response.status, reason, time.perf_counter() - head.started)
        if answer not in _LOGGED_ELSEWHERE:
            self.refusal_log.refused(integration, response.status, reason, head.client, head.known)
        malformed = response.status == _BAD_REQUEST  # the end of its body is uncertain
        return self._finished(response, close=self.draining or malformed or not head.request.content.is_eof())

    async def _respond(self, head: Head, webhook: Webhook | None) -> tuple[web.Response, Answer, str]:
        """Return the response, its row in the table, and the reason for metric and log."""
        try:
            found = self._checked_route(head, webhook)
            answer = await self._handle(head, found)
        except BaseException as error:  # noqa: BLE001 - raised again if no answer fits it
            return self._refused(error, head, webhook)
        return web.Response(status=found.policy.success), answer, answer.value

    def _refused(self, error: BaseException, head: Head, webhook: Webhook | None) -> tuple[web.Response, Answer, str]:
        """Return the answer to a request whose handling raised an error."""
        if isinstance(error, UrlChecked):
            # anybody can send the other checks, so logging them would let strangers flood the log
            write = log.info if error.check in PROVED else log.debug
            integration = webhook.integration if webhook else _UNKNOWN
            write("webhook_url_checked", integration=integration, check=error.check, client=head.client)
            return error.response(), Answer.URL_CHECKED, Answer.URL_CHECKED.value
        if isinstance(error, Problem):
            if webhook is not None and error.row.answer is Answer.SOURCE_OVERLOADED:
                self._alarm(webhook, AlarmKind.SOURCE_OVERLOADED, error.reason)
            if webhook is not None and error.status == _TOO_LARGE and webhook.policy.invalid == "keep":
                self._alarm(webhook, AlarmKind.TOO_LARGE, error.reason)
            return error.response(head.trace.trace_id), error.row.answer, error.reason
        if is_cancellation(error):
            raise error
        # the outermost frame of a request: a bug of ours, or of an installed source, becomes a bare 500
        fault = fault_of(error)
        # its text may contain received data
        log.error("answer_failed", error=fault.kind, where=fault.where, frames=fault.lines, **head.known)
        unexpected = Answer.UNEXPECTED
        return Problem(unexpected).response(head.trace.trace_id), unexpected, unexpected.value

    async def _handle(self, head: Head, webhook: Webhook) -> Answer:
        """Check the head, wait for the body if needed, verify the request, and make its event durable."""
        self._check_head(head, webhook)
        body = arrived_body(head.request, self._settings.max_body_bytes) if head.body is None else head.body
        if body is None:
            self._check_signature_head(head, webhook)
            body = await self._awaited_body(head, webhook)
        received = self._received(head, webhook, body)
        with self.limits.publishing(webhook, head.client, len(body)):
            return await self._publish(received, head.known)

    def _checked_route(self, head: Head, webhook: Webhook | None) -> Webhook:
        """Return the webhook, after refusing a wrong path or method and answering a check of the URL."""
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

    def _check_head(self, head: Head, webhook: Webhook) -> None:
        """Refuse a request if its head alone is a reason."""
        if not webhook.policy.any_media_type:
            check_media_type(head.headers)
        check_framing(head.request, head.headers, self._settings.max_body_bytes)

    def _received(self, head: Head, webhook: Webhook, body: bytes) -> Received:
        """Verify the request. Keep only the headers that the record stores."""
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

    def _check_signature_head(self, head: Head, webhook: Webhook) -> None:
        """Refuse a request that no body could make authentic, unless a person is capturing requests of its source."""
        if self._capture is not None and self._capture.wants(_source(webhook)):
            return
        try:
            webhook.verifier.check_head(WebhookRequest(head.path_below, head.headers, b"", head.client), self._clock())
        except SignatureRefused as refused:
            self._check_unsigned(head, webhook)
            raise self._refusal(webhook, refused) from None

    async def _awaited_body(self, head: Head, webhook: Webhook) -> bytes:
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
                    # a sender that never repeats after a 400 may repeat after a 408
                    raise Problem(Answer.BODY_TIMEOUT, reason=problem.reason, detail=problem.row.cause) from None
                raise

    def _check_unsigned(self, head: Head, webhook: Webhook) -> None:
        """Raise UrlChecked if an unverified request is a URL check that its sender does not sign."""
        if webhook.url_checks:
            query = head.request.rel_url.raw_query_string
            webhook.url_checks.check_head(_METHOD, query, head.headers, self._clock())

    def _verify(self, head: Head, webhook: Webhook, request: WebhookRequest, now: datetime) -> Verified:
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
        """Identify the event and make it durable. An invalid request becomes durable in quarantine instead."""
        webhook = received.webhook
        try:
            found = webhook.source.identify(received.request)
        except InvalidBody as invalid:
            return await self._quarantine(received, invalid, known)
        known["event_id"] = found.id
        if found.subject_in_logs:
            known["subject"] = found.subject
        if webhook.policy.audit_accepted:
            await self._publishing.all(*records.audited(received, found, self._audited_topics))
            log.info("webhook_accepted", **received.log_fields, subject=known.get("subject"), event_id=found.id)
        else:
            await self._publishing.all(records.accepted(received, found))
            log.debug("webhook_taken", integration=webhook.integration, event_id=found.id)
        return Answer.ACCEPTED

    async def _quarantine(self, received: Received, invalid: InvalidBody, known: dict[str, str]) -> Answer:
        """Make an invalid request durable in quarantine; then refuse it or answer with success, as the policy says."""
        webhook = received.webhook
        event = records.quarantined_event(received, invalid)
        record = records.quarantined(received, invalid)
        known["event_id"] = first_values(record.headers)["ce_id"]
        await self._publishing.all(record, audit_record(event, traceparent=received.trace.traceparent))
        log.warning("webhook_quarantined", **received.log_fields, **known, reasons=event.detail["reasons"])
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
        response.headers["Server"] = SERVER  # otherwise the library sends its version and Python's
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
