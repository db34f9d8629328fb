"""Stored events verified again, from their raw value and the headers that were kept with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import JsonValue

from pipeline.cli.event_view import place
from pipeline.cli.source_view import Configured
from pipeline.contracts import INTEGRATION_HEADER, PATH_HEADER, Record, first_values
from pipeline.webhooks.sources import WebhookRequest
from pipeline.webhooks.sources.weavr import LEGACY_SIGNATURE, SIGNATURE
from pipeline.webhooks.verification import Reason, SignatureRefused

_MOST_FAILURES: Final = 1000


class Verdict(StrEnum):
    """What verifying a record again has shown."""

    VERIFIED = "verified"
    FAILED = "failed"
    """Value or headers are not what was signed, or the key was taken out of the settings."""
    UNSIGNED_PATH = "unsigned_path"
    """Its sender does not sign what it sends there; something else protected it."""
    BODY_UNSIGNED = "body_unsigned"
    """A signature that says nothing about the value."""
    SHARED_SECRET = "shared_secret"  # noqa: S105 - a verdict, no secret
    """A header proved it that is a secret itself, and therefore is not kept."""
    SOURCE_UNKNOWN = "source_unknown"
    """No source of the settings has its path; or it came by no webhook."""
    KEY_RETIRED = "key_retired"
    """No key of the settings counted when it was received."""


NOT_VERIFIABLE: Final = tuple(one for one in Verdict if one not in (Verdict.VERIFIED, Verdict.FAILED))


class Prover:
    """Verifies records again. Pure.

    Args:
        sources: The webhooks as configured now, with their secrets.
    """

    def __init__(self, sources: Sequence[Configured]) -> None:
        self._by_path = {one.webhook.path: one for one in sources}

    def prove(self, record: Record) -> tuple[Verdict, str]:
        """Return the verdict, and the exact reason where it failed.

        Freshness and the dates of keys are judged as they were when the record was received.
        """
        headers = first_values(record.headers)
        one = self._by_path.get(headers.get("ce_source", ""))
        if one is None or headers.get(INTEGRATION_HEADER) != one.webhook.integration:
            return Verdict.SOURCE_UNKNOWN, ""
        verifier = one.webhook.verifier
        kept = tuple((name, value) for name, value in record.headers if name in verifier.stored_headers)
        request = WebhookRequest(headers.get(PATH_HEADER, ""), kept, record.value)
        if (doubt := _doubt(one, request)) is not None:
            return doubt, ""
        try:
            verifier.verify(request, datetime.fromisoformat(headers.get("ce_time", "")))
        except SignatureRefused as refused:
            retired = refused.reason is Reason.NO_ACTIVE_SECRET
            return (Verdict.KEY_RETIRED, "") if retired else (Verdict.FAILED, refused.reason.value)
        except (ValueError, TypeError):
            return Verdict.FAILED, "ce_time"  # malformed, or without a zone
        return Verdict.VERIFIED, ""


def _doubt(one: Configured, request: WebhookRequest) -> Verdict | None:
    """Return why nothing that is kept can prove a request, if so."""
    explained = getattr(one.webhook.verifier, "scheme_for", None)
    if explained is None:
        return None
    scheme = explained(request)
    if scheme is None:
        return Verdict.UNSIGNED_PATH
    if not scheme.stored_headers:
        return Verdict.SHARED_SECRET
    return Verdict.BODY_UNSIGNED if one.body_unsigned or _is_legacy(one, request) else None


def _is_legacy(one: Configured, request: WebhookRequest) -> bool:
    names = {name for name, _ in request.headers}
    return one.webhook.kind == "weavr" and LEGACY_SIGNATURE in names and SIGNATURE not in names


@dataclass
class Report:
    """What was found.

    Attributes:
        counts: By verdict.
        failures: Where records stand that failed, the first thousand of them.
    """

    counts: Counter[Verdict] = field(default_factory=Counter)
    failures: list[Mapping[str, JsonValue]] = field(default_factory=list)

    def add(self, record: Record, verdict: Verdict, reason: str) -> None:
        """Count one record."""
        self.counts[verdict] += 1
        if verdict is Verdict.FAILED and len(self.failures) < _MOST_FAILURES:
            self.failures.append({**place(record), "reason": reason})

    @property
    def ok(self) -> bool:
        """Whether none failed."""
        return not self.counts[Verdict.FAILED]

    @property
    def checked(self) -> int:
        """How many records were looked at."""
        return self.counts.total()

    def document(self) -> dict[str, JsonValue]:
        """Return it as JSON."""
        return {
            "ok": self.ok,
            "checked": self.checked,
            "verified": self.counts[Verdict.VERIFIED],
            "failed": self.counts[Verdict.FAILED],
            "not_verifiable": {one.value: self.counts[one] for one in NOT_VERIFIABLE},
            "failures": [dict(one) for one in self.failures],
        }
