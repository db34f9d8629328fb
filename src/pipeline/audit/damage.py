"""What can be wrong with the log."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DamageKind(StrEnum):
    """What was done to a line or a segment, as far as can be told. Part of the public contract (docs/cli.md)."""

    CHANGED = "changed"
    """Bytes differ from what was hashed, or were added."""
    MISSING = "missing"
    """A line or segment that others refer to is not there, or the chain is shorter than a head kept elsewhere."""
    SWAPPED = "swapped"
    """A line or segment stands in another's place."""
    FORKED = "forked"
    """A second line or segment of this number, or one that does not go on from the one before."""
    CUT = "cut"
    """The segment ends before its closing line."""
    SIGNATURE = "signature"
    """Not signed although others before it are, signed by an unknown key, or the signature does not fit."""


@dataclass(frozen=True, slots=True)
class Damage:
    """One damage within a segment.

    Attributes:
        line: From 1; None where the segment as a whole is meant.
        detail: One sentence for a person.
    """

    kind: DamageKind
    line: int | None
    detail: str
