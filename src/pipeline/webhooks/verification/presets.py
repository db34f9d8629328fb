"""Presets: how well-known senders sign, and where their events have the id, the type and the key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pipeline.webhooks.verification.specs import FieldSettings, HmacSpec, StandardWebhooksSpec

PresetName = Literal[
    "github",
    "stripe",
    "slack",
    "shopify",
    "paystack",
    "workos",
    "svix",
    "clerk",
    "resend",
    "pagerduty",
    "revolut",
    "airwallex",
    "paddle",
    "razorpay",
    "persona",
    "docusign",
    "zendesk",
    "zoom",
    "calendly",
    "linear",
    "meta",
    "typeform",
    "sentry",
    "bitbucket",
    "intercom",
    "box",
    "dropbox",
    "notion",
    "woocommerce",
]
"""The word that selects a preset in the settings."""


UrlCheck = Literal[
    "url-verification",
    "endpoint-validation",
    "eventsub",
    "hub-challenge",
    "challenge",
    "crc-token",
    "hook-secret",
    "validation-token",
    "head",
    "get",
    "options",
]
"""One way to check a URL before its first use; docs/reference/senders.md lists the senders and the answers."""


@dataclass(frozen=True, slots=True)
class Preset:
    """The rules of one sender.

    ``id``, ``type`` and ``key`` each list where a request may have the value, in the form that :class:`RequestValue`
    parses. The first entry that the request has is used. An empty list means that the sender sends no such value.
    Among the listed headers, only ``svix-id`` is signed: the other senders sign the body, or the time and the body.

    Attributes:
        scheme: How the sender signs.
        id: The sender's id of the event or delivery; a repeat has the same id.
        type: The type of event.
        key: The id of the object that the event is about.
        source: The document that states these rules.
        url_checks: How the sender checks the URL before its first use.
    """

    scheme: HmacSpec | StandardWebhooksSpec
    id: tuple[str, ...]
    type: tuple[str, ...]
    key: tuple[str, ...]
    source: str
    url_checks: tuple[UrlCheck, ...] = ()


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
        url_checks=("url-verification",),
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
    "workos": Preset(
        scheme=HmacSpec(
            scheme="hmac",
            header="WorkOS-Signature",
            fields=FieldSettings(signature="v1", timestamp="t"),
            signed=("timestamp", "text:.", "body"),
            timestamp="field",
            timestamp_unit="ms",
        ),
        id=("json:/id",),
        type=("json:/event",),
        key=("json:/data/id",),
        source="WorkOS documentation: Sync data with webhooks, Validate the requests",
    ),
    "svix": Preset(
        scheme=StandardWebhooksSpec(scheme="standard-webhooks", header_prefix="svix"),
        id=("header:svix-id",),
        type=("json:/type", "json:/eventType"),
        key=(),
        source="Svix documentation: Verifying webhooks manually",
    ),
    "clerk": Preset(
        scheme=StandardWebhooksSpec(scheme="standard-webhooks", header_prefix="svix"),
        id=("header:svix-id",),
        type=("json:/type",),
        key=("json:/data/id",),
        source="Clerk documentation: Webhooks overview; Sync data with webhooks",
    ),
    "resend": Preset(
        scheme=StandardWebhooksSpec(scheme="standard-webhooks", header_prefix="svix"),
        id=("header:svix-id",),
        type=("json:/type",),
        key=("json:/data/email_id", "json:/data/id"),
        source="Resend documentation: Verify webhook requests; Event types",
    ),
    "pagerduty": Preset(
        scheme=HmacSpec(scheme="hmac", header="X-PagerDuty-Signature", fields=FieldSettings(signature="v1")),
        id=("json:/event/id",),
        type=("json:/event/event_type",),
        key=("json:/event/data/id",),
        source="PagerDuty developer documentation: V3 webhooks, Verifying signatures",
    ),
    "revolut": Preset(
        scheme=HmacSpec(
            scheme="hmac",
            header="Revolut-Signature",
            fields=FieldSettings(signature="v1"),
            signed=("text:v1.", "timestamp", "text:.", "body"),
            timestamp="header:Revolut-Request-Timestamp",
            timestamp_unit="ms",
        ),
        id=(),
        type=("json:/event",),
        key=("json:/order_id", "json:/data/id"),
        source="Revolut developer documentation: Verify the payload signature",
    ),
    "airwallex": Preset(
        scheme=HmacSpec(
            scheme="hmac",
            header="x-signature",
            signed=("timestamp", "body"),
            timestamp="header:x-timestamp",
            timestamp_unit="ms",
        ),
        id=("json:/id",),
        type=("json:/name",),
        key=("json:/data/object/id", "json:/account_id"),
        source="Airwallex documentation: Listen for webhook events, Check webhook signatures",
    ),
    "paddle": Preset(
        scheme=HmacSpec(
            scheme="hmac",
            header="Paddle-Signature",
            fields=FieldSettings(signature="h1", timestamp="ts", separator=";"),
            signed=("timestamp", "text::", "body"),
            timestamp="field",
        ),
        id=("json:/event_id",),
        type=("json:/event_type",),
        key=("json:/data/id",),
        source="Paddle developer documentation: Verify webhook signatures; How webhooks work",
    ),
    "razorpay": Preset(
        scheme=HmacSpec(scheme="hmac", header="X-Razorpay-Signature"),
        id=("header:x-razorpay-event-id",),
        type=("json:/event",),
        key=("json:/payload/payment/entity/id", "json:/payload/order/entity/id", "json:/account_id"),
        source="Razorpay documentation: Validate and test webhooks",
    ),
    "persona": Preset(
        scheme=HmacSpec(
            scheme="hmac",
            header="Persona-Signature",
            fields=FieldSettings(signature="v1", timestamp="t"),
            signed=("timestamp", "text:.", "body"),
            timestamp="field",
        ),
        id=("json:/data/id",),
        type=("json:/data/attributes/name",),
        key=("json:/data/attributes/payload/data/id",),
        source="Persona documentation: Webhooks, Checking signatures; Rotating webhook secrets",
    ),
    "docusign": Preset(
        scheme=HmacSpec(scheme="hmac", header="X-DocuSign-Signature-1", encoding="base64"),
        id=(),
        type=("json:/event",),
        key=("json:/data/envelopeId",),
        source="Docusign developer documentation: Connect, How to validate an HMAC signature",
    ),
    "zendesk": Preset(
        scheme=HmacSpec(
            scheme="hmac",
            header="X-Zendesk-Webhook-Signature",
            encoding="base64",
            signed=("timestamp", "body"),
            timestamp="header:X-Zendesk-Webhook-Signature-Timestamp",
            timestamp_unit="iso8601",
        ),
        id=("json:/id",),
        type=("json:/type", "text:event"),
        key=("json:/detail/id",),
        source="Zendesk developer documentation: Verifying webhooks; Webhook event types",
    ),
    "zoom": Preset(
        scheme=HmacSpec(
            scheme="hmac",
            header="x-zm-signature",
            prefix="v0=",
            signed=("text:v0:", "timestamp", "text::", "body"),
            timestamp="header:x-zm-request-timestamp",
        ),
        id=(),
        type=("json:/event",),
        key=("json:/payload/object/id", "json:/payload/account_id"),
        source="Zoom developer documentation: Using webhooks, Verify webhook events",
        url_checks=("endpoint-validation",),
    ),
    "calendly": Preset(
        scheme=HmacSpec(
            scheme="hmac",
            header="Calendly-Webhook-Signature",
            fields=FieldSettings(signature="v1", timestamp="t"),
            signed=("timestamp", "text:.", "body"),
            timestamp="field",
        ),
        id=(),
        type=("json:/event",),
        key=("json:/payload/uri",),
        source="Calendly developer documentation: Webhook signatures",
    ),
    "linear": Preset(
        scheme=HmacSpec(
            scheme="hmac", header="Linear-Signature", timestamp="json:/webhookTimestamp", timestamp_unit="ms"
        ),
        id=("header:Linear-Delivery",),
        type=("header:Linear-Event", "json:/type"),
        key=("json:/data/id",),
        source="Linear developer documentation: Webhooks, Securing webhooks",
    ),
    "meta": Preset(
        scheme=HmacSpec(scheme="hmac", header="X-Hub-Signature-256", prefix="sha256="),
        id=(),
        type=("json:/object",),
        key=("json:/entry/0/id",),
        source="Meta for developers: Webhooks, Validate payloads",
        url_checks=("hub-challenge",),
    ),
    "typeform": Preset(
        scheme=HmacSpec(scheme="hmac", header="Typeform-Signature", prefix="sha256=", encoding="base64"),
        id=("json:/event_id",),
        type=("json:/event_type",),
        key=("json:/form_response/form_id",),
        source="Typeform developer documentation: Secure your webhooks",
    ),
    "sentry": Preset(
        scheme=HmacSpec(scheme="hmac", header="Sentry-Hook-Signature"),
        id=("header:Request-ID",),
        type=("header:Sentry-Hook-Resource",),
        key=("json:/data/issue/id", "json:/installation/uuid"),
        source="Sentry documentation: Integration platform, Webhooks",
    ),
    "bitbucket": Preset(
        scheme=HmacSpec(scheme="hmac", header="X-Hub-Signature", prefix="sha256="),
        id=("header:X-Request-UUID", "header:X-Request-Id"),
        type=("header:X-Event-Key",),
        key=("json:/repository/uuid", "json:/repository/id"),
        source="Bitbucket Cloud documentation: Manage webhooks; Event payloads",
    ),
    "intercom": Preset(
        scheme=HmacSpec(scheme="hmac", header="X-Hub-Signature", prefix="sha1=", hash="sha1"),
        id=("json:/id",),
        type=("json:/topic",),
        key=("json:/data/item/id",),
        source="Intercom developer documentation: Webhooks, Signed notifications",
    ),
    "box": Preset(
        scheme=HmacSpec(
            scheme="hmac",
            header="BOX-SIGNATURE-PRIMARY",
            encoding="base64",
            signed=("body", "timestamp"),
            timestamp="header:BOX-DELIVERY-TIMESTAMP",
            timestamp_unit="iso8601",
            tolerance_seconds=600,
        ),
        id=("json:/id",),
        type=("json:/trigger",),
        key=("json:/source/id",),
        source="Box developer documentation: Webhooks, Signature verification",
    ),
    "dropbox": Preset(
        scheme=HmacSpec(scheme="hmac", header="X-Dropbox-Signature"),
        id=(),
        type=("text:event",),
        key=(),
        source="Dropbox developer documentation: Webhooks, Notification requests",
        url_checks=("challenge",),
    ),
    "notion": Preset(
        scheme=HmacSpec(scheme="hmac", header="X-Notion-Signature", prefix="sha256="),
        id=("json:/id",),
        type=("json:/type",),
        key=("json:/entity/id",),
        source="Notion developer documentation: Webhooks, Validate events",
    ),
    "woocommerce": Preset(
        scheme=HmacSpec(scheme="hmac", header="X-WC-Webhook-Signature", encoding="base64"),
        id=("header:X-WC-Webhook-Delivery-ID",),
        type=("header:X-WC-Webhook-Topic",),
        key=("json:/id",),
        source="WooCommerce documentation: Webhooks; REST API, Webhooks",
    ),
}
"""The presets by the word that selects them in the settings."""

WEAVR: Final = HmacSpec(
    scheme="hmac",
    header="signature-v2",
    encoding="base64",
    signed=("header?:call-ref", "body", "timestamp"),
    timestamp="header:published-timestamp",
    timestamp_unit="ms",
    tolerance_seconds=18_000.0,
)
"""How Weavr signs. Its retries may repeat the first timestamp for more than four hours."""

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
