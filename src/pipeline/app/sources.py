"""From settings to the webhooks that the ingress serves, and that commands look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Final

from pydantic import BaseModel

from pipeline.contracts import Topic, TopicName
from pipeline.settings import EcsIntegration, Settings, WeavrIntegration, WebhookSource
from pipeline.webhooks.sources import Delivery, Ecs, Identified, Provider, ProviderKind, Verified, Verifier, Weavr
from pipeline.webhooks.verification import Reason, SignatureRefused
from pipeline.webhooks.webhook import Source


class _Unable:
    """The verifier of whoever has no secrets: refuses everything."""

    stored_headers: Final = frozenset[str]()

    def verify(self, _delivery: Delivery, _now: datetime) -> Verified:
        """See Verifier."""
        raise SignatureRefused(Reason.NO_ACTIVE_SECRET, "The secrets of this source were not read")


_UNABLE: Final = _Unable()


class _Governed:
    """A provider under the settings of its table: they say topic and statuses, the provider says the rest."""

    def __init__(self, provider: Provider, settings: WebhookSource) -> None:
        self._provider = provider
        self._topic: TopicName = settings.events_topic or Topic.BATCH_REQUESTED
        self._quarantine = Topic.WEBHOOK_QUARANTINE if settings.events_topic else Topic.BATCH_QUARANTINE
        self.policy: Final = replace(
            provider.policy,
            success=settings.success_status,
            unverified=settings.unverified_status,
            audit_accepted=settings.audit_accepted,
        )

    def identify(self, delivery: Delivery) -> Identified:
        """See Provider."""
        found = self._provider.identify(delivery)
        return found if found.topic == self._topic else replace(found, topic=self._topic)

    def quarantine(self, _delivery: Delivery) -> TopicName:
        """See Provider. It is where the commands look for what came in by such a table."""
        return self._quarantine


_Opening = Callable[[Callable[[], Verifier]], Verifier]


def open_sources(settings: Settings, *, secrets: bool = True) -> list[Source]:
    """Return all configured webhooks, in the order of the settings.

    Args:
        settings: As loaded.
        secrets: Whether to read the webhooks' secret files; without them nothing is verified, for commands that only
            ask what a delivery is.

    Raises:
        ConfigError: A provider is not installed, or refuses its options.
        FatalError: A secret cannot be used as the source's scheme needs it.
        SecretUnreadable: A file went away since the settings were loaded.
    """

    def verifier(make: Callable[[], Verifier]) -> Verifier:
        return make() if secrets else _UNABLE

    return [
        *(_source("ecs", Ecs(), one, one, verifier) for one in settings.ecs.values()),
        *(_source("weavr", Weavr(), one, one, verifier) for one in settings.weavr.values()),
        *(_configured(one, verifier) for one in settings.webhooks.values()),
    ]


def _source(
    kind: str,
    provider: ProviderKind,
    settings: EcsIntegration | WeavrIntegration | WebhookSource,
    options: BaseModel,
    verifier: _Opening,
) -> Source:
    name = settings.name
    return Source(
        integration=name,
        kind=kind,
        path=settings.webhook_path,
        verifier=verifier(lambda: provider.verifier(name, options, settings.webhook_secrets())),
        provider=provider.provider(name, options),
    )


def _configured(settings: WebhookSource, verifier: _Opening) -> Source:
    kind, options = settings.opened()
    source = _source(settings.kind_name, kind, settings, options, verifier)
    return replace(source, provider=_Governed(source.provider, settings))
