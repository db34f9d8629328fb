"""One request tried on a source, without a server: is it authentic, what is it, and if not, why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import JsonValue

from pipeline.cli.source_view import Configured
from pipeline.contracts import Headers
from pipeline.contracts.strict_json import InvalidBody
from pipeline.webhooks.problems import Problem
from pipeline.webhooks.reading import check_head
from pipeline.webhooks.sources import Delivery, Identified, Verified
from pipeline.webhooks.sources.protocols import UNKNOWN_PATH
from pipeline.webhooks.verification import SignatureRefused, Step, explain


@dataclass(frozen=True, slots=True)
class Request:
    """A request at hand.

    Attributes:
        path: Behind the source's own; may hold a secret segment.
        headers: Names in lower case.
        client: Address of the sender, or ``-``.
        at: When it came: decides which secrets count, and how old it is.
    """

    path: str = field(repr=False)
    headers: Headers = field(repr=False)
    body: bytes = field(repr=False)
    client: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Trial:
    """How it went.

    Attributes:
        steps: In order; every one must be right for the ingress to take the request.
        verified: What proved it, or None.
        identified: What it is, or None.
        reason: Exact reason of a refusal, or None.
    """

    steps: tuple[Step, ...]
    verified: Verified | None
    identified: Identified | None
    reason: str | None

    @property
    def ok(self) -> bool:
        """Whether the ingress would take the request as an event."""
        return all(step.ok for step in self.steps)

    def document(self) -> dict[str, JsonValue]:
        """Return it as JSON: nothing of the body but what becomes type, key and id."""
        found = self.identified
        return {
            "verified": self.verified is not None,
            "by": self.verified.by if self.verified else None,
            "reason": self.reason,
            "event_type": found.type if found else None,
            "topic": found.topic if found else None,
            "key": found.key if found else None,
            "ce_id": found.id if found else None,
            "steps": [dict(step.document()) for step in self.steps],
        }


def try_request(one: Configured, request: Request) -> Trial:
    """Try a request on a source. Pure; never raises for what was received."""
    behind = _behind(one, request.path)
    steps = [_route(one, behind), _media_type(one, request.headers)]
    delivery = Delivery(behind, request.headers, request.body, request.client)
    verified, reason = _verified(one, delivery, request.at, steps)
    kept = tuple(header for header in request.headers if header[0] in one.source.verifier.stored_headers)
    paths = [verified.path] if verified else _possible(one, behind)
    found = _identified(one, [Delivery(path, kept, request.body, request.client) for path in paths], steps)
    return Trial(tuple(steps), verified, found, reason)


def _behind(one: Configured, path: str) -> str:
    """Return the path behind the source's own, whichever of them was given."""
    base = one.source.path
    return path.removeprefix(base) if path == base or path.startswith(base + "/") else path


def _route(one: Configured, behind: str) -> Step:
    if behind and not behind.startswith("/"):
        return Step("route", ok=False, detail="a path begins with /")
    if behind and not one.source.policy.below:
        return Step("route", ok=False, detail=f"nothing is received below {one.source.path}: 404")
    return Step("route", ok=True, detail=f"{one.source.path} is {one.table}")


def _media_type(one: Configured, headers: Headers) -> Step:
    if one.source.policy.any_media_type:
        return Step("media_type", ok=True, detail="any media type is taken")
    try:
        found = check_head(headers)
    except Problem as problem:
        return Step("media_type", ok=False, detail=f"{problem.row.title}: {problem.status}")
    return Step("media_type", ok=True, detail=found if found.isprintable() else "JSON")


def _verified(
    one: Configured, delivery: Delivery, at: datetime, steps: list[Step]
) -> tuple[Verified | None, str | None]:
    """Return what proved the delivery, or why nothing did; note how."""
    verifier = one.source.verifier
    explained = getattr(verifier, "scheme_for", None)
    scheme = explained(delivery) if explained else None
    if scheme is not None:
        steps += explain(scheme, delivery.headers, delivery.body, at).steps
    try:
        verified = verifier.verify(delivery, at)
    except SignatureRefused as refused:
        if scheme is None:
            steps.append(Step("protection", ok=False, detail=refused.message))
        return None, refused.reason.value
    if scheme is None:
        steps.append(Step("protection", ok=True, detail=f"proved by {verified.by}"))
    return verified, None


def _possible(one: Configured, behind: str) -> list[str]:
    """Return what an unproved delivery's path may be: as it came, or without a first segment that may be a secret."""
    _, _, rest = behind[1:].partition("/")
    return [behind, f"/{rest}"] if one.source.policy.below and rest else [behind]


def _identified(one: Configured, possible: Sequence[Delivery], steps: list[Step]) -> Identified | None:
    faults: list[InvalidBody] = []
    for delivery in possible:
        try:
            found = one.source.provider.identify(delivery)
        except InvalidBody as invalid:
            faults.append(invalid)
        else:
            steps.append(Step("identify", ok=True, detail=f"{found.type} for {found.topic}"))
            return found
    known = [fault for fault in faults if all(finding.rule != UNKNOWN_PATH for finding in fault.findings)]
    steps += [
        Step("identify", ok=False, detail=f"{finding.field or 'body'}: {finding.rule}: {finding.remedy}")
        for finding in (known or faults)[0].findings
    ]
    return None
