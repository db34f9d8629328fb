"""``schemas/``: JSON Schemas of what the topics carry and of what ECS is told."""

from __future__ import annotations

import json
from typing import Final

from pydantic import BaseModel

from pipeline.contracts import (
    AuditEvent,
    BatchCompleted,
    BatchFailed,
    BatchProcessed,
    BatchRequested,
    BatchUploaded,
    CallbackBody,
    Topic,
)

_MODELS: Final[dict[str, type[BaseModel]]] = {
    Topic.BATCH_REQUESTED: BatchRequested,
    Topic.BATCH_PROCESSED: BatchProcessed,
    Topic.BATCH_UPLOADED: BatchUploaded,
    Topic.BATCH_FAILED: BatchFailed,
    Topic.BATCH_COMPLETED: BatchCompleted,
    Topic.AUDIT_EVENTS: AuditEvent,
    "callback": CallbackBody,
}


def render() -> dict[str, str]:
    """Return the text of each schema by its path."""
    return {f"schemas/{name}.json": _schema(model) for name, model in _MODELS.items()}


def _schema(model: type[BaseModel]) -> str:
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
