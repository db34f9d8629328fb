"""One configured webhook, the lookup of webhooks by path, and an authentic request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pipeline.observability import TraceContext
from pipeline.webhooks.sources import Policy, Source, Verifier, WebhookRequest
from pipeline.webhooks.url_checks import NO_URL_CHECKS, UrlChecks


@dataclass(frozen=True, slots=True)
class Webhook:
    """One configured webhook.

    Attributes:
        integration: Its name.
        kind: Kind of its source: ``ecs``, ``weavr``, or the name of another installed kind.
        path: Its path, such as ``/webhooks/ecs/acme``; a query after it is ignored. The source's policy says whether
            paths below it belong to it too.
        verifier: Decides whether a request is authentic.
        source: Decides which event a request is.
        requests_per_second: How many authentic requests it may send; None: as ``ingress`` says for every source.
        url_checks: How its sender checks the URL before it uses it.
    """

    integration: str
    kind: str
    path: str
    verifier: Verifier
    source: Source
    requests_per_second: int | None = None
    url_checks: UrlChecks = NO_URL_CHECKS

    @property
    def policy(self) -> Policy:
        """How its requests are answered."""
        return self.source.policy


@dataclass(frozen=True, slots=True)
class Received:
    """An authentic request.

    Attributes:
        webhook: The webhook that it came to.
        request: Its path without any secret, its body, and the headers to store with the record.
        verified_by: What proved it authentic.
        at: When its body had arrived completely.
        trace: Its position in a trace.
    """

    webhook: Webhook
    request: WebhookRequest
    verified_by: str
    at: datetime
    trace: TraceContext


class Routes:
    """Finds webhooks by path. If several match, it returns the one with the longest path.

    Args:
        webhooks: Each needs a path of its own.

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
        """Return the webhook, or None, and the rest of the path. The cost does not grow with the path."""
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
    """Return a path that UTF-8 can encode: invalid UTF-8 bytes arrive as halves of surrogate pairs."""
    return path if path.isascii() else path.encode("utf-8", "replace").decode("utf-8")
