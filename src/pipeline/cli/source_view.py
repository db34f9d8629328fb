"""The configured webhooks, each with its settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import JsonValue

from pipeline.app.sources import open_webhooks
from pipeline.cli.job_view import NotFound
from pipeline.contracts import Topic
from pipeline.contracts.weavr import KINDS
from pipeline.settings import EcsIntegration, Settings, WeavrIntegration, WebhookIntegration
from pipeline.webhooks.verification import PublicKeySettings, SecretSettings, is_active
from pipeline.webhooks.webhook import Webhook

Key = SecretSettings | PublicKeySettings
Table = EcsIntegration | WeavrIntegration | WebhookIntegration

SEGMENT: Final = "{secret}"
"""Replaces the secret segment of a path in output."""


@dataclass(frozen=True, slots=True)
class Configured:
    """One configured webhook.

    Attributes:
        table: Name of its table in the settings, such as ``weavr.acme``.
        settings: The contents of that table.
        webhook: The webhook that the ingress serves for it.
        scheme: The name of its verification scheme in the settings.
        body_unsigned: Whether the signature does not cover the body.
        keys: Secrets and public keys, in the order in which they are tried.
    """

    table: str
    settings: Table
    webhook: Webhook
    scheme: str
    body_unsigned: bool
    keys: tuple[Key, ...]

    @property
    def path(self) -> str:
        """The webhook's path, without its secret segment."""
        hidden = isinstance(self.settings, WeavrIntegration) and self.settings.path_secret is not None
        return f"{self.webhook.path}/{SEGMENT}" if hidden else self.webhook.path

    @property
    def preset(self) -> str | None:
        """The preset in its settings, or None."""
        return self.settings.preset if isinstance(self.settings, WebhookIntegration) else None

    @property
    def topics(self) -> list[str]:
        """The topics of its events."""
        if isinstance(self.settings, EcsIntegration):
            return [Topic.BATCH_REQUESTED]
        if isinstance(self.settings, WeavrIntegration):
            return list(dict.fromkeys(kind.topic for kind in KINDS))
        return [self.settings.events_topic or Topic.BATCH_REQUESTED]

    def document(self, now: datetime) -> dict[str, JsonValue]:
        """Return the webhook as JSON. Reads no secret."""
        policy = self.webhook.policy
        return {
            "name": self.webhook.integration,
            "table": self.table,
            "kind": self.webhook.kind,
            "preset": self.preset,
            "path": self.path,
            "scheme": self.scheme,
            "keys": [_key(one, now) for one in self.keys],
            "topics": [*self.topics],
            "success_status": policy.success,
            "unverified_status": policy.unverified,
            "invalid": policy.invalid,
            "url_checks": [*self.webhook.url_checks.names],
            "audit_accepted": policy.audit_accepted,
        }


def configured(settings: Settings, *, secrets: bool = False) -> list[Configured]:
    """Return all webhooks, in the order of the settings.

    Args:
        settings: As loaded.
        secrets: Whether to read the secrets; verification needs them.

    Raises:
        ConfigError: A kind of source is not installed, or refuses its options.
    """
    tables = _tables(settings)
    return [
        Configured(table, one, webhook, *_scheme(one))
        for (table, one), webhook in zip(tables, open_webhooks(settings, secrets=secrets), strict=True)
    ]


def find_source(sources: Sequence[Configured], name: str) -> Configured:
    """Return the webhook with this name, or with this table name where several share a name.

    Raises:
        NotFound: No webhook, or several, have the name.
    """
    found = [one for one in sources if name in (one.table, one.webhook.integration)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(one.table for one in found or sources)
    why = (
        f"several sources have the name {name!r}: give one of" if found else f"there is no source {name!r}; configured:"
    )
    raise NotFound("source_unknown", f"{why} {names or 'none'}")


def _tables(settings: Settings) -> Iterator[tuple[str, Table]]:
    for kind, tables in (("ecs", settings.ecs), ("weavr", settings.weavr), ("webhooks", settings.webhooks)):
        for name, one in tables.items():
            yield f"{kind}.{name}", one


def _scheme(table: Table) -> tuple[str, bool, tuple[Key, ...]]:
    if isinstance(table, WeavrIntegration):
        return "signature-v2" + (", signature" if table.legacy_signature else ""), False, table.secrets
    if isinstance(table, EcsIntegration):
        scheme: Any = table.webhook
        return scheme.scheme, bool(getattr(scheme, "body_unsigned", False)), _keys(scheme.secrets, scheme)
    _, options = table.kind_with_options()
    name = getattr(options, "scheme", table.kind_name)
    return name, bool(getattr(options, "body_unsigned", False)), _keys(table.secrets, options)


def _keys(secrets: tuple[SecretSettings, ...], options: object) -> tuple[Key, ...]:
    public = getattr(options, "public_keys", ())
    return (*secrets, *(one for one in public if isinstance(one, PublicKeySettings)))


def _key(key: Key, now: datetime) -> dict[str, JsonValue]:
    return {
        "id": key.name,
        "kind": "secret" if isinstance(key, SecretSettings) else "public key",
        "not_before": key.not_before.isoformat() if key.not_before else None,
        "not_after": key.not_after.isoformat() if key.not_after else None,
        "active": is_active(key, now),
    }
