"""What is wrong with an authentic body, in words that its sender can act on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.errors import PermanentError

UNKNOWN_PATH: Final = "unknown_path"
"""Rule of a delivery whose path means no kind of event that is known: a kind that its sender has added, maybe."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule that the body breaks. Holds nothing of what was received.

    Attributes:
        field: Dotted name of the field, e.g. ``external_location_ids.3``; empty for the body as a whole.
        rule: Stable snake_case name of the rule; part of the public contract (docs/statuses.md).
        remedy: One sentence that says what to send instead.
    """

    field: str
    rule: str
    remedy: str


class InvalidBody(PermanentError):
    """The body cannot be accepted as it is; the same body never can, unless our configuration changes.

    Attributes:
        findings: At least one, in the order of the body.
        id: Identity of the delivery, where it is known although the body is not understood; None: the body alone is it.
    """

    def __init__(self, findings: Sequence[Finding], *, id: str | None = None) -> None:  # noqa: A002 - as ce_id
        """Name the broken rules."""
        rules = ", ".join(f"{finding.field or 'body'}: {finding.rule}" for finding in findings)
        super().__init__("webhook_invalid", f"The body breaks {len(findings)} rule(s): {rules}")
        self.findings = tuple(findings)
        self.id = id
