"""One event as it is sent, and what must become of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

Verdict = Literal["accepted", "refused", "given up"]
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
