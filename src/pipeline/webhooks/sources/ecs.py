"""eCard Systems: card batch jobs (its page "Card Batch Jobs: Webhook Flow")."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from pydantic import ValidationError

from pipeline.contracts import BatchRequested, Topic, event_id, job_key, schema_uri
from pipeline.contracts.strict_json import Finding, InvalidBody, parse_object
from pipeline.outbound import FIELDS, AddressRefused, HostRules, Purpose, check_url
from pipeline.webhooks.sources.findings import findings_of
from pipeline.webhooks.sources.protocols import Identified, Policy, SchemeVerifier, SuccessStatus, WebhookRequest
from pipeline.webhooks.sources.settings import EcsOptions
from pipeline.webhooks.verification import Secret, scheme_of

ISO: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}.*")
"""The form of a time. Without it, pydantic would read a number in quotes as a Unix time of unknown unit."""

_ISO_REMEDY: Final = "Send an ISO 8601 time with a zone, such as 2026-01-22T22:43:59.295Z"

URL_REMEDIES: Final = {
    "url_malformed": "Send an absolute URL, percent-encoded where needed: https://host/path",
    "url_scheme": "Send a URL that begins with https://",
    "url_userinfo": "Send the URL without user or password before the host",
    "url_fragment": "Send the URL without a fragment (#...)",
    "url_host": "Send a URL with a host name or a canonical IP address",
    "url_port": "Send a URL with a port between 1 and 65535, or none",
    "url_http_not_allowed": "Send a URL that begins with https://",
    "host_not_allowed": "Send a URL with a host that was agreed on, or have the receiver allow this one",
    "address_not_allowed": "Send a URL with a public host",
}


class EcsSource:
    """Identifies announcements of card batch jobs; see :class:`~pipeline.webhooks.sources.protocols.Source`.

    It accepts unknown fields, because the webhook is in beta and the record's value is the body as received anyway. It
    also accepts an ``expires_at`` in the past: such a job ends in its recorded outcome or in a failure callback.

    Args:
        integration: Name of the integration.
        hosts: Allowed hosts of its URLs.
        success: HTTP status for a stored announcement.
    """

    def __init__(self, integration: str, hosts: HostRules, success: SuccessStatus = 202) -> None:
        self._integration = integration
        self._hosts = hosts
        self.policy: Final = Policy(success)

    def quarantine(self, _request: WebhookRequest) -> Topic:
        """See Source."""
        return Topic.BATCH_QUARANTINE

    def identify(self, request: WebhookRequest) -> Identified:
        """See Source."""
        job = self.announcement(request.body)
        key = job_key(self._integration, job.job_guid)
        return Identified(
            topic=Topic.BATCH_REQUESTED,
            key=key,
            id=event_id(self._integration, str(job.job_guid), request.body),
            type=Topic.BATCH_REQUESTED.value,
            subject=str(job.job_guid),
            dataschema=schema_uri(Topic.BATCH_REQUESTED),
            job_guid=job.job_guid,
            expires_at=job.expires_at,
            facts={
                "merchant_guid": str(job.merchant_guid),
                "record_count": job.record_count,
                "expires_at": job.expires_at.isoformat(),
            },
        )

    def announcement(self, body: bytes) -> BatchRequested:
        """Return the validated announcement.

        Raises:
            InvalidBody: The body breaks rules. It lists each broken rule of each field once.
        """
        data = parse_object(body)
        findings: list[Finding] = []
        job: BatchRequested | None = None
        try:
            job = BatchRequested.model_validate(data)
        except ValidationError as error:
            findings = findings_of(error)
        found = {finding.field for finding in findings}
        findings += [finding for finding in self._beyond_the_model(data) if finding.field not in found]
        if job is None or findings:
            raise InvalidBody(findings)
        return job

    def _beyond_the_model(self, data: dict[str, Any]) -> Iterator[Finding]:
        expires_at = data.get("expires_at")
        if isinstance(expires_at, str) and not ISO.fullmatch(expires_at):
            yield Finding("expires_at", "timestamp", _ISO_REMEDY)
        for purpose, field in FIELDS.items():
            url = data.get(field)
            if isinstance(url, str):
                yield from self._url_findings(field, url, purpose)

    def _url_findings(self, field: str, url: str, purpose: Purpose) -> Iterator[Finding]:
        try:
            check_url(url, self._hosts, purpose)
        except AddressRefused as error:
            # the error's text contains the host and our settings, which the sender must not see
            yield Finding(field, error.code, URL_REMEDIES.get(error.code, "Send another URL"))


class Ecs:
    """The entry point."""

    Options = EcsOptions

    def source(self, name: str, options: EcsOptions) -> EcsSource:
        """See SourceKind."""
        return EcsSource(name, options.hosts, options.success_status)

    def verifier(self, _name: str, options: EcsOptions, secrets: Sequence[Secret]) -> SchemeVerifier:
        """See SourceKind."""
        return SchemeVerifier(scheme_of(options.webhook, secrets))
