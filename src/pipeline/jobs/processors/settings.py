"""Which processor an integration uses, and how hard it may try."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from pipeline.units import Count, Seconds


class ProcessorSettings(BaseModel):
    """What is done with every card of an integration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        default="validate",
        min_length=1,
        description="Name of an installed processor (entry point group card_pipeline.processors), or module:name",
    )
    options: dict[str, JsonValue] = Field(
        default_factory=dict, description="Options of the processor itself; see docs/processors.md"
    )
    concurrency: Count = Field(
        default=8, ge=1, le=1024, description="Cards of one chunk processed at once by a row-wise processor"
    )
    attempts: Count = Field(
        default=6, ge=1, description="How often a card (columnar: a batch) is tried in all before it fails"
    )
    backoff_seconds: Seconds = Field(
        default=0.5, ge=0, description="Pause in seconds before the second attempt; doubled before each further one"
    )
    backoff_limit_seconds: Seconds = Field(
        default=30.0, ge=0, description="Longest pause between two attempts in seconds"
    )
