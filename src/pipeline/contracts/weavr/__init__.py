"""Weavr's webhooks v2: the table of its events, and a model for each."""

from pipeline.contracts.weavr.event import WeavrEvent
from pipeline.contracts.weavr.kinds import BY_PATH, BY_TYPE, KINDS, Entity, EventKind

__all__ = ["BY_PATH", "BY_TYPE", "KINDS", "Entity", "EventKind", "WeavrEvent"]
