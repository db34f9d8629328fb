"""The schemes: a secret in a header, an HMAC of parts of the request, and Standard Webhooks.

To add one, write a specification in ``specs.py``, a class here, a line in :func:`scheme_of`, and tests.
Standard Webhooks follows its specification, sections *Signature scheme* and *Webhook headers*.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from pipeline.contracts import Headers, first_values
from pipeline.contracts.bodies import UnreadableBody, encoding_of, json_of, plain_body
from pipeline.contracts.json_pointer import value_at
from pipeline.contracts.strict_json import InvalidBody
from pipeline.webhooks.verification.errors import Reason, SignatureRefused
from pipeline.webhooks.verification.explanation import OnStep, ignore_step
from pipeline.webhooks.verification.keys import (
    Dated,
    Key,
    PublicKey,
    active_keys,
    base64_bytes,
    first_matching,
    keys_of,
    matching_key,
    public_key_of,
    standard_keys_of,
)
from pipeline.webhooks.verification.protocols import Scheme, Secret
from pipeline.webhooks.verification.request_parts import (
    MOST_SIGNATURES,
    HeaderFields,
    SignatureList,
    check_timestamp,
    one_header,
    one_header_or_none,
    without_prefix,
)
from pipeline.webhooks.verification.specs import (
    HmacSpec,
    SharedSecretSpec,
    SignedPart,
    StandardWebhooksSpec,
)


def scheme_of(spec: SharedSecretSpec | HmacSpec | StandardWebhooksSpec, secrets: Sequence[Secret]) -> Scheme:
    """Return the scheme that a specification describes. It tries the secrets in the given order.

    Raises:
        FatalError: A secret is not written as the specification says (``secret_malformed``).
    """
    if isinstance(spec, SharedSecretSpec):
        return SharedSecret(spec, secrets)
    if isinstance(spec, HmacSpec):
        return HmacOfParts(spec, secrets)
    return StandardWebhooks(spec, secrets)


def _which(active: Sequence[Dated], keys: Sequence[Dated]) -> str:
    return f"{len(active)} of {len(keys)} are active at this time: {', '.join(key.id for key in active)}"


class SharedSecret:
    """Compares a header with the secrets; see :class:`~pipeline.webhooks.verification.protocols.Scheme`."""

    stored_headers: frozenset[str] = frozenset()
    """Empty: the header is the secret, and a secret is never stored."""

    def __init__(self, spec: SharedSecretSpec, secrets: Sequence[Secret]) -> None:
        """Take the secrets in the order in which they are tried."""
        self._name = spec.header
        self._prefix = spec.prefix.encode()
        self._keys = keys_of(secrets)

    def check_head(self, headers: Headers, now: datetime) -> None:
        """See Scheme. The header decides alone, whatever the body is."""
        self.verify_stepwise(headers, b"", now, ignore_step)

    def verify(self, headers: Headers, body: bytes, now: datetime) -> str:
        """See Scheme."""
        return self.verify_stepwise(headers, body, now, ignore_step)

    def verify_stepwise(self, headers: Headers, body: bytes, now: datetime, on_step: OnStep) -> str:  # noqa: ARG002 - the body is not signed
        """See StepwiseScheme."""
        keys = active_keys(self._keys, now)
        on_step("secrets", _which(keys, self._keys))
        received = without_prefix(one_header(headers, self._name), self._prefix, self._name)
        on_step("header", f"the request has one header {self._name}")
        # compare_digest stops early if the lengths differ. Digests have one length, so the secret's length stays hidden
        found = matching_key(keys, [hashlib.sha256(received).digest()], lambda key: hashlib.sha256(key).digest())
        on_step("match", f"equal to {found}")
        return found


_Keys = tuple[Key, ...]

_DIGEST_BYTES: Final = {"sha1": 20, "sha256": 32, "sha512": 64}


def _hex(digest: bytes) -> bytes:
    return digest.hex().encode()


ENCODERS: Final[dict[str, Callable[[bytes], bytes]]] = {"hex": _hex, "base64": base64.b64encode}


class HmacOfParts:
    """Computes the signature with each secret and compares it with the received text; see Scheme.

    It compares the text of signatures, not the decoded bytes, so that a base64 signature has only one valid spelling.
    It signs the bytes of the body and the headers as received.

    If a sender signs two parts without a separator, an attacker who repeats a request can move bytes from the end of
    one part to the beginning of the next. Only the sender can fix this.
    """

    def __init__(self, spec: HmacSpec, secrets: Sequence[Secret]) -> None:
        """Take the secrets in the order in which they are tried.

        Raises:
            FatalError: A secret is not written as ``spec.key`` says (``secret_malformed``).
        """
        self._spec = spec
        self._keys = keys_of(secrets, spec.key)
        self._prefix = spec.prefix.encode()
        self._parts = spec.parts
        self._time = spec.time_of_signing
        self._fields = None if spec.fields is None else HeaderFields(spec.fields, spec.header)
        self._listed = self._fields or SignatureList(spec.prefix, spec.header)
        self._list = SignatureList(spec.prefix, spec.header)
        self._encode = ENCODERS[spec.encoding]
        self._form = form_of(spec)
        self.stored_headers = frozenset(spec.header_names())

    def check_head(self, headers: Headers, now: datetime) -> None:
        """See Scheme."""
        self._head(headers, now, ignore_step)

    def verify(self, headers: Headers, body: bytes, now: datetime) -> str:
        """See Scheme."""
        return self.verify_stepwise(headers, body, now, ignore_step)

    def verify_stepwise(self, headers: Headers, body: bytes, now: datetime, on_step: OnStep) -> str:
        """See StepwiseScheme."""
        spec = self._spec
        keys, signatures, parts = self._head(headers, now, on_step)
        message = b"".join([body if part is None else part for part in parts])
        on_step("signed", f"{' + '.join(spec.signed)}: {len(message)} bytes")
        found = matching_key(keys, signatures, lambda key: self._encode(hmac.digest(key, message, spec.hash)))
        on_step("match", f"verified by {found}")
        if self._time is not None and self._time.kind == "json":
            # this check comes last, because only an authentic body may be parsed
            self._check_age(_time_inside(headers, body, self._time.name), now, on_step)
        return found

    def _head(self, headers: Headers, now: datetime, on_step: OnStep) -> tuple[_Keys, list[bytes], list[bytes | None]]:
        """Return the active keys, the well-formed signatures, and the signed parts, with None for the body."""
        name = self._spec.header
        keys = active_keys(self._keys, now)
        on_step("secrets", _which(keys, self._keys))
        value = without_prefix(one_header(headers, name), self._prefix, name)
        on_step("header", f"the request has one header {name}")
        signatures = self._well_formed(value)
        on_step("form", f"{len(signatures)} of {self._spec.hash} in {self._spec.encoding}")
        timestamp = self._timestamp(headers, value)
        if timestamp is not None:
            self._check_age(timestamp, now, on_step)
        return keys, signatures, [_part(part, headers, timestamp or b"") for part in self._parts]

    def _well_formed(self, value: bytes) -> list[bytes]:
        fit = [one for one in self._listed.signatures(value) if self._form.fullmatch(one)]
        if not fit:
            raise SignatureRefused(
                Reason.SIGNATURE_MALFORMED,
                f"The header {self._spec.header} holds no {self._spec.hash} in {self._spec.encoding}",
            )
        return [one.lower() for one in fit] if self._spec.encoding == "hex" else fit

    def _timestamp(self, headers: Headers, value: bytes) -> bytes | None:
        if self._time is not None and self._time.kind == "header":
            return one_header(
                headers, self._time.name, missing=Reason.TIMESTAMP_MISSING, repeated=Reason.TIMESTAMP_REPEATED
            )
        if self._time is not None and self._time.kind == "field" and self._fields is not None:
            return self._fields.timestamp(value)
        return None

    def _check_age(self, timestamp: bytes, now: datetime, on_step: OnStep) -> None:
        tolerance = self._spec.tolerance_seconds
        age = check_timestamp(timestamp, now, unit=self._spec.timestamp_unit, tolerance=tolerance)
        on_step("timestamp", f"{age:.1f} s old, {tolerance:g} s are allowed")


def _part(part: SignedPart, headers: Headers, timestamp: bytes) -> bytes | None:
    if part.kind == "body":
        return None
    if part.kind == "timestamp":
        return timestamp  # the text as received: a sender that sends "0042" has signed "0042"
    if part.kind == "text":
        return part.value.encode()
    return one_header(headers, part.value) if part.needed else one_header_or_none(headers, part.value) or b""


def form_of(spec: HmacSpec) -> re.Pattern[bytes]:
    """Return the one form that a signature of this hash and encoding can have."""
    size = _DIGEST_BYTES[spec.hash]
    if spec.encoding == "hex":
        return re.compile(rb"[0-9A-Fa-f]{%d}" % (2 * size))
    padding = -size % 3
    return re.compile(rb"[A-Za-z0-9+/]{%d}={%d}" % ((size + padding) // 3 * 4 - padding, padding))


def _time_inside(headers: Headers, body: bytes, pointer: str) -> bytes:
    with contextlib.suppress(UnreadableBody):  # the body may be decoded already, for its signature
        body = plain_body(body, encoding_of(headers, body))
    try:
        found = value_at(json.loads(json_of(body, first_values(headers).get("content-type", ""))), pointer)
    except (InvalidBody, ValueError, LookupError, RecursionError):
        raise SignatureRefused(Reason.TIMESTAMP_MISSING, f"There is no {pointer} in the body") from None
    if isinstance(found, str):
        return found.encode("utf-8", "replace")
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found).encode()
    raise SignatureRefused(Reason.TIMESTAMP_MALFORMED, f"The value at {pointer} is no time")


_SIGNATURE_BYTES: Final = {b"v1": 32, b"v1a": 64}
_BETWEEN: Final = re.compile(rb"[ \t]{0,8},[ \t]{1,8}|[ \t]{1,8}")
"""The separator of two signatures: blanks, maybe after a comma. A comma alone separates the version and the text."""

_Signatures = dict[bytes, list[bytes]]
"""Decoded signatures by version."""


class StandardWebhooks:
    """Tries every signature with every key; see Scheme. One match is enough. It skips unknown versions."""

    def __init__(self, spec: StandardWebhooksSpec, secrets: Sequence[Secret]) -> None:
        """Take the secrets of ``v1`` signatures; the specification holds the public keys of ``v1a``.

        Raises:
            FatalError: A secret is not base64 (``secret_malformed``).
        """
        self._id, self._timestamp, self._signature = spec.header_names
        self.stored_headers = frozenset(spec.header_names)
        self._tolerance = spec.tolerance_seconds
        self._keys: tuple[Key | PublicKey, ...] = (
            *standard_keys_of(secrets),
            *(PublicKey(one.id, public_key_of(one.value), one.not_before, one.not_after) for one in spec.public_keys),
        )

    def check_head(self, headers: Headers, now: datetime) -> None:
        """See Scheme."""
        self._head(headers, now, ignore_step)

    def verify(self, headers: Headers, body: bytes, now: datetime) -> str:
        """See Scheme."""
        return self.verify_stepwise(headers, body, now, ignore_step)

    def verify_stepwise(self, headers: Headers, body: bytes, now: datetime, on_step: OnStep) -> str:
        """See StepwiseScheme."""
        keys, signatures, identity, timestamp = self._head(headers, now, on_step)
        message = b".".join((identity, timestamp, body))
        on_step("signed", f"{self._id} + {self._timestamp} + body with full stops between: {len(message)} bytes")
        found = first_matching(keys, lambda key: _matches(key, signatures, message))
        on_step("match", f"verified by {found}")
        return found

    def _head(
        self, headers: Headers, now: datetime, on_step: OnStep
    ) -> tuple[tuple[Key | PublicKey, ...], _Signatures, bytes, bytes]:
        """Return the active keys, the signatures, the event's id and the timestamp as received."""
        keys = active_keys(self._keys, now)
        on_step("secrets", _which(keys, self._keys))
        value = one_header(headers, self._signature)
        on_step("header", f"the request has one header {self._signature}")
        signatures = _signatures(value, self._signature)
        on_step("form", ", ".join(f"{len(found)} of {version.decode()}" for version, found in signatures.items()))
        timestamp = one_header(
            headers, self._timestamp, missing=Reason.TIMESTAMP_MISSING, repeated=Reason.TIMESTAMP_REPEATED
        )
        age = check_timestamp(timestamp, now, unit="s", tolerance=self._tolerance)
        on_step("timestamp", f"{age:.1f} s old, {self._tolerance:g} s are allowed")
        return keys, signatures, self._event_id(headers), timestamp

    def _event_id(self, headers: Headers) -> bytes:
        value = one_header(headers, self._id)
        if not value or b"." in value:
            # a full stop separates the signed parts: with one in the id, the signature would fit other ids and bodies
            raise SignatureRefused(Reason.ID_MALFORMED, f"The header {self._id} is empty or holds a full stop")
        return value


def _signatures(value: bytes, header: str) -> _Signatures:
    found: _Signatures = {}
    listed = _BETWEEN.split(value, MOST_SIGNATURES)
    if len(listed) > MOST_SIGNATURES:
        raise SignatureRefused(
            Reason.SIGNATURE_MALFORMED, f"The header {header} holds more than {MOST_SIGNATURES} signatures"
        )
    pairs = [one.partition(b",") for one in listed]
    if not all(comma for _, comma, _ in pairs):
        raise SignatureRefused(Reason.SIGNATURE_MALFORMED, f"The header {header} is no list of signatures")
    known = [(version, text) for version, _, text in pairs if version in _SIGNATURE_BYTES]
    for version, text in known:
        decoded = _decoded(text)
        if len(decoded) == _SIGNATURE_BYTES[version]:
            found.setdefault(version, []).append(decoded)
    if not known:
        raise SignatureRefused(Reason.SIGNATURE_MISSING, f"The header {header} holds neither v1 nor v1a")
    if not found:
        raise SignatureRefused(
            Reason.SIGNATURE_MALFORMED, f"No signature in {header} is base64 of the length that its version has"
        )
    return found


def _decoded(text: bytes) -> bytes:
    try:
        return base64_bytes(text)
    except ValueError:
        return b""


def _matches(key: Key | PublicKey, signatures: _Signatures, message: bytes) -> bool:
    if isinstance(key, Key):
        computed = hmac.digest(key.value, message, "sha256")
        return any([hmac.compare_digest(computed, one) for one in signatures.get(b"v1", [])])  # noqa: C419 - no early end
    return any([_fits(key, one, message) for one in signatures.get(b"v1a", [])])  # noqa: C419 - no early end


def _fits(key: PublicKey, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - few sources have public keys

    try:
        key.key.verify(signature, message)
    except InvalidSignature:
        return False
    return True
