"""One configured webhook, and what a request to it has brought."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pipeline.observability import TraceContext
from pipeline.webhooks.sources import Delivery, Policy, Provider, Verifier


@dataclass(frozen=True, slots=True)
class Source:
    """One webhook.

    Attributes:
        integration: Its name.
        kind: Whose webhook it is: ``ecs``, ``weavr``, or the name of a provider.
        path: Its path, such as ``/webhooks/ecs/acme``; a query behind it is ignored. The provider's policy says whether
            paths below it belong to it too.
        verifier: Decides whether a request is authentic.
        provider: Decides what it is.
    """

    integration: str
    kind: str
    path: str
    verifier: Verifier
    provider: Provider

    @property
    def policy(self) -> Policy:
        """How its requests are answered."""
        return self.provider.policy


@dataclass(frozen=True, slots=True)
class Received:
    """An authentic request.

    Attributes:
        delivery: Its path without any secret, its body, and those of its headers that are kept with the record.
        content_type: As received.
        verified_by: What proved it.
        at: When its body was complete.
        trace: Where it stands in a trace.
    """

    source: Source
    delivery: Delivery
    content_type: str
    verified_by: str
    at: datetime
    trace: TraceContext
