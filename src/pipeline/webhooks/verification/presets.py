"""How well-known senders sign, and where their events say what they are: configuration by one word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pipeline.webhooks.verification.settings import HmacSettings, SecretSettings


@dataclass(frozen=True, slots=True)
class Preset:
    """One sender's rules.

    Places are written ``header:NAME`` or ``json:/pointer`` (RFC 6901), see ``Place``.
    Of several, the first that a request has counts; none means that the sender names no such thing. None of the headers
    among them is signed: these senders sign the body, at most with its time.

    Attributes:
        scheme: What :class:`HmacSettings` takes, without ``secrets``.
        id: Where the sender's id of the event or delivery stands; equal in its repeats.
        type: Where the type of event stands.
        key: Where the id of what the event is about stands.
        source: The document that the rules are from.
    """

    scheme: Mapping[str, Any]
    id: tuple[str, ...]
    type: tuple[str, ...]
    key: tuple[str, ...]
    source: str

    def settings(self, secrets: Iterable[SecretSettings], **changed: Any) -> HmacSettings:
        """Return the scheme's settings with these secrets, and with other values where they are given."""
        return HmacSettings.model_validate({**self.scheme, **changed, "secrets": tuple(secrets)})


PRESETS: Final[Mapping[str, Preset]] = {
    "github": Preset(
        scheme={"scheme": "hmac", "header": "X-Hub-Signature-256", "prefix": "sha256="},
        id=("header:X-GitHub-Delivery",),
        type=("header:X-GitHub-Event",),
        key=("json:/repository/id", "json:/organization/id", "header:X-GitHub-Hook-ID"),
        source="GitHub documentation: Validating webhook deliveries; Webhook events and payloads, Delivery headers",
    ),
    "stripe": Preset(
        scheme={
            "scheme": "hmac",
            "header": "Stripe-Signature",
            "fields": {"signature": "v1", "timestamp": "t"},
            "signed": ("timestamp", "text:.", "body"),
            "timestamp": "field",
        },
        id=("json:/id",),
        type=("json:/type",),
        key=("json:/data/object/id", "json:/id"),
        source="Stripe documentation: Verify webhook signatures manually; The Event object",
    ),
    "slack": Preset(
        scheme={
            "scheme": "hmac",
            "header": "X-Slack-Signature",
            "prefix": "v0=",
            "signed": ("text:v0:", "timestamp", "text::", "body"),
            "timestamp": "header:X-Slack-Request-Timestamp",
        },
        id=("json:/event_id",),
        type=("json:/event/type", "json:/type"),
        key=("json:/team_id",),
        source="Slack documentation: Verifying requests from Slack; Events API, Callback field overview",
    ),
    "shopify": Preset(
        scheme={"scheme": "hmac", "header": "X-Shopify-Hmac-Sha256", "encoding": "base64"},
        id=("header:X-Shopify-Webhook-Id",),
        type=("header:X-Shopify-Topic",),
        key=("header:X-Shopify-Shop-Domain",),
        source="Shopify documentation: Deliver webhooks through HTTPS, Headers and Validate webhook deliveries",
    ),
    "paystack": Preset(
        scheme={"scheme": "hmac", "header": "x-paystack-signature", "hash": "sha512"},
        id=(),
        type=("json:/event",),
        key=("json:/data/id",),
        source="Paystack documentation: Webhooks, Verify event origin",
    ),
}
"""By the word that selects it in the settings."""

WEAVR: Final[Mapping[str, Any]] = {
    "scheme": "hmac",
    "header": "signature-v2",
    "encoding": "base64",
    "signed": ("header?:call-ref", "body", "timestamp"),
    "timestamp": "header:published-timestamp",
    "timestamp_unit": "ms",
    "tolerance_seconds": 18_000.0,
}
"""How Weavr signs: settings without ``secrets``. Its retries may keep the first timestamp for over four hours."""

WEAVR_LEGACY: Final[Mapping[str, Any]] = {
    **WEAVR,
    "header": "signature",
    "signed": ("timestamp",),
    "body_unsigned": True,
}
"""Weavr's deprecated signature: it proves nothing about the body."""
