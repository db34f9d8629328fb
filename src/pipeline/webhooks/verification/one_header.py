"""Reading a header that may stand once only."""

from __future__ import annotations

from pipeline.contracts import Headers
from pipeline.webhooks.verification.errors import Reason, SignatureRefused


def one_header(
    headers: Headers,
    name: str,
    *,
    missing: Reason = Reason.HEADER_MISSING,
    repeated: Reason = Reason.HEADER_REPEATED,
) -> bytes:
    """Return the value of the header as received.

    Repetitions are refused even when they are equal: two programs on the way may each look at another one.

    Raises:
        SignatureRefused: It stands there not at all, or more than once.
    """
    value = one_header_or_none(headers, name, repeated=repeated)
    if value is None:
        raise SignatureRefused(missing, f"There is no header {name}")
    return value


def one_header_or_none(headers: Headers, name: str, *, repeated: Reason = Reason.HEADER_REPEATED) -> bytes | None:
    """Return the value of the header as received, or None where there is none.

    Raises:
        SignatureRefused: It stands there more than once.
    """
    wanted = name.lower()
    values = [value for header, value in headers if header.lower() == wanted]
    if len(values) > 1:
        raise SignatureRefused(repeated, f"The header {name} stands there {len(values)} times")
    return values[0] if values else None


def without_prefix(value: bytes, prefix: bytes, name: str) -> bytes:
    """Return the value less its prefix, which must match exactly.

    Raises:
        SignatureRefused: The value begins otherwise.
    """
    if not value.startswith(prefix):
        raise SignatureRefused(Reason.PREFIX_MISSING, f"The header {name} does not begin as configured")
    return value[len(prefix) :]
