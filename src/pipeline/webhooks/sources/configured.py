"""Sources that need configuration only: generic HMAC, and Standard Webhooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pipeline.contracts import SOURCE_TOPICS, Headers, Topic, event_id
from pipeline.contracts.strict_json import Finding, InvalidBody, parse_object
from pipeline.webhooks.sources.protocols import Delivery, Identified, Policy, SchemeVerifier
from pipeline.webhooks.sources.settings import EventPlaces, HmacOptions, StandardWebhooksOptions
from pipeline.webhooks.verification import HmacSettings, Place, Secret, SignatureRefused, scheme_of, value_at
from pipeline.webhooks.verification.fields import Fields

_LONGEST: Final = 256
"""Characters of an id, type or key that are kept as they are."""

_TEXT: Final = "text:"


class ConfiguredProvider:
    """Knows of a delivery what its places say; see :class:`~pipeline.webhooks.sources.protocols.Provider`.

    What it does not understand is kept, never refused. A body that is no strict JSON object has no places in it. A
    header that stands there several times with different values is not understood: others may read another of them.

    Args:
        name: Name of the source.
        places: Where id, type and key stand.
        signed_at: Returns the text of the time of signing, which is part of the identity of an event without id: two
            events can have equal bodies.
    """

    policy: Final = Policy(success=200, unverified=401, invalid="keep", any_media_type=True, audit_accepted=False)

    def __init__(self, name: str, places: EventPlaces, signed_at: Callable[[Headers], bytes]) -> None:
        self._name = name
        self._id = _Chosen(places.id)
        self._type = _Chosen(places.type)
        self._key = _Chosen(places.key)
        self._reads_body = any(one.reads_body for one in (self._id, self._type, self._key))
        self._signed_at = signed_at

    def quarantine(self, _delivery: Delivery) -> Topic:
        """See Provider."""
        return Topic.WEBHOOK_QUARANTINE

    def identify(self, delivery: Delivery) -> Identified:
        """See Provider."""
        document, fault = self._document(delivery.body)
        try:
            identity = self._identity(delivery, document)
            kind = self._type.text(delivery.headers, document)
            key = self._key.text(delivery.headers, document)
        except InvalidBody as doubtful:
            raise InvalidBody(doubtful.findings, id=self._unnamed(delivery)) from None
        if kind is None or len(kind) > _LONGEST:
            findings = fault.findings if fault else [Finding("type", "required", "Send the type of event as agreed")]
            raise InvalidBody(findings, id=identity)
        if key is not None and len(key) > _LONGEST:
            key = event_id(key)
        return Identified(
            topic=f"{SOURCE_TOPICS}{self._name}",
            key=self._name if key is None else f"{self._name}/{key}",
            id=identity,
            type=f"{self._name}.{kind}",
            subject=self._name if key is None else key,
            facts={"event_type": kind},
        )

    def _document(self, body: bytes) -> tuple[Mapping[str, Any], InvalidBody | None]:
        if not self._reads_body:
            return {}, None
        try:
            return parse_object(body), None
        except InvalidBody as fault:
            return {}, fault

    def _identity(self, delivery: Delivery, document: Mapping[str, Any]) -> str:
        found = self._id.text(delivery.headers, document)
        return self._unnamed(delivery) if found is None else event_id(self._name, found)

    def _unnamed(self, delivery: Delivery) -> str:
        return event_id(self._name, delivery.body, self._signed_at(delivery.headers))


class _Chosen:
    """The first of some places that a delivery has."""

    def __init__(self, places: Sequence[str]) -> None:
        self._places = tuple(one if one.startswith(_TEXT) else Place.parse(one) for one in places)
        self.reads_body = any(isinstance(one, Place) and one.kind == "json" for one in self._places)

    def text(self, headers: Headers, document: Mapping[str, Any]) -> str | None:
        """Return what stands there, or None; only text that is not empty and whole numbers count."""
        for place in self._places:
            found = place.removeprefix(_TEXT) if isinstance(place, str) else _found(place, headers, document)
            if found:
                return found
        return None


def _found(place: Place, headers: Headers, document: Mapping[str, Any]) -> str | None:
    if place.kind == "header":
        values = {value for header, value in headers if header == place.value.lower()}
        if len(values) > 1:
            raise InvalidBody([Finding("headers", "header_repeated", f"Send the header {place.value} once")])
        return next((value.decode("latin-1") for value in values), None)
    try:
        value = value_at(dict(document), place.value)
    except LookupError:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def _verifier(
    options: HmacOptions | StandardWebhooksOptions, places: EventPlaces, secrets: Sequence[Secret]
) -> SchemeVerifier:
    named = (Place.parse(one) for one in (*places.id, *places.type, *places.key) if not one.startswith(_TEXT))
    also = frozenset(place.value.lower() for place in named if place.kind == "header")
    return SchemeVerifier(scheme_of(options, secrets), also)


def _time_of(settings: HmacSettings) -> Callable[[Headers], bytes]:
    """Return what reads the time of signing from a delivery's headers; a time in the body is part of it anyway."""
    place, fields = settings.time_place, settings.fields
    if place is None or place.kind == "json":
        return lambda _: b""
    name = (place.value if place.kind == "header" else settings.header).lower()

    def signed_at(headers: Headers) -> bytes:
        value = next((value for header, value in headers if header == name), b"")
        if place.kind == "header" or fields is None:
            return value
        try:
            return Fields(fields, settings.header).timestamp(value)
        except SignatureRefused:
            return b""

    return signed_at


class Hmac:
    """The entry point of senders that sign with an HMAC."""

    Options = HmacOptions

    def provider(self, name: str, options: HmacOptions) -> ConfiguredProvider:
        """See ProviderKind."""
        return ConfiguredProvider(name, options.event, _time_of(options))

    def verifier(self, _name: str, options: HmacOptions, secrets: Sequence[Secret]) -> SchemeVerifier:
        """See ProviderKind."""
        return _verifier(options, options.event, secrets)


class StandardWebhooks:
    """The entry point of senders that keep to Standard Webhooks."""

    Options = StandardWebhooksOptions

    def provider(self, name: str, options: StandardWebhooksOptions) -> ConfiguredProvider:
        """See ProviderKind."""
        return ConfiguredProvider(name, options.event, lambda _: b"")

    def verifier(self, _name: str, options: StandardWebhooksOptions, secrets: Sequence[Secret]) -> SchemeVerifier:
        """See ProviderKind."""
        return _verifier(options, options.event, secrets)
