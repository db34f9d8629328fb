"""One configured webhook, and what a request to it has brought."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from pipeline.contracts import Headers
from pipeline.observability import TraceContext
from pipeline.providers import Provider
from pipeline.signatures import Scheme

SuccessStatus = Literal[200, 202, 204]
"""What a sender takes for success, by its integration's configuration."""


@dataclass(frozen=True, slots=True)
class Source:
    """One webhook.

    Attributes:
        integration: Its name.
        path: Exact path, such as ``/webhooks/ecs/acme``; a query behind it is ignored.
        scheme: Decides whether a request is authentic.
        provider: Decides what it is.
    """

    integration: str
    path: str
    scheme: Scheme
    provider: Provider
    success_status: SuccessStatus = 202


@dataclass(frozen=True, slots=True)
class Received:
    """An authentic request.

    Attributes:
        body: The raw bytes.
        content_type: As received.
        signature_headers: Those that a subscriber needs to verify the body again; never a shared secret.
        verified_by: Id of the secret.
        at: When its body was complete.
        client: Address of the sender.
        trace: Where it stands in a trace.
    """

    source: Source
    body: bytes = field(repr=False)
    content_type: str
    signature_headers: Headers = field(repr=False)
    verified_by: str
    at: datetime
    client: str
    trace: TraceContext
