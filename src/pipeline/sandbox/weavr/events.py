"""An event of Weavr with its signatures and id, and the expected answer of the pipeline."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal


def signature_v2(key: bytes, call_ref: str, body: bytes, published: str) -> str:
    """Return the signature over the concatenated call reference, body and timestamp."""
    return _base64_hmac(key, call_ref.encode() + body + published.encode())


def legacy_signature(key: bytes, published: str) -> str:
    """Return the deprecated signature, which covers only the timestamp."""
    return _base64_hmac(key, published.encode())


def expected_id(integration: str, path: str, reference: str, body: bytes, published: str) -> str:
    """Return the expected ``ce_id`` of a request: equal for repeats, different for different events.

    Args:
        integration: Name of the integration in the webhook's URL.
        path: The path that Weavr appends to the URL.
        reference: The call reference, or the request reference for a path without signature. If it is empty, the id
            follows from the timestamp instead.
        body: The body as sent.
        published: The timestamp as sent.
    """
    parts = [integration.encode(), path.encode(), reference.encode()]
    parts += [body] if reference else [published.encode(), body]
    hashed = hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts))
    return hashed.hexdigest()[:32]


def _base64_hmac(key: bytes, signed: bytes) -> str:
    return base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


SendOutcome = Literal["accepted", "refused", "given up"]
"""``accepted``: the answer was a 2xx. ``refused``: Weavr does not retry after the answer. ``given up``: all retries
failed."""

Expected = Literal["accepted", "quarantined", "refused", "unverified"]
"""The expected outcome of an event. ``quarantined``: accepted, but somebody has to look at it. ``unverified``: answered
503 every time, because a key may be missing, until Weavr gives up."""

Wire = tuple[tuple[str, str], ...]
"""Headers as sent."""


class Broken(StrEnum):
    """The fault of a broken event."""

    WRONG_KEY = "wrong-key"
    CUT = "body-cut"
    STALE = "stale"
    NO_SIGNATURE = "no-signature"
    MALFORMED = "malformed-signature"
    MISFIT = "misfit"
    UNKNOWN_PATH = "unknown-path"


EXPECTED: Final[dict[Broken, Expected]] = {
    Broken.WRONG_KEY: "unverified",
    # the pipeline cannot tell it from an event that another key signed
    Broken.CUT: "unverified",
    Broken.STALE: "refused",
    Broken.NO_SIGNATURE: "refused",
    Broken.MALFORMED: "refused",
    Broken.MISFIT: "quarantined",
    Broken.UNKNOWN_PATH: "quarantined",
}


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        index: Its number in the order of publication, from 0.
        path: The path that Weavr appends to the URL.
        category: The category in the topic's name; empty for an unknown path.
        entity: Its subject: category and id or address. Events of one entity are sent one after another.
        sequence: Its number among the correct events of its entity, from 1; 0 for a broken one.
        reference: The call reference, or the request reference if the path is not signed; may be empty.
        ce_id: Its expected ``ce_id``.
        headers: All headers as sent, including the content type.
        body: The body as sent.
        repeated: Whether it is sent again, with the same bytes and headers, after it was accepted.
        late: Whether a newer event of its entity is sent first.
        broken: Its fault, if any.
    """

    index: int
    path: str
    category: str
    entity: str
    sequence: int
    reference: str
    ce_id: str
    headers: Wire
    body: bytes
    repeated: bool = False
    late: bool = False
    broken: Broken | None = None

    @property
    def expected(self) -> Expected:
        """Its expected outcome."""
        return EXPECTED[self.broken] if self.broken else "accepted"
