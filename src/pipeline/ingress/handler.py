"""The way of one request: receive, verify, identify, publish, answer."""

from __future__ import annotations

import secrets
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache
from typing import Final

import structlog
from aiohttp import web

from pipeline.audit import record_of
from pipeline.bus.protocols import Publisher
from pipeline.contracts import Headers
from pipeline.ingress import records
from pipeline.ingress.client_address import client_address
from pipeline.ingress.in_flight import InFlight
from pipeline.ingress.problems import Problem
from pipeline.ingress.publishing import DurablePublishing
from pipeline.ingress.reading import check_head, headers_of, read_body, values_of
from pipeline.ingress.refusals import RefusalCounts
from pipeline.ingress.settings import IngressSettings
from pipeline.ingress.sources import Received, Source
from pipeline.ingress.statuses import Answer
from pipeline.observability import Metrics, TraceContext, bound_trace, continue_trace
from pipeline.providers import Delivery, InvalidBody, Verified
from pipeline.signatures import Fault, SignatureRefused

log = structlog.get_logger(__name__)

_UNKNOWN: Final = "unknown"
_METHOD: Final = "POST"
_SERVER: Final = "card-pipeline"
_SERVER_ERROR: Final = 500
_CHALLENGE: Final = {"WWW-Authenticate": "Webhook"}
"""RFC 9110, section 15.5.2, wants one with each 401; there is no registered scheme for webhooks."""


class Ingress:
    """Answers requests. A 2xx means that every in-sync replica has the event and its audit entry.

    The checks, in order: path 404, method 405, requests in flight 503, media type 415, size 413, time 408, signature
    401, body 422 (once it is durable in quarantine), record size 413, publication 503. Whatever nobody foresaw is a 500
    that says nothing.

    Args:
        sources: The webhooks; two cannot have one path.
        publisher: Makes records durable.
        settings: Limits and times.
        metrics: Where answers are counted.
        refusals: Where unauthenticated requests are counted.
        clock: Aware UTC time.
        new_hex: Returns so many random bytes in hex, for trace ids.

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
    ) -> None:
        self._sources: dict[str, Source] = {}
        for source in sources:
            if source.path in self._sources:
                raise ValueError(f"Two integrations have the webhook path {source.path}")
            self._sources[source.path] = source
        self._settings = settings
        self._answered = cache(
            lambda integration, status, reason: metrics.ingress_requests.labels(integration, str(status), reason)
        )
        self._seconds = cache(metrics.ingress_request_seconds.labels)
        self._refusals = refusals
        self._clock = clock
        self._new_hex = new_hex
        self._publishing = DurablePublishing(
            publisher,
            deadline_seconds=settings.deadline_seconds,
            retry_after_seconds=settings.retry_after_seconds,
        )
        self.in_flight: Final = InFlight(settings.max_in_flight, retry_after=settings.retry_after_seconds)
        self.draining = False
        """While True, each answer closes its connection, so that senders and proxies turn to another instance."""

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Return the answer to any request; never raises, except for cancellation."""
        started = time.perf_counter()
        headers = headers_of(request)
        source = self._sources.get(request.path)
        client = client_address(request.remote, values_of(headers, "x-forwarded-for"), self._settings.trusted_proxies)
        traceparents = values_of(headers, "traceparent")
        trace = continue_trace(traceparents[0] if len(traceparents) == 1 else None, self._new_hex)
        with bound_trace(trace):
            response, reason = await self._outcome(request, source, headers, client, trace)
            integration = source.integration if source else _UNKNOWN
            self._count(integration, response.status, reason, time.perf_counter() - started)
            if reason != Answer.ACCEPTED:
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

    async def _outcome(
        self, request: web.BaseRequest, source: Source | None, headers: Headers, client: str, trace: TraceContext
    ) -> tuple[web.Response, str]:
        try:
            accepting = _checked_route(request, source)
            with self.in_flight.slot():
                received = await self._received(request, accepting, headers, client, trace)
                await self._take(received)
        except Problem as problem:
            return problem.response(trace.trace_id), problem.reason
        except Exception as error:  # noqa: BLE001 - the outermost frame of a request: a fault of ours becomes a bare 500
            log.error("answer_failed", error=type(error).__name__, where=_where(error))  # noqa: TRY400 - see _where
            return Problem(Answer.UNEXPECTED).response(trace.trace_id), Answer.UNEXPECTED.value
        return web.Response(status=accepting.policy.success), Answer.ACCEPTED.value

    async def _received(
        self, request: web.BaseRequest, source: Source, headers: Headers, client: str, trace: TraceContext
    ) -> Received:
        content_type = check_head(headers)
        body = await read_body(
            request, limit=self._settings.max_body_bytes, timeout=self._settings.read_timeout_seconds
        )
        now = self._clock()
        verified = self._verify(source, Delivery("", headers, body, client), now)
        kept = tuple(header for header in headers if header[0] in source.verifier.stored_headers)
        delivery = Delivery(verified.path, kept, body, client)
        return Received(source, delivery, content_type, verified.by, now, trace)

    def _verify(self, source: Source, delivery: Delivery, now: datetime) -> Verified:
        try:
            return source.verifier.verify(delivery, now)
        except SignatureRefused as refused:
            reason = refused.reason.value
            if refused.fault is Fault.CONFIGURATION:
                retry_after = {"Retry-After": str(self._settings.retry_after_seconds)}
                raise Problem(Answer.NO_ACTIVE_SECRET, reason=reason, headers=retry_after) from None
            self._refusals.count(source.integration, reason)
            raise Problem(Answer.UNAUTHENTICATED, reason=reason, headers=_CHALLENGE) from None

    async def _take(self, received: Received) -> None:
        """Make the event durable; or, where its body is invalid, make it durable in quarantine and refuse it."""
        traceparent = received.trace.traceparent
        try:
            found = received.source.provider.identify(received.delivery)
        except InvalidBody as invalid:
            event = records.quarantined_event(received, invalid)
            await self._publishing.all(
                records.quarantined(received, invalid), record_of(event, traceparent=traceparent)
            )
            log.warning("webhook_quarantined", **_told(received), reasons=event.detail["reasons"])
            raise Problem(Answer.INVALID, findings=invalid.findings) from None
        event = records.accepted_event(received, found)
        await self._publishing.all(records.accepted(received, found), record_of(event, traceparent=traceparent))
        log.info("webhook_accepted", **_told(received), subject=found.subject, event_id=found.id)


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
