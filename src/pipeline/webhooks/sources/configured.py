"""Sources that need only settings: senders that sign with an HMAC, and Standard Webhooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pipeline.contracts import SOURCE_TOPICS, Headers, Topic, event_id, stable_hash
from pipeline.contracts.bodies import says_json
from pipeline.contracts.json_pointer import value_at
from pipeline.contracts.strict_json import Finding, InvalidBody, parse_object
from pipeline.webhooks.sources.protocols import Identified, Policy, SchemeVerifier, WebhookRequest
from pipeline.webhooks.sources.settings import EventAttributes, HmacOptions, StandardWebhooksOptions
from pipeline.webhooks.verification import (
    HeaderFields,
    HmacSpec,
    RequestValue,
    Secret,
    SignatureRefused,
    scheme_of,
)

_LONGEST: Final = 256
"""Maximum length of a type, and of a key that is not hashed."""

_TEXT: Final = "text:"

_ENCODING_RULES: Final = frozenset({"content_encoding", "encoding_broken", "body_too_large"})
_NOT_JSON: Final = frozenset({"not_json", "not_utf8", "too_many"})


class ConfiguredSource:
    """Finds id, type and key as the settings define; see :class:`~pipeline.webhooks.sources.protocols.Source`.

    It never refuses a request; requests that it does not understand go to quarantine. A body that is neither a strict
    JSON object nor a form has no values.

    It does not understand a request whose body cannot be read as its Content-Type or Content-Encoding says. The same
    holds if a header is repeated with different values, because another reader may choose another value.

    Args:
        name: Name of the source.
        attributes: The values that are id, type and key.
        signed_at: Returns the text of the time of signing. It is part of the identity of an event without an id, since
            two events can have equal bodies.
    """

    policy: Final = Policy(success=200, unverified=401, invalid="keep", any_media_type=True, audit_accepted=False)

    def __init__(self, name: str, attributes: EventAttributes, signed_at: Callable[[Headers], bytes]) -> None:
        self._name = name
        self._id = _FirstOf(attributes.id)
        self._type = _FirstOf(attributes.type)
        self._key = _FirstOf(attributes.key)
        self._reads_body = any(one.reads_body for one in (self._id, self._type, self._key))
        self._signed_at = signed_at

    def quarantine(self, _request: WebhookRequest) -> Topic:
        """See Source."""
        return Topic.WEBHOOK_QUARANTINE

    def identify(self, request: WebhookRequest) -> Identified:
        """See Source."""
        document, fault = self._document(request)
        try:
            identity = self._identity(request, document)
            kind = self._type.text(request.headers, document)
            key = self._key.text(request.headers, document)
        except InvalidBody as doubtful:
            raise InvalidBody(doubtful.findings, id=self._unnamed(request)) from None
        unreadable = fault is not None and _is_unreadable(request, fault)
        if kind is None or len(kind) > _LONGEST or unreadable:
            findings = fault.findings if fault else [Finding("type", "required", "Send the type of event as agreed")]
            raise InvalidBody(findings, id=identity)
        if key is not None and len(key) > _LONGEST:
            key = stable_hash(key)
        return Identified(
            topic=f"{SOURCE_TOPICS}{self._name}",
            key=self._name if key is None else f"{self._name}/{key}",
            id=identity,
            type=f"{self._name}.{kind}",
            subject=self._name if key is None else key,
            facts={"event_type": kind},
            subject_in_logs=key is None,
        )

    def _document(self, request: WebhookRequest) -> tuple[Mapping[str, Any], InvalidBody | None]:
        if not self._reads_body and not request.encoding:
            return {}, None
        try:
            body = request.json_body
            return parse_object(body) if self._reads_body else {}, None
        except InvalidBody as fault:
            return {}, fault

    def _identity(self, request: WebhookRequest, document: Mapping[str, Any]) -> str:
        found = self._id.text(request.headers, document)
        return self._unnamed(request) if found is None else event_id(self._name, found)

    def _unnamed(self, request: WebhookRequest) -> str:
        return event_id(self._name, request.repeated_body, self._signed_at(request.headers))


def _is_unreadable(request: WebhookRequest, fault: InvalidBody) -> bool:
    """Return whether a subscriber could not read the event, although the request declares the type of its body."""
    rules = {finding.rule for finding in fault.findings}
    return bool(rules & _ENCODING_RULES) or (says_json(request.content_type) and bool(rules & _NOT_JSON))


class _FirstOf:
    """The first of several values that a request has."""

    def __init__(self, names: Sequence[str]) -> None:
        self._values = tuple(one if one.startswith(_TEXT) else RequestValue.parse(one) for one in names)
        self.reads_body = any(isinstance(one, RequestValue) and one.kind == "json" for one in self._values)

    def text(self, headers: Headers, document: Mapping[str, Any]) -> str | None:
        """Return the value as text, or None. Skips empty text, and values other than text and whole numbers."""
        for value in self._values:
            found = value.removeprefix(_TEXT) if isinstance(value, str) else _found(value, headers, document)
            if found:
                return found
        return None


def _found(named: RequestValue, headers: Headers, document: Mapping[str, Any]) -> str | None:
    if named.kind == "header":
        values = {value for header, value in headers if header == named.name.lower()}
        if len(values) > 1:
            raise InvalidBody([Finding("headers", "header_repeated", f"Send the header {named.name} once")])
        return next((value.decode("latin-1") for value in values), None)
    try:
        value = value_at(dict(document), named.name)
    except LookupError:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def _verifier(
    options: HmacOptions | StandardWebhooksOptions, event: EventAttributes, secrets: Sequence[Secret]
) -> SchemeVerifier:
    named = (RequestValue.parse(one) for one in (*event.id, *event.type, *event.key) if not one.startswith(_TEXT))
    also = frozenset(value.name.lower() for value in named if value.kind == "header")
    return SchemeVerifier(scheme_of(options, secrets), also, options.signed_body)


def _time_of(spec: HmacSpec) -> Callable[[Headers], bytes]:
    """Return a function that reads the time of signing from headers. A time in the body is already part of the body."""
    time, fields = spec.time_of_signing, spec.fields
    if time is None or time.kind == "json":
        return lambda _: b""
    name = (time.name if time.kind == "header" else spec.header).lower()
    read = None if fields is None or time.kind == "header" else HeaderFields(fields, spec.header).timestamp
    prefix = spec.prefix.encode()

    def signed_at(headers: Headers) -> bytes:
        value = next((value for header, value in headers if header == name), b"")
        if read is None:
            return value
        try:
            return read(value.removeprefix(prefix))
        except SignatureRefused:
            return b""

    return signed_at


class Hmac:
    """The entry point for senders that sign with an HMAC."""

    Options = HmacOptions

    def source(self, name: str, options: HmacOptions) -> ConfiguredSource:
        """See SourceKind."""
        return ConfiguredSource(name, options.event, _time_of(options))

    def verifier(self, _name: str, options: HmacOptions, secrets: Sequence[Secret]) -> SchemeVerifier:
        """See SourceKind."""
        return _verifier(options, options.event, secrets)


class StandardWebhooks:
    """The entry point for senders that follow Standard Webhooks."""

    Options = StandardWebhooksOptions

    def source(self, name: str, options: StandardWebhooksOptions) -> ConfiguredSource:
        """See SourceKind."""
        return ConfiguredSource(name, options.event, lambda _: b"")

    def verifier(self, _name: str, options: StandardWebhooksOptions, secrets: Sequence[Secret]) -> SchemeVerifier:
        """See SourceKind."""
        return _verifier(options, options.event, secrets)
