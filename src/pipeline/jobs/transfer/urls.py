"""Reads the query parameters of pre-signed URLs. Pure.

Source: AWS Signature Version 4, query parameters. A URL with another kind of signature is used without this
information.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import parse_qsl

from pydantic import SecretStr

from pipeline.jobs.transfer.protocols import SignedUrl

_EMPTY_CRC32: Final = "AAAAAA=="
_MAX_PARAMETERS: Final = 200
_FIRST_EXPIRY: Final = datetime(2000, 1, 1, tzinfo=UTC)


def signed_url(url: str, *, expires_at: datetime, margin_seconds: float) -> SignedUrl:
    """Return a URL with the time by which work with it must end (see :func:`job_deadline`)."""
    deadline = job_deadline(url, expires_at=expires_at, margin_seconds=margin_seconds)
    return SignedUrl(url=SecretStr(url), deadline=deadline)


def job_deadline(*urls: str, expires_at: datetime, margin_seconds: float) -> datetime:
    """Return the earliest of ``expires_at`` and the URLs' X-Amz-Date + X-Amz-Expires, less the margin.

    An expiry before the year 2000 is treated as 2000, because the margin cannot be subtracted from the year 1.
    """
    expiries = (url_expiry(url) for url in urls)
    earliest = min([expires_at, *(one for one in expiries if one is not None)])
    return max(earliest, _FIRST_EXPIRY) - timedelta(seconds=margin_seconds)


def url_expiry(url: str) -> datetime | None:
    """Return when the signature of a URL expires, or None if the URL does not say it."""
    signed, seconds = signing_time(url), parameters(url).get("x-amz-expires", "")
    if signed is None or not (seconds.isascii() and seconds.isdigit()):
        return None
    try:
        return signed + timedelta(seconds=int(seconds))
    except (OverflowError, ValueError):
        return None


def signing_time(url: str) -> datetime | None:
    """Return when the signature of a URL becomes valid (X-Amz-Date), or None if the URL does not say it."""
    try:
        return datetime.strptime(parameters(url).get("x-amz-date", ""), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def signed_headers(url: str) -> frozenset[str]:
    """Return the header names that the signature covers, in lower case; empty if the URL does not say it."""
    return frozenset(name for name in parameters(url).get("x-amz-signedheaders", "").lower().split(";") if name)


def demands_empty_body(url: str) -> bool:
    """Return whether the URL has the CRC32 of an empty body. An AWS SDK that signs without a body adds it."""
    return parameters(url).get("x-amz-checksum-crc32") == _EMPTY_CRC32


def parameters(url: str) -> dict[str, str]:
    """Return the decoded query parameters by name in lower case; of equal names it takes the first."""
    query = url.partition("?")[2]
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        return {}
    return {name.lower(): value for name, value in reversed(pairs)}
