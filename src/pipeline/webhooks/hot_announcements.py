"""The hot path for ECS's announcements: turns an ordinary announcement into its record. Read it from top to bottom.

The reference is :class:`~pipeline.webhooks.sources.ecs.EcsSource` with its verifier and the bound on ``expires_at``.
For an announcement that this module handles, the reference has the same outcome. It leaves all others to the reference.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from pydantic import ValidationError

from pipeline.contracts import (
    CLIENT_HEADER,
    FACTS_HEADER,
    INTEGRATION_HEADER,
    VERIFIED_BY_HEADER,
    BatchRequested,
    OutgoingRecord,
    Topic,
    event_id,
    schema_uri,
)
from pipeline.contracts.strict_json import InvalidBody, parse_object
from pipeline.outbound import FIELDS, AddressRefused, HostRules, Purpose, check_url
from pipeline.webhooks.answers import Problem
from pipeline.webhooks.http_request import check_media_type
from pipeline.webhooks.sources.ecs import ISO
from pipeline.webhooks.verification import QuickHmac
from pipeline.webhooks.webhook import Ordinary

_URL: Final = re.compile(r"(https?://[^/?#@\\\x00-\x20]{1,300})(?:[/?][!-\"$-\[\]-~]*)?")
"""Scheme and authority of a URL, followed by a path and a query of allowed characters."""
BatchRequested.model_rebuild()
_VALIDATOR: Final = BatchRequested.__pydantic_validator__


class HotAnnouncements:
    """Reads ordinary announcements of one integration; see :class:`~pipeline.webhooks.webhook.HotReader`.

    Args:
        integration: Name of the integration.
        path: Path of its webhook.
        signature: Verifies its requests.
        stored_headers: Lower-case names of the headers to store with the record.
        hosts: Allowed hosts of its URLs.
        ahead: Maximum time until a job expires.
    """

    audited_topic: Final = Topic.BATCH_REQUESTED

    def __init__(
        self,
        integration: str,
        path: str,
        *,
        signature: QuickHmac,
        stored_headers: frozenset[str],
        hosts: HostRules,
        ahead: timedelta,
    ) -> None:
        self._integration = integration
        self.signature: Final = signature
        self._stored = {name.encode(): name for name in stored_headers}
        self._ahead = ahead
        self._source_and_type = (("ce_source", path.encode()), ("ce_type", Topic.BATCH_REQUESTED.value.encode()))
        self._dataschema = ("ce_dataschema", schema_uri(Topic.BATCH_REQUESTED).encode())
        self._named = (INTEGRATION_HEADER, integration.encode())
        # leaves the plain way: senders write the same few content types, and name the same few hosts
        self._json = lru_cache(maxsize=64)(_json_type)
        self._allowed = lru_cache(maxsize=1024)(lambda purpose, origin: _allowed(hosts, purpose, origin))
        self.paths: Final = frozenset({path})

    def read(
        self, _path: str, head: Mapping[bytes, bytes], body: bytes, at: datetime, *, client: str, traceparent: str
    ) -> Ordinary | None:
        """See HotReader."""
        content_type = head.get(b"content-type", b"")
        if not self._json(content_type):
            return None
        by = self.signature.verify(head, body, at)
        if by is None:
            return None
        try:
            data = parse_object(body)
            # leaves the plain way: the model's validator is called without the method around it
            job: BatchRequested = _VALIDATOR.validate_python(data)
        except (InvalidBody, ValidationError):
            return None
        if not ISO.fullmatch(data["expires_at"]) or job.expires_at > at + self._ahead or not self._urls_fit(data):
            return None

        guid = str(job.job_guid)
        key = f"{self._integration}/{guid}"
        identity = event_id(self._integration, guid, body)

        # leaves the plain way: the facts are ASCII without quotes, so that no JSON encoder is needed
        facts = (
            f'{{"merchant_guid":"{job.merchant_guid}","record_count":{job.record_count},'
            f'"expires_at":"{job.expires_at.isoformat()}"}}'
        )
        # leaves the plain way: most headers are encoded already; the order is that of EventHeaders.encode
        headers = (
            ("ce_specversion", b"1.0"),
            ("ce_id", identity.encode()),
            *self._source_and_type,
            ("ce_subject", guid.encode()),
            ("ce_time", at.isoformat().replace("+00:00", "Z").encode()),
            ("ce_partitionkey", key.encode()),
            ("content-type", content_type),
            self._dataschema,
            ("traceparent", traceparent.encode()),
            (CLIENT_HEADER, client.encode()),
            (VERIFIED_BY_HEADER, by.encode()),
            (FACTS_HEADER, facts.encode()),
            self._named,
            *[(self._stored[name], value) for name, value in head.items() if name in self._stored],
        )
        return Ordinary(OutgoingRecord(Topic.BATCH_REQUESTED, key, body, headers), identity, guid, by)

    def _urls_fit(self, data: Mapping[str, Any]) -> bool:
        """Return whether every URL is allowed.

        Leaves the plain way: path and query of a URL only need the right characters, and of a scheme with an authority
        the answer is known from the announcement before.
        """
        for purpose, field in FIELDS.items():
            found = _URL.fullmatch(data[field])
            if found is None or not self._allowed(purpose, found[1]):
                return False
        return True


def _json_type(value: bytes) -> bool:
    try:
        check_media_type((("content-type", value),))
    except Problem:
        return False
    return True


def _allowed(hosts: HostRules, purpose: Purpose, origin: str) -> bool:
    try:
        check_url(origin, hosts, purpose)
    except AddressRefused:
        return False
    return True
