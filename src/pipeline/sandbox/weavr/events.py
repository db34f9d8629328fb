"""An event as Weavr sends it, its signatures and id, and what the pipeline must do with it."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal


def signature_v2(key: bytes, call_ref: str, body: bytes, published: str) -> str:
    """Return the signature over call reference, body and timestamp, one behind the other."""
    return _base64_hmac(key, call_ref.encode() + body + published.encode())


def legacy_signature(key: bytes, published: str) -> str:
    """Return the deprecated signature, which covers the timestamp alone."""
    return _base64_hmac(key, published.encode())


def expected_id(integration: str, path: str, reference: str, body: bytes, published: str) -> str:
    """Return the ``ce_id`` that a delivery must get: the same for each repeat, another for each other event.

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
"""Answered 2xx; answered so that Weavr never sends it again; repeated in vain as often as Weavr repeats."""

Expected = Literal["accepted", "quarantined", "refused", "unverified"]
"""What must become of an event: ``quarantined`` is accepted, but for people to look at; ``unverified`` is answered 503
each time, since a key may be missing, and so given up in the end."""

Wire = tuple[tuple[str, str], ...]
"""Headers as sent."""


class Broken(StrEnum):
    """What is wrong with an event."""

    WRONG_KEY = "wrong-key"
    CUT = "body-cut"
    STALE = "stale"
    NO_SIGNATURE = "no-signature"
    MALFORMED = "malformed-signature"
    MISFIT = "misfit"
    UNKNOWN_PATH = "unknown-path"


EXPECTED: Final[dict[Broken, Expected]] = {
    Broken.WRONG_KEY: "unverified",
    # nobody can tell it from one that another key signed
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
        category: As the topics are called; empty for a path that is not known.
        entity: What it is about: category and id or address. Events of one entity are sent one after the other.
        sequence: Its number among the right ones of its entity, from 1; 0 for a broken one.
        reference: Call reference, or request reference where nothing is signed; empty without.
        ce_id: What it must be called.
        headers: As sent, content type included.
        body: As sent.
        repeated: It is sent once more after it was accepted, the same bytes and headers.
        late: A younger event of its entity is sent before it.
        broken: What is wrong with it.
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
        """What must become of it."""
        return EXPECTED[self.broken] if self.broken else "accepted"
