"""The hot path for Weavr's events: turns an ordinary signed event into its record. Read it from top to bottom.

:class:`~pipeline.webhooks.sources.weavr.WeavrVerifier` and :class:`~pipeline.webhooks.sources.weavr.WeavrSource` are
the reference. What is read here is read there with the same outcome; everything else is left to them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from pydantic_core import SchemaValidator

from pipeline.contracts import INTEGRATION_HEADER, PATH_HEADER, OutgoingRecord
from pipeline.contracts.strict_json import InvalidBody, parse_object
from pipeline.contracts.weavr import KINDS, EventKind, entity_key
from pipeline.webhooks.sources.settings import WeavrOptions
from pipeline.webhooks.sources.weavr import (
    CALL_REF,
    REQUEST_REF,
    SIGNATURE,
    SOURCE_ADDRESS,
    TIMESTAMP,
    WeavrVerifier,
    address_allowed,
    signature_v2,
)
from pipeline.webhooks.verification import QuickHmac, Secret
from pipeline.webhooks.webhook import Ordinary

_TIME: Final = r"^[0-9]{1,13}$"
"""Text that is certainly a valid time in milliseconds, before the year 2287."""
_NUMBER: Final = r"^-?[0-9]{1,18}$"
_SMALL: Final = 99
_SMALL_NUMBER: Final = r"^-?[0-9]{1,2}$"
_NUMBERS: Final = frozenset({"_id_of", "Instant._of_number"})
"""Validator functions that accept every number that their inner schema accepts."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of event, with the values that all its events share."""

    kind: EventKind
    reference: bytes
    fits: SchemaValidator
    identity: Any
    before_id: tuple[tuple[str, bytes], ...]
    source_and_type: tuple[tuple[str, bytes], ...]
    dataschema: tuple[str, bytes]
    integration_and_path: tuple[tuple[str, bytes], ...]


class HotEvents:
    """Reads ordinary events of one integration; see :class:`~pipeline.webhooks.webhook.HotReader`.

    An event is ordinary if Weavr signs its kind, or its address alone protects it; if its path is written as Weavr
    documents it; and if its body is a JSON object. Paths with the secret segment are left to the plain way.

    Args:
        integration: Name of the integration.
        path: Path of its webhook.
        options: Settings of its table.
        secrets: API keys.
    """

    audited_topic: Final = None

    def __init__(self, integration: str, path: str, options: WeavrOptions, secrets: Sequence[Secret]) -> None:
        verifier = WeavrVerifier(options, secrets)
        self._integration = integration
        self.signature: Final = QuickHmac(signature_v2(options), secrets)
        self._stored = {name.encode(): name for name in verifier.stored_headers}
        rules = {one.path: one for one in options.unsigned_paths}
        by_address = {name: rule for name, rule in rules.items() if not rule.require_path_secret}
        # leaves the plain way: the same few senders all day
        self._allowed = lru_cache(maxsize=1024)(lambda name, client: address_allowed(by_address[name], client))
        self._kinds = {
            path + kind.path: _known(kind, integration, path)
            for kind in KINDS
            # a secret segment may look like a part of the path; the plain way removes it
            if (kind.signed or kind.path in by_address) and verifier.event_path(kind.path) == (kind.path, False)
        }
        self.paths: Final = frozenset(self._kinds)

    def read(
        self,
        path: str,
        head: Mapping[bytes, bytes],
        body: bytes,
        at: datetime,
        *,
        client: str,
        traceparent: str,
    ) -> Ordinary | None:
        """See HotReader."""
        known = self._kinds[path]
        if known.kind.signed:
            by = self.signature.verify(head, body, at)
        elif SIGNATURE.encode() not in head and self._allowed(known.kind.path, client):
            by = SOURCE_ADDRESS
        else:
            return None
        content_type = head.get(b"content-type", b"application/octet-stream")
        # any other body may be a form, or have byte order marks
        if by is None or not body.startswith(b"{") or not content_type.isascii():
            return None
        try:
            data = parse_object(body)
        except InvalidBody:
            return None
        # differs from the plain way: checks the model's rules without building models, which cost the most
        if not known.fits.isinstance_python(data):
            return None
        subject = known.kind.subject(data)
        key = entity_key(self._integration, subject)

        # differs from the plain way: the first parts of the hash are the same for all events of a kind
        reference = head.get(known.reference)
        identity = known.identity.copy()
        identity.update(_sized(reference) if reference else _sized(b"") + _sized(head.get(TIMESTAMP.encode(), b"")))
        identity.update(_sized(body))
        event_id = identity.hexdigest()[:32]

        # leaves the plain way: most headers are encoded already; the order is that of EventHeaders.encode
        headers = (
            *known.before_id,
            ("ce_id", event_id.encode()),
            *known.source_and_type,
            ("ce_subject", subject.encode()),
            ("ce_time", at.isoformat().replace("+00:00", "Z").encode()),
            ("ce_partitionkey", key.encode()),
            ("content-type", content_type),
            known.dataschema,
            ("traceparent", traceparent.encode()),
            *known.integration_and_path,
            *[(self._stored[name], value) for name, value in head.items() if name in self._stored],
        )
        return Ordinary(OutgoingRecord(known.kind.topic, key, body, headers), event_id, subject, by)


def _known(kind: EventKind, integration: str, path: str) -> _Kind:
    kind.model.model_rebuild()
    return _Kind(
        kind=kind,
        reference=(CALL_REF if kind.signed else REQUEST_REF).encode(),
        fits=SchemaValidator(_without_models(kind.model.__pydantic_core_schema__)),
        identity=hashlib.sha256(_sized(integration.encode()) + _sized(kind.path.encode())),
        before_id=(("ce_specversion", b"1.0"),),
        source_and_type=(("ce_source", path.encode()), ("ce_type", kind.type.encode())),
        dataschema=("ce_dataschema", kind.dataschema.encode()),
        integration_and_path=((INTEGRATION_HEADER, integration.encode()), (PATH_HEADER, kind.path.encode())),
    )


def _sized(part: bytes) -> bytes:
    """Return a part with its length, as ``stable_hash`` does."""
    return len(part).to_bytes(8, "big") + part


def _without_models(schema: Any) -> Any:
    """Return a model's schema without the model. It accepts at most what the model accepts, and never calls Python.

    Weavr's models check nothing beyond their fields, and keep unknown fields, so those need no look. Of a function that
    nobody here knows the schema keeps the call.
    """
    if isinstance(schema, list | tuple):
        return type(schema)(_without_models(one) for one in schema)
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "model":
        fields = _without_models(schema["schema"])
        return {**fields, "ref": schema["ref"]} if "ref" in schema else fields
    if schema.get("type") == "function-after":
        function = schema["function"]["function"]
        name = function.__qualname__
        if name in _NUMBERS:
            return _without_models(schema["schema"])
        pattern = _pattern_of(name, getattr(function, "__self__", None))
        if pattern is not None:
            return {"type": "str", "strict": True, "pattern": pattern}
    parts = {name: _without_models(one) for name, one in schema.items() if name not in {"serialization", "metadata"}}
    if schema.get("type") == "model-fields":  # its fields have names of any kind
        parts["fields"] = {name: _without_models(field) for name, field in schema["fields"].items()}
    return parts


def _pattern_of(function: str, form: Any) -> str | None:
    """Return a pattern of texts that a validator function certainly accepts; None for an unknown function."""
    if function == "Instant._of_text":
        return _TIME
    if function != "_NumberForm._number_of":
        return None
    if form.least is None and form.most is None:
        return _NUMBER
    wide = (form.least is None or form.least <= -_SMALL) and (form.most is None or form.most >= _SMALL)
    return _SMALL_NUMBER if wide else None
