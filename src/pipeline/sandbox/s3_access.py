"""The checks of pre-signed requests, in the order of S3, and errors with S3's codes and messages."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from xml.sax.saxutils import escape

from aiohttp import web

from pipeline.sandbox.sigv4 import (
    ALGORITHM,
    MAX_EXPIRES,
    Credentials,
    Pairs,
    canonical_request,
    decode_path,
    decode_query,
    sign,
    string_to_sign,
)

MESSAGES: Final[Mapping[int, tuple[str, str]]] = {
    400: ("BadRequest", "An error occurred when parsing the HTTP request."),
    403: ("AccessDenied", "Access Denied"),
    404: ("NoSuchKey", "The specified key does not exist."),
    409: ("OperationAborted", "A conflicting conditional operation is currently in progress against this resource."),
    412: ("PreconditionFailed", "At least one of the pre-conditions you specified did not hold"),
    416: ("InvalidRange", "The requested range is not satisfiable"),
    429: ("SlowDown", "Please reduce your request rate."),
    500: ("InternalError", "We encountered an internal error. Please try again."),
    503: ("SlowDown", "Please reduce your request rate."),
}
"""The usual S3 error code and message for each status."""


class S3Error(Exception):
    """A refused request.

    Attributes:
        status: HTTP status.
        code: The error code that clients must match on, e.g. ``AccessDenied``.
        fields: Further elements of the answer, in order.
        headers: Further headers of the answer, e.g. ``Retry-After``.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        fields: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Take the parts of the answer."""
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code
        self.message = message
        self.fields = dict(fields or {})
        self.headers = dict(headers or {})

    def response(self, request_id: str, *, head: bool = False) -> web.Response:
        """Return the answer. An answer to HEAD has no body, so the client sees only the status."""
        elements = {"Code": self.code, "Message": self.message, **self.fields, "RequestId": request_id}
        inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in elements.items())
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'
        return web.Response(
            status=self.status,
            body=b"" if head else body.encode(),
            headers={"x-amz-request-id": request_id, "Content-Type": "application/xml", **self.headers},
        )


def access_denied(message: str, **fields: str) -> S3Error:
    """Return a 403 AccessDenied. S3 uses it for very different errors: only message and fields tell them apart."""
    return S3Error(403, "AccessDenied", message, fields)


def malformed_query(message: str) -> S3Error:
    """Return the 400 for authentication parameters that are missing or invalid."""
    return S3Error(400, "AuthorizationQueryParametersError", message)


_NEEDED = ("Algorithm", "Credential", "Signature", "Date", "SignedHeaders", "Expires")


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """The parts of a request that its signature covers.

    Attributes:
        raw_path: Path as received.
        raw_query: Query string as received.
        headers: Values by lower-case name.
    """

    method: str
    raw_path: str
    raw_query: str
    headers: Mapping[str, str] = field(repr=False)

    @property
    def query(self) -> Pairs:
        """The decoded parameters, in order."""
        return decode_query(self.raw_query)


@dataclass(frozen=True, slots=True)
class AccessRules:
    """Checks pre-signed requests.

    Attributes:
        credentials: The only account of this store.
        clock: Returns the current time in UTC.
        skew: How far ahead the signer's clock may be (S3: 15 minutes).
        revoked: Signatures that are refused as expired, whatever their date is.
    """

    credentials: Credentials
    clock: Callable[[], datetime]
    skew: timedelta = timedelta(minutes=15)
    revoked: Collection[str] = ()

    def check(self, request: SignedRequest) -> None:
        """Raise S3Error, with the code that S3 uses, if the request is not allowed."""
        query = dict(request.query)
        stamp, expires = self._parameters(query)
        self._check_time(query["X-Amz-Signature"], stamp, expires)
        signed_headers = query["X-Amz-SignedHeaders"].split(";")
        _check_headers(request.headers, signed_headers)
        canonical = canonical_request(
            request.method, decode_path(request.raw_path), request.query, request.headers, signed_headers
        )
        if not hmac.compare_digest(sign(self.credentials, stamp, canonical), query["X-Amz-Signature"]):
            raise self._mismatch(query["X-Amz-Signature"], stamp, canonical)

    def _parameters(self, query: Mapping[str, str]) -> tuple[str, int]:
        given = [name for name in _NEEDED if f"X-Amz-{name}" in query]
        if not given:
            raise access_denied("Access Denied")
        if len(given) < len(_NEEDED):
            raise malformed_query(
                "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, "
                "X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters."
            )
        if query["X-Amz-Algorithm"] != ALGORITHM:
            raise malformed_query(f'X-Amz-Algorithm only supports "{ALGORITHM}"')
        stamp = query["X-Amz-Date"]
        key, _, scope = query["X-Amz-Credential"].partition("/")
        if key != self.credentials.access_key:
            raise S3Error(
                403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."
            )
        if scope != self.credentials.scope(stamp[:8]):
            raise malformed_query("Error parsing the X-Amz-Credential parameter; the scope does not match.")
        return stamp, _expires(query["X-Amz-Expires"])

    def _check_time(self, signature: str, stamp: str, expires: int) -> None:
        try:
            signed_at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError as error:
            raise malformed_query("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"") from error
        now = self.clock()
        if signed_at > now + self.skew:
            raise access_denied("Request is not yet valid", ServerTime=_iso(now))
        end = signed_at + timedelta(seconds=expires)
        revoked = signature in self.revoked
        if revoked or now > end:
            raise expired(expires, min(now, end) if revoked else end, now)

    def _mismatch(self, provided: str, stamp: str, canonical: str) -> S3Error:
        # S3 really sends all of this back to the caller, so such a body must never be logged
        return S3Error(
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. "
            "Check your key and signing method.",
            {
                "AWSAccessKeyId": self.credentials.access_key,
                "StringToSign": string_to_sign(self.credentials, stamp, canonical),
                "SignatureProvided": provided,
                "CanonicalRequest": canonical,
            },
        )


def expired(expires: int, end: datetime, now: datetime) -> S3Error:
    """Return the error for an expired URL."""
    fields = {"X-Amz-Expires": str(expires), "Expires": _iso(end), "ServerTime": _iso(now)}
    return access_denied("Request has expired", **fields)


def _expires(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise malformed_query("X-Amz-Expires should be a number")
    if not 1 <= int(text) <= MAX_EXPIRES:
        raise malformed_query("X-Amz-Expires must be at least 1 and at most 604800 seconds")
    return int(text)


def _check_headers(headers: Mapping[str, str], signed: Collection[str]) -> None:
    unsigned = sorted(name for name in headers if name.startswith("x-amz-") and name not in signed)
    if unsigned:
        message = "There were headers present in the request which were not signed"
        raise access_denied(message, HeadersNotSigned=", ".join(unsigned))
    if "host" not in signed:
        raise access_denied("The host header must be signed")


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
