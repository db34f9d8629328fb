"""An event of Weavr with its signatures and id, and the expected answer of the pipeline."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal


def signature_v2(key: bytes, call_ref: str, body: bytes, published: str) -> str:
    """Return the signature over call reference, body and timestamp, concatenated."""
    return _base64_hmac(key, call_ref.encode() + body + published.encode())


def legacy_signature(key: bytes, published: str) -> str:
    """Return the deprecated signature, which covers only the timestamp."""
    return _base64_hmac(key, published.encode())


def expected_id(integration: str, path: str, reference: str, body: bytes, published: str) -> str:
    """Return the expected ``ce_id`` of a request: equal for repeats, different for different events.

    Args:
        integration: As in the webhook's URL.
        path: As Weavr appends it.
        reference: The call reference; of a path without signature the request reference; empty where there is none,
            and then the timestamp counts.
        body: As sent.
        published: The timestamp as sent.
    """
    parts = [integration.encode(), path.encode(), reference.encode()]
    parts += [body] if reference else [published.encode(), body]
    hashed = hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts))
    return hashed.hexdigest()[:32]


def _base64_hmac(key: bytes, signed: bytes) -> str:
    return base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


SendOutcome = Literal["accepted", "refused", "given up"]
"""Answered with 2xx; answered so that Weavr does not repeat it; or without success after all of Weavr's repeats."""

Expected = Literal["accepted", "quarantined", "refused", "unverified"]
"""What must become of an event: ``quarantined`` is accepted, but for people to look at; ``unverified`` is answered 503
each time, since a key may be missing, and so given up in the end."""

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
    # it looks the same as an event that another key signed
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
        path: As appended to the URL.
        category: The category in the topic's name; empty for an unknown path.
        entity: Its subject: category and id or address. Events of one entity are sent one after another.
        sequence: Its number among the correct events of its entity, from 1; 0 for a broken one.
        reference: Call reference, or request reference where nothing is signed; empty without.
        ce_id: Its expected ``ce_id``.
        headers: As sent, content type included.
        body: As sent.
        repeated: Whether it is sent again after it was accepted, with the same bytes and headers.
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
