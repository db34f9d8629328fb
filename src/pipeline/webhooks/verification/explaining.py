"""Saying step by step how a verification went."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from pipeline.contracts import Headers
from pipeline.webhooks.verification.errors import Reason, SignatureRefused
from pipeline.webhooks.verification.protocols import Scheme
from pipeline.webhooks.verification.trail import Followed

_STEPS: Final = {
    Reason.NO_ACTIVE_SECRET: "secrets",
    Reason.HEADER_MISSING: "header",
    Reason.HEADER_REPEATED: "header",
    Reason.PREFIX_MISSING: "header",
    Reason.ID_MALFORMED: "header",
    Reason.SIGNATURE_MISSING: "form",
    Reason.SIGNATURE_MALFORMED: "form",
    Reason.TIMESTAMP_MISSING: "timestamp",
    Reason.TIMESTAMP_REPEATED: "timestamp",
    Reason.TIMESTAMP_MALFORMED: "timestamp",
    Reason.TIMESTAMP_TOO_OLD: "timestamp",
    Reason.TIMESTAMP_IN_FUTURE: "timestamp",
    Reason.NOT_VERIFIED: "match",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a verification.

    Attributes:
        step: ``secrets``, ``header``, ``form``, ``timestamp``, ``signed`` or ``match``.
        ok: Whether it went well; the first that did not is the last.
        detail: One line for a person. Holds no secret, no signature, neither received nor computed.
    """

    step: str
    ok: bool
    detail: str

    def document(self) -> dict[str, str | bool]:
        """Return the step as it stands in JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a verification went.

    Attributes:
        steps: In order.
        by: Id of the secret or key that verified the request, or None.
        reason: Why it was refused, or None.
    """

    steps: tuple[Step, ...]
    by: str | None = None
    reason: Reason | None = None


def explain(scheme: Scheme, headers: Headers, body: bytes, now: datetime) -> Explanation:
    """Verify a request as ``scheme.verify`` does, and say how each step went. Never raises for what was received.

    A scheme that is not one of this room's own says only how it ended.
    """
    steps: list[Step] = []

    def note(step: str, detail: str) -> None:
        steps.append(Step(step, ok=True, detail=detail))

    try:
        if isinstance(scheme, Followed):
            by = scheme.follow(headers, body, now, note)
        else:
            by = scheme.verify(headers, body, now)
            note("match", f"verified by {by}")
    except SignatureRefused as refused:
        last = Step(_STEPS.get(refused.reason, "match"), ok=False, detail=refused.message)
        return Explanation((*steps, last), reason=refused.reason)
    return Explanation(tuple(steps), by=by)
