"""Fast verification of the ordinary HMAC request. It leaves every other request to the full scheme."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime

from pipeline.webhooks.verification.errors import SignatureRefused
from pipeline.webhooks.verification.keys import keys_of
from pipeline.webhooks.verification.protocols import Secret
from pipeline.webhooks.verification.request_parts import check_timestamp
from pipeline.webhooks.verification.schemes import ENCODERS, form_of
from pipeline.webhooks.verification.specs import HmacSpec, SharedSecretSpec, SignedPart, StandardWebhooksSpec


class QuickHmac:
    """Verifies requests with one well-formed signature whose time, if any, is in a header of its own.

    It never verifies a request that :class:`~pipeline.webhooks.verification.schemes.HmacOfParts` refuses, and it
    returns the same secret. It omits what ordinary requests do not need: lists of signatures, steps, reasons.

    Args:
        spec: What is signed.
        secrets: The secrets, in the order in which they are tried.
    """

    def __init__(self, spec: HmacSpec, secrets: Sequence[Secret]) -> None:
        self._keys = keys_of(secrets, spec.key)
        self._header = spec.header.lower().encode()
        self._prefix = spec.prefix.encode()
        self._form = form_of(spec)
        self._is_hex = spec.encoding == "hex"
        self._encode = ENCODERS[spec.encoding]
        self._hash = spec.hash
        time = spec.time_of_signing
        self._time = None if time is None else time.name.lower().encode()
        self._unit = spec.timestamp_unit
        self._tolerance = spec.tolerance_seconds
        self._parts = [self._part(part) for part in spec.parts]
        self._only_body = [part.kind for part in spec.parts] == ["body"]

    def _part(self, part: SignedPart) -> tuple[bytes | None, bytes | None]:
        """Return the header of a part (None: the part is the body), and the bytes to sign if the header is missing."""
        if part.kind == "timestamp":
            return self._time, None
        if part.kind == "text":
            return b"", part.value.encode()  # no header has this name
        if part.kind == "header":
            return part.value.lower().encode(), None if part.needed else b""
        return None, None

    def verify(self, head: Mapping[bytes, bytes], body: bytes, now: datetime) -> str | None:
        """Return the id of the secret that verifies the request. None decides nothing: the full scheme has to.

        Args:
            head: The headers by lower-case name, none of them repeated.
            body: The raw bytes.
            now: Aware datetime.
        """
        received = head.get(self._header)
        if received is None or not received.startswith(self._prefix):
            return None
        received = received[len(self._prefix) :]
        if not self._form.fullmatch(received):
            return None
        if self._is_hex:
            received = received.lower()
        if self._time is not None:
            try:
                check_timestamp(head.get(self._time, b""), now, unit=self._unit, tolerance=self._tolerance)
            except SignatureRefused:
                return None
        message = body if self._only_body else self._message(head, body)
        if message is None:
            return None
        found = None
        for key in self._keys:
            if key.active(now):
                computed = self._encode(hmac.digest(key.value, message, self._hash))
                # constant time: go on with the other active keys after a match
                if hmac.compare_digest(computed, received) and found is None:
                    found = key.id
        return found

    def _message(self, head: Mapping[bytes, bytes], body: bytes) -> bytes | None:
        """Return the signed message, or None if a part is missing."""
        parts: list[bytes] = []
        for name, default in self._parts:
            part = body if name is None else head.get(name, default)
            if part is None:
                return None
            parts.append(part)
        return b"".join(parts)


def quick_hmac(spec: SharedSecretSpec | HmacSpec | StandardWebhooksSpec, secrets: Sequence[Secret]) -> QuickHmac | None:
    """Return the fast verification for a sender, or None if its scheme has none."""
    if not isinstance(spec, HmacSpec) or spec.fields is not None:
        return None
    time = spec.time_of_signing
    return QuickHmac(spec, secrets) if time is None or time.kind == "header" else None
