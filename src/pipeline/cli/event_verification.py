"""Verifies stored events again, from their raw value and stored headers."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import JsonValue

from pipeline.cli.event_view import position
from pipeline.cli.source_view import Configured
from pipeline.contracts import ENCODING_HEADER, INTEGRATION_HEADER, PATH_HEADER, Record
from pipeline.contracts.strict_json import InvalidBody
from pipeline.webhooks.sources import Explainable, WebhookRequest
from pipeline.webhooks.sources.weavr import LEGACY_SIGNATURE, SIGNATURE
from pipeline.webhooks.verification import Reason, SignatureRefused

_MOST_FAILURES: Final = 1000
_READ_BY: Final = frozenset({"content-type", ENCODING_HEADER})
"""Headers that say how to read the body, which may hold the time of signing."""


class Result(StrEnum):
    """The result of verifying a record again."""

    VERIFIED = "verified"
    FAILED = "failed"
    """The value or the headers differ from what the sender signed, or the settings no longer have the key."""
    UNSIGNED_PATH = "unsigned_path"
    """The sender does not sign requests to this path; another protection authenticated it."""
    BODY_UNSIGNED = "body_unsigned"
    """The signature does not cover the value."""
    SHARED_SECRET = "shared_secret"  # noqa: S105 - a result, no secret
    """A secret header authenticated the request. The pipeline never stores that header."""
    SOURCE_UNKNOWN = "source_unknown"
    """No configured source has its path, or the record did not come from a webhook."""
    KEY_RETIRED = "key_retired"
    """No configured key was active when the webhook arrived."""


NOT_VERIFIABLE: Final = tuple(one for one in Result if one not in (Result.VERIFIED, Result.FAILED))


class EventVerifier:
    """Verifies records again. It does no input or output.

    Args:
        sources: The configured webhooks, with their secrets.
    """

    def __init__(self, sources: Sequence[Configured]) -> None:
        self._by_path = {one.webhook.path: _Source(one) for one in sources}

    def verify(self, record: Record) -> tuple[Result, str]:
        """Return the result, and for a failure its reason.

        The age of the signature and the dates of keys are checked as of the time of receipt.
        """
        source = self._by_path.get(record.text("ce_source"))
        if source is None or record.text(INTEGRATION_HEADER) != source.integration:
            return Result.SOURCE_UNKNOWN, ""
        return (Result.VERIFIED, "") if source.verifies_at_once(record) else source.verify(record)


class _Source:
    """One webhook, prepared for many records."""

    def __init__(self, configured: Configured) -> None:
        webhook = configured.webhook
        self.integration: Final = webhook.integration
        self._verifier = webhook.verifier
        self._kept = webhook.verifier.stored_headers | _READ_BY
        self._explains = webhook.verifier if isinstance(webhook.verifier, Explainable) else None
        self._body_unsigned = configured.body_unsigned
        self._may_be_legacy = webhook.kind == "weavr"
        self._quick = webhook.hot.signature if webhook.hot is not None and not configured.body_unsigned else None
        self._signed = [(name, name.encode()) for name in webhook.verifier.stored_headers]

    def verifies_at_once(self, record: Record) -> bool:
        """Return whether an ordinary record is verified; of any other nothing is known yet."""
        named = record.named
        if self._quick is None or ENCODING_HEADER in named or len(named) < len(record.headers):
            return False
        head = {wire: named[name] for name, wire in self._signed if name in named}
        try:
            at = datetime.fromisoformat(record.text("ce_time"))
            return self._quick.verify(head, record.value, at) is not None
        except (ValueError, TypeError):
            return False

    def verify(self, record: Record) -> tuple[Result, str]:
        """Return the result, and for a failure its reason."""
        kept = tuple([header for header in record.headers if header[0] in self._kept])
        request = WebhookRequest(record.text(PATH_HEADER), kept, record.value, encoding=record.text(ENCODING_HEADER))
        if (why := self._not_verifiable(request)) is not None:
            return why, ""
        try:
            self._verifier.verify(request, datetime.fromisoformat(record.text("ce_time")))
        except SignatureRefused as refused:
            retired = refused.reason is Reason.NO_ACTIVE_SECRET
            return (Result.KEY_RETIRED, "") if retired else (Result.FAILED, refused.reason.value)
        except InvalidBody as unreadable:
            return Result.FAILED, unreadable.findings[0].rule
        except (ValueError, TypeError):
            return Result.FAILED, "ce_time"  # malformed, or without a zone
        return Result.VERIFIED, ""

    def _not_verifiable(self, request: WebhookRequest) -> Result | None:
        """Return why the stored headers cannot prove that a request is authentic, or None if they can."""
        if self._explains is None:
            return None
        scheme = self._explains.scheme_for(request)
        if scheme is None:
            return Result.UNSIGNED_PATH
        if not scheme.stored_headers:
            return Result.SHARED_SECRET
        return Result.BODY_UNSIGNED if self._body_unsigned or self._is_legacy(request) else None

    def _is_legacy(self, request: WebhookRequest) -> bool:
        names = {name for name, _ in request.headers}
        return self._may_be_legacy and LEGACY_SIGNATURE in names and SIGNATURE not in names


@dataclass
class Report:
    """The results of many records.

    Attributes:
        counts: Number of records, by result.
        failures: Positions of the first thousand records that failed.
        checked: Number of checked records.
    """

    counts: Counter[Result] = field(default_factory=Counter)
    failures: list[Mapping[str, JsonValue]] = field(default_factory=list)
    checked: int = 0

    def add(self, record: Record, result: Result, reason: str) -> None:
        """Count a record, and keep its position if it failed."""
        self.counts[result] += 1
        self.checked += 1
        if result is Result.FAILED and len(self.failures) < _MOST_FAILURES:
            self.failures.append({**position(record), "reason": reason})

    @property
    def ok(self) -> bool:
        """Whether none failed."""
        return not self.counts[Result.FAILED]

    def document(self) -> dict[str, JsonValue]:
        """Return the report as JSON."""
        return {
            "ok": self.ok,
            "checked": self.checked,
            "verified": self.counts[Result.VERIFIED],
            "failed": self.counts[Result.FAILED],
            "not_verifiable": {one.value: self.counts[one] for one in NOT_VERIFIABLE},
            "failures": [dict(one) for one in self.failures],
        }


async def verify_all(
    records: AsyncGenerator[Record, None], verifier: EventVerifier, count: int | None = None
) -> Report:
    """Verify at most ``count`` records, one after another, and return the results. Memory does not grow with them."""
    report = Report()
    async with aclosing(records):
        async for record in records:
            report.add(record, *verifier.verify(record))
            if report.checked == count:
                break
    return report
