"""A stand-in for Weavr: signs and sends correct and broken events, and checks the answers (docs/reference/sandbox.md).

It uses only the published description (``events.json``) and Weavr's rules. It uses none of the code that it checks.
"""

from pipeline.sandbox.weavr.bodies import NEW_ENUM_VALUE, Planted, body_of, entity_in, planted
from pipeline.sandbox.weavr.events import EXPECTED, Broken, Event, expected_id, legacy_signature, signature_v2
from pipeline.sandbox.weavr.facts import WeavrKind, weavr_kinds
from pipeline.sandbox.weavr.ledger import Attempt, Entry, Totals, order_findings, read_ledger, write_entry
from pipeline.sandbox.weavr.plan import SendPlan, SigningKeys, mix
from pipeline.sandbox.weavr.sending import Pace, Sender, integration_in, send_events

__all__ = [
    "EXPECTED",
    "NEW_ENUM_VALUE",
    "Attempt",
    "Broken",
    "Entry",
    "Event",
    "Pace",
    "Planted",
    "SendPlan",
    "Sender",
    "SigningKeys",
    "Totals",
    "WeavrKind",
    "body_of",
    "entity_in",
    "expected_id",
    "integration_in",
    "legacy_signature",
    "mix",
    "order_findings",
    "planted",
    "read_ledger",
    "send_events",
    "signature_v2",
    "weavr_kinds",
    "write_entry",
]
