"""Weavr: events on cards, accounts, transfers and identities (its webhook description v2)."""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from datetime import datetime
from ipaddress import ip_address
from typing import Any, Final

from pydantic import ValidationError

from pipeline.contracts import Headers, Topic, event_id
from pipeline.contracts.strict_json import Finding, InvalidBody, parse_object
from pipeline.contracts.weavr import BY_PATH, EventKind, entity_key
from pipeline.webhooks.sources.findings import findings_of
from pipeline.webhooks.sources.protocols import UNKNOWN_PATH, Identified, Policy, Verified, WebhookRequest
from pipeline.webhooks.sources.settings import UnsignedPath, WeavrOptions
from pipeline.webhooks.verification import (
    WEAVR,
    WEAVR_LEGACY,
    HmacSpec,
    Reason,
    Scheme,
    Secret,
    SignatureRefused,
    scheme_of,
)

CALL_REF: Final = "call-ref"
REQUEST_REF: Final = "request-ref"
TIMESTAMP: Final = "published-timestamp"
SIGNATURE: Final = "signature-v2"
LEGACY_SIGNATURE: Final = "signature"
SOURCE_ADDRESS: Final = "source-address"
"""What proves an unsigned event authentic, if its path does not."""

_SUCCESS: Final = 204
"""The documented status for success; Weavr accepts any other 2xx too."""
_STEPUP: Final = "stepup"
_SLASHES: Final = re.compile("//+")


class WeavrSource:
    """Identifies the 32 kinds of events by their paths; see :class:`~pipeline.webhooks.sources.protocols.Source`.

    Models are lenient. Invalid events go to quarantine: Weavr would not repeat an event after a refusal.

    Args:
        integration: Name of the integration.
        options: Status for unverified requests, and whether to audit accepted events.
    """

    def __init__(self, integration: str, options: WeavrOptions) -> None:
        self._integration = integration
        self.policy: Final = Policy(
            success=_SUCCESS,
            unverified=options.unverified_status,
            invalid="keep",
            any_media_type=True,
            below=True,
            audit_accepted=options.audit_accepted,
        )

    def quarantine(self, request: WebhookRequest) -> Topic:
        """See Source. A path that looks like a step-up gets the guarded topic: the body may contain ``authToken``."""
        words = request.path.lower().replace("_", "").replace("-", "")
        return Topic.EVENTS_STEPUP_QUARANTINE if _STEPUP in words else Topic.EVENTS_QUARANTINE

    def identify(self, request: WebhookRequest) -> Identified:
        """See Source."""
        kind = BY_PATH.get(request.path)
        identity = self._identity(request, kind)
        if kind is None:
            remedy = "Add the kind of event to the receiver's table, then release it from quarantine"
            raise InvalidBody([Finding("path", UNKNOWN_PATH, remedy)], id=identity)
        subject = kind.subject(_read(kind, request, identity))
        return Identified(
            topic=kind.topic,
            key=entity_key(self._integration, subject),
            id=identity,
            type=kind.type,
            subject=subject,
            dataschema=kind.dataschema,
            facts={"event_type": kind.type},
        )

    def _identity(self, request: WebhookRequest, kind: EventKind | None) -> str:
        """Return the event's id: a hash of call reference and body, or without one of publication time and body.

        The body alone cannot identify it: two events can have equal bytes. Nor can the transaction, which has several.
        """
        name = CALL_REF if kind is None or kind.signed else REQUEST_REF
        reference = _first(request.headers, name)
        if reference:
            return event_id(self._integration, request.path, reference, request.repeated_body)
        published = _first(request.headers, TIMESTAMP)
        return event_id(self._integration, request.path, b"", published, request.repeated_body)


def _read(kind: EventKind, request: WebhookRequest, identity: str) -> dict[str, Any]:
    """Return the body, after checking that it fits the kind's model."""
    try:
        data = parse_object(request.json_body)
        kind.model.model_validate(data)
    except InvalidBody as invalid:
        raise InvalidBody(invalid.findings, id=identity) from None
    except ValidationError as error:
        raise InvalidBody(findings_of(error), id=identity) from None
    return data


def _first(headers: Headers, name: str) -> bytes:
    return next((value for header, value in headers if header == name), b"")


class WeavrVerifier:
    """Verifies ``signature-v2`` over call reference, raw body and timestamp; see Verifier.

    It accepts a path that Weavr does not sign only if the options define another protection for it.

    Args:
        options: Tolerance, exceptions, protection of unsigned paths.
        secrets: API keys, with their periods.
    """

    def __init__(self, options: WeavrOptions, secrets: Sequence[Secret]) -> None:
        self._scheme = scheme_of(signature_v2(options), secrets)
        legacy = options.legacy_signature
        self._legacy = scheme_of(_changed(WEAVR_LEGACY, options), secrets) if legacy else None
        self._path_secret = options.path_secret.get_secret_value().encode() if options.path_secret else None
        self._unsigned = {one.path: one for one in options.unsigned_paths}
        self.stored_headers: Final = frozenset(
            {CALL_REF, REQUEST_REF, TIMESTAMP, SIGNATURE} | ({LEGACY_SIGNATURE} if legacy else set())
        )

    def check_head(self, request: WebhookRequest, now: datetime) -> None:
        """See Verifier. For unsigned paths, this check is complete."""
        path, secret_given = self.event_path(request.path)
        scheme = self._scheme_of(path, request.headers)
        if scheme is None:
            self._protection(path, request, secret_given=secret_given)
        else:
            scheme.check_head(request.headers, now)

    def verify(self, request: WebhookRequest, now: datetime) -> Verified:
        """See Verifier."""
        path, secret_given = self.event_path(request.path)
        scheme = self._scheme_of(path, request.headers)
        if scheme is None:
            return Verified(self._protection(path, request, secret_given=secret_given), path)
        by = scheme.verify(request.headers, request.body, now)
        return Verified(by if scheme is self._scheme else f"{by} (timestamp only)", path)

    def scheme_for(self, request: WebhookRequest) -> Scheme | None:
        """See Explainable."""
        return self._scheme_of(self.event_path(request.path)[0], request.headers)

    def _scheme_of(self, path: str, headers: Headers) -> Scheme | None:
        if _has(headers, SIGNATURE):
            return self._scheme
        if self._goes_unsigned(path):
            return None
        return self._legacy if self._legacy is not None and _has(headers, LEGACY_SIGNATURE) else self._scheme

    def event_path(self, path: str) -> tuple[str, bool]:
        """Return the event's path, and whether the request's path began with the secret segment.

        It removes the secret segment at any position, because the record stores the path. The segment protects an
        unsigned path only at the beginning. It also removes a wrong segment before a known path: the signature decides,
        not the segment, and after a change of the secret, requests may still use the old URL. It merges repeated
        slashes, since a base URL that ends in a slash would otherwise make every kind unknown.
        """
        path = _SLASHES.sub("/", path)
        if self._path_secret is None:
            return path, False
        segments = path.split("/")[1:]
        secret = [hmac.compare_digest(segment.encode(), self._path_secret) for segment in segments]
        path = "".join(f"/{segment}" for segment, hidden in zip(segments, secret, strict=True) if not hidden)
        if secret[:1] == [True]:
            return path, True
        _, slash, rest = path[1:].partition("/")
        behind = slash + rest
        outdated = path not in BY_PATH and (behind in BY_PATH or behind in self._unsigned)
        return behind if outdated else path, False

    def _goes_unsigned(self, path: str) -> bool:
        kind = BY_PATH.get(path)
        return path in self._unsigned if kind is None else not kind.signed

    def _protection(self, path: str, request: WebhookRequest, *, secret_given: bool) -> str:
        """Return the names of the protections that an unsigned request passes.

        Raises:
            SignatureRefused: No protection is configured, or the request fails one.
        """
        rule = self._unsigned.get(path)
        if rule is None:
            raise SignatureRefused(
                Reason.UNSIGNED_PATH, "unsigned_paths does not name this path, which has no signature"
            )
        for name in (REQUEST_REF, TIMESTAMP, CALL_REF):
            if sum(header == name for header, _ in request.headers) > 1:
                raise SignatureRefused(Reason.HEADER_REPEATED, f"The request has more than one header {name}")
        if not address_allowed(rule, request.client) or (rule.require_path_secret and not secret_given):
            raise SignatureRefused(
                Reason.NOT_VERIFIED, "The request fails the protection that is configured for this path"
            )
        proofs = {SOURCE_ADDRESS: bool(rule.source_addresses), "path-secret": rule.require_path_secret}
        return "+".join(name for name, used in proofs.items() if used)


def signature_v2(options: WeavrOptions) -> HmacSpec:
    """Return the specification of an integration's signatures."""
    if options.missing_call_ref == "refuse":
        return _changed(WEAVR, options, signed=(f"header:{CALL_REF}", "body", "timestamp"))
    return _changed(WEAVR, options)


def _changed(spec: HmacSpec, options: WeavrOptions, **changes: Any) -> HmacSpec:
    return spec.model_copy(update={"tolerance_seconds": options.tolerance_seconds, **changes})


def _has(headers: Headers, name: str) -> bool:
    return any(header == name for header, _ in headers)


def address_allowed(rule: UnsignedPath, client: str) -> bool:
    """Return whether an unsigned event may come from the address of this client."""
    if not rule.source_addresses:
        return True
    try:
        address = ip_address(client)
    except ValueError:
        return False  # its address is not known
    return any(address in network for network in rule.source_addresses)


class Weavr:
    """The entry point."""

    Options = WeavrOptions

    def source(self, name: str, options: WeavrOptions) -> WeavrSource:
        """See SourceKind."""
        return WeavrSource(name, options)

    def verifier(self, _name: str, options: WeavrOptions, secrets: Sequence[Secret]) -> WeavrVerifier:
        """See SourceKind."""
        return WeavrVerifier(options, secrets)
