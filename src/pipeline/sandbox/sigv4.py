"""AWS Signature Version 4 in the query string: make and check pre-signed URLs.

It follows the AWS documentation ("Authenticating Requests: Using Query Parameters"). Only the sandbox needs it: the
pipeline never signs URLs, it uses URLs that ECS has signed.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, unquote, unquote_plus

ALGORITHM: Final = "AWS4-HMAC-SHA256"
MAX_EXPIRES: Final = 604_800
"""Seven days: S3 refuses more."""

Pairs = Sequence[tuple[str, str]]
"""Decoded query parameters, in order."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The account that signs."""

    access_key: str
    secret_key: str
    region: str = "us-east-1"
    service: str = "s3"

    def scope(self, day: str) -> str:
        """Return the credential scope of a day (YYYYMMDD)."""
        return f"{day}/{self.region}/{self.service}/aws4_request"

    def signing_key(self, day: str) -> bytes:
        """Return the key that signs this day's requests."""
        key = f"AWS4{self.secret_key}".encode()
        for part in (day, self.region, self.service, "aws4_request"):
            key = _hmac(key, part)
        return key


def presign(
    method: str,
    host: str,
    path: str,
    *,
    credentials: Credentials,
    now: datetime,
    expires: int,
    extra: Pairs = (),
    scheme: str = "https",
) -> str:
    """Return a pre-signed URL whose only signed header is ``host``.

    ``path`` is decoded and begins with a slash. The URL expires ``expires`` seconds after ``now``; S3 allows 1 to
    604800. The ``extra`` parameters are signed too.
    """
    stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    query = [
        ("X-Amz-Algorithm", ALGORITHM),
        ("X-Amz-Credential", f"{credentials.access_key}/{credentials.scope(stamp[:8])}"),
        ("X-Amz-Date", stamp),
        ("X-Amz-Expires", str(expires)),
        ("X-Amz-SignedHeaders", "host"),
        *extra,
    ]
    text = canonical_request(method, path, query, {"host": host}, ("host",))
    signed = [*query, ("X-Amz-Signature", sign(credentials, stamp, text))]
    return f"{scheme}://{host}{encode_path(path)}?{encode_query(sorted(signed, key=_first_names))}"


def canonical_request(
    method: str, path: str, query: Pairs, headers: Mapping[str, str], signed_headers: Sequence[str]
) -> str:
    """Return the text that is hashed and signed, without the payload (``UNSIGNED-PAYLOAD``).

    ``query`` may contain the signature, which is omitted. ``headers`` has the values by lower-case name. Only the
    headers in ``signed_headers`` are used; a missing one is signed as empty.
    """
    unsigned = [(quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in query if name != _SIGNATURE]
    return "\n".join(
        (
            method,
            encode_path(path),
            "&".join(f"{name}={value}" for name, value in sorted(unsigned)),
            *(f"{name}:{' '.join(headers.get(name, '').split())}" for name in signed_headers),
            "",
            ";".join(signed_headers),
            "UNSIGNED-PAYLOAD",
        )
    )


def string_to_sign(credentials: Credentials, stamp: str, canonical: str) -> str:
    """Return the text that the signing key signs."""
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    return "\n".join((ALGORITHM, stamp, credentials.scope(stamp[:8]), digest))


def sign(credentials: Credentials, stamp: str, canonical: str) -> str:
    """Return the signature in hex."""
    return _hmac(credentials.signing_key(stamp[:8]), string_to_sign(credentials, stamp, canonical)).hex()


def encode_path(path: str) -> str:
    """Encode a decoded path once, as S3 does (other services encode twice)."""
    return quote(path, safe="/-_.~")


def decode_path(raw: str) -> str:
    """Decode a path as received."""
    return unquote(raw)


def encode_query(pairs: Pairs) -> str:
    """Encode parameters strictly, in their order."""
    return "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs)


def decode_query(raw: str) -> list[tuple[str, str]]:
    """Decode a query string. A parameter without ``=`` has an empty value, and ``+`` is a space."""
    named = (part.partition("=") for part in raw.split("&") if part)
    return [(unquote_plus(name), unquote_plus(value)) for name, _, value in named]


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _first_names(pair: tuple[str, str]) -> str:
    return pair[0]


_SIGNATURE: Final = "X-Amz-Signature"
