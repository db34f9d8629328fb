"""A configured webhook, its requests, and the lookup of webhooks by path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from aiohttp import web

from pipeline.contracts import Headers, OutgoingRecord, TopicName
from pipeline.observability import TraceContext
from pipeline.webhooks.sources import Policy, Source, Verifier, WebhookRequest
from pipeline.webhooks.url_checks import NO_URL_CHECKS, UrlChecks
from pipeline.webhooks.verification import QuickHmac


class Ordinary(NamedTuple):
    """The event of an authentic request that the hot path has read.

    Attributes:
        record: The record to publish.
        event_id: The record's ``ce_id``.
        subject: What the event is about; logs may name it.
        verified_by: What proved the request authentic, such as the id of a secret.
    """

    record: OutgoingRecord
    event_id: str
    subject: str
    verified_by: str


class HotReader(Protocol):
    """Reads an ordinary request of one webhook in a single step.

    The outcome is the same as with the webhook's verifier and source. It has no side effects.
    """

    @property
    def paths(self) -> AbstractSet[str]:
        """Whole paths of the requests that it reads, as they are in the request line."""
        ...

    @property
    def signature(self) -> QuickHmac:
        """Verifies requests with a signature. It agrees with the webhook's verifier, or decides nothing."""
        ...

    @property
    def audited_topic(self) -> TopicName | None:
        """The topic of its records, if AUDIT builds audit events from them; None: they have no audit event."""
        ...

    def read(
        self, path: str, head: Mapping[bytes, bytes], body: bytes, at: datetime, *, client: str, traceparent: str
    ) -> Ordinary | None:
        """Return the event of an authentic request. None decides nothing: the plain path has to decide.

        Args:
            path: One of ``paths``.
            head: The headers by lower-case name. None is repeated, and none says that the body is encoded.
            body: The raw bytes.
            at: When the request was received (aware).
            client: Address of the sender.
            traceparent: Trace header of the record.
        """
        ...


@dataclass(frozen=True, slots=True)
class Webhook:
    """One configured webhook.

    Attributes:
        integration: Name of the integration.
        kind: Kind of its source: ``ecs``, ``weavr``, or the name of another installed kind.
        path: Its path, such as ``/webhooks/ecs/acme``; a query after it is ignored. The source's policy says whether
            paths below it belong to it too.
        verifier: Decides whether a request is authentic.
        source: Decides which event a request is.
        requests_per_second: How many authentic requests the sender may send; None: as many as the table ``ingress``
            allows every source.
        url_checks: How the sender checks the URL before its first use.
        hot: Reads its ordinary requests; None: the plain path reads all requests.
    """

    integration: str
    kind: str
    path: str
    verifier: Verifier
    source: Source
    requests_per_second: int | None = None
    url_checks: UrlChecks = NO_URL_CHECKS
    hot: HotReader | None = None

    @property
    def policy(self) -> Policy:
        """How to answer its requests."""
        return self.source.policy


@dataclass(frozen=True, slots=True)
class Received:
    """An authentic request.

    Attributes:
        webhook: The webhook that received it.
        request: Its path without any secret, its body, and the headers to store with the record.
        verified_by: What proved it authentic, such as the id of a secret.
        at: When its body had arrived completely.
        trace: Its position in a trace.
    """

    webhook: Webhook
    request: WebhookRequest
    verified_by: str
    at: datetime
    trace: TraceContext

    @property
    def log_fields(self) -> dict[str, str]:
        """The fields of log lines about it."""
        return {
            "integration": self.webhook.integration,
            "client": self.request.client,
            "verified_by": self.verified_by,
        }


@dataclass(frozen=True, slots=True)
class Head:
    """A request with the values that were read from its head.

    Attributes:
        started: When it began, to measure its duration.
        known: Log fields about the event once it is verified: ``event_id`` and ``subject``.
        body: The body, if the hot path has read it.
    """

    request: web.BaseRequest
    path_below: str
    headers: Headers
    client: str
    trace: TraceContext
    started: float
    known: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None


class Routes:
    """Finds webhooks by path. If several match, it returns the one with the longest path.

    Args:
        webhooks: All webhooks, each with a different path.

    Raises:
        ValueError: Two webhooks have the same path.
    """

    def __init__(self, webhooks: Sequence[Webhook]) -> None:
        self._by_path: dict[str, Webhook] = {}
        for webhook in webhooks:
            if webhook.path in self._by_path:
                raise ValueError(f"Two integrations have the webhook path {webhook.path}")
            self._by_path[webhook.path] = webhook
        depths = {webhook.path.count("/") for webhook in webhooks if webhook.policy.below}
        self._depths = sorted(depths, reverse=True)

    def find(self, path: str) -> tuple[Webhook | None, str]:
        """Return the webhook, or None, and the rest of the path. A long path costs no more than a short one."""
        webhook = self._by_path.get(path)
        if webhook is not None:
            return webhook, ""
        for depth in self._depths:
            base = "/".join(path.split("/", depth + 1)[: depth + 1])
            webhook = self._by_path.get(base)
            if webhook is not None and webhook.policy.below and base != path:
                return webhook, _encodable(path[len(base) :])
        return None, ""


def _encodable(path: str) -> str:
    """Return a path that UTF-8 can encode. Invalid UTF-8 bytes arrive as lone surrogates, which it cannot."""
    return path if path.isascii() else path.encode("utf-8", "replace").decode("utf-8")
