"""What may lose events, or prove less than it seems, in the settings of sources of webhooks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from pipeline.contracts.weavr import KINDS
from pipeline.settings.model import Settings
from pipeline.settings.weavr import WeavrIntegration
from pipeline.settings.webhooks import WebhookSource
from pipeline.webhooks.sources.settings import WEAVR_RETRIES_SECONDS, HmacOptions
from pipeline.webhooks.verification import PublicKeySettings, SecretSettings, is_active

_PROVES_LITTLE = "the signature proves nothing about the body, so whoever sees one request can send any body"


def source_warnings(settings: Settings, now: datetime) -> Iterator[str]:
    """Yield one line for each; ``now`` (aware) says which keys count."""
    for table, keys in _keys(settings):
        if not any(is_active(key, now) for key in keys):
            yield (
                f"{table}: no secret counts at this time, so every webhook is answered 503; add the one that counts "
                "now, or mend not_before and not_after"
            )
    for name, integration in settings.weavr.items():
        for warning in _weavr(integration):
            yield f"weavr.{name}.{warning}"
    for name, source in settings.webhooks.items():
        for warning in _configured(source):
            yield f"webhooks.{name}.{warning}"


def _weavr(integration: WeavrIntegration) -> Iterator[str]:
    if integration.tolerance_seconds < WEAVR_RETRIES_SECONDS:
        yield (
            f"tolerance_seconds: {integration.tolerance_seconds:g} is shorter than Weavr's retries "
            f"({WEAVR_RETRIES_SECONDS} s), which may keep their first timestamp, so events that waited are lost; write "
            "e.g. tolerance_seconds = 18000"
        )
    if integration.legacy_signature:
        yield f"legacy_signature: {_PROVES_LITTLE}; set it to false as soon as Weavr sends signature-v2"
    if integration.unverified_status != 503:  # noqa: PLR2004 - the status
        yield (
            f"unverified_status: Weavr never repeats after {integration.unverified_status}, so every event is lost "
            "from when its key changes (with its oldest API client) until you know; write unverified_status = 503"
        )
    if integration.missing_call_ref == "refuse":
        yield "missing_call_ref: call-ref is optional for Weavr, and an event that is refused for it is lost"
    for one in integration.unsigned_paths:
        if not one.require_path_secret and any(network.prefixlen == 0 for network in one.source_addresses):
            yield f"unsigned_paths: {one.path} is open to every address, so anybody can write events; name Weavr's"
    named = {one.path for one in integration.unsigned_paths}
    for path in (kind.path for kind in KINDS if not kind.signed and kind.path not in named):
        yield (
            f"unsigned_paths: does not name {path}, which Weavr does not sign: its events are answered 503, and lost "
            "after 4 h; name it with what protects it, or do not subscribe to it at Weavr"
        )


def _keys(settings: Settings) -> Iterator[tuple[str, tuple[SecretSettings | PublicKeySettings, ...]]]:
    for name, ecs in settings.ecs.items():
        yield f"ecs.{name}.webhook.secrets", (*ecs.webhook.secrets, *getattr(ecs.webhook, "public_keys", ()))
    for name, weavr in settings.weavr.items():
        yield f"weavr.{name}.secrets", weavr.secrets
    for name, source in settings.webhooks.items():
        public = getattr(source.opened()[1], "public_keys", ())
        yield (
            f"webhooks.{name}.secrets",
            (*source.secrets, *(one for one in public if isinstance(one, PublicKeySettings))),
        )


def _configured(source: WebhookSource) -> Iterator[str]:
    options = source.opened()[1]
    if isinstance(options, HmacOptions) and options.body_unsigned:
        yield f"options.body_unsigned: {_PROVES_LITTLE}"
