"""Tries one request on a webhook without a server: is it authentic, which event is it, which step fails and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import JsonValue

from pipeline.cli.source_view import Configured
from pipeline.contracts import Headers
from pipeline.contracts.strict_json import InvalidBody
from pipeline.webhooks.answers import Problem
from pipeline.webhooks.http_request import check_media_type
from pipeline.webhooks.sources import Explainable, Identified, SchemeVerifier, Verified, Verifier, WebhookRequest
from pipeline.webhooks.sources.protocols import UNKNOWN_PATH
from pipeline.webhooks.url_checks import UrlChecked
from pipeline.webhooks.verification import SignatureRefused, Step, explain


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of trying a request.

    Attributes:
        steps: The checks, in order. The ingress accepts the request only if every step succeeds.
        verified: The proof that it is authentic, or None.
        identified: The event, or None.
        reason: The reason of a refusal, or None.
    """

    steps: tuple[Step, ...]
    verified: Verified | None
    identified: Identified | None
    reason: str | None

    @property
    def ok(self) -> bool:
        """Whether the ingress would accept the request as an event."""
        return all(step.ok for step in self.steps)

    def document(self) -> dict[str, JsonValue]:
        """Return the result as JSON. Of the body it shows only type, key and id."""
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


def try_request(one: Configured, request: WebhookRequest, at: datetime) -> Trial:
    """Try a request on a webhook. It does no input or output, and raises for no request.

    Args:
        one: The webhook.
        request: Its path may be whole, or relative to the webhook's path; it may contain the secret segment.
        at: Time of arrival. It decides which secrets are active, and how old the signature is.
    """
    path = _path_below(one, request.path)
    steps = [_route(one, path), _media_type(one, request.headers)]
    verified, reason = _verified(one, replace(request, path=path), at, steps)
    if verified and (check := _url_check(one, request, verified)):
        steps.append(
            Step("url_check", ok=True, detail=f"the ingress answers {check} itself; the request is not an event")
        )
        return Trial(tuple(steps), verified, None, reason)
    stored = tuple(header for header in request.headers if header[0] in one.webhook.verifier.stored_headers)
    paths = [verified.path] if verified else _possible_paths(one, path)
    found = _identified(one, [replace(request, path=path, headers=stored) for path in paths], steps)
    return Trial(tuple(steps), verified, found, reason)


def _path_below(one: Configured, path: str) -> str:
    """Return the path relative to the webhook's path, for both forms of path."""
    base = one.webhook.path
    return path.removeprefix(base) if path == base or path.startswith(base + "/") else path


def _route(one: Configured, path: str) -> Step:
    if path and not path.startswith("/"):
        return Step("route", ok=False, detail="a path must begin with /")
    if path and not one.webhook.policy.below:
        return Step("route", ok=False, detail=f"{one.webhook.path} has no paths below it: 404")
    return Step("route", ok=True, detail=f"{one.webhook.path} belongs to {one.table}")


def _media_type(one: Configured, headers: Headers) -> Step:
    if one.webhook.policy.any_media_type:
        return Step("media_type", ok=True, detail="any media type is accepted")
    try:
        found = check_media_type(headers)
    except Problem as problem:
        return Step("media_type", ok=False, detail=f"{problem.row.title}: {problem.status}")
    return Step("media_type", ok=True, detail=found if found.isprintable() else "JSON")


def _verified(
    one: Configured, request: WebhookRequest, at: datetime, steps: list[Step]
) -> tuple[Verified | None, str | None]:
    """Return the proof that the request is authentic, or the reason why there is none; add the steps."""
    verifier = one.webhook.verifier
    scheme = verifier.scheme_for(request) if isinstance(verifier, Explainable) else None
    if scheme is not None:
        steps += explain(scheme, request.headers, _signed_bytes(verifier, request), at).steps
    try:
        verified = verifier.verify(request, at)
    except SignatureRefused as refused:
        if scheme is None:
            steps.append(Step("protection", ok=False, detail=refused.message))
        return None, refused.reason.value
    except InvalidBody as unreadable:
        steps.append(Step("body", ok=False, detail=unreadable.message))
        return None, unreadable.findings[0].rule
    if scheme is None:
        steps.append(Step("protection", ok=True, detail=f"proved by {verified.by}"))
    return verified, None


def _signed_bytes(verifier: Verifier, request: WebhookRequest) -> bytes:
    """Return the part of the body that the sender signed; an unreadable body as received, to try further steps."""
    try:
        return verifier.signed_bytes(request) if isinstance(verifier, SchemeVerifier) else request.body
    except (SignatureRefused, InvalidBody):
        return request.body


def _url_check(one: Configured, request: WebhookRequest, verified: Verified) -> str | None:
    try:
        one.webhook.url_checks.check_body(request, request.headers, verified.by)
    except UrlChecked as checked:
        return checked.check
    return None


def _possible_paths(one: Configured, path: str) -> list[str]:
    """Return the possible paths of an unverified request: whole, and without a first segment that may be a secret."""
    _, _, rest = path[1:].partition("/")
    return [path, f"/{rest}"] if one.webhook.policy.below and rest else [path]


def _identified(one: Configured, possible: Sequence[WebhookRequest], steps: list[Step]) -> Identified | None:
    faults: list[InvalidBody] = []
    for request in possible:
        try:
            found = one.webhook.source.identify(request)
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
