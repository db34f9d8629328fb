"""The hot path: handles an ordinary request, from its head to its answer. Read it from top to bottom.

:mod:`pipeline.webhooks.handler` is the plain way and the reference. The hot path handles a request only if the plain
way would accept it, with the same record, answer, metrics and log line. It passes any other request to the plain way
before it has an effect. So only the plain way has code for refusals and failed publications.
tests/unit/webhooks/test_hot_path.py compares the two.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from email.utils import formatdate
from functools import lru_cache
from typing import Any, Final

import structlog
from aiohttp import HttpVersion11, web

from pipeline.contracts import TopicName
from pipeline.observability import TraceContext, bound_trace, continue_trace, parse_traceparent
from pipeline.webhooks.answers import Answer
from pipeline.webhooks.http_request import client_address
from pipeline.webhooks.limits import SourceLimits
from pipeline.webhooks.records import DurablePublishing
from pipeline.webhooks.settings import IngressSettings
from pipeline.webhooks.webhook import Head, HotReader, Ordinary, Routes, Webhook

log = structlog.get_logger("pipeline.webhooks.handler")
"""The logger of the plain way, so that the lines of both ways have the same logger."""

SERVER: Final = "card-pipeline"

_PLAIN_PATH: Final = re.compile(r"(?:/[A-Za-z0-9_-]+)+")
"""A path that decoding and normalising do not change."""
_NOT_ORDINARY: Final = frozenset({b"content-encoding", b"transfer-encoding", b"expect", b"upgrade"})

Failed = Callable[[BaseException, Head, Webhook], web.Response]


class Accepted(web.StreamResponse):
    """The shared answer to all accepted requests. Its bytes are rendered once per second."""

    def __init__(self, status: int) -> None:
        super().__init__(status=status)
        length = "" if status == 204 else "Content-Length: 0\r\n"  # noqa: PLR2004 - No Content, RFC 9110, 8.6
        self._begin = f"HTTP/1.1 {status} {self.reason}\r\nServer: {SERVER}\r\n{length}Date: "
        self._second = 0
        self._bytes = b""

    @property
    def keep_alive(self) -> bool:
        """True: the connection stays open."""
        return True

    def as_bytes(self) -> bytes:
        """Return the bytes to send."""
        second = int(time.time())
        if second != self._second:
            self._second, self._bytes = second, f"{self._begin}{formatdate(second, usegmt=True)}\r\n\r\n".encode()
        return self._bytes

    def as_plain(self) -> web.Response:
        """Return the same answer in the library's form, which may close the connection."""
        return web.Response(status=self.status, headers={"Server": SERVER})


class HotPath:
    """Answers ordinary requests: a POST to a known path, arrived completely, authentic and valid, with room for it.

    Args:
        webhooks: All webhooks; those with a reader have a hot path.
        settings: Limits and proxies.
        limits: The limits that the plain way uses too.
        publishing: The publishing that the plain way uses too.
        clock: Aware UTC time.
        new_hex: Returns random bytes in hex.
        audited_topics: Topics that AUDIT reads.
        count: Counts an answer by integration, status, reason and seconds.
        failed: Counts, logs and answers a failed publication.
    """

    def __init__(
        self,
        webhooks: Sequence[Webhook],
        *,
        settings: IngressSettings,
        limits: SourceLimits,
        publishing: DurablePublishing,
        clock: Callable[[], datetime],
        new_hex: Callable[[int], str],
        audited_topics: Collection[TopicName],
        count: Callable[[str, int, str, float], None],
        failed: Failed,
    ) -> None:
        routes = Routes(webhooks)
        self._readers: dict[str, tuple[Webhook, HotReader]] = {
            path: (webhook, webhook.hot)
            for webhook in webhooks
            if webhook.hot is not None and _is_read_whole(webhook, webhook.hot, audited_topics)
            for path in webhook.hot.paths
            if _PLAIN_PATH.fullmatch(path) and routes.find(path)[0] is webhook
        }
        self._most_bytes = settings.max_body_bytes
        self._limits = limits
        self._publishing = publishing
        self._clock = clock
        self._new_hex = new_hex
        self._count = count
        self._failed = failed
        self._answers = {status: Accepted(status) for status in (200, 202, 204)}
        trusted = settings.trusted_proxies
        # differs from the plain way: caches the few senders and proxies of the day
        self._client = lru_cache(maxsize=1024)(lambda peer: client_address(peer, (), trusted))
        self._trusted = trusted
        self.taken = 0
        """Number of requests that the hot path answered."""

    async def answer(self, request: web.BaseRequest, started: float) -> Accepted | web.Response | bytes | None:
        """Answer an ordinary request. For any other, return its body if it was read already, otherwise None.

        Args:
            request: Any request.
            started: Start time, to measure its duration.
        """
        # differs from the plain way: looks up the raw path without decoding it
        found = self._readers.get(request.raw_path)
        if found is None or request.method != "POST" or request.version != HttpVersion11 or not request.keep_alive:
            return None
        webhook, reader = found

        # differs from the plain way: names and values stay bytes; a request with a repeated header is not ordinary
        raw = request.raw_headers
        head = {name.lower(): value for name, value in raw}
        if len(head) < len(raw) or not _NOT_ORDINARY.isdisjoint(head):
            return None
        content = request.content
        if not content.is_eof() or content.exception() is not None or content.total_bytes > self._most_bytes:
            return None
        body = content.read_nowait()
        forwarded = head.get(b"x-forwarded-for")
        if forwarded is None:
            client = self._client(request.remote)
        else:
            client = client_address(request.remote, (forwarded.decode("latin-1"),), self._trusted)
        # differs from the plain way: renders the header directly; only a log line needs the parsed trace
        given = head.get(b"traceparent")
        if given is None:
            traceparent = f"00-{self._new_hex(16)}-{self._new_hex(8)}-01"
        else:
            traceparent = continue_trace(given.decode("latin-1"), self._new_hex).traceparent
        ordinary = None
        if self._limits.has_room(webhook, len(body)):
            at = self._clock()
            ordinary = reader.read(request.raw_path, head, body, at, client=client, traceparent=traceparent)
        if ordinary is None:
            return body

        # from here on the request has effects, so the plain way can no longer handle it
        self._limits.take(webhook, client, len(body))
        try:
            await self._publishing.one(ordinary.record)
        except BaseException as error:  # noqa: BLE001 - the plain way raises an error again if it has no answer for it
            known = {"event_id": ordinary.event_id, "subject": ordinary.subject}
            return self._failed(error, Head(request, "", (), client, _trace(traceparent), started, known), webhook)
        finally:
            self._limits.give_back(webhook, len(body))
        self._log(webhook, ordinary, client, traceparent)
        status = webhook.policy.success
        self._count(webhook.integration, status, Answer.ACCEPTED.value, time.perf_counter() - started)
        self.taken += 1
        return self._answers[status]

    def _log(self, webhook: Webhook, ordinary: Ordinary, client: str, traceparent: str) -> None:
        """Write the plain way's log line. Differs from the plain way: a line below the level costs no logger."""
        audited = webhook.policy.audit_accepted
        wrapper: Any = structlog.get_config()["wrapper_class"]
        if not wrapper.is_enabled_for(None, logging.INFO if audited else logging.DEBUG):
            return
        with bound_trace(_trace(traceparent)):
            if audited:
                log.info(
                    "webhook_accepted",
                    integration=webhook.integration,
                    client=client,
                    verified_by=ordinary.verified_by,
                    subject=ordinary.subject,
                    event_id=ordinary.event_id,
                )
            else:
                log.debug("webhook_taken", integration=webhook.integration, event_id=ordinary.event_id)


def _is_read_whole(webhook: Webhook, reader: HotReader, audited_topics: Collection[TopicName]) -> bool:
    """Return whether the plain way would publish only the reader's record, and make no URL check first."""
    if webhook.url_checks:
        return False
    audited = reader.audited_topic is not None
    return audited == webhook.policy.audit_accepted and (not audited or reader.audited_topic in audited_topics)


def _trace(traceparent: str) -> TraceContext:
    trace = parse_traceparent(traceparent)
    if trace is None:
        raise ValueError("the pipeline made this header itself")
    return trace
