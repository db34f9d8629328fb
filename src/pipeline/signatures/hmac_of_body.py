"""The scheme of an HMAC over the body, with or without a timestamp before it."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from pipeline.contracts import Headers
from pipeline.signatures.errors import Reason, SignatureRefused
from pipeline.signatures.matching import active_secrets, matching_secret
from pipeline.signatures.one_header import one_header, without_prefix
from pipeline.signatures.protocols import Secret
from pipeline.signatures.settings import HmacSettings
from pipeline.signatures.timestamps import check_timestamp

_DIGEST_BYTES: Final = {"sha1": 20, "sha256": 32, "sha512": 64}
_UNITS: Final = {"s": 1, "ms": 1000}


def _hex(digest: bytes) -> bytes:
    return digest.hex().encode()


_ENCODERS: Final[dict[str, Callable[[bytes], bytes]]] = {"hex": _hex, "base64": base64.b64encode}


class HmacOfBody:
    """Computes the signature with each secret and compares the written forms; see Scheme.

    Comparing what is written, not what it decodes to, leaves no second spelling of a base64 signature.
    """

    def __init__(self, settings: HmacSettings, secrets: Sequence[Secret]) -> None:
        """Take the resolved secrets, in the order in which they are tried."""
        self._settings = settings
        self._secrets = tuple(secrets)
        self._prefix = settings.prefix.encode()
        self._separator = settings.separator.encode()
        self._encode = _ENCODERS[settings.encoding]
        self._length = len(self._encode(bytes(_DIGEST_BYTES[settings.hash])))
        names = (settings.header, settings.timestamp_header)
        self.stored_headers = frozenset(name.lower() for name in names if name)

    def verify(self, headers: Headers, body: bytes, now: datetime) -> str:
        """See Scheme."""
        secrets = active_secrets(self._secrets, now)
        received = self._signature(headers)
        message = self._before_body(headers, now) + body
        hash_name = self._settings.hash
        return matching_secret(secrets, received, lambda key: self._encode(hmac.digest(key, message, hash_name)))

    def _signature(self, headers: Headers) -> bytes:
        name = self._settings.header
        value = one_header(headers, name, missing=Reason.HEADER_MISSING, repeated=Reason.HEADER_REPEATED)
        received = without_prefix(value, self._prefix, name)
        if len(received) != self._length:
            form = f"{self._settings.hash} in {self._settings.encoding}"
            raise SignatureRefused(
                Reason.SIGNATURE_MALFORMED, f"A signature of {form} has {self._length} characters, that in {name} not"
            )
        return received.lower() if self._settings.encoding == "hex" else received

    def _before_body(self, headers: Headers, now: datetime) -> bytes:
        name = self._settings.timestamp_header
        if name is None:
            return b""
        text = one_header(headers, name, missing=Reason.TIMESTAMP_MISSING, repeated=Reason.TIMESTAMP_REPEATED)
        check_timestamp(
            text,
            now,
            units_per_second=_UNITS[self._settings.timestamp_unit],
            tolerance=self._settings.tolerance_seconds,
        )
        return text + self._separator  # the text as received: "0042" was signed as "0042"
