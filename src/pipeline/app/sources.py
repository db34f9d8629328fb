"""Builds the webhooks of the ingress, and of commands, from the settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from pydantic import BaseModel, ValidationError

from pipeline.app.ports import PORTS
from pipeline.contracts import Topic, TopicName
from pipeline.settings import EcsIntegration, JobIntegration, Settings, WeavrIntegration, WebhookIntegration
from pipeline.webhooks.hot_announcements import HotAnnouncements
from pipeline.webhooks.hot_events import HotEvents
from pipeline.webhooks.sources import (
    Ecs,
    Finding,
    Identified,
    InvalidBody,
    Source,
    SourceKind,
    Verified,
    Verifier,
    Weavr,
    WebhookRequest,
)
from pipeline.webhooks.sources.findings import findings_of
from pipeline.webhooks.url_checks import UrlChecks
from pipeline.webhooks.verification import Reason, SignatureRefused, quick_hmac
from pipeline.webhooks.webhook import HotReader, Webhook


class _NoSecrets:
    """Verifier for webhooks whose secrets were not read. It refuses every request."""

    stored_headers: Final = frozenset[str]()

    def check_head(self, request: WebhookRequest, now: datetime) -> None:
        """See Verifier."""
        self.verify(request, now)

    def verify(self, _request: WebhookRequest, _now: datetime) -> Verified:
        """See Verifier."""
        raise SignatureRefused(Reason.NO_ACTIVE_SECRET, "The secrets of this source were not read")


_NO_SECRETS: Final = _NoSecrets()


class _ConfiguredInTable:
    """A source with topic and statuses from its table; the inner source decides the rest."""

    def __init__(self, source: Source, settings: WebhookIntegration) -> None:
        self._source = source
        self._topic: TopicName = settings.events_topic or Topic.BATCH_REQUESTED
        self._quarantine = Topic.WEBHOOK_QUARANTINE if settings.events_topic else Topic.BATCH_QUARANTINE
        self.policy: Final = replace(
            source.policy,
            success=settings.success_status,
            unverified=settings.unverified_status,
            audit_accepted=settings.audit_accepted,
        )

    def identify(self, request: WebhookRequest) -> Identified:
        """See Source."""
        found = self._source.identify(request)
        return found if found.topic == self._topic else replace(found, topic=self._topic)

    def quarantine(self, _request: WebhookRequest) -> TopicName:
        """See Source. The quarantine commands read this topic for every ``[webhooks.NAME]``."""
        return self._quarantine


class _AnnouncesJobs:
    """A source of job announcements. It refuses a job that expires too late."""

    def __init__(self, source: Source, jobs: JobIntegration, clock: Callable[[], datetime]) -> None:
        self._source = source
        self._jobs = jobs
        self._clock = clock
        self.policy: Final = source.policy

    def identify(self, request: WebhookRequest) -> Identified:
        """See Source.

        The limit on ``expires_at`` depends on the time, so a request that is refused now may be accepted later. A
        compressed announcement is refused, because stages read it as received.
        """
        if request.encoding:
            raise InvalidBody([Finding("", "content_encoding", "Send announcements without Content-Encoding")])
        found = self._source.identify(request)
        expires_at = found.expires_at or self._expiry(request, found)
        days = self._jobs.limits.max_expiry_days
        if expires_at > self._clock() + timedelta(days=days):
            name = self._jobs.partner.field_names.get("expires_at", "expires_at")
            finding = Finding(
                name, "too_late", f"Send a time at most {days:g} days ahead, or ask the receiver for a higher limit"
            )
            raise InvalidBody([finding], id=found.id)
        return found

    def _expiry(self, request: WebhookRequest, found: Identified) -> datetime:
        try:
            return self._jobs.partner.decode(request.body).expires_at
        except ValidationError as error:
            raise InvalidBody(findings_of(error), id=found.id) from None

    def quarantine(self, request: WebhookRequest) -> TopicName:
        """See Source."""
        return self._source.quarantine(request)


def open_webhooks(
    settings: Settings, *, secrets: bool = True, clock: Callable[[], datetime] = PORTS.now
) -> list[Webhook]:
    """Return all configured webhooks, in the order of the settings.

    Args:
        settings: As loaded.
        clock: UTC, aware; an announcement's expiry is compared with it.
        secrets: Whether to read the webhooks' secret files. Commands that only identify requests need no secrets; then
            nothing is verified.

    Raises:
        ConfigError: A source kind or a partner is not installed, or refuses its options.
        FatalError: A secret does not have the form that the source's scheme needs.
        SecretUnreadable: A file has disappeared since the settings were loaded.
    """

    def verifier(make: Callable[[], Verifier]) -> Verifier:
        return make() if secrets else _NO_SECRETS

    def bounded(webhook: Webhook, jobs: JobIntegration | None) -> Webhook:
        return replace(webhook, source=_AnnouncesJobs(webhook.source, jobs, clock)) if jobs else webhook

    def hot(webhook: Webhook, make: Callable[[Webhook], HotReader | None]) -> Webhook:
        return replace(webhook, hot=make(webhook)) if secrets else webhook

    return [
        *(
            hot(bounded(_webhook("ecs", Ecs(), one, one, verifier), one.jobs()), partial(_hot_announcements, one))
            for one in settings.ecs.values()
        ),
        *(
            hot(_webhook("weavr", Weavr(), one, one, verifier), partial(_hot_events, one))
            for one in settings.weavr.values()
        ),
        *(
            bounded(_configured(one, verifier, secrets=secrets), one.job_integration())
            for one in settings.webhooks.values()
        ),
    ]


def _hot_announcements(settings: EcsIntegration, webhook: Webhook) -> HotAnnouncements | None:
    signature = quick_hmac(settings.webhook, settings.webhook_secrets())
    if signature is None:
        return None
    return HotAnnouncements(
        webhook.integration,
        webhook.path,
        signature=signature,
        stored_headers=webhook.verifier.stored_headers,
        hosts=settings.hosts,
        ahead=timedelta(days=settings.jobs().limits.max_expiry_days),
    )


def _hot_events(settings: WeavrIntegration, webhook: Webhook) -> HotEvents:
    return HotEvents(webhook.integration, webhook.path, settings, settings.webhook_secrets())


def _webhook(
    kind_name: str,
    kind: SourceKind,
    settings: EcsIntegration | WeavrIntegration | WebhookIntegration,
    options: BaseModel,
    verifier: Callable[[Callable[[], Verifier]], Verifier],
) -> Webhook:
    name = settings.name
    return Webhook(
        integration=name,
        kind=kind_name,
        path=settings.webhook_path,
        verifier=verifier(lambda: kind.verifier(name, options, settings.webhook_secrets())),
        source=kind.source(name, options),
        requests_per_second=settings.requests_per_second,
    )


def _configured(
    settings: WebhookIntegration, verifier: Callable[[Callable[[], Verifier]], Verifier], *, secrets: bool
) -> Webhook:
    kind, options = settings.kind_with_options()
    webhook = _webhook(settings.kind_name, kind, settings, options, verifier)
    token = settings.url_check_token
    checks = UrlChecks(
        settings.url_checks_answered,
        token=token.get_secret_value().encode() if token else b"",
        secrets=settings.webhook_secrets() if secrets else (),
        requests_per_second=settings.requests_per_second,
    )
    return replace(webhook, source=_ConfiguredInTable(webhook.source, settings), url_checks=checks)
