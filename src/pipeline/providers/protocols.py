"""What the ingress knows of a source of webhooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from pydantic import JsonValue

from pipeline.contracts import Topic, TopicName


@dataclass(frozen=True, slots=True)
class Identified:
    """What a body was found to be.

    Attributes:
        topic: Where its record goes.
        key: The record's key: equal keys stay in order.
        id: The event's deterministic id (``ce_id``): the same body again is the same event.
        type: The event's type (``ce_type``).
        subject: What it is about (``ce_subject``).
        job_guid: The job, where it is about one.
        facts: What the audit log says about it: counts, ids, times; no URL, no card data.
    """

    topic: TopicName
    key: str
    id: str
    type: str
    subject: str
    job_guid: UUID | None = None
    facts: Mapping[str, JsonValue] = field(default_factory=dict)


class Provider(Protocol):
    """Knows one source's bodies. Pure: the same body, the same answer, as long as the configuration stands."""

    @property
    def quarantine(self) -> Topic:
        """Where bodies go that are authentic but invalid."""
        ...

    def identify(self, body: bytes) -> Identified:
        """Return what the body is.

        Raises:
            InvalidBody: It cannot be accepted; every finding names field, rule and remedy.
        """
        ...
