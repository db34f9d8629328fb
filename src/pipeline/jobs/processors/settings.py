"""The processor of an integration, and how often it tries a card."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from pipeline.retry import FirstSeconds, MaxSeconds, RetrySettings
from pipeline.units import Count, Number, Seconds


class ProcessorRetry(RetrySettings):
    """How often a card is tried, and how long the engine waits between two tries.

    A longer ``Retry-After`` of the card service is honoured up to ``max_seconds``. A shorter one changes nothing: it
    would only use up the tries sooner.
    """

    first_seconds: FirstSeconds = 0.5
    max_seconds: MaxSeconds = 30.0
    max_tries: Count = Field(
        default=6,
        ge=1,
        description="How often a card (columnar: a batch) is tried before it fails. Raise it for a card service that is often unavailable",
    )
    card_seconds: Seconds | None = Field(
        default=None,
        gt=0,
        description="Time after the first try of a card from which on no further try begins. Default: only max_tries limits the tries",
    )
    job_retries_per_card: Annotated[Number, Field(ge=0, le=1000)] | None = Field(
        default=None,
        description="Limit on all retries of a job, as a share of its cards: 0.5 allows 500 retries for 1,000 cards. Each chunk gets its part, rounded up; beyond it, cards fail at their first failed try. Set it if a failing card service would delay a job for hours. Default: only max_tries limits the tries",
    )


class ProcessorSettings(BaseModel):
    """The processor that handles each card of an integration."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    name: str = Field(
        default="validate",
        min_length=1,
        description="An installed processor (entry point group card_pipeline.processors), or module:name",
    )
    options: dict[str, JsonValue] = Field(
        default_factory=dict, description="Options of the processor; see docs/reference/processors.md"
    )
    concurrency: Count = Field(
        default=8,
        ge=1,
        le=1024,
        description="How many cards of one chunk a row-wise processor handles at the same time. Raise it as far as the card service allows",
    )
    requests_per_second: Annotated[Number, Field(gt=0, le=1_000_000)] | None = Field(
        default=None,
        description="Requests to the card service that all workers together begin in a second; row-wise, each try of a card or group of cards is one. Set it to what the service allows. Default: none; either way the rate falls when the service asks for fewer, and rises again by itself",
    )
    retry: ProcessorRetry = Field(
        default=ProcessorRetry(), description="How often a card is tried, and how long the pauses are"
    )
