"""The way of one request: receive, verify, identify, publish, answer."""

from __future__ import annotations

import secrets
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Final

import structlog
from aiohttp import web

from pipeline.contracts import Headers, audit_record
from pipeline.contracts.strict_json import InvalidBody
from pipeline.kafka.protocols import Publisher
from pipeline.observability import Metrics, TraceContext, bound_trace, continue_trace
from pipeline.webhooks import records
from pipeline.webhooks.alarms import AlarmKind, Alarms
from pipeline.webhooks.capture import Capture, Refused
from pipeline.webhooks.client_address import client_address
from pipeline.webhooks.in_flight import InFlight
from pipeline.webhooks.problems import Problem
from pipeline.webhooks.publishing import DurablePublishing
from pipeline.webhooks.reading import check_head, content_type_of, headers_of, read_body, values_of
from pipeline.webhooks.refusals import RefusalCounts
from pipeline.webhooks.routing import Routes
from pipeline.webhooks.settings import IngressSettings
from pipeline.webhooks.sources import UNKNOWN_PATH, Delivery, Verified
from pipeline.webhooks.statuses import Answer
from pipeline.webhooks.verification import Fault, Reason, SignatureRefused
from pipeline.webhooks.webhook import Received, Source

log = structlog.get_logger(__name__)

_UNKNOWN: Final = "unknown"
_METHOD: Final = "POST"
_RETRY_AFTER_SECONDS: Final = 5
"""Retry-After of a 503, unless the broker asks for another pause: most outages that answer 503 are this short."""
_SERVER: Final = "card-pipeline"
_UNAUTHORIZED: Final = 401
_TOO_LARGE: Final = 413
_SERVER_ERROR: Final = 500
_TOLD_ELSEWHERE: Final = frozenset(
    {Answer.ACCEPTED, Answer.KEPT, Answer.UNVERIFIED, Answer.UNSIGNED_PATH, Answer.NO_ACTIVE_SECRET}
)
"""Answers that have log lines of their own; those of alarms are written now and then only, whoever floods us."""
_CHALLENGE: Final = {"WWW-Authenticate": "Webhook"}
"""RFC 9110, section 15.5.2, wants one with each 401; there is no registered scheme for webhooks."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request with what was read of its head."""

    request: web.BaseRequest
    behind: str
    headers: Headers
    client: str
    trace: TraceContext


class Ingress:
    """Answers requests. A 2xx means that every in-sync replica has the event, and its audit entry where it has one.

    The checks, in order: path 404, method 405, requests in flight 503, media type 415, size 413, time 408, signature
    401, body 422 (once it is durable in quarantine), record size 413, publication 503. Whatever nobody foresaw is a 500
    that says nothing. A source's policy may leave out the media type, answer 503 to what no secret verifies, and
    success to what is durable in quarantine.

    Args:
        sources: The webhooks; two cannot have one path.
        publisher: Makes records durable.
        settings: Limits and times.
        metrics: Where answers are counted.
        refusals: Where unauthenticated requests are counted.
        clock: Aware UTC time.
        new_hex: Returns so many random bytes in hex, for trace ids.
        monotonic: Seconds of a clock that never goes back, for how often an alarm is logged.
        capture: Keeps refused requests while somebody asks for them.

    Raises:
        ValueError: Two sources have the same path.
    """

    def __init__(
        self,
        *,
        sources: Sequence[Source],
        publisher: Publisher,
        settings: IngressSettings,
        metrics: Metrics,
        refusals: RefusalCounts,
        clock: Callable[[], datetime],
        new_hex: Callable[[int], str] = secrets.token_hex,
        monotonic: Callable[[], float] = time.monotonic,
        capture: Capture | None = None,
    ) -> None:
        self._routes = Routes(sources)
        self._settings = settings
        self._answered = cache(
            lambda integration, status, reason: metrics.ingress_requests.labels(integration, str(status), reason)
        )
        self._seconds = cache(metrics.ingress_request_seconds.labels)
        self._refusals = refusals
        self._alarms = Alarms(metrics, interval=settings.alarm_interval_seconds, monotonic=monotonic)
        self._capture = capture
        self._clock = clock
        self._new_hex = new_hex
        self._publishing = DurablePublishing(
            publisher,
            deadline_seconds=settings.deadline_seconds,
            retry_after_seconds=_RETRY_AFTER_SECONDS,
        )
        self.in_flight: Final = InFlight(settings.max_in_flight, retry_after=_RETRY_AFTER_SECONDS)
        self.draining = False
        """While True, each answer closes its connection, so that senders and proxies turn to another instance."""

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Return the answer to any request; never raises, except for cancellation."""
        started = time.perf_counter()
        headers = headers_of(request)
        source, behind = self._routes.find(request.path)
        client = client_address(request.remote, values_of(headers, "x-forwarded-for"), self._settings.trusted_proxies)
        traceparents = values_of(headers, "traceparent")
        trace = continue_trace(traceparents[0] if len(traceparents) == 1 else None, self._new_hex)
        with bound_trace(trace):
            asked = _Asked(request, behind, headers, client, trace)
            response, answer, reason = await self._outcome(asked, source)
            integration = source.integration if source else _UNKNOWN
            self._count(integration, response.status, reason, time.perf_counter() - started)
            if answer not in _TOLD_ELSEWHERE:
                _log_refusal(integration, response.status, reason, client)
        return self._sent_off(response, close=self.draining or not request.content.at_eof())

    def outside(self, answer: Answer) -> web.Response:
        """Return the answer to what never got as far as :meth:`answer`, or broke it: bytes that are no HTTP request."""
        problem = Problem(answer)
        self._count(_UNKNOWN, problem.status, problem.reason, 0.0)
        _log_refusal(_UNKNOWN, problem.status, problem.reason, "-")
        return self._sent_off(problem.response(), close=True)

    @staticmethod
    def _sent_off(response: web.Response, *, close: bool) -> web.Response:
        response.headers["Server"] = _SERVER  # else the library tells its version and Python's
        if close:
            response.force_close()
        return response

    def _count(self, integration: str, status: int, reason: str, seconds: float) -> None:
        self._answered(integration, status, reason).inc()
        self._seconds(integration).observe(seconds)

    async def _outcome(self, asked: _Asked, source: Source | None) -> tuple[web.Response, Answer, str]:
        try:
            accepting = _checked_route(asked.request, source)
            with self.in_flight.slot():
                answer = await self._take(await self._received(asked, accepting))
        except Problem as problem:
            if source is not None and problem.status == _TOO_LARGE and source.policy.invalid == "keep":
                self._alarm(source, AlarmKind.TOO_LARGE, problem.reason)
            return problem.response(asked.trace.trace_id), problem.row.answer, problem.reason
        except Exception as error:  # noqa: BLE001 - the outermost frame of a request: a fault of ours becomes a bare 500
            log.error("answer_failed", error=type(error).__name__, where=_where(error))  # noqa: TRY400 - see _where
            unexpected = Answer.UNEXPECTED
            return Problem(unexpected).response(asked.trace.trace_id), unexpected, unexpected.value
        return web.Response(status=accepting.policy.success), answer, answer.value

    async def _received(self, asked: _Asked, source: Source) -> Received:
        any_type = source.policy.any_media_type
        content_type = content_type_of(asked.headers) if any_type else check_head(asked.headers)
        body = await self._body(asked.request, source)
        now = self._clock()
        verified = self._verify(source, Delivery(asked.behind, asked.headers, body, asked.client), now)
        kept = tuple(header for header in asked.headers if header[0] in source.verifier.stored_headers)
        delivery = Delivery(verified.path, kept, body, asked.client)
        return Received(source, delivery, content_type, verified.by, now, asked.trace)

    async def _body(self, request: web.BaseRequest, source: Source) -> bytes:
        limit, timeout = self._settings.max_body_bytes, self._settings.read_timeout_seconds
        try:
            return await read_body(request, limit=limit, timeout=timeout)
        except Problem as problem:
            if problem.row.answer is Answer.BODY_INCOMPLETE and source.policy.invalid == "keep":
                # a sender that never repeats after 400 may do so after 408
                raise Problem(Answer.BODY_TIMEOUT, reason=problem.reason, detail=problem.row.cause) from None
            raise

    def _verify(self, source: Source, delivery: Delivery, now: datetime) -> Verified:
        try:
            return source.verifier.verify(delivery, now)
        except SignatureRefused as refused:
            reason = refused.reason.value
            if self._capture is not None:
                request = Refused(now, reason, delivery.path, delivery.client, delivery.headers, delivery.body)
                self._capture.refused(f"{source.kind}.{source.integration}", request)
            raise self._refusal(source, refused) from None

    def _refusal(self, source: Source, refused: SignatureRefused) -> Problem:
        reason = refused.reason.value
        again = {"Retry-After": str(_RETRY_AFTER_SECONDS)}
        if refused.reason is Reason.UNSIGNED_PATH:
            self._alarm(source, AlarmKind.UNSIGNED_PATH, reason)
            return Problem(Answer.UNSIGNED_PATH, headers=again)
        if refused.fault is Fault.CONFIGURATION:
            self._alarm(source, AlarmKind.NO_ACTIVE_SECRET, reason)
            return Problem(Answer.NO_ACTIVE_SECRET, reason=reason, headers=again)
        self._refusals.count(source.integration, reason)
        if refused.reason is Reason.NOT_VERIFIED and source.policy.unverified != _UNAUTHORIZED:
            self._alarm(source, AlarmKind.UNVERIFIED, reason)
            return Problem(Answer.UNVERIFIED, reason=reason, headers=again)
        return Problem(Answer.UNAUTHENTICATED, reason=reason, headers=_CHALLENGE)

    async def _take(self, received: Received) -> Answer:
        """Make the event durable; or, where it does not fit, make it durable in quarantine, and refuse or keep it."""
        source = received.source
        traceparent = received.trace.traceparent
        try:
            found = source.provider.identify(received.delivery)
        except InvalidBody as invalid:
            event = records.quarantined_event(received, invalid)
            await self._publishing.all(
                records.quarantined(received, invalid), audit_record(event, traceparent=traceparent)
            )
            log.warning("webhook_quarantined", **_told(received), reasons=event.detail["reasons"])
            if source.policy.invalid == "refuse":
                raise Problem(Answer.INVALID, findings=invalid.findings) from None
            rules = {finding.rule for finding in invalid.findings}
            kind = AlarmKind.UNKNOWN_PATH if UNKNOWN_PATH in rules else AlarmKind.QUARANTINED
            self._alarm(source, kind, min(rules))
            return Answer.KEPT
        if source.policy.audit_accepted:
            event = records.accepted_event(received, found)
            await self._publishing.all(records.accepted(received, found), audit_record(event, traceparent=traceparent))
            log.info("webhook_accepted", **_told(received), subject=found.subject, event_id=found.id)
        else:
            await self._publishing.all(records.accepted(received, found))
            log.debug("webhook_taken", integration=source.integration, event_id=found.id)
        return Answer.ACCEPTED

    def _alarm(self, source: Source, kind: AlarmKind, reason: str) -> None:
        self._alarms.sound(source.kind, source.integration, kind, reason)


def _checked_route(request: web.BaseRequest, source: Source | None) -> Source:
    if source is None:
        raise Problem(Answer.UNKNOWN_PATH)
    if request.method != _METHOD:
        raise Problem(Answer.METHOD_NOT_ALLOWED, headers={"Allow": _METHOD})
    return source


def _told(received: Received) -> dict[str, str]:
    return {
        "integration": received.source.integration,
        "client": received.delivery.client,
        "verified_by": received.verified_by,
    }


def _log_refusal(integration: str, status: int, reason: str, client: str) -> None:
    write = log.error if status >= _SERVER_ERROR else log.warning
    write("webhook_refused", integration=integration, status=status, reason=reason, client=client)


def _where(error: Exception) -> str:
    """Return where an exception was raised, without its text, which may repeat what was received."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.name}:{frame.lineno}"
