"""How well-known senders sign, and where their events name id, type and key: configuration by one word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pipeline.webhooks.verification.specs import FieldSettings, HmacSpec


@dataclass(frozen=True, slots=True)
class Preset:
    """One sender's rules.

    ``id``, ``type`` and ``key`` list values of a request as :class:`RequestValue` parses them. The first value that a
    request has is used; an empty list means that the sender sends no such value. None of the listed headers is signed:
    these senders sign the body, at most with its time.

    Attributes:
        scheme: How the sender signs.
        id: The sender's id of the event or delivery; equal in its repeats.
        type: The type of event.
        key: The id of what the event is about.
        source: The document that states these rules.
    """

    scheme: HmacSpec
    id: tuple[str, ...]
    type: tuple[str, ...]
    key: tuple[str, ...]
    source: str


PRESETS: Final[Mapping[str, Preset]] = {
    "github": Preset(
        scheme=HmacSpec(scheme="hmac", header="X-Hub-Signature-256", prefix="sha256="),
        id=("header:X-GitHub-Delivery",),
        type=("header:X-GitHub-Event",),
        key=("json:/repository/id", "json:/organization/id", "header:X-GitHub-Hook-ID"),
        source="GitHub documentation: Validating webhook deliveries; Webhook events and payloads, Delivery headers",
    ),
    "stripe": Preset(
        scheme=HmacSpec(
            scheme="hmac",
            header="Stripe-Signature",
            fields=FieldSettings(signature="v1", timestamp="t"),
            signed=("timestamp", "text:.", "body"),
            timestamp="field",
        ),
        id=("json:/id",),
        type=("json:/type",),
        key=("json:/data/object/id", "json:/id"),
        source="Stripe documentation: Verify webhook signatures manually; The Event object",
    ),
    "slack": Preset(
        scheme=HmacSpec(
            scheme="hmac",
            header="X-Slack-Signature",
            prefix="v0=",
            signed=("text:v0:", "timestamp", "text::", "body"),
            timestamp="header:X-Slack-Request-Timestamp",
        ),
        id=("json:/event_id",),
        type=("json:/event/type", "json:/type"),
        key=("json:/team_id",),
        source="Slack documentation: Verifying requests from Slack; Events API, Callback field overview",
    ),
    "shopify": Preset(
        scheme=HmacSpec(scheme="hmac", header="X-Shopify-Hmac-Sha256", encoding="base64"),
        id=("header:X-Shopify-Webhook-Id",),
        type=("header:X-Shopify-Topic",),
        key=("header:X-Shopify-Shop-Domain",),
        source="Shopify documentation: Deliver webhooks through HTTPS, Headers and Validate webhook deliveries",
    ),
    "paystack": Preset(
        scheme=HmacSpec(scheme="hmac", header="x-paystack-signature", hash="sha512"),
        id=(),
        type=("json:/event",),
        key=("json:/data/id",),
        source="Paystack documentation: Webhooks, Verify event origin",
    ),
}
"""By the word that selects it in the settings."""

WEAVR: Final = HmacSpec(
    scheme="hmac",
    header="signature-v2",
    encoding="base64",
    signed=("header?:call-ref", "body", "timestamp"),
    timestamp="header:published-timestamp",
    timestamp_unit="ms",
    tolerance_seconds=18_000.0,
)
"""How Weavr signs. Its retries may keep the first timestamp for over four hours."""

WEAVR_LEGACY: Final = HmacSpec(
    scheme="hmac",
    header="signature",
    encoding="base64",
    signed=("timestamp",),
    body_unsigned=True,
    timestamp="header:published-timestamp",
    timestamp_unit="ms",
    tolerance_seconds=18_000.0,
)
"""Weavr's deprecated signature: it proves nothing about the body."""
