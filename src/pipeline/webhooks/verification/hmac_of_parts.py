"""The scheme of an HMAC over parts of the request."""

from __future__ import annotations

import base64
import hmac
import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from pipeline.contracts import Headers
from pipeline.webhooks.verification.errors import Reason, SignatureRefused
from pipeline.webhooks.verification.fields import Fields
from pipeline.webhooks.verification.keys import counting, keys_of
from pipeline.webhooks.verification.matching import matching_key
from pipeline.webhooks.verification.one_header import one_header, one_header_or_none, without_prefix
from pipeline.webhooks.verification.places import SignedPart, value_at
from pipeline.webhooks.verification.protocols import Secret
from pipeline.webhooks.verification.settings import HmacSettings
from pipeline.webhooks.verification.timestamps import check_timestamp
from pipeline.webhooks.verification.trail import Note, unnoted

_DIGEST_BYTES: Final = {"sha1": 20, "sha256": 32, "sha512": 64}


def _hex(digest: bytes) -> bytes:
    return digest.hex().encode()


_ENCODERS: Final[dict[str, Callable[[bytes], bytes]]] = {"hex": _hex, "base64": base64.b64encode}


class HmacOfParts:
    """Computes the signature with each secret and compares the written forms; see Scheme.

    Comparing what is written, not what it decodes to, leaves no second spelling of a base64 signature. What is signed
    is put together from bytes and header text as received. Parts with nothing between them can be cut elsewhere by who
    sends a request again (a header's end as the body's beginning): that is a weakness of such a sender's scheme.
    """

    def __init__(self, settings: HmacSettings, secrets: Sequence[Secret]) -> None:
        """Take the resolved secrets, in the order in which they are tried.

        Raises:
            FatalError: A secret is not written as ``settings.key`` says (``secret_malformed``).
        """
        self._settings = settings
        self._keys = keys_of(secrets, settings.key)
        self._prefix = settings.prefix.encode()
        self._parts = settings.parts
        self._place = settings.time_place
        self._fields = None if settings.fields is None else Fields(settings.fields, settings.header)
        self._encode = _ENCODERS[settings.encoding]
        self._form = _form(settings)
        self.stored_headers = frozenset(settings.header_names())

    def verify(self, headers: Headers, body: bytes, now: datetime) -> str:
        """See Scheme."""
        return self.follow(headers, body, now, unnoted)

    def follow(self, headers: Headers, body: bytes, now: datetime, note: Note) -> str:
        """Verify, and note each step; see :class:`~pipeline.webhooks.verification.trail.Followed`."""
        keys = counting(self._keys, now)
        note("secrets", f"{len(keys)} of {len(self._keys)} count at this time: {', '.join(key.id for key in keys)}")
        value = self._header(headers)
        note("header", f"{self._settings.header} stands there once")
        signatures = self._well_formed(value)
        note("form", f"{len(signatures)} of {self._settings.hash} in {self._settings.encoding}")
        timestamp = self._timestamp(headers, value)
        if timestamp is not None:
            self._judge(timestamp, now, note)
        message = b"".join(self._part(part, headers, body, timestamp or b"") for part in self._parts)
        note("signed", f"{' + '.join(self._settings.signed)}: {len(message)} bytes")
        found = matching_key(keys, signatures, lambda key: self._encode(hmac.digest(key, message, self._settings.hash)))
        note("match", f"verified by {found}")
        if self._place is not None and self._place.kind == "json":
            # read only now: nothing of a body is parsed before it is known to be authentic
            self._judge(_time_inside(body, self._place.value), now, note)
        return found

    def _header(self, headers: Headers) -> bytes:
        name = self._settings.header
        return without_prefix(one_header(headers, name), self._prefix, name)

    def _well_formed(self, value: bytes) -> list[bytes]:
        found = [value] if self._fields is None else self._fields.signatures(value)
        fit = [one for one in found if self._form.fullmatch(one)]
        if not fit:
            raise SignatureRefused(
                Reason.SIGNATURE_MALFORMED,
                f"The header {self._settings.header} holds no {self._settings.hash} in {self._settings.encoding}",
            )
        return [one.lower() for one in fit] if self._settings.encoding == "hex" else fit

    def _timestamp(self, headers: Headers, value: bytes) -> bytes | None:
        if self._place is not None and self._place.kind == "header":
            return one_header(
                headers, self._place.value, missing=Reason.TIMESTAMP_MISSING, repeated=Reason.TIMESTAMP_REPEATED
            )
        if self._place is not None and self._place.kind == "field" and self._fields is not None:
            return self._fields.timestamp(value)
        return None

    def _judge(self, timestamp: bytes, now: datetime, note: Note) -> None:
        tolerance = self._settings.tolerance_seconds
        age = check_timestamp(timestamp, now, unit=self._settings.timestamp_unit, tolerance=tolerance)
        note("timestamp", f"{age:.1f} s old, {tolerance:g} s are allowed")

    @staticmethod
    def _part(part: SignedPart, headers: Headers, body: bytes, timestamp: bytes) -> bytes:
        if part.kind == "body":
            return body
        if part.kind == "timestamp":
            return timestamp  # the text as received: "0042" was signed as "0042"
        if part.kind == "text":
            return part.value.encode()
        return one_header(headers, part.value) if part.needed else one_header_or_none(headers, part.value) or b""


def _form(settings: HmacSettings) -> re.Pattern[bytes]:
    """Return what a signature of this hash and encoding looks like, in the one spelling that there is."""
    size = _DIGEST_BYTES[settings.hash]
    if settings.encoding == "hex":
        return re.compile(rb"[0-9A-Fa-f]{%d}" % (2 * size))
    padding = -size % 3
    return re.compile(rb"[A-Za-z0-9+/]{%d}={%d}" % ((size + padding) // 3 * 4 - padding, padding))


def _time_inside(body: bytes, pointer: str) -> bytes:
    try:
        found = value_at(json.loads(body), pointer)
    except (ValueError, LookupError, RecursionError):
        raise SignatureRefused(Reason.TIMESTAMP_MISSING, f"There is no {pointer} in the body") from None
    if isinstance(found, str):
        return found.encode("utf-8", "replace")
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found).encode()
    raise SignatureRefused(Reason.TIMESTAMP_MALFORMED, f"What stands at {pointer} is no time")
