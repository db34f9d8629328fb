"""Explanations: list each step of a verification, so that a person can find out why it fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final, Protocol, runtime_checkable

from pipeline.contracts import Headers
from pipeline.webhooks.verification.errors import Reason, SignatureRefused
from pipeline.webhooks.verification.protocols import Scheme

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

OnStep = Callable[[str, str], None]
"""Takes the name of a step that succeeded, and one line about it without secrets or signatures."""


def ignore_step(_step: str, _detail: str) -> None:
    """Do nothing: for verifications that need no explanation."""


@runtime_checkable
class StepwiseScheme(Protocol):
    """A scheme that reports the steps of its verification."""

    def verify_stepwise(self, headers: Headers, body: bytes, now: datetime, on_step: OnStep) -> str:
        """Do what ``Scheme.verify`` does, and call ``on_step`` after each step that succeeded."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a verification.

    Attributes:
        step: ``secrets``, ``header``, ``form``, ``timestamp``, ``signed`` or ``match``.
        ok: Whether it succeeded. The first step that fails is the last step.
        detail: One line for a person. It has no secret and no signature, neither received nor computed.
    """

    step: str
    ok: bool
    detail: str

    def document(self) -> dict[str, str | bool]:
        """Return the step as JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Explanation:
    """The steps and the result of a verification.

    Attributes:
        steps: The steps, in order.
        by: Id of the secret or key that verified the request, or None.
        reason: Why it was refused, or None.
    """

    steps: tuple[Step, ...]
    by: str | None = None
    reason: Reason | None = None


def explain(scheme: Scheme, headers: Headers, body: bytes, now: datetime) -> Explanation:
    """Verify a request as ``scheme.verify`` does, and return the steps and the result.

    It raises for no request: a refusal is part of the result. For a scheme that reports no steps, it returns the
    result alone.
    """
    steps: list[Step] = []

    def on_step(step: str, detail: str) -> None:
        steps.append(Step(step, ok=True, detail=detail))

    try:
        if isinstance(scheme, StepwiseScheme):
            by = scheme.verify_stepwise(headers, body, now, on_step)
        else:
            by = scheme.verify(headers, body, now)
            on_step("match", f"verified by {by}")
    except SignatureRefused as refused:
        last = Step(_STEPS.get(refused.reason, "match"), ok=False, detail=refused.message)
        return Explanation((*steps, last), reason=refused.reason)
    return Explanation(tuple(steps), by=by)
