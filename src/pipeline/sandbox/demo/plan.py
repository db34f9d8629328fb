"""The plan of the demo: its jobs, the expected result of each job, and its events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from pipeline.sandbox.card_api import declined
from pipeline.sandbox.cards import CardFile, PlantedCard
from pipeline.sandbox.jobs import Content
from pipeline.sandbox.settings import CardApiSettings
from pipeline.sandbox.verify import ResultRules, as_planted
from pipeline.sandbox.weavr import SendPlan

_DECLINED_SHARE: Final = CardApiSettings().declined_share

STEPS_OF_SUCCESS: Final = (
    "webhook.accepted",
    "job.announced",
    "job.started",
    "job.processed",
    "result.uploaded",
    "outcome.decided",
    "callback.confirmed",
)
STEPS_OF_FAILURE: Final = ("webhook.accepted", "job.announced", "job.started", "outcome.decided", "callback.confirmed")
"""The job starts, because only the content of its downloaded file shows that it must fail."""


def as_loaded(card: PlantedCard) -> Literal["ok", "failed"]:
    """Return the result that the card API's own rule gives a card."""
    return "failed" if declined(card.number, _DECLINED_SHARE) else "ok"


@dataclass(frozen=True, slots=True)
class DemoJob:
    """One job of the demo.

    Attributes:
        integration: Name of the integration in the settings.
        title: Description for a person.
        processor: Name of the processor.
        success: Whether the callback must report success.
        steps: Steps that the audit log must have, each once.
        reason: A text that the message of a failure must contain.
    """

    integration: str
    title: str
    processor: Literal["http", "validate"]
    cards: CardFile
    content: Content
    rules: ResultRules
    success: bool
    steps: tuple[str, ...]
    reason: str = ""


PLAN: Final = (
    DemoJob(
        integration="loading",
        title="load 200 cards, one by one",
        processor="http",
        cards=CardFile(records=200, cvv=True, seed=20),
        content="cards",
        rules=ResultRules(expected=as_loaded),
        success=True,
        steps=STEPS_OF_SUCCESS,
    ),
    DemoJob(
        integration="checking",
        title="validate 100,000 cards",
        processor="validate",
        cards=CardFile(records=100_000, bad_share=0.02, cvv=True, seed=100),
        content="cards",
        rules=ResultRules(expected=as_planted),
        success=True,
        steps=STEPS_OF_SUCCESS,
    ),
    DemoJob(
        integration="refusing",
        title="refuse a file that is no CSV",
        processor="validate",
        cards=CardFile(records=50),
        content="html",
        rules=ResultRules(),
        success=False,
        steps=STEPS_OF_FAILURE,
        reason="HTML",
    ),
)

WEAVR: Final = "events"
"""The integration whose webhook accepts Weavr's events."""

EVENTS: Final = SendPlan(
    count=10_000,
    seed=32,
    repeats=0.05,
    out_of_order=0.02,
    new_fields=0.05,
    new_enum_values=0.05,
    broken=0.0028,
)
"""The second part: all 32 kinds, four broken events of each kind of fault, and a change of the key in the middle."""
