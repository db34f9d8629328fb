"""Interprets answers of object stores: reads their error documents safely, and decides what to do in one table.

Error documents are untrusted text. They may contain the signature and the request that the store received. So they are
never logged, quoted or parsed as XML; regular expressions extract a few elements.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Final

from pipeline.outbound import http_date, retry_after_seconds

MAX_ERROR_BYTES: Final = 65_536
"""Maximum number of bytes read of an error document."""

# messages repeat the code, and a signature (64 hex digits) does not fit into it
_ERROR: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,64}(?:<\?xml[^>]{0,200}\?>\s{0,64})?<(?:\w{1,20}:)?Error[\s/>]")
"""Pattern of the beginning of an error document."""
_CODE: Final = re.compile(rb"<Code>\s*([A-Z][A-Za-z0-9]{1,47})\s*</Code>")
_MESSAGE: Final = re.compile(rb"<Message>([^<]{0,1024})</Message>")
_SERVER_TIME: Final = re.compile(rb"<ServerTime>\s*([0-9T:.+Z-]{1,40})\s*</ServerTime>")
_ACTUAL_SIZE: Final = re.compile(rb"<ActualObjectSize>\s*([0-9]{1,15})\s*</ActualObjectSize>")
_NOT_SIGNED: Final = re.compile(
    rb"<HeadersNotSigned>|headers present in the request which were not signed", re.IGNORECASE
)
_EXPIRED: Final = re.compile(r"\bexpired\b", re.IGNORECASE)
_NOT_YET: Final = re.compile(r"not (yet valid|valid yet)", re.IGNORECASE)
_UNSATISFIED: Final = re.compile(r"bytes \*/([0-9]{1,15})")


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that may not be a success.

    Attributes:
        code: The document's ``<Code>``, or empty.
        text: The document's ``<Message>``, used only to distinguish cases.
        server_time: The store's clock, from the document or the Date header.
        retry_after: The pause that the store asks for, in seconds.
        object_size: Size of the object, if a 416 answer has it.
        is_error: Whether the body is an error document, also with a success status.
        is_cut: Whether the body broke off, so that its kind is unknown.
    """

    status: int
    code: str = ""
    text: str = field(default="", repr=False)
    headers_not_signed: bool = False
    server_time: datetime | None = None
    retry_after: float | None = None
    object_size: int | None = None
    is_error: bool = False
    is_cut: bool = False


def read_refusal(status: int, headers: Mapping[str, str], document: bytes, now: datetime) -> Refusal:
    """Read an error answer. It copes with any document: HTML, truncated, hostile."""
    return Refusal(
        status=status,
        code=_first(_CODE, document),
        text=_first(_MESSAGE, document),
        headers_not_signed=_NOT_SIGNED.search(document) is not None,
        server_time=_server_time(_first(_SERVER_TIME, document), headers),
        retry_after=retry_after_seconds(headers.get("Retry-After"), now=now),
        object_size=_object_size(headers.get("Content-Range", ""), document),
        is_error=_ERROR.match(document) is not None,
    )


class Remedy(Enum):
    """What to do about a refusal."""

    NONE = "nothing helps"
    AGAIN = "repeat soon"
    LATER = "repeat when the signature has become valid"
    MISSING = "repeat a few times: it may not be there yet"
    CHANGED = "the object is another one: start over"
    RANGE = "there are no bytes there: compare the sizes"


@dataclass(frozen=True, slots=True)
class Meaning:
    """Reason and remedy of a refusal.

    Attributes:
        reason: Ends the error code: ``source_<reason>`` or ``upload_<reason>``.
        about: Text for the partner's support, which continues a sentence that begins with the field's name.
    """

    reason: str
    remedy: Remedy
    about: str


_BY_CODE: Final[dict[str, Meaning]] = {
    "SignatureDoesNotMatch": Meaning(
        "signature_refused",
        Remedy.NONE,
        "was refused: its signature does not match; it may have been changed on its way",
    ),
    "RequestTimeTooSkewed": Meaning("not_yet_valid", Remedy.LATER, "was refused: the clocks differ too much"),
    "RequestTimeout": Meaning("request_timeout", Remedy.AGAIN, "was refused: too few bytes came in time"),
    "ExpiredToken": Meaning("expired", Remedy.NONE, "was refused: the signer's credentials have expired"),
    "InvalidAccessKeyId": Meaning("signature_refused", Remedy.NONE, "was refused: its access key does not exist"),
    "BadDigest": Meaning("checksum_refused", Remedy.NONE, "was refused: the checksum in it is not that of the body"),
    "InvalidDigest": Meaning(
        "checksum_refused", Remedy.NONE, "was refused: the checksum in it is not that of the body"
    ),
    "XAmzContentChecksumMismatch": Meaning(
        "checksum_refused", Remedy.NONE, "was refused: the checksum in it is not that of the body"
    ),
    "EntityTooLarge": Meaning("too_large", Remedy.NONE, "was refused: the body is larger than the store takes at once"),
    "NoSuchBucket": Meaning("bucket_missing", Remedy.NONE, "was refused: its bucket does not exist"),
    "InternalError": Meaning("store_failing", Remedy.AGAIN, "was not answered: the store has an internal error"),
    "SlowDown": Meaning("store_busy", Remedy.AGAIN, "was not answered: the store is too busy"),
    "ServiceUnavailable": Meaning("store_busy", Remedy.AGAIN, "was not answered: the store is too busy"),
}

_BY_STATUS: Final[dict[int, Meaning]] = {
    403: Meaning("forbidden", Remedy.NONE, "was refused: access denied"),
    404: Meaning("not_found", Remedy.MISSING, "leads to no object"),
    408: Meaning("request_timeout", Remedy.AGAIN, "was refused: too few bytes came in time"),
    409: Meaning("conflict", Remedy.AGAIN, "was refused: another operation on the object is under way"),
    412: Meaning("changed", Remedy.CHANGED, "leads to another object than before"),
    413: Meaning("too_large", Remedy.NONE, "was refused: the body is larger than the store takes at once"),
    416: Meaning("range_refused", Remedy.RANGE, "leads to an object that ends before the place asked for"),
    417: Meaning("expectation_failed", Remedy.AGAIN, "was refused: the store does not know 100-continue"),
    425: Meaning("store_busy", Remedy.AGAIN, "was not answered: too early"),
    429: Meaning("store_busy", Remedy.AGAIN, "was not answered: the store is too busy"),
    501: Meaning("rejected", Remedy.NONE, "was refused: the store does not support the request"),
    503: Meaning("store_busy", Remedy.AGAIN, "was not answered: the store is too busy"),
}

_IS_EXPIRED: Final = Meaning("expired", Remedy.NONE, "was refused: it has expired")
_IS_NOT_YET_VALID: Final = Meaning("not_yet_valid", Remedy.LATER, "was refused: it is not yet valid")
_SENT_UNSIGNED: Final = Meaning(
    "headers_not_signed", Remedy.NONE, "was refused: a header was sent that its signature does not cover"
)
_REDIRECTED: Final = Meaning("redirected", Remedy.NONE, "leads elsewhere by a redirect, which is never followed")
_FAILING: Final = Meaning("store_failing", Remedy.AGAIN, "was not answered: the store has an internal error")
_FIRST_NO_SUCCESS: Final = 300
_REJECTED: Final = Meaning("rejected", Remedy.NONE, "was refused")

_IN_SUCCESS: Final[dict[str, int]] = {"AccessDenied": 403, "MethodNotAllowed": 405, "InvalidRequest": 400}
"""Codes in an answer with a success status that are permanent errors; any other code is a fault of the store."""


def interpret(refusal: Refusal) -> Meaning:
    """Return what an error answer means. The document's message decides first, then its code, then the status."""
    if refusal.is_error and refusal.status < _FIRST_NO_SUCCESS:
        refusal = replace(refusal, status=_IN_SUCCESS.get(refusal.code, 500))
    by_words = _interpret_words(refusal)
    if by_words is not None:
        return by_words
    found = _BY_CODE.get(refusal.code) or _BY_STATUS.get(refusal.status)
    if found is not None:
        return found
    if refusal.status // 100 == 3:  # noqa: PLR2004 - the class of redirects
        return _REDIRECTED
    return _FAILING if refusal.status >= 500 else _REJECTED  # noqa: PLR2004 - the class of server errors


def _interpret_words(refusal: Refusal) -> Meaning | None:
    if refusal.status not in {400, 401, 403}:
        return None
    if refusal.headers_not_signed:
        return _SENT_UNSIGNED
    if refusal.code in _BY_CODE:
        return None
    if _NOT_YET.search(refusal.text):
        return _IS_NOT_YET_VALID
    return _IS_EXPIRED if _EXPIRED.search(refusal.text) else None


def _first(pattern: re.Pattern[bytes], document: bytes) -> str:
    found = pattern.search(document)
    return found[1].decode("utf-8", "replace") if found else ""


def _server_time(text: str, headers: Mapping[str, str]) -> datetime | None:
    try:
        named = datetime.fromisoformat(text)
    except ValueError:
        return http_date(headers.get("Date", ""))
    return named if named.tzinfo else named.replace(tzinfo=UTC)


def _object_size(content_range: str, document: bytes) -> int | None:
    unsatisfied = _UNSATISFIED.fullmatch(content_range.strip())
    text = unsatisfied[1] if unsatisfied else _first(_ACTUAL_SIZE, document)
    return int(text) if text else None
