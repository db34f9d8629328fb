"""What the S3 client's errors mean. It tells status and code only in its text, which may also hold what was signed."""

from __future__ import annotations

import re
from typing import Final

from pipeline.storage.errors import StoreUnavailable

_CODE: Final = re.compile(r"<Code>(\w{1,64})</Code>")
_STATUS: Final = re.compile(r"status code: (\d{3})")
_RETRY_SECONDS: Final = 5.0

_ADVICE: Final = {
    "NoSuchBucket": "the bucket does not exist: create it, or correct store.bucket",
    "InvalidAccessKeyId": "the server does not know the access key: correct store.access_key_id",
    "SignatureDoesNotMatch": "the secret does not belong to the access key: correct store.secret_access_key",
    "AccessDenied": "access denied: allow this key to get, put, list and delete objects below the prefix",
    "ExpiredToken": "the temporary keys have expired: renew them",
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it",
    "PermanentRedirect": "the bucket is in another region: correct store.region",
    "NotImplemented": "the server does not know conditional writes: use one that honours If-None-Match on PUT",
    "SlowDown": "the server asks to slow down",
}


def lacks_range(error: Exception) -> bool:
    """Whether the object ends before the range that was asked for begins."""
    return _found(_STATUS, error) == "416"


def missing_object(error: Exception) -> bool:
    """Whether it is the object that is missing, not the bucket."""
    return isinstance(error, FileNotFoundError) and _found(_CODE, error) != "NoSuchBucket"


def unavailable(error: Exception, verb: str, key: str, place: str) -> StoreUnavailable:
    """Return what to raise, free of the client's own text."""
    code, status = _found(_CODE, error), _found(_STATUS, error)
    if code in _ADVICE:
        reason = f"{_ADVICE[code]} ({code})"
    elif status:
        reason = f"the server answered {status} {code}".rstrip()
    else:
        reason = f"no usable answer ({type(error).__name__}): is the endpoint right and the server up?"
    return StoreUnavailable(
        f"Could not {verb} {key!r} in {place}: {reason}", retry_after=_RETRY_SECONDS if code == "SlowDown" else None
    )


def _found(pattern: re.Pattern[str], error: Exception) -> str:
    match = pattern.search(str(error))
    return match[1] if match else ""
