"""The published models of event bodies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel

from pipeline.contracts import BatchChunk, BatchCompleted, BatchFailed, BatchProcessed, BatchUploaded, Topic
from pipeline.contracts.weavr import KINDS

MODELS: Final[Mapping[str, type[BaseModel]]] = {
    **{kind.type: kind.model for kind in KINDS},
    Topic.BATCH_CHUNKS.value: BatchChunk,
    Topic.BATCH_PROCESSED.value: BatchProcessed,
    Topic.BATCH_UPLOADED.value: BatchUploaded,
    Topic.BATCH_FAILED.value: BatchFailed,
    Topic.BATCH_COMPLETED.value: BatchCompleted,
}
"""Models by event type (``ce_type``)."""

SCHEMAS: Final[Mapping[str, str]] = {kind.type: kind.dataschema for kind in KINDS}
"""Supported schemas (``ce_dataschema``), by event type."""


def types_of(model: type[BaseModel]) -> list[str]:
    """Return the event types with this model. Raises ValueError if there is none."""
    found = [kind for kind, one in MODELS.items() if one is model]
    if not found:
        raise ValueError(f"{model.__name__} is the model of no event type; name the type: on('the.type', model=...)")
    return found
